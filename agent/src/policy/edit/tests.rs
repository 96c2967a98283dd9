//! Editing, over texts of every layout.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::date;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::model::{Account, CgroupPath, Guard, Rule, UnitChoice};
use super::super::{SystemHost, load_text};
use super::*;

/// A rule as far as [`NewRule`] can say it, and when it ends.
#[derive(Debug, PartialEq)]
struct Meaning(NewRule, Option<Timestamp>);

impl Meaning {
    fn wanted(rule: &NewRule) -> Self {
        let expires = rule.expires.map(|end| end.to_string().parse().unwrap());
        Self(NewRule { comment: None, description: None, expires: None, exe_alone: false, ..rule.clone() }, expires)
    }

    fn read(rule: &Rule) -> Self {
        fn values<T: Clone>(list: &[crate::policy::Located<T>]) -> Vec<T> {
            list.iter().map(|located| located.value.clone()).collect()
        }
        let unit = |choice: UnitChoice| match choice {
            UnitChoice::Name(name) => name,
            UnitChoice::Auto => "auto".to_owned(),
        };
        let rest = NewRule {
            name: rule.name.as_ref().map(|name| name.value.clone()),
            exe: values(&rule.exe),
            user: values(&rule.user),
            group: values(&rule.group),
            unit: values(&rule.unit).into_iter().map(unit).collect(),
            cgroup: values(&rule.cgroup),
            to: values(&rule.to),
            ports: rule.ports.clone(),
            sha256: rule.sha256.map(|sum| sum.value),
            audit: rule.audit,
            root: rule.root.as_ref().map(|root| root.value.clone()),
            ..NewRule::default()
        };
        Self(rest, rule.expires.map(|end| end.value))
    }
}

/// The rules and the guard of a text, and whether it loads.
fn meaning(text: &str) -> (Vec<Meaning>, Guard, bool) {
    let loaded = load_text(Path::new("p.toml"), text.to_owned());
    (loaded.draft.rules.iter().map(Meaning::read).collect(), loaded.draft.guard, loaded.policy.is_some())
}

/// What may stand between the tables of a policy.
const BETWEEN: [&str; 9] = [
    "",
    "  ",
    "# Words about what comes.",
    "   # indented words",
    "#[[allow]]",
    "#name = \"commented out\"",
    "#to = [\"192.0.2.1\"]   # with words",
    "#",
    "# user = \"words, for there is a space\"",
];

/// Rules in every layout; `@` becomes a number, so that no name comes twice.
const RULES: [&str; 8] = [
    "[[allow]]\nmta = \"auto\"",
    "[[allow]]   # words behind the header\nname = \"n@\" # words\nuser = @",
    "  [[ allow ]]\n  # words inside\n\n  user = [\n    1, # one\n\n    # two\n    2,\n  ]   ",
    "[[\"allow\"]]\nname = 'n@'\nexe = \"/x\"\nuser = \"a\"\ndescription = \"\"\"\\\n# no comment \\\n\n[[allow]] \\\n# x = 1\"\"\"",
    "[[allow]]\nuser = @\n#ports = [25]\n#expires = 2037-01-31",
    "[[allow]]\nuser = @\n# words below\n#to = \"192.0.2.1\"\n# more words below",
    "# Words above,\n# on two lines.\n[[allow]]\n\"user\" = @\nto = [\"192.0.2.0/24\",\n\"2001:db8::/32\"] # words",
    "[[allow]]\nunit = '''x@.service'''\nuser = [ # words\n#3,\n\n@]",
];

