//! No rule that is proposed lets anything else pass than what was seen, by the code that decides in the kernel.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::path::Path;

use jiff::Timestamp;
use portreeve_abi::{CGROUP_NAME_LEN, ExeId, Verdict};
use portreeve_decide::{CgroupNames, Flow, Identity, judge};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::*;
use crate::alert::Destination;
use crate::clock::Clock;
use crate::detect::{Evidence, Finding};
use crate::policy::edit::add_rule;
use crate::policy::{Compiled, ExeFile, ExeProblem, Host, UnitPlace, compile, load_text, resolve};

/// A host on which everything is there.
struct Everything;

impl Host for Everything {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn exe(&mut self, root: Option<&Path>, path: &Path) -> Result<ExeFile, ExeProblem> {
        let path = root.unwrap_or(Path::new("/")).join(path.strip_prefix("/").unwrap_or(path));
        Ok(ExeFile { id: Some(exe_id(&path)), path, set_user: None, weaknesses: vec![] })
    }

    fn text(&mut self, _: &Path) -> Option<String> {
        None
    }

    fn sha256(&mut self, _: &Path) -> io::Result<[u8; 32]> {
        Ok([0; 32])
    }

    fn user(&mut self, _: Option<&Path>, name: &str) -> io::Result<Option<u32>> {
        Ok(name.strip_prefix('u').and_then(|number| number.parse().ok()))
    }

    fn group(&mut self, _: Option<&Path>, _: &str) -> io::Result<Option<u32>> {
        Ok(None)
    }

    fn unit(&mut self, unit: &str) -> UnitPlace {
        UnitPlace { path: format!("/system.slice/{unit}"), known: Some(true) }
    }

    fn cgroup_exists(&mut self, _: &CgroupPath) -> Option<bool> {
        Some(true)
    }
}

fn exe_id(path: &Path) -> ExeId {
    let mut hash = DefaultHasher::new();
    path.hash(&mut hash);
    ExeId { ino: hash.finish(), ..ExeId::default() }
}

struct Names<'p>(&'p str);

impl CgroupNames for Names<'_> {
    fn name(&self, level: u32, name: &mut [u8; CGROUP_NAME_LEN]) -> bool {
        let mut names = self.0.split('/').filter(|name| !name.is_empty());
        let Some(text) = names.nth(level as usize - 1) else { return false };
        name.fill(0);
        name[..text.len()].copy_from_slice(text.as_bytes());
        true
    }
}

/// Who asks, and where to.
#[derive(Clone, Debug)]
struct Asks {
    exe: String,
    euid: u32,
    cgroup: String,
    to: SocketAddr,
}

impl Asks {
    fn verdict(&self, tables: &Compiled, root: Option<&Path>) -> Verdict {
        let path = root.unwrap_or(Path::new("/")).join(self.exe.trim_start_matches('/'));
        let identity = Identity { exe: exe_id(&path), euid: self.euid, egid: 0, taint: 0 };
        let address = match self.to.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        judge(tables, Ok(&identity), &Names(&self.cgroup), &Flow { address, port: self.to.port() }, 1).verdict
    }
}

/// The tables of a policy that has only this rule.
fn tables(rule: &NewRule, guarded: &str) -> Compiled {
    let guard = format!("[guard]\ncgroup = \"{guarded}\"\nlocal_submission = \"deny\"\nports = [25, 587]\n");
    let loaded = load_text(Path::new("p.toml"), add_rule(&guard, rule).unwrap());
    let policy = loaded.policy.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics));
    let resolved = resolve(&policy, &mut Everything);
    assert!(!resolved.diagnostics.iter().any(crate::policy::Diagnostic::is_error), "{:#?}", resolved.diagnostics);
    compile(&policy, &resolved, 1, Clock { boot: 0, wall: Timestamp::UNIX_EPOCH }).unwrap()
}

