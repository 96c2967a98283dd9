//! The text of one file, to the part of a policy it holds.

mod alert;
mod detect;
mod gateway;
mod reader;
mod relay;
mod respond;
mod rule;
mod suggest;
mod units;

use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Located, Place, Severity, Sources};
use super::gateway::Gateway;
use super::model::{CgroupPath, Guard, Mode, Refusal, Rule};
use super::respond::Respond;
use crate::detect::Settings;
use reader::Reader;

pub(super) use rule::digits;

const TOP_KEYS: &[&str] = &["include", "guard", "allow", "gateway", "detect", "respond", "alert", "relay"];
const GUARD_KEYS: &[&str] =
    &["mode", "ports", "refuse_with", "local_submission", "refuse_tainted", "cgroup", "forwarded", "inside"];

/// Every key a policy may have, with the table it belongs in (empty at the top).
pub fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    let of = |table: &'static str, keys: &'static [&'static str]| keys.iter().map(move |key| (table, *key));
    of("", TOP_KEYS)
        .chain(of("guard", GUARD_KEYS))
        .chain(of("allow", rule::KEYS))
        .chain(of("gateway", gateway::KEYS))
        .chain(of("gateway.allow", gateway::ALLOW_KEYS))
        .chain(of("gateway.host", gateway::HOST_KEYS))
        .chain(of("detect", detect::KEYS))
        .chain(of("detect.weights", &detect::WEIGHT_KEYS))
        .chain(of("detect.site", detect::SITE_KEYS))
        .chain(of("respond", respond::KEYS))
        .chain(of("alert", alert::KEYS))
        .chain(of("alert.reporter", alert::REPORTER_KEYS))
        .chain(of("alert.sink", alert::SINK_KEYS))
        .chain(of("relay", relay::KEYS))
        .chain(of("relay.upstream", relay::UPSTREAM_KEYS))
        .chain(of("relay.limit", relay::LIMIT_KEYS))
        .chain(of("relay.timeouts", relay::TIMEOUT_KEYS))
}

/// What one file says.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) include: Vec<Located<String>>,
    pub(super) guard: Option<Guard>,
    pub(super) rules: Vec<Rule>,
    pub(super) gateway: Option<Gateway>,
    pub(super) detect: Option<Settings>,
    pub(super) respond: Vec<Respond>,
    pub(super) alert: Option<crate::alert::Settings>,
    pub(super) relay: Option<crate::relay::Settings>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// Which file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The policy's own file.
    Main,
    /// One that it includes.
    Included,
}

/// Reads file number `file` of the sources.
pub(super) fn parse(sources: &Sources, file: usize, role: Role) -> Parsed {
    let text = sources.texts().nth(file).unwrap_or_default();
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut syntax: Vec<Diagnostic> = Vec::new();
    for error in &errors {
        let place = Place::new(file, error.span().unwrap_or(0..0));
        let what = format!("this is no TOML: {}", error.message().trim());
        let mend = match error.message().contains("duplicate key") {
            true => "say it once; several values go into one list, several rules each begin with [[allow]]".to_owned(),
            false => "see https://toml.io for the syntax; text goes in quotes, lists in brackets".to_owned(),
        };
        syntax.push(sources.diagnostic(Severity::Error, place, what, mend));
    }
    let mut reader = Reader::new(sources, file, errors.is_empty());
    let mut parsed = Parsed::default();
    top(&mut reader, table.get_ref(), role, &mut parsed);
    // What follows from a syntax error on the same line is no news.
    let broken: BTreeSet<usize> = syntax.iter().map(|error| error.line).collect();
    parsed.diagnostics = reader.finish();
    parsed.diagnostics.retain(|found| !broken.contains(&found.line));
    parsed.diagnostics.extend(syntax);
    parsed.diagnostics.sort_by_key(Diagnostic::position);
    parsed
}

