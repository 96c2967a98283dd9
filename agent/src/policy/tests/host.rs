//! Policies looked up on this host.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use portreeve_abi::{ExeId, Verdict};
use portreeve_decide::{Flow, Identity, judge};

use super::super::{Named, Policy, Resolved, SystemHost, compile, load, resolve, unit_path};
use super::verdict::Names;
use crate::clock::Clock;

/// A folder with a policy and what it names. `@` in the policy stands for the folder.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.0.path()).unwrap().join(name)
    }

    fn put(self, name: &str, text: &str, mode: u32) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn resolve(&self, rule: &str) -> Resolved {
        let text = format!("[[allow]]\n{}", rule.replace('@', self.path("").to_str().unwrap().trim_end_matches('/')));
        let file = self.path("portreeve.toml");
        fs::write(&file, text).unwrap();
        let loaded = load(&file);
        let policy = loaded.policy.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics));
        resolve(&policy, &mut SystemHost::new(None))
    }

    /// The findings, each as its severity, place and sentence; the folder is `@` again.
    fn findings(&self, rule: &str) -> (Vec<String>, Resolved) {
        let resolved = self.resolve(rule);
        let folder = self.path("");
        let found = resolved.diagnostics.iter().map(|found| {
            let text = format!("{:?} {}:{} {}", found.severity, found.line, found.column, found.what);
            text.replace(folder.to_str().unwrap().trim_end_matches('/'), "@")
        });
        // Who runs the tests may write to the folder, and is not always root.
        let own = format!(" user {} can write to ", nix::unistd::geteuid());
        (found.filter(|text| !text.contains(&own)).collect(), resolved.clone())
    }
}

const ELF: &str = "\x7fELF";

#[test]
fn what_is_not_here_is_an_error_at_its_own_place_and_leaves_a_rule_that_matches_nothing() {
    let place = Place::new()
        .put("good", ELF, 0o755)
        .put("script", "#!/usr/bin/perl -w\n", 0o755)
        .put("data", ELF, 0o644)
        .put("open", ELF, 0o757);
    let sum = "0".repeat(64);
    let checksum = format!("exe = \"@/good\"\nuser = 1\nsha256 = \"{sum}\"\n");
    for (rule, finding) in [
        ("exe = \"@/gone\"\nuser = 1\n", "Error 2:7 @/gone does not exist"),
        ("exe = \"@/good/gone\"\nuser = 1\n", "Error 2:7 @/good/gone does not exist"),
        ("exe = \"@\"\nuser = 1\n", "Error 2:7 @ is no regular file"),
        ("exe = \"@/data\"\nuser = 1\n", "Error 2:7 @/data is not executable"),
        (
            "exe = \"@/script\"\nuser = 1\n",
            "Error 2:7 @/script is a script: what the kernel runs, and sees, is its interpreter /usr/bin/perl",
        ),
        ("exe = \"@/open\"\nuser = 1\n", "Error 2:7 everybody can write to @/open"),
        ("exe = \"@/good\"\nuser = \"no-such-user\"\n", "Error 3:8 unknown user \"no-such-user\""),
        ("exe = \"@/good\"\ngroup = \"no-such-group\"\n", "Error 3:9 unknown group \"no-such-group\""),
        (checksum.as_str(), "Error 4:10 @/good has the SHA-256 "),
    ] {
        let (found, resolved) = place.findings(rule);
        assert!(found.len() == 1 && found[0].starts_with(finding), "{rule}: {found:?}");
        assert!(resolved.rules[0].problem.is_some(), "{rule}");
        assert!(resolved.describe()[0].contains("matches nothing"), "{rule}");
    }
}

#[test]
fn a_file_that_a_group_or_another_user_can_replace_is_a_warning() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("only root can give a file away");
        return;
    }
    let place = Place::new().put("x", ELF, 0o755);
    nix::unistd::chown(&place.path("x"), Some(12_345.into()), None).unwrap();
    let (found, resolved) = place.findings("exe = \"@/x\"\nuser = 1\n");
    assert_eq!(found, ["Warning 2:7 user 12345 can write to @/x, and so replace @/x"]);
    assert!(resolved.rules[0].problem.is_none());
    // It is that user's own.
    assert_eq!(place.findings("exe = \"@/x\"\nuser = 12345\n").0, [""; 0]);
}

#[test]
fn a_checksum_that_is_right_is_no_finding() {
    // FIPS 180-2, appendix B.1
    let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let place = Place::new().put("abc", "abc", 0o755);
    let (found, resolved) = place.findings(&format!("exe = \"@/abc\"\nuser = 1\nsha256 = \"{sum}\"\n"));
    assert_eq!(found, [""; 0]);
    assert!(resolved.rules[0].problem.is_none() && resolved.rules[0].checksum);
}