fn attempt(exe: &str, euid: u32, cgroup: &str, to: SocketAddr) -> Attempt {
    let place = place(cgroup);
    serde_json::from_value(json!({
        "time": "2026-11-25T10:00:00Z", "verdict": "deny", "reason": "no-rule", "rule": null, "severity": "notice",
        "generation": 1, "hook": "connect4", "destination": to, "source": null, "protocol": "tcp", "interface": null,
        "tcp_flags": [], "pid": 4711, "tid": 4711, "started": null, "comm": "x", "exe": exe, "exe_inode": 1,
        "exe_device": 1, "exe_deleted": false, "exe_in_memory": false, "cmdline": [], "script": null, "cwd": null,
        "uid": euid, "euid": euid, "gid": 0, "egid": 0, "user": format!("u{euid}"), "login_uid": null,
        "session": place.session, "cgroup": cgroup, "cgroup_id": 1, "unit": place.unit, "container": place.container,
        "netns": 1, "socket": 1, "taint": [], "parents": [], "truncated": [],
    }))
    .unwrap()
}

fn alert(worst: Attempt, destinations: &[SocketAddr]) -> Alert {
    let alert: Alert = serde_json::from_value(json!({
        "id": 7, "subject": "0000000000000007", "who": { "name": "x" }, "severity": "warning", "state": "open",
        "resolution": null, "opened": worst.time, "last": worst.time, "first": worst.time, "quiet_since": null,
        "episodes": 1, "findings": [], "attempts": 9, "refused": 9, "local": 0, "destinations": [], "elsewhere": 0,
        "worst": worst, "sha256": null, "package": null, "clear": [], "next": [], "history": [],
    }))
    .unwrap();
    let destinations = destinations.iter().map(|to| Destination { to: to.to_string(), attempts: 1 }).collect();
    Alert { destinations, ..alert }
}

const EXES: [&str; 5] = ["/usr/bin/mailer", "/usr/bin/mailer2", "/opt/a b/x", "/usr/bin/python3.11", "/usr/bin/perl"];
const CGROUPS: [&str; 9] = [
    "/",
    "/system.slice",
    "/system.slice/cron.service",
    "/system.slice/cron.service/worker",
    "/system.slice/docker-0123456789ab.scope/init.scope",
    "/system.slice/docker-ba9876543210.scope",
    "/user.slice/user-1.slice/session-3.scope",
    "/user.slice/user-1.slice/user@1.service/app.slice/cron.service",
    "/user.slice/user-1.slice/user@1.service/app.slice/app-x.scope",
];

fn destinations() -> impl Strategy<Value = SocketAddr> {
    const ADDRESSES: [&str; 7] =
        ["192.0.2.1", "192.0.2.2", "198.51.100.7", "2001:db8::1", "2001:db8::2", "127.0.0.1", "::1"];
    (select(&ADDRESSES[..]), select(&[25_u16, 587][..]))
        .prop_map(|(ip, port)| SocketAddr::new(ip.parse().unwrap(), port))
}

