//! Policies on a host made up for them.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use super::super::host::{UnitPlace, Weakness};
use super::super::load::load;
use super::super::unit;
use super::*;

/// A host of a few files and accounts.
#[derive(Default)]
struct Paper {
    exes: HashMap<PathBuf, Result<ExeFile, ExeProblem>>,
    users: HashMap<&'static str, u32>,
    sums: HashMap<PathBuf, [u8; 32]>,
    unknown_units: bool,
    no_cgroup: bool,
}

impl Paper {
    fn exe(mut self, path: &str) -> Self {
        self.exes.insert(path.into(), Ok(file(path)));
        self
    }

    fn link(mut self, path: &str, real: &str) -> Self {
        self.exes.insert(path.into(), Ok(file(real)));
        self
    }

    fn user(mut self, name: &'static str, id: u32) -> Self {
        self.users.insert(name, id);
        self
    }
}

fn file(path: &str) -> ExeFile {
    let ino = path.bytes().fold(7, |sum: u64, byte| sum.wrapping_mul(31) + u64::from(byte));
    ExeFile { path: path.into(), id: Some(ExeId { ino, ..ExeId::default() }), set_user: None, weaknesses: Vec::new() }
}

impl Host for Paper {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn exe(&mut self, root: Option<&Path>, path: &Path) -> Result<ExeFile, ExeProblem> {
        let path = root.map_or(path.to_owned(), |root| root.join(path.strip_prefix("/").unwrap()));
        self.exes.get(&path).cloned().unwrap_or(Err(ExeProblem::Missing))
    }

    fn text(&mut self, _: &Path) -> Option<String> {
        None
    }

    fn sha256(&mut self, path: &Path) -> io::Result<[u8; 32]> {
        self.sums.get(path).copied().ok_or(io::ErrorKind::NotFound.into())
    }

    fn user(&mut self, _root: Option<&Path>, name: &str) -> io::Result<Option<u32>> {
        Ok(self.users.get(name).copied())
    }

    fn group(&mut self, root: Option<&Path>, name: &str) -> io::Result<Option<u32>> {
        self.user(root, name)
    }

    fn unit(&mut self, name: &str) -> UnitPlace {
        UnitPlace { path: unit::default_path(name), known: self.unknown_units.then_some(false) }
    }

    fn cgroup_exists(&mut self, _path: &CgroupPath) -> Option<bool> {
        self.no_cgroup.then_some(false)
    }
}

fn resolve_text(text: &str, host: &mut Paper) -> Resolved {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("portreeve.toml");
    std::fs::write(&path, text).unwrap();
    let loaded = load(&path);
    let policy = loaded.policy.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics));
    resolve(&policy, host)
}

/// `severity line:column what` of every finding.
fn findings(resolved: &Resolved) -> Vec<String> {
    let found = resolved.diagnostics.iter();
    found.map(|found| format!("{:?} {}:{} {}", found.severity, found.line, found.column, found.what)).collect()
}

#[test]
fn every_mail_server_that_is_installed_becomes_a_rule() {
    let mut host = Paper::default()
        .exe("/usr/sbin/exim4")
        .link("/usr/sbin/exim", "/usr/sbin/exim4")
        .exe("/usr/lib/postfix/sbin/smtp")
        .user("postfix", 104)
        .user("Debian-exim", 105)
        .user("mail", 8);
    let resolved = resolve_text("[[allow]]\nname = \"mail\"\nmta = \"auto\"\n", &mut host);
    assert_eq!(
        resolved.describe(),
        [
            "mail (Postfix): /usr/lib/postfix/sbin/smtp as postfix (104)",
            "mail (Exim): /usr/sbin/exim4 as Debian-exim (105)"
        ]
    );
    assert_eq!(findings(&resolved), [""; 0]);
}

#[test]
fn no_mail_server_is_a_warning_and_the_one_that_is_named_an_error() {
    let resolved = resolve_text("[[allow]]\nmta = \"auto\"\n", &mut Paper::default());
    assert!(resolved.rules.is_empty());
    assert!(findings(&resolved)[0].starts_with("Warning 2:7 no mail server"));
    let resolved = resolve_text("[[allow]]\nmta = \"postfix\"\n", &mut Paper::default());
    assert!(resolved.rules[0].problem.is_some());
    assert!(findings(&resolved)[0].starts_with("Error 2:7 Postfix is not installed"));
}

#[test]
fn a_mail_server_without_its_user_matches_nothing() {
    let mut host = Paper::default().exe("/usr/sbin/exim4");
    let resolved = resolve_text("[[allow]]\nmta = \"exim\"\n", &mut host);
    assert!(findings(&resolved)[0].contains("no user Debian-exim or exim or mail"));
    assert!(resolved.rules[0].problem.is_some());
    let resolved = resolve_text("[[allow]]\nmta = \"exim\"\nuser = 7\nunit = \"auto\"\n", &mut host);
    assert_eq!(
        resolved.describe(),
        ["Exim: /usr/sbin/exim4 as 7, in /system.slice/exim4.service or /system.slice/exim.service"]
    );
}