#[test]
fn a_root_has_users_of_its_own() {
    let place = Place::new()
        .put("ct/usr/bin/mailer", ELF, 0o755)
        .put("ct/etc/passwd", "root:x:0:0::/:\nno-such-user:x:4711:4712::/:\n", 0o644)
        .put("ct/etc/group", "no-such-group:x:4713:\n", 0o644);
    let rule = "exe = \"/usr/bin/mailer\"\nuser = \"no-such-user\"\ngroup = \"no-such-group\"\nroot = \"@/ct\"\n";
    let (found, resolved) = place.findings(rule);
    assert_eq!(found, [""; 0]);
    let rule = &resolved.rules[0];
    let ids = |list: &Option<Vec<Named>>| list.iter().flatten().map(|named| named.id).collect::<Vec<_>>();
    assert_eq!((ids(&rule.user), ids(&rule.group)), (vec![4711], vec![4713]));
    assert_eq!(rule.exe.as_ref().unwrap()[0].path, place.path("ct/usr/bin/mailer"));
    // A user of the host is none of the container's.
    let (found, _) = place.findings("exe = \"/usr/bin/mailer\"\nuser = \"daemon\"\nroot = \"@/ct\"\n");
    assert_eq!(found, ["Error 3:8 unknown user \"daemon\""]);
}

#[test]
fn links_below_a_root_do_not_lead_out_of_it() {
    let place = Place::new().put("outside", ELF, 0o755).put("ct/inside", ELF, 0o755);
    std::os::unix::fs::symlink(place.path("outside"), place.path("ct/absolute")).unwrap();
    std::os::unix::fs::symlink("../../../../inside", place.path("ct/relative")).unwrap();
    let (found, _) = place.findings("exe = \"/absolute\"\nuser = 1\nroot = \"@/ct\"\n");
    assert_eq!(found, ["Error 2:7 /absolute does not exist"]);
    let resolved = place.resolve("exe = \"/relative\"\nuser = 1\nroot = \"@/ct\"\n");
    assert_eq!(resolved.rules[0].exe.as_ref().unwrap()[0].path, place.path("ct/inside"));
}

#[test]
fn the_path_of_a_unit_begins_with_the_guarded_cgroup() {
    for (guarded, unit, path) in [
        ("/", "machine.slice", "/machine.slice"),
        ("/ct", "machine.slice", "/ct/machine.slice"),
        ("/ct/", "a-b.slice", "/ct/a.slice/a-b.slice"),
    ] {
        let mut policy = Policy::default();
        policy.guard.cgroup = guarded.to_owned();
        assert_eq!(unit_path(&policy, unit).unwrap(), path);
    }
    for unit in ["postfix", "x.timer", "a/b.service", "getty@.service", ""] {
        assert!(unit_path(&Policy::default(), unit).is_err(), "{unit}");
    }
}

#[test]
fn rules_that_decide_nothing_are_warned_of() {
    let place = Place::new().put("x", ELF, 0o755);
    let wide = "exe = \"@/x\"\nuser = [1, 2]\n";
    let second = "[[allow]]\nname = \"n\"\nexe = \"@/x\"\n";
    for (rest, finding) in [
        (
            format!("{second}user = 1\nto = \"10.0.0.0/8\"\n"),
            "Warning 4:1 the rule \"n\" never decides: \"x (rule 1)\" at @/portreeve.toml:1 matches all",
        ),
        (format!("{second}user = [2, 3]\n"), "Warning 4:1 the rule \"n\" overlaps \"x (rule 1)\""),
        ("expires = 2001-12-31\n".to_owned(), "Warning 4:11 this rule has ended, at 2002-01-01T00:00:00Z"),
    ] {
        let (found, _) = place.findings(&format!("{wide}{rest}"));
        assert!(found.len() == 1 && found[0].starts_with(finding), "{rest}{found:?}");
    }
    assert_eq!(place.findings(&format!("{wide}{second}user = 3\n")).0, [""; 0]);
}

#[test]
fn from_the_text_to_the_verdict() {
    let place = Place::new().put("x", ELF, 0o755);
    let text = format!(
        "[[allow]]\nexe = \"{}\"\nuser = 33\nunit = \"machine.slice\"\nto = [\"::ffff:192.0.2.0/120\", \"::/0\"]\n\
         ports = 25\nexpires = 9999-12-01\n",
        place.path("x").display()
    );
    fs::write(place.path("p"), text).unwrap();
    let policy = load(&place.path("p")).policy.unwrap();
    let id = ExeId { ino: 7, ..ExeId::default() };
    let resolved = resolve(&policy, &mut SystemHost::new(Some(Box::new(move |_| Ok(id)))));
    let clock = Clock::now();
    let compiled = compile(&policy, &resolved, 1, clock).unwrap();
    let ask = |exe: u64, euid: u32, cgroup: &'static str, to: &str, port: u16| {
        let identity = Identity { exe: ExeId { ino: exe, ..id }, euid, egid: 0, taint: 0 };
        let address = match to.parse().unwrap() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        judge(&compiled, Ok(&identity), &Names(cgroup), &Flow { address, port }, clock.boot).verdict
    };
    let deep = "/machine.slice/a.scope/b";
    assert_eq!(ask(7, 33, deep, "192.0.2.9", 25), Verdict::Allow);
    assert_eq!(ask(7, 33, "/machine.slice", "2001:db8::1", 25), Verdict::Allow);
    for (who, verdict) in [
        ("another program", ask(8, 33, deep, "192.0.2.9", 25)),
        ("another user", ask(7, 34, deep, "192.0.2.9", 25)),
        ("another unit", ask(7, 33, "/machine.slice2", "192.0.2.9", 25)),
        ("another network", ask(7, 33, deep, "192.0.3.9", 25)),
        ("another port", ask(7, 33, deep, "192.0.2.9", 26)),
    ] {
        assert_eq!(verdict, Verdict::Deny, "{who}");
    }
    assert_eq!(ask(8, 1, "/", "127.0.0.1", 25), Verdict::Local);
}