fn asks() -> impl Strategy<Value = Asks> {
    (select(&EXES[..]), 0_u32..3, select(&CGROUPS[..]), destinations()).prop_map(|(exe, euid, cgroup, to)| Asks {
        exe: exe.to_owned(),
        euid,
        cgroup: cgroup.to_owned(),
        to,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_seen_passes_and_nothing_else(
        seen in asks(),
        more in proptest::collection::vec(destinations(), 0..6),
        others in proptest::collection::vec(asks(), 24),
        any_script in any::<bool>(),
        guarded in select(&["/", "/system.slice"][..]),
        root in select(&[None, Some("/var/lib/ct")][..]),
    ) {
        // What is outside the guarded sub-tree is not asked about.
        prop_assume!(seen.cgroup.starts_with(guarded));
        let alert = alert(attempt(&seen.exe, seen.euid, &seen.cgroup, seen.to), &more);
        let root = root.map(PathBuf::from);
        let guarded_path = CgroupPath::parse(guarded).unwrap();
        let wishes = Wishes { any_destination: false, any_script, root, guarded: guarded_path };
        let Ok(found) = narrowest(&alert, &wishes) else { return Ok(()) };
        let tables = tables(&found.rule, guarded);
        let root = found.rule.root.as_deref();
        let all: Vec<SocketAddr> = more.iter().copied().chain([seen.to]).collect();
        for to in &all {
            prop_assert_eq!(Asks { to: *to, ..seen.clone() }.verdict(&tables, root), Verdict::Allow, "{:?}", found.rule);
        }
        for other in others {
            if other.verdict(&tables, root) == Verdict::Allow {
                prop_assert_eq!((&other.exe, other.euid), (&seen.exe, seen.euid));
                prop_assert!(all.iter().any(|to| to.ip() == other.to.ip()), "{:?}", other);
                prop_assert!(all.iter().any(|to| to.port() == other.to.port()), "{:?}", other);
                let here = place(&seen.cgroup);
                let scope = here.unit.as_deref().is_none_or(|unit| unit.ends_with(".scope"));
                let there = place(&other.cgroup);
                prop_assert!(here.container == there.container || here.container.is_none() && scope, "{:?}", other);
                prop_assert!(scope || here.unit == there.unit, "{:?}", other);
            }
        }
    }
}

fn to(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn cron() -> Attempt {
    attempt("/usr/bin/mailer", 1, "/system.slice/cron.service", to("192.0.2.1:25"))
}

fn refusal(alert: &Alert) -> NoRule {
    narrowest(alert, &Wishes::default()).unwrap_err()
}

#[test]
fn a_program_of_a_unit_gets_a_rule_with_all_that_is_known() {
    let found = narrowest(&alert(cron(), &[to("192.0.2.9:25"), to("[2001:db8::1]:587")]), &Wishes::default()).unwrap();
    let text = add_rule("", &found.rule).unwrap();
    assert_eq!(
        text,
        "[[allow]]\nexe = \"/usr/bin/mailer\"\nuser = \"u1\"\nunit = \"cron.service\"\nto = [\"192.0.2.1\", \
         \"192.0.2.9\", \"2001:db8::1\"]\nports = [25, 587]\n"
    );
    assert_eq!(found.notes, ["each of the destinations is allowed on each of the ports"]);
    assert_eq!(found.rule.usual_name(), "mailer of u1");
}

#[test]
fn a_program_that_could_be_another_gets_no_rule() {
    let change = |change: fn(&mut Attempt)| {
        let mut attempt = cron();
        change(&mut attempt);
        refusal(&alert(attempt, &[]))
    };
    assert!(matches!(change(|attempt| attempt.exe_deleted = true), NoRule::Deleted { .. }));
    assert!(matches!(change(|attempt| attempt.exe_in_memory = true), NoRule::InMemory { .. }));
    assert_eq!(change(|attempt| attempt.exe = None), NoRule::NoProgram);
    assert_eq!(change(|attempt| attempt.pid = 0), NoRule::NoProgram);
    assert_eq!(change(|attempt| attempt.exe = Some("…/mailer".to_owned())), NoRule::CutPath);
    assert_eq!(change(|attempt| attempt.hook = "setsockopt".to_owned()), NoRule::RawSender);
    assert!(matches!(change(|attempt| attempt.taint = vec!["ld_preload".to_owned()]), NoRule::Tainted { .. }));
    for exe in ["/tmp/x", "/var/tmp/a/x", "/dev/shm/x", "/run/user/1000/x"] {
        let found = refusal(&alert(attempt(exe, 1, "/", to("192.0.2.1:25")), &[]));
        assert!(matches!(found, NoRule::OpenFolder { .. }), "{exe}: {found:?}");
    }
    assert_eq!(refusal(&Alert { worst: None, ..alert(cron(), &[]) }), NoRule::NoAttempt);
}

#[test]
fn a_folder_that_everybody_may_write_to_is_found_on_the_way() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let open = folder.path().join("open");
    fs::create_dir_all(open.join("bin")).unwrap();
    let found = |root: Option<&Path>, exe: &Path| open_folder(root, exe.to_str().unwrap());
    let (whole, shown) = (open.join("bin/mailer"), Some(open.display().to_string()));
    assert_ne!(found(None, &whole), shown);
    // The sticky bit does not make it better.
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(found(None, &whole), shown);
    assert_eq!(found(Some(folder.path()), Path::new("/open/bin/mailer")), shown);
    assert_eq!(found(None, Path::new("/nonexistent/mailer")), None);
}

#[test]
fn a_script_needs_a_unit_or_somebodys_word() {
    let script = |cgroup| {
        let mut attempt = attempt("/usr/bin/php8.2", 33, cgroup, to("192.0.2.1:25"));
        attempt.script = Some("/srv/www/mail.php".to_owned());
        alert(attempt, &[])
    };
    let session = script("/user.slice/user-33.slice/session-3.scope");
    let error = refusal(&session).to_string();
    assert!(error.starts_with("/usr/bin/php8.2 is an interpreter") && error.contains("/srv/www/mail.php"), "{error}");
    let any = narrowest(&session, &Wishes { any_script: true, ..Wishes::default() }).unwrap();
    assert!(any.rule.unit.is_empty() && any.notes.len() == 2, "{:?}", any.notes);
    let unit = narrowest(&script("/system.slice/php-fpm.service"), &Wishes::default()).unwrap();
    assert_eq!(unit.notes, ["every script that u33 runs with /usr/bin/php8.2 in php-fpm.service may send"]);
}

#[test]
fn a_container_needs_its_root_and_a_users_service_its_whole_path() {
    let inside = alert(attempt("/bin/x", 1, "/system.slice/docker-0123456789abcdef.scope/a", to("192.0.2.1:25")), &[]);
    assert!(refusal(&inside).to_string().contains("docker container 0123456789ab, and"), "{}", refusal(&inside));
    let wishes = Wishes { root: Some("/var/lib/ct".into()), ..Wishes::default() };
    let rule = narrowest(&inside, &wishes).unwrap().rule;
    assert_eq!(
        (rule.cgroup[0].to_string().as_str(), &rule.user[..]),
        ("/system.slice/docker-0123456789abcdef.scope", &[Account::Id(1)][..])
    );
    let own = "/user.slice/user-1.slice/user@1.service/app.slice/mailer.service";
    let rule = narrowest(&alert(attempt("/bin/x", 1, own, to("192.0.2.1:25")), &[]), &Wishes::default()).unwrap().rule;
    assert_eq!((rule.cgroup[0].to_string().as_str(), rule.unit.len()), (own, 0));
}

#[test]
fn a_fan_out_is_no_list_of_destinations() {
    let many: Vec<SocketAddr> = (1..=17).map(|host| to(&format!("192.0.2.{host}:25"))).collect();
    assert!(narrowest(&alert(cron(), &many[..16]), &Wishes::default()).is_ok());
    let fan = alert(cron(), &many);
    assert_eq!(refusal(&fan), NoRule::FanOut { seen: 17, more: false });
    let few = Alert { elsewhere: 1, ..alert(cron(), &many[..2]) };
    assert_eq!(refusal(&few), NoRule::FanOut { seen: 2, more: true });
    let found = narrowest(&fan, &Wishes { any_destination: true, ..Wishes::default() }).unwrap();
    assert!(found.rule.to.is_empty() && found.notes == ["any destination is allowed; 17 were seen"], "{found:?}");
    let finding = Finding {
        time: Timestamp::UNIX_EPOCH,
        subject: fan.subject,
        kind: Kind::ManyPrograms,
        severity: fan.severity,
        evidence: Evidence::default(),
    };
    assert_eq!(refusal(&Alert { findings: vec![finding], ..alert(cron(), &[]) }), NoRule::ManyPrograms);
}

#[test]
fn mail_for_the_local_server_needs_no_rule() {
    let mut local = cron();
    (local.reason, local.destination) = ("local".to_owned(), Some(to("127.0.0.1:25")));
    assert_eq!(refusal(&alert(local, &[to("[::1]:25")])), NoRule::OnlyLocal);
    let both = Alert { local: 3, ..alert(cron(), &[to("127.0.0.1:25")]) };
    assert_eq!(narrowest(&both, &Wishes::default()).unwrap().rule.to.len(), 1);
    let nowhere = Attempt { destination: None, ..cron() };
    assert_eq!(refusal(&alert(nowhere, &[])), NoRule::NoDestination);
}

/// An alert about a LAN host.
fn lan_alert(change: impl FnOnce(&mut Attempt), destinations: &[SocketAddr]) -> Alert {
    let mut worst = attempt("", 0, "/", "203.0.113.5:25".parse().unwrap());
    (worst.hook, worst.pid, worst.exe) = ("lan".into(), 0, None);
    worst.source = Some("[::ffff:10.9.0.66]:4711".parse().unwrap());
    worst.mac = "02:00:00:00:00:66".parse().ok();
    change(&mut worst);
    alert(worst, destinations)
}

#[test]
fn a_lan_host_is_allowed_by_its_address_its_card_and_its_vlan() {
    let found = narrowest_lan(&lan_alert(|worst| worst.vlan = Some("30".into()), &[]), &Wishes::default()).unwrap();
    let rule = &found.rule;
    assert_eq!((rule.from[0].to_string(), rule.to[0].to_string()), ("10.9.0.66/32".into(), "203.0.113.5/32".into()));
    assert_eq!((rule.mac.unwrap().to_string(), rule.vlan.as_deref()), ("02:00:00:00:00:66".into(), Some("30")));
    assert_eq!((rule.name.as_str(), &rule.ports, found.notes.len()), ("10.9.0.66", &BTreeSet::from([25]), 0));
    let many = narrowest_lan(&lan_alert(|worst| worst.mac_addresses = 40, &[]), &Wishes::default()).unwrap();
    assert!(many.notes[0].contains("may be a router"), "{:?}", many.notes);
    let bare = narrowest_lan(&lan_alert(|worst| worst.mac = None, &[]), &Wishes::default()).unwrap();
    assert!(bare.rule.mac.is_none() && bare.notes[0].contains("no MAC address"), "{:?}", bare.notes);
}

#[test]
fn a_lan_host_that_looks_infected_gets_no_rule() {
    let no = |change: fn(&mut Attempt), destinations: &[SocketAddr]| {
        narrowest_lan(&lan_alert(change, destinations), &Wishes::default()).unwrap_err()
    };
    let exchangers: Vec<SocketAddr> = (0..40).map(|last| SocketAddr::from(([203, 0, 113, last], 25))).collect();
    assert!(matches!(no(|_| {}, &exchangers), NoRule::FanOut { .. }));
    let wishes = Wishes { any_destination: true, ..Wishes::default() };
    assert_eq!(narrowest_lan(&lan_alert(|_| {}, &exchangers), &wishes).unwrap().rule.to, []);
    assert!(matches!(no(|worst| worst.reason = "other-mac".into(), &[]), NoRule::Another { .. }));
    assert!(matches!(no(|worst| worst.reason = "other-vlan".into(), &[]), NoRule::Another { .. }));
    assert_eq!(no(|worst| worst.reason = "unclear".into(), &[]), NoRule::Unclear);
    assert_eq!(no(|worst| worst.source = None, &[]), NoRule::NoAddress);
    assert_eq!(no(|worst| worst.destination = None, &[]), NoRule::NoDestination);
}