fn policies() -> impl Strategy<Value = String> {
    let top = select(
        &[
            "",
            "include = [\"conf.d/*.toml\"]\n",
            "guard = { mode = \"observe\", ports = [25] }\n\n",
            "guard.mode = \"observe\"\n",
        ][..],
    );
    let piece = prop_oneof![4 => select(&BETWEEN[..]), 3 => select(&RULES[..])];
    let guard = (any::<Index>(), any::<bool>());
    let ends = (
        select(&["\n", "\r\n"][..]),
        proptest::collection::vec(proptest::bool::weighted(0.1), 200),
        any::<bool>(),
        proptest::bool::weighted(0.1),
    );
    (top, proptest::collection::vec(piece, 0..12), guard, ends).prop_map(|(top, pieces, (at, guard), ends)| {
        let (newline, mixed, closed, mark) = ends;
        let mut pieces: Vec<String> =
            pieces.iter().enumerate().map(|(number, piece)| piece.replace('@', &number.to_string())).collect();
        if guard && !top.contains("guard") {
            let at = at.index(pieces.len() + 1);
            pieces.insert(at, "[guard]\nports = [25] # words\n#mode = \"enforce\"".to_owned());
        }
        let text = format!("{top}{}{}", pieces.join("\n"), if closed { "\n" } else { "" });
        let mut mixed = mixed.into_iter().chain(std::iter::repeat(false));
        let other = if newline == "\n" { "\r\n" } else { "\n" };
        let lines = text.split('\n').collect::<Vec<_>>();
        let mut whole = String::from(if mark { "\u{feff}" } else { "" });
        for (number, line) in lines.iter().enumerate() {
            whole += line;
            if number + 1 < lines.len() {
                whole += if mixed.next() == Some(true) { other } else { newline };
            }
        }
        whole
    })
}

fn new_rules() -> impl Strategy<Value = NewRule> {
    let text = "[a-zA-Z \"'#\\[\\]=\\\\äß√@.-]{1,40}";
    let accounts = || {
        let account =
            prop_oneof![(0..u32::MAX).prop_map(Account::Id), "[a-z_][a-z0-9_$.\\\\-]{0,12}".prop_map(Account::Name)];
        proptest::collection::vec(account, 1..3).prop_map(distinct)
    };
    let network = prop_oneof![
        any::<([u8; 4], u8)>().prop_map(|(a, p)| IpNet::new(a.into(), p % 33).unwrap().trunc()),
        any::<([u8; 16], u8)>().prop_map(|(a, p)| IpNet::new(a.into(), p % 129).unwrap().trunc()),
    ];
    let networks = proptest::collection::vec(network.prop_map(super::super::network::normal), 0..20).prop_map(distinct);
    let units = proptest::collection::vec(
        select(&["a.service", "b-c.slice", "dev\\x2dx.mount"][..]).prop_map(str::to_owned),
        0..3,
    );
    let cgroups = proptest::collection::vec(select(&["/a", "/system.slice/docker-12.scope"][..]), 0..2);
    let exe = proptest::collection::vec("/[a-z \"'#\\\\ß]{1,30}".prop_map(PathBuf::from), 1..2);
    let end = proptest::option::of((0_i64..4_000_000_000).prop_map(|end| Timestamp::from_second(end).unwrap()));
    let texts = (
        proptest::option::of(text),
        proptest::option::of(text),
        proptest::option::of("[a-z#\\[\\]=\"\\n\\r\\t\u{1b} ]{0,300}"),
    );
    let rest =
        (proptest::collection::btree_set(1_u16.., 0..40), proptest::option::of(any::<[u8; 32]>()), any::<bool>());
    (texts, exe, (accounts(), accounts()), (units, cgroups), networks, end, rest).prop_map(
        |((name, description, note), exe, (user, group), (unit, cgroup), to, end, (ports, sha256, audit))| NewRule {
            comment: Some(Stamp { date: date(2026, 11, 25), by: "root".to_owned() }.comment(note.as_deref())),
            // "n1" and the like are taken.
            name: name.map(|name| format!("new {name}")),
            description,
            exe,
            exe_alone: false,
            user,
            group,
            unit: distinct(unit),
            cgroup: distinct(cgroup).into_iter().map(|path| CgroupPath::parse(path).unwrap()).collect(),
            to,
            ports,
            sha256,
            expires: end.map(|end| end.to_string().parse().unwrap()),
            audit,
            root: audit.then(|| PathBuf::from("/var/lib/machines/a b")),
        },
    )
}

fn distinct<T: PartialEq>(list: Vec<T>) -> Vec<T> {
    list.into_iter().fold(Vec::new(), |mut kept, element| {
        if !kept.contains(&element) {
            kept.push(element);
        }
        kept
    })
}

