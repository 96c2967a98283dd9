//! Policies as text: what is wrong with them, and where.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::{Loaded, Severity, keys, load};

const DEFAULT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/portreeve.toml");

#[test]
fn the_default_policy_is_right_and_shows_every_key() {
    let loaded = load(Path::new(DEFAULT));
    assert_eq!(loaded.diagnostics, []);
    assert!(loaded.policy.is_some());
    let text = fs::read_to_string(DEFAULT).unwrap();
    for (table, key) in keys() {
        let starts = |line: &str| {
            let line = line.strip_prefix('#').unwrap_or(line);
            let path = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
            let header = line.trim_matches(['[', ']']) == path && line.starts_with('[');
            header || line.strip_prefix(key).is_some_and(|rest| rest.starts_with(" = "))
        };
        assert!(text.lines().any(starts), "{key} of [{table}]");
    }
}

/// What is wrong with a policy: `severity line:column sentence`, then how to mend it.
fn findings(loaded: &Loaded) -> Vec<(String, String)> {
    let found = loaded.diagnostics.iter();
    found.map(|d| (format!("{:?} {}:{} {}", d.severity, d.line, d.column, d.what), d.mend.clone())).collect()
}

fn load_text(text: &str) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("portreeve.toml");
    fs::write(&path, text).unwrap();
    load(&path)
}