fn top(reader: &mut Reader<'_>, table: &DeTable<'_>, role: Role, parsed: &mut Parsed) {
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        if role == Role::Included && name != "allow" && TOP_KEYS.contains(&name) {
            reader.error(
                key.span(),
                format!("an included file may hold [[allow]] rules only, not \"{name}\""),
                "move it to the main file",
            );
            continue;
        }
        match name {
            "include" => parsed.include = reader.strings(name, value),
            "guard" => {
                if let Some(table) = reader.table(name, value) {
                    parsed.guard = Some(guard(reader, table));
                }
            }
            "allow" => parsed.rules = rules(reader, value),
            "gateway" => {
                if let Some(table) = reader.table(name, value) {
                    parsed.gateway = Some(gateway::gateway(reader, value.span(), table));
                }
            }
            "detect" => {
                if let Some(table) = reader.table(name, value) {
                    parsed.detect = Some(detect::detect(reader, table));
                }
            }
            "respond" => parsed.respond = respond::all(reader, value),
            "alert" => {
                if let Some(table) = reader.table(name, value) {
                    parsed.alert = Some(alert::alert(reader, table));
                }
            }
            "relay" => {
                if let Some(table) = reader.table(name, value) {
                    parsed.relay = Some(relay::relay(reader, value.span(), table));
                }
            }
            other => reader.unknown_key(key.span(), other, "", TOP_KEYS),
        }
    }
}