#[test]
fn dma_is_known_by_its_group() {
    let mut host = Paper::default().exe("/usr/sbin/dma").user("mail", 8);
    let resolved = resolve_text("[[allow]]\nmta = \"auto\"\n", &mut host);
    assert_eq!(resolved.describe(), ["DragonFly Mail Agent: /usr/sbin/dma, group mail (8)"]);
}

#[test]
fn what_is_missing_makes_its_rule_match_nothing_and_is_shown_where_it_stands() {
    let mut host = Paper::default().exe("/x").user("a", 1);
    let resolved = resolve_text("[[allow]]\nexe = \"/gone\"\nuser = \"nagois\"\n", &mut host);
    assert_eq!(findings(&resolved), ["Error 2:7 /gone does not exist", "Error 3:8 unknown user \"nagois\""]);
    assert!(resolved.rules[0].problem.is_some());
    assert_eq!(resolved.executables().count(), 0);
    // One of a list that is left still counts.
    let resolved = resolve_text("[[allow]]\nexe = [\"/x\", \"/gone\"]\nuser = [\"a\", \"b\"]\n", &mut host);
    assert_eq!(resolved.diagnostics.len(), 2);
    assert_eq!(resolved.describe(), ["x (rule 1): /x as a (1)"]);
}

#[test]
fn a_checksum_that_differs_leaves_a_rule_that_matches_nothing() {
    let sum = "00".repeat(32);
    let text = format!("[[allow]]\nexe = \"/x\"\nuser = 1\nsha256 = \"{sum}\"\n");
    let mut host = Paper::default().exe("/x");
    host.sums.insert("/x".into(), [1; 32]);
    let resolved = resolve_text(&text, &mut host);
    assert!(findings(&resolved)[0].starts_with("Error 4:10 /x has the SHA-256 0101"));
    assert!(resolved.rules[0].problem.is_some());
    host.sums.insert("/x".into(), [0; 32]);
    let mut resolved = resolve_text(&text, &mut host);
    assert!(resolved.rules[0].problem.is_none());
    // No other file takes the place of one that was compared.
    resolved.add_executable(Path::new("/x"), ExeId::default());
    assert_eq!(resolved.executables().count(), 1);
}

#[test]
fn a_replaced_executable_counts_beside_the_new_one() {
    let mut host = Paper::default().exe("/x");
    let mut resolved = resolve_text("[[allow]]\nexe = \"/x\"\nuser = 1\n", &mut host);
    for _ in 0..2 {
        resolved.add_executable(Path::new("/x"), ExeId { ino: 5, ..ExeId::default() });
        resolved.add_executable(Path::new("/y"), ExeId { ino: 6, ..ExeId::default() });
    }
    assert_eq!(resolved.executables().count(), 2);
    assert_eq!(resolved.describe(), ["x (rule 1): /x as 1"]);
}

#[test]
fn an_executable_that_everybody_can_replace_matches_nothing() {
    let mut host = Paper::default();
    let weak = |weakness| Ok(ExeFile { weaknesses: vec![weakness], ..file("/x") });
    host.exes.insert("/x".into(), weak(Weakness::Everybody("/".into())));
    let text = "[[allow]]\nexe = \"/x\"\nuser = 1\n";
    let resolved = resolve_text(text, &mut host);
    assert!(findings(&resolved)[0].starts_with("Error 2:7 everybody can write to /"));
    assert!(resolved.rules[0].problem.is_some());
    host.exes.insert("/x".into(), weak(Weakness::Group("/x".into(), 5)));
    let resolved = resolve_text(text, &mut host);
    assert!(findings(&resolved)[0].starts_with("Warning 2:7 group 5 can write"));
    assert!(resolved.rules[0].problem.is_none());
    host.exes.insert("/x".into(), weak(Weakness::Owner("/x".into(), 1)));
    assert_eq!(findings(&resolve_text(text, &mut host)), [""; 0]);
}

#[test]
fn scripts_are_errors_and_interpreters_warnings() {
    let mut host = Paper::default().exe("/usr/bin/python3.11");
    host.exes.insert("/x".into(), Err(ExeProblem::Script("/bin/sh".into())));
    let resolved = resolve_text("[[allow]]\nexe = [\"/x\", \"/usr/bin/python3.11\"]\nuser = 1\n", &mut host);
    let found = findings(&resolved);
    assert!(found[0].starts_with("Error 2:8 /x is a script"), "{found:?}");
    assert!(found[1].starts_with("Warning 2:14 /usr/bin/python3.11 is an interpreter"), "{found:?}");
}