#[test]
fn every_mistake_is_shown_where_it_stands_with_a_way_to_mend_it() {
    let who = "exe = \"/x\"\nuser = 1\n";
    let allow = |keys: &str| format!("[[allow]]\n{who}{keys}\n");
    let guard = |key: &str| format!("[guard]\n{key}\n[[allow]]\nmta = \"auto\"\n");
    let rule = |text: &str| format!("[[allow]]\n{text}\n");
    for (text, finding, mend) in [
        // Keys.
        (guard("port = [25]"), "Error 2:1 unknown key \"port\" in [guard]", "did you mean \"ports\"?"),
        (allow("usr = \"x\""), "Error 4:1 unknown key \"usr\" in [[allow]]", "did you mean \"user\"?"),
        (allow("mode = \"observe\""), "Error 4:1 unknown key \"mode\"", "belongs in [guard]"),
        (format!("inclde = \"x\"\n{}", allow("")), "Error 1:1 unknown key \"inclde\"", "did you mean \"include\"?"),
        (allow("xyzzyxyzzy = 1"), "Error 4:1 unknown key \"xyzzyxyzzy\"", "the keys here are name, "),
        // Types.
        (guard("mode = 1"), "Error 2:8 \"mode\" must be a text in quotes, not an integer", "mode = "),
        (
            guard("refuse_tainted = \"no\""),
            "Error 2:18 \"refuse_tainted\" must be true or false, not a text",
            "without quotes",
        ),
        (guard("forwarded = \"yes\""), "Error 2:13 \"yes\" is no value of \"forwarded\"", "\"refuse\", \"pass\""),
        (
            allow("raw_senders = true\nto = \"192.0.2.1\""),
            "Error 5:1 \"to\" does not go with \"raw_senders\"",
            "allows no connection",
        ),
        (allow("audit = 1"), "Error 4:9 \"audit\" must be true or false", ""),
        (allow("to = 10.0"), "Error 4:6 \"to\" must be a text in quotes", ""),
        ("guard = 1\n".to_owned(), "Error 1:9 \"guard\" must be a table", "[guard]"),
        (rule("exe = [\"/x\", 1]\nuser = 1"), "Error 2:14 \"exe\" must be a text in quotes", ""),
        // Choices.
        (guard("mode = \"observed\""), "Error 2:8 \"observed\" is no value of \"mode\"", "did you mean \"observe\"?"),
        (guard("refuse_with = \"EPRM\""), "Error 2:15 \"EPRM\" is no value of", "did you mean \"EPERM\"?"),
        (guard("local_submission = \"maybe\""), "Error 2:20 \"maybe\" is no value of", "\"allow\", \"deny\""),
        (rule("mta = \"postfx\""), "Error 2:7 \"postfx\" is no value of \"mta\"", "did you mean \"postfix\"?"),
        (rule("mta = \"xyzzyxyzzy\""), "Error 2:7 \"xyzzyxyzzy\" is no value of \"mta\"", "\"exim\""),
        // Ports.
        (guard("ports = [0]"), "Error 2:10 0 is no port", "1 to 65535"),
        (guard("ports = [25, 65536]"), "Error 2:14 65536 is no port", ""),
        (guard("ports = [25, -1]"), "Error 2:14 -1 is no port", ""),
        (guard("ports = [25, \"smtp\"]"), "Error 2:14 \"smtp\" is no port", ""),
        (guard("ports = [25, \"30-20\"]"), "Error 2:14 \"30-20\" is no range of ports", ""),
        (guard("ports = [25, \"20-\"]"), "Error 2:14 \"20-\" is no range of ports", ""),
        (guard("ports = [25, \"1-2-3\"]"), "Error 2:14 \"1-2-3\" is no range of ports", ""),
        (guard("ports = []"), "Error 2:9 the list \"ports\" is empty", "take \"ports\" out"),
        // Networks.
        (
            allow("to = \"192.0.2.1/24\""),
            "Error 4:6 \"192.0.2.1/24\" is an address inside a network",
            "\"192.0.2.0/24\"",
        ),
        (
            allow("to = [\"::/0\", \"2001:db8::1/32\"]"),
            "Error 4:15 \"2001:db8::1/32\" is an address",
            "\"2001:db8::/32\"",
        ),
        (allow("to = \"mail.example.org\""), "Error 4:6 \"mail.example.org\" is no network", "names are not looked up"),
        (allow("to = \"10.0.0.0/33\""), "Error 4:6 \"10.0.0.0/33\" has no usable prefix length", "0 to 32"),
        (allow("to = []"), "Error 4:6 the list \"to\" is empty", ""),
        // Who.
        (rule("exe = \"usr/sbin/x\"\nuser = 1"), "Error 2:7 \"usr/sbin/x\" is no absolute path", "the whole path"),
        (rule("exe = \"/x\""), "Error 2:1 an executable alone is no identity: with LD_PRELOAD", "exe_alone = true"),
        (rule("exe = \"/x\"\nuser = []"), "Error 3:8 the list \"user\" is empty", ""),
        (rule("exe = \"\"\nuser = 1"), "Error 2:7 \"exe\" is empty", ""),
        (rule("mta = \"auto\"\nexe = \"/x\"\nuser = 1"), "Error 3:1 a rule has either \"mta\" or \"exe\"", ""),
        (rule("to = \"::/0\""), "Error 1:1 this rule does not say who may send", "mta = \"auto\""),
        (allow("unit = \"postfix\""), "Error 4:8 \"postfix\" is no unit with processes", "with its kind"),
        (allow("unit = \"auto\""), "Error 4:8 \"auto\" stands for the units of a mail server", ""),
        (allow("cgroup = \"/\""), "Error 4:10 the cgroup \"/\" holds every process", ""),
        (allow("cgroup = \"a/b\""), "Error 4:10 the cgroup \"a/b\" is no absolute path", ""),
        (allow("cgroup = \"/a/../b\""), "Error 4:10 the cgroup \"/a/../b\" has a part", ""),
        (allow("root = \"srv\""), "Error 4:8 \"srv\" is no absolute path", ""),
        // Checksums and times.
        (
            rule(&format!("mta = \"exim\"\nsha256 = \"{}\"", "0".repeat(64))),
            "Error 3:1 \"sha256\" needs a rule with exactly one executable",
            "",
        ),
        (allow("sha256 = \"00\""), "Error 4:10 \"00\" is no SHA-256", "64 hexadecimal digits"),
        (allow(&format!("sha256 = \"{}\"", "é".repeat(32))), "Error 4:10 \"ééé", "64 hexadecimal digits"),
        (allow("expires = \"tomorrow\""), "Error 4:11 \"expires\" must be a date", "without quotes"),
        (allow("expires = 07:00:00"), "Error 4:11 07:00:00 is no date", ""),
        // Names.
        (allow(&format!("name = \"{}\"", "n".repeat(65))), "Error 4:8 the name has 65 characters", "description"),
        (
            format!("{0}[[allow]]\nname = \"a\"\nmta = \"auto\"\n", allow("name = \"a\"")),
            "Error 6:8 the name \"a\" is taken",
            "of its own",
        ),
        // Columns count characters, tabs and all.
        (
            rule("description = \"äöü€\" # 1\nexe = [\"/ä\",\t\"ü\"]\nuser = 1"),
            "Error 3:14 \"ü\" is no absolute path",
            "",
        ),
        (
            "[guard]\r\nmode = \"observe\"\r\nports = [0]\r\n[[allow]]\r\nmta = \"auto\"\r\n".to_owned(),
            "Error 3:10 0 is no port",
            "",
        ),
        // Syntax.
        ("[guard\nmode = 1\n".to_owned(), "Error 1:7 this is no TOML", "toml.io"),
        (guard("mode = enforce"), "Error 2:8 this is no TOML", "text goes in quotes"),
        (guard("ports = [25]\nports = [26]"), "Error 3:1 this is no TOML: duplicate key", "say it once"),
        (rule("mta = \"auto"), "Error 2:", ""),
        ("[allow]\nmta = \"auto\"\n".to_owned(), "Error 1:1 \"allow\" must be a list of tables", "two brackets"),
    ] {
        let loaded = load_text(&text);
        let found = findings(&loaded);
        let right = |(what, how): &(String, String)| what.starts_with(finding) && how.contains(mend);
        assert!(found.iter().any(right), "{text}wants {finding} … {mend}\nhas {found:#?}");
        let errors = loaded.diagnostics.iter().filter(|found| found.is_error()).count();
        // What a syntax error leaves of the text may be wrong as well.
        assert!(errors == 1 || finding.contains("TOML") || finding == "Error 2:", "{text}{found:#?}");
        assert!(loaded.policy.is_none(), "{text}");
        assert!(found.iter().all(|(_, mend)| !mend.is_empty()), "{text}{found:#?}");
    }
}