/// What must be cut out of `longer` to leave `shorter`: every way to do that in one piece.
fn cuts<'t>(longer: &'t str, shorter: &'t str) -> impl Iterator<Item = &'t str> {
    let same = longer.bytes().zip(shorter.bytes()).take_while(|(a, b)| a == b).count();
    let cut = longer.len() - shorter.len();
    let rest = move |at: usize| longer.get(at + cut..).filter(|rest| Some(*rest) == shorter.get(at..));
    (0..=same).filter_map(move |at| rest(at).and_then(|_| longer.get(at..at + cut)))
}

/// Whether a text is one rule with comments above it: no gap between them, and no example among them.
fn is_one_rule(text: &str) -> bool {
    let lines: Vec<&str> = text.trim_start_matches('\u{feff}').trim().lines().map(str::trim).collect();
    let header = lines.iter().position(|line| line.starts_with('[')).unwrap_or(0);
    lines[header].starts_with('[')
        && lines[..header].iter().all(|line| line.starts_with('#') && !line.starts_with("#["))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rule_that_comes_and_goes_leaves_no_trace(text in policies(), rule in new_rules()) {
        let (before, ..) = meaning(&text);
        let added = add_rule(&text, &rule).unwrap();
        prop_assert_eq!(remove_rule(&added, Which::Number(before.len() + 1)).unwrap(), text);
    }

    #[test]
    fn what_is_added_is_exactly_the_rule_and_nothing_else_moves(text in policies(), rule in new_rules()) {
        let (before, guard, loads) = meaning(&text);
        let added = add_rule(&text, &rule).unwrap();
        prop_assert!(cuts(&added, &text).next().is_some(), "{}", added);
        let (mut after, same_guard, still_loads) = meaning(&added);
        prop_assert_eq!(after.pop(), Some(Meaning::wanted(&rule)), "{}", added);
        prop_assert_eq!((after, same_guard, still_loads), (before, guard, loads), "{}", added);
        // The rest of the file ends its lines as it did, and the new lines do as well.
        if !text.contains("\r\n") {
            prop_assert!(!added.contains('\r'));
        }
        if text.contains('\n') && !text.replace("\r\n", "").contains('\n') {
            prop_assert!(!added.replace("\r\n", "").contains('\n'));
        }
    }

    #[test]
    fn what_is_taken_out_is_one_rule_with_its_comment(text in policies(), which in any::<Index>()) {
        let (mut before, guard, loads) = meaning(&text);
        prop_assume!(!before.is_empty());
        let index = which.index(before.len());
        let removed = remove_rule(&text, Which::Number(index + 1)).unwrap();
        before.remove(index);
        let (after, same_guard, still_loads) = meaning(&removed);
        prop_assert!(loads && still_loads, "{}", text);
        prop_assert_eq!((after, same_guard), (before, guard), "{}", removed);
        prop_assert!(cuts(&text, &removed).any(is_one_rule), "{}", removed);
        let empty = removed.trim_start_matches('\u{feff}').is_empty();
        prop_assert!(empty || removed.ends_with('\n') || !text.ends_with('\n'), "{:?}", removed);
    }
}

#[test]
fn a_rule_comes_behind_the_last_one_and_before_what_is_about_something_else() {
    let rule = NewRule { user: vec![Account::Id(7)], ..NewRule::default() };
    let new = "[[allow]]\nuser = 7\n";
    for (before, behind, after) in [
        ("", "", ""),
        ("# Words.\n", "\n", ""),
        ("[guard]\n", "\n", "\n\n"),
        ("[[allow]]\nuser = 1\n", "\n", "\n# About an example.\n#[[allow]]\n#user = 2\n"),
        ("[[allow]]\nuser = 1\n#to = \"::1\"\n", "\n", "\n[guard]\n"),
        ("[[allow]]\nuser = 1\n#to = \"::1\"\n", "\n", "# About the guard.\n[guard]\n"),
        ("[[allow]]\nuser = 1\n\n[guard]\n\n[[allow]]\nuser = 2\n# words\n", "\n", ""),
    ] {
        assert_eq!(add_rule(&format!("{before}{after}"), &rule).unwrap(), format!("{before}{behind}{new}{after}"));
    }
    let open = add_rule("[[allow]]\r\nuser = 1", &rule).unwrap();
    assert_eq!(open, "[[allow]]\r\nuser = 1\r\n\r\n[[allow]]\r\nuser = 7");
}