#[test]
fn a_set_user_id_program_does_not_run_as_its_caller() {
    let mut host = Paper::default();
    host.exes.insert("/x".into(), Ok(ExeFile { set_user: Some(0), ..file("/x") }));
    let resolved = resolve_text("[[allow]]\nexe = \"/x\"\nuser = 1\n", &mut host);
    assert!(findings(&resolved)[0].starts_with("Warning 3:8 /x is set-user-ID"));
    assert_eq!(findings(&resolve_text("[[allow]]\nexe = \"/x\"\nuser = 0\n", &mut host)), [""; 0]);
}

#[test]
fn unit_and_cgroup_together_mean_what_is_in_both() {
    let mut host = Paper::default().exe("/x");
    let rule = "[[allow]]\nexe = \"/x\"\n";
    let text = format!(
        "{rule}unit = [\"a.service\", \"b.service\"]\ncgroup = [\"/system.slice\", \"/system.slice/b.service/c\"]\n"
    );
    let resolved = resolve_text(&text, &mut host);
    let cgroups: Vec<String> = resolved.rules[0].cgroup.iter().flatten().map(ToString::to_string).collect();
    assert_eq!(cgroups, ["/system.slice/a.service", "/system.slice/b.service", "/system.slice/b.service/c"]);
    let resolved = resolve_text(&format!("{rule}unit = \"a.service\"\ncgroup = \"/b\"\n"), &mut host);
    assert!(findings(&resolved)[0].starts_with("Error 1:1 no process is both in"));
    assert!(resolved.rules[0].problem.is_some());
}

#[test]
fn units_and_cgroups_that_are_not_there_yet_are_waited_for() {
    let mut host = Paper { unknown_units: true, no_cgroup: true, ..Paper::default().exe("/x") };
    let resolved = resolve_text(
        "[[allow]]\nexe = \"/x\"\nunit = \"a.service\"\n\n[[allow]]\nuser = 1\ncgroup = \"/b\"\n",
        &mut host,
    );
    let found = findings(&resolved);
    assert!(found[0].starts_with("Warning 3:8 systemd knows no unit \"a.service\""), "{found:?}");
    assert!(found[1].starts_with("Warning 7:10 there is no cgroup /b"), "{found:?}");
    assert!(resolved.rules.iter().all(|rule| rule.problem.is_none()));
}

#[test]
fn a_root_is_where_everything_is_looked_up() {
    let mut host = Paper::default().exe("/srv/ct/usr/sbin/smtpd").user("opensmtpd", 9);
    let resolved = resolve_text("[[allow]]\nmta = \"auto\"\nroot = \"/srv/ct\"\n", &mut host);
    assert_eq!(resolved.describe(), ["OpenSMTPD: /srv/ct/usr/sbin/smtpd as opensmtpd (9)"]);
}

#[test]
fn a_rule_that_has_ended_is_warned_of() {
    let mut host = Paper::default().exe("/x");
    let resolved = resolve_text("[[allow]]\nexe = \"/x\"\nuser = 1\nexpires = 2020-01-31\n", &mut host);
    assert_eq!(findings(&resolved), ["Warning 4:11 this rule has ended, at 2020-02-01T00:00:00Z"]);
}

#[test]
fn a_rule_that_says_what_auto_says_already_is_told() {
    let mut host = Paper::default().exe("/usr/sbin/exim4").user("Debian-exim", 105);
    let text = "[[allow]]\nmta = \"auto\"\n\n[[allow]]\nname = \"x\"\nexe = \"/usr/sbin/exim4\"\nuser = 105\n";
    let found = findings(&resolve_text(text, &mut host));
    assert!(found[0].starts_with("Warning 4:1 the rule \"x\" never decides: \"Exim\" at "), "{found:?}");
}

#[test]
fn a_units_path_includes_the_guarded_sub_tree() {
    let mut policy = Policy::default();
    policy.guard.cgroup = "/ct".to_owned();
    assert_eq!(unit_path(&policy, "x.service").unwrap(), "/ct/system.slice/x.service");
    assert!(unit_path(&policy, "x").is_err());
}

#[test]
fn every_path_a_rule_could_resolve_to_is_watched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p");
    std::fs::write(&path, "[[allow]]\nmta = \"postfix\"\nroot = \"/r\"\n[[allow]]\nexe = \"/x\"\nuser = 1\n").unwrap();
    let paths = load(&path).policy.unwrap().executable_paths();
    assert!(paths.contains(&"/r/usr/lib/postfix/sbin/smtp".into()) && paths.contains(&"/x".into()));
    assert_eq!(paths.len(), 5);
}

#[test]
fn an_error_in_the_text_hides_nothing_that_is_wrong_on_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p");
    std::fs::write(&path, "[[allow]]\nexe = \"/gone\"\nuser = 1.5\n[[allow]]\nuser = \"nagois\"\n").unwrap();
    let loaded = load(&path);
    assert!(loaded.policy.is_none());
    let resolved = resolve(&loaded.draft, &mut Paper::default());
    assert_eq!(findings(&resolved), ["Error 2:7 /gone does not exist", "Error 5:8 unknown user \"nagois\""]);
}