#[test]
fn what_works_and_is_probably_not_meant_is_a_warning() {
    let rule = |text: &str| format!("[[allow]]\nexe = \"/x\"\n{text}\n");
    for (text, finding) in [
        (
            rule("user = 1\nports = [25, 587]"),
            "Warning 1:1 this rule allows ports that are not guarded and open to all: 587",
        ),
        (rule("exe_alone = true"), "Warning 3:1 this rule trusts an executable whoever runs it"),
        (rule("user = 1\nexe_alone = true"), "Warning 4:1 \"exe_alone\" has no effect"),
        (rule("user = [1, 2, 1]"), "Warning 3:15 \"user\" names this twice"),
        (rule("user = 1\nexpires = 2030-01-01T00:00:00"), "Warning 4:11 this time has no offset, and is taken as UTC"),
        ("[[allow]]\nuser = 1\n".to_owned(), "Warning 1:1 this rule names no executable"),
        ("[[allow]]\nunit = \"a.service\"\nroot = \"/srv\"\n".to_owned(), "Warning 3:1 \"root\" has no effect"),
        (String::new(), "Warning 0:0 there is no [[allow]] rule: nothing may send mail"),
    ] {
        let loaded = load_text(&text);
        let found = findings(&loaded);
        assert!(found.iter().any(|(what, _)| what.starts_with(finding)), "{text}wants {finding}\nhas {found:#?}");
        assert!(loaded.policy.is_some(), "{text}{found:#?}");
    }
}

#[test]
fn all_mistakes_of_all_files_are_shown_in_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put(
        "p.toml",
        "include = [\"conf.d/*.toml\", \"gone.toml\"]\n[guard]\nmode = \"on\"\nports = [0]\n[[allow]]\nexe = \"x\"\n",
    );
    put("conf.d/20.toml", "[[allow]]\nname = \"b\"\nmta = \"auto\"\nfoo = 1\n");
    put("conf.d/10.toml", "[[allow]]\nname = \"b\"\nmta = \"auto\"\n\n[guard]\n");
    put("conf.d/30.toml", "[[allow]]\nmta = auto\n");
    put("conf.d/40.toml.orig", "not read");
    let loaded = load(&folder.path().join("p.toml"));
    assert!(loaded.policy.is_none());
    let found: Vec<String> = loaded
        .diagnostics
        .iter()
        .map(|found| {
            let file = found.file.strip_prefix(folder.path()).unwrap().display();
            format!("{file}:{}:{} {}", found.line, found.column, found.what)
        })
        .collect();
    for finding in [
        "p.toml:3:8 \"on\" is no value of \"mode\"",
        "p.toml:4:10 0 is no port",
        "p.toml:6:1 an executable alone",
        "p.toml:6:7 \"x\" is no absolute path",
        "p.toml:1:29 the included file ",
        "conf.d/10.toml:5:2 an included file may hold [[allow]] rules only, not \"guard\"",
        "conf.d/20.toml:2:8 the name \"b\" is taken by the rule at ",
        "conf.d/20.toml:4:1 unknown key \"foo\"",
        "conf.d/30.toml:2:7 this is no TOML",
    ] {
        assert!(found.iter().any(|found| found.starts_with(finding)), "{finding}\n{found:#?}");
    }
    assert_eq!(found.len(), 9, "{found:#?}");
    assert!(loaded.diagnostics.iter().all(|found| found.severity == Severity::Error));
    // A file that is mended is noticed wherever it is.
    let files: Vec<_> = loaded.files.iter().map(|file| file.strip_prefix(folder.path()).unwrap().to_owned()).collect();
    assert_eq!(files[..4], ["p.toml", "conf.d/10.toml", "conf.d/20.toml", "conf.d/30.toml"].map(PathBuf::from));
    assert_eq!(loaded.folders, [folder.path().join("conf.d")]);
}