#[test]
fn a_comment_goes_with_the_rule_it_is_about() {
    for (before, rule, after) in [
        (
            "[guard]\n",
            "\n# About it.\n[[allow]]\nuser = 1\n#to = \"::1\"\n",
            "\n# About the next.\n[[allow]]\nuser = 2\n",
        ),
        ("# The file.\n", "\n[[allow]]\nuser = 1\n", "# Words below.\n"),
        ("#[[allow]]\n#user = 5\n", "[[allow]]\nuser = 1\n", "#[[allow]]\n#user = 6\n"),
        ("", "[[allow]]\nuser = 1\n\n", "# The end.\n"),
        ("[[allow]]\nuser = 3\ndescription = \"\"\"\\\n# No comment.\"\"\"\n", "[[allow]]\nuser = 1\n", ""),
        ("[[allow]]\nuser = 3\n#to = \"::1\"\n", "# About it.\n[[allow]]\nuser = 1\n", "[guard]\n"),
    ] {
        let text = format!("{before}{rule}{after}");
        let number = if before.starts_with("[[allow]]") { 2 } else { 1 };
        assert_eq!(remove_rule(&text, Which::Number(number)).unwrap(), format!("{before}{after}"));
    }
}

#[test]
fn a_rule_is_found_by_its_name_and_not_guessed() {
    let text =
        "[[allow]]\nname = \"a\"\nuser = 1\n\n[[allow]]\nname = \"b\"\nuser = 2\n\n[[allow]]\nname = \"b\"\nuser = 3\n";
    assert!(!remove_rule(text, Which::Name("a")).unwrap().contains("user = 1"));
    let error = remove_rule(text, Which::Name("b")).unwrap_err().to_string();
    assert_eq!(error, "\"b\" may mean the rules 2, 3; say the number of the one that is meant");
    for which in [Which::Name("c"), Which::Number(0), Which::Number(4)] {
        assert!(matches!(remove_rule(text, which), Err(EditError::NoSuchRule { .. })), "{which:?}");
    }
}

#[test]
fn what_cannot_be_edited_is_refused() {
    let rule = NewRule::default();
    for list in ["allow = []\n", "allow = [{ user = 1 }]\n", "[allow]\nuser = 1\n", "allow.user = 1\n"] {
        assert!(matches!(add_rule(list, &rule), Err(EditError::OneList)), "{list}");
        assert!(matches!(remove_rule(list, Which::Number(1)), Err(EditError::OneList)), "{list}");
    }
    assert!(matches!(add_rule("[guard\n", &rule), Err(EditError::Syntax { .. })));
}

#[test]
fn many_destinations_have_a_line_each_and_a_note_is_wrapped() {
    let note = "word ".repeat(40);
    let rule = NewRule {
        comment: Some(Stamp { date: date(2026, 11, 25), by: "root (sudo: alice)".to_owned() }.comment(Some(&note))),
        to: (1..=12).map(|host| NewRule::network(&format!("192.0.2.{host}")).unwrap()).collect(),
        ports: BTreeSet::from([25, 587]),
        expires: Some("2027-01-31".parse().unwrap()),
        ..NewRule::default()
    };
    let lines = rule.lines();
    assert!(lines[0].starts_with("# Added 2026-11-25 by root (sudo: alice): word word"), "{lines:#?}");
    assert!(lines[1].starts_with("# word") && lines.iter().all(|line| line.chars().count() <= 120), "{lines:#?}");
    assert_eq!(&lines[4..7], ["to = [", "    \"192.0.2.1\",", "    \"192.0.2.2\","]);
    assert_eq!(&lines[17..], ["]", "ports = [25, 587]", "expires = 2027-01-31"]);
}

/// A folder with a policy, and a program that a rule may name.
struct Place(tempfile::TempDir);

impl Place {
    fn new(text: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        std::fs::write(place.config(), text).unwrap();
        place
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("portreeve.toml")
    }

    fn add(&self, rule: &NewRule) -> Result<Proposal, EditError> {
        Proposal::add(&self.config(), rule, &mut SystemHost::new(None))
    }