fn rules(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Vec<Rule> {
    let Some(list) = value.get_ref().as_array() else {
        let mend = "write [[allow]] with two brackets on each side, once for each rule";
        reader.error(value.span(), "\"allow\" must be a list of tables".to_owned(), mend);
        return Vec::new();
    };
    list.iter().filter_map(|value| Some(rule::rule(reader, value.span(), reader_table(value)?))).collect()
}

/// Elements of `allow` that are no tables: toml itself refuses to mix, so only `allow = [1]` comes here.
fn reader_table<'a, 'i>(value: &'a Spanned<DeValue<'i>>) -> Option<&'a DeTable<'i>> {
    value.get_ref().as_table()
}

fn guard(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Guard {
    let mut guard = Guard::default();
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        match name {
            "mode" => {
                let choices = [("enforce", Mode::Enforce), ("observe", Mode::Observe)];
                guard.mode = reader.choice(name, value, &choices).unwrap_or(guard.mode);
            }
            "ports" => guard.ports = reader.ports(name, value),
            "refuse_with" => {
                let choices = [
                    ("EPERM", Refusal::Eperm),
                    ("EACCES", Refusal::Eacces),
                    ("ECONNREFUSED", Refusal::Econnrefused),
                    ("ENETUNREACH", Refusal::Enetunreach),
                ];
                guard.refuse_with = reader.choice(name, value, &choices).unwrap_or(guard.refuse_with);
            }
            "local_submission" => {
                let choices = [("allow", true), ("deny", false)];
                guard.local_submission = reader.choice(name, value, &choices).unwrap_or(guard.local_submission);
            }
            "forwarded" => {
                let choices = [("refuse", false), ("pass", true)];
                guard.forwarded = reader.choice(name, value, &choices).unwrap_or(guard.forwarded);
            }
            "inside" => guard.inside = reader.strings(name, value).into_iter().map(|name| name.value).collect(),
            "refuse_tainted" => guard.refuse_tainted = reader.boolean(name, value).unwrap_or_default(),
            "cgroup" => {
                if let Some(path) = reader.string(name, value) {
                    match CgroupPath::parse(&path.value) {
                        Ok(path) => guard.cgroup = path.to_string(),
                        Err(why) => reader.error(
                            value.span(),
                            format!("the cgroup \"{}\" {why}", path.value),
                            "write its path below the mount point of cgroup2, as in \"/\" or \"/machine.slice\"",
                        ),
                    }
                }
            }
            other => reader.unknown_key(key.span(), other, "guard", GUARD_KEYS),
        }
    }
    guard
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    pub(super) fn parse_text(text: &str) -> Parsed {
        let mut sources = Sources::default();
        let file = sources.add(PathBuf::from("portreeve.toml"), text.to_owned());
        parse(&sources, file, Role::Main)
    }

    /// `line:column what` of every finding.
    fn findings(text: &str) -> Vec<String> {
        let found = parse_text(text).diagnostics;
        found.iter().map(|found| format!("{}:{} {}", found.line, found.column, found.what)).collect()
    }

    #[test]
    fn everything_wrong_is_found_in_one_run() {
        let found = findings(
            "includes = [\"a\"]\n[guard]\nmode = \"enforced\"\nports = [25, 0, \"9-1\"]\nrefuse_with = 1\ncgruop = \"/\"\n",
        );
        assert_eq!(
            found,
            [
                "1:1 unknown key \"includes\"",
                "3:8 \"enforced\" is no value of \"mode\"",
                "4:14 0 is no port",
                "4:17 \"9-1\" is no range of ports",
                "5:15 \"refuse_with\" must be a text in quotes, not an integer",
                "6:1 unknown key \"cgruop\" in [guard]",
            ]
        );
    }

    #[test]
    fn a_misspelt_key_is_answered_with_the_one_that_was_meant() {
        let found = parse_text("[guard]\ncgruop = \"/\"\nexpires = 1\n").diagnostics;
        assert!(found[0].mend.contains("did you mean \"cgroup\"?"), "{}", found[0]);
        assert!(found[1].mend.contains("\"expires\" belongs in [[allow]]"), "{}", found[1]);
    }

    #[test]
    fn several_syntax_errors_and_the_rest_of_the_file_are_shown_together() {
        let found = findings("[guard]\nmode = enforce\nports = [25\n[[allow]]\nmta = \"postfics\"\n");
        assert!(found.iter().any(|found| found.starts_with("2:")), "{found:?}");
        let found = findings("[guard]\nmode = enforce\nports = [0]\n[[allow]]\nmta = \"postfics\"\n");
        assert!(found.iter().any(|found| found.contains("no TOML")), "{found:?}");
        assert!(found.iter().any(|found| found == "3:10 0 is no port"), "{found:?}");
        assert!(found.iter().any(|found| found.contains("\"postfics\" is no value of \"mta\"")), "{found:?}");
    }

    #[test]
    fn ranges_and_texts_are_ports_too() {
        let guard = parse_text("[guard]\nports = [25, \"587\", \"2525-2527\"]\n").guard.unwrap();
        assert_eq!(guard.ports.into_iter().collect::<Vec<_>>(), [25, 587, 2525, 2526, 2527]);
    }

    #[test]
    fn a_single_table_for_a_rule_is_explained() {
        let found = parse_text("[allow]\nmta = \"auto\"\n").diagnostics;
        assert!(found[0].mend.contains("[[allow]] with two brackets"), "{}", found[0]);
    }

    #[test]
    fn an_included_file_may_not_say_what_holds_for_all_rules() {
        let mut sources = Sources::default();
        let file = sources.add(PathBuf::from("x.toml"), "[guard]\nmode = \"observe\"\n".to_owned());
        let parsed = parse(&sources, file, Role::Included);
        assert!(parsed.guard.is_none());
        assert!(parsed.diagnostics[0].what.contains("[[allow]] rules only"));
    }

    #[test]
    fn every_key_of_the_list_is_known_to_the_parser() {
        for (table, key) in keys() {
            let header = match table {
                "guard" => "[guard]\n",
                "allow" => "[[allow]]\n",
                "gateway" => "[gateway]\n",
                "gateway.allow" => "[[gateway.allow]]\n",
                "gateway.host" => "[[gateway.host]]\n",
                "detect" => "[detect]\n",
                "detect.weights" => "[detect.weights]\n",
                "detect.site" => "[[detect.site]]\n",
                "respond" => "[[respond]]\n",
                "alert" => "[alert]\n",
                "alert.reporter" => "[alert.reporter]\n",
                "alert.sink" => "[[alert.sink]]\n",
                "relay" => "[relay]\n",
                "relay.upstream" => "[[relay.upstream]]\n",
                "relay.limit" => "[[relay.limit]]\n",
                "relay.timeouts" => "[relay.timeouts]\n",
                _ => "",
            };
            let found = findings(&format!("{header}{key} = 1.5\n"));
            assert!(!found.iter().any(|found| found.contains("unknown key")), "{key}: {found:?}");
        }
    }
}