#[test]
fn a_finding_is_shown_with_its_line_and_a_mark_below_it() {
    let loaded = load_text("[guard]\nmode = \"enforced\" # ä\n");
    let shown = loaded.diagnostics[0].to_string();
    let file = loaded.files[0].display();
    let all = [
        "error: \"enforced\" is no value of \"mode\"".to_owned(),
        format!(" --> {file}:2:8"),
        "  |".to_owned(),
        "2 | mode = \"enforced\" # ä".to_owned(),
        "  |        ^^^^^^^^^^".to_owned(),
        "  = mend: did you mean \"enforce\"? Write one of \"enforce\", \"observe\"".to_owned(),
    ];
    assert_eq!(shown.lines().collect::<Vec<_>>(), all);
}

#[test]
fn the_digest_changes_with_every_file() {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("p.toml");
    fs::write(&main, "include = \"*.conf\"\n").unwrap();
    let none = load(&main).digest;
    let included = folder.path().join("a.conf");
    fs::write(&included, "[[allow]]\nmta = \"auto\"\n").unwrap();
    let one = load(&main).digest;
    fs::write(&included, "[[allow]]\nmta = \"exim\"\n").unwrap();
    assert!(none != one && one != load(&main).digest);
    assert_eq!(load(&main).digest, load(&main).policy.unwrap().digest());
}

/// The default policy with its examples taken in, as something to break.
fn everything() -> String {
    let text = fs::read_to_string(DEFAULT).unwrap();
    let example = |line: &str| line.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
    let lines = text.lines().map(|line| line.strip_prefix('#').filter(|line| example(line)).unwrap_or(line));
    lines.filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
}

const PIECES: [&str; 25] = [
    "",
    "\"",
    "[",
    "]",
    "[[",
    "=",
    "\n",
    "é",
    "\0",
    "'''",
    "#",
    "0",
    "-1",
    ",",
    ".",
    "{",
    "}",
    "\t",
    "\r",
    "/",
    "allow",
    "2001-01-01",
    "1e9",
    "99999999999999999999",
    "[[allow]]\n",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_text_its_findings_point_into_it(
        edits in proptest::collection::vec((any::<Index>(), 0..12_usize, select(&PIECES[..])), 1..8),
    ) {
        let mut text: Vec<char> = everything().chars().collect();
        for (at, length, with) in edits {
            let at = at.index(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, with.chars());
        }
        let text: String = text.into_iter().collect();
        let loaded = load_text(&text);
        prop_assert_eq!(loaded.policy.is_none(), loaded.diagnostics.iter().any(|found| found.is_error()));
        let lines: Vec<&str> = text.split('\n').collect();
        let findings = loaded.diagnostics.iter().inspect(|found| assert!(!found.mend.is_empty()));
        // A list that is not closed may make "include" name files of this machine.
        for found in findings.filter(|found| found.line > 0 && found.file == loaded.files[0]) {
            let line = lines.get(found.line - 1).copied().unwrap_or("no such line");
            prop_assert!(found.column >= 1 && found.column <= line.chars().count() + 1, "{:?}\n{}", found, text);
            // Shown as they are, but for what would upset a terminal.
            let shown: String = line.chars().map(|c| if c == '\t' { ' ' } else if c.is_control() { '\u{fffd}' } else { c }).collect();
            prop_assert!(shown.contains(&found.text) && !found.to_string().is_empty(), "{:?}\n{}", found, text);
        }
    }
}