    fn remove(&self, which: &str) -> Result<Proposal, EditError> {
        Proposal::remove(&self.config(), which, &mut SystemHost::new(None))
    }
}

fn rule_of(user: u32) -> NewRule {
    NewRule { user: vec![Account::Id(user)], ..NewRule::default() }
}

#[test]
fn a_proposal_is_checked_shown_written_and_put_back() {
    let text = "[[allow]]\r\nname = \"7\"\r\nuser = 3\r\n";
    let place = Place::new(text);
    let proposal = place.add(&rule_of(7)).unwrap();
    assert_eq!(proposal.what, "add the rule \"7 2\"");
    let name = place.config().display().to_string();
    assert_eq!(
        proposal.diff(false),
        format!(
            "--- {name}\n+++ {name}, as proposed\n@@ -1,3 +1,7 @@\n [[allow]]\n name = \"7\"\n user = 3\n+\n+[[allow]]\n\
             +name = \"7 2\"\n+user = 7\n"
        )
    );
    assert!(proposal.diff(true).contains("\x1b[32m+user = 7\x1b[0m"));
    // That it names no executable is news only of the new rule.
    assert_eq!(proposal.warnings.len(), 1);
    proposal.write().unwrap();
    assert_eq!(std::fs::read_to_string(place.config()).unwrap(), proposal.after);
    proposal.put_back().unwrap();
    assert_eq!(std::fs::read_to_string(place.config()).unwrap(), text);
}

#[test]
fn nothing_of_the_file_reaches_the_terminal_raw() {
    let place = Place::new("[[allow]]\nuser = 3\n# \u{9b}31m\n");
    let shown = place.add(&rule_of(7)).unwrap().diff(false);
    assert!(!shown.contains('\u{9b}') && shown.contains("# \u{fffd}31m"), "{shown}");
}

#[test]
fn what_would_not_check_is_no_proposal() {
    let place = Place::new("[[allow]]\nname = \"a\"\nuser = 3\n");
    for wrong in [
        NewRule { exe: vec!["/nonexistent/x".into()], ..rule_of(7) },
        NewRule { name: Some("a".to_owned()), ..rule_of(7) },
        NewRule { user: vec![Account::Name("no-such-user".to_owned())], ..NewRule::default() },
        NewRule::default(),
        NewRule { exe: vec!["/bin/true".into()], ..NewRule::default() },
    ] {
        assert!(matches!(place.add(&wrong), Err(EditError::Errors { already: false, .. })), "{wrong:?}");
    }
    let place = Place::new("[[allow]]\nusr = 3\n\n[[allow]]\nuser = 4\n");
    assert!(matches!(place.add(&rule_of(7)), Err(EditError::Errors { already: true, .. })));
    // Taking the rule out that is wrong mends the policy.
    assert_eq!(place.remove("1").unwrap().after, "[[allow]]\nuser = 4\n");
}

#[test]
fn a_rule_is_taken_out_by_the_name_or_number_it_is_listed_with() {
    let text = "include = [\"more.toml\"]\n\n[[allow]]\nuser = 3\n\n[[allow]]\nname = \"1\"\nuser = 4\n\n[[allow]]\nname = \
                \"x\"\nuser = 5\n";
    let place = Place::new(text);
    std::fs::write(place.0.path().join("more.toml"), "# Words.\n[[allow]]\nname = \"inner\"\nuser = 6\n").unwrap();
    assert!(!place.remove("3 (rule 1)").unwrap().after.contains("user = 3"));
    assert!(!place.remove("x").unwrap().after.contains("user = 5"));
    assert!(!place.remove("3").unwrap().after.contains("user = 5"));
    // The number of the first, the name of the second.
    let error = place.remove("1").unwrap_err().to_string();
    assert_eq!(error, "1 may mean the rules 1, 2; say the number of the one that is meant");
    for which in ["inner", "4"] {
        let error = place.remove(which).unwrap_err().to_string();
        assert!(error.contains("edit ") && error.contains("more.toml, line 2, by hand"), "{error}");
    }
    for which in ["5", "0", "y", ""] {
        assert!(matches!(place.remove(which), Err(EditError::NoSuchRule { .. })), "{which}");
    }
}
