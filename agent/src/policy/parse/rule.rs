//! One `[[allow]]`.

use std::ops::Range;
use std::path::PathBuf;

use jiff::Timestamp;
use jiff::civil;
use jiff::tz::TimeZone;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::diagnostic::Located;
use super::super::model::{Account, CgroupPath, MtaChoice, Rule, UnitChoice, Via};
use super::super::mta::MTAS;
use super::super::{network, unit};
use super::reader::Reader;

pub(super) const KEYS: &[&str] = &[
    "name",
    "description",
    "mta",
    "exe",
    "user",
    "group",
    "unit",
    "cgroup",
    "to",
    "ports",
    "sha256",
    "expires",
    "audit",
    "exe_alone",
    "root",
    "raw_senders",
    "via",
];

/// The longest name of a rule, in characters: it is shown beside every attempt.
const LONGEST_NAME: usize = 64;

type Value<'i> = Spanned<DeValue<'i>>;

/// Reads the rule whose table is at `span`.
pub(super) fn rule(reader: &mut Reader<'_>, span: Range<usize>, table: &DeTable<'_>) -> Rule {
    let mut rule = Rule { place: reader.place(span.clone()), ..Rule::default() };
    let mut exe_alone = None;
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        match name {
            "name" => rule.name = rule_name(reader, name, value),
            "description" => {
                // For people only; what matters is that it is a text.
                let _text: Option<Located<String>> = reader.string(name, value);
            }
            "mta" => rule.mta = mta_choice(reader, name, value),
            "exe" => rule.exe = executables(reader, name, value),
            "user" => rule.user = accounts(reader, name, value),
            "group" => rule.group = accounts(reader, name, value),
            "unit" => rule.unit = units(reader, name, value),
            "cgroup" => rule.cgroup = cgroups(reader, name, value),
            "to" => rule.to = networks(reader, name, value),
            "ports" => rule.ports = reader.ports(name, value),
            "sha256" => rule.sha256 = checksum(reader, name, value),
            "expires" => rule.expires = expiry(reader, value),
            "audit" => rule.audit = reader.boolean(name, value).unwrap_or_default(),
            "exe_alone" => exe_alone = reader.boolean(name, value).filter(|alone| *alone).map(|_| key.span()),
            "root" => rule.root = root(reader, name, value),
            "via" => {
                let choices = [("relay", Via::Relay), ("direct", Via::Direct)];
                let place = reader.place(value.span());
                rule.via = reader.choice(name, value, &choices).map(|via| Located { value: via, place });
            }
            "raw_senders" => rule.raw_senders = reader.boolean(name, value).unwrap_or_default(),
            other => reader.unknown_key(key.span(), other, "allow", KEYS),
        }
    }
    together(reader, span, table, exe_alone);
    if rule.raw_senders {
        raw_senders(reader, table);
    }
    let auto = rule.unit.iter().any(|unit| unit.value == UnitChoice::Auto);
    if let (Some(value), true) = (table.get("unit"), auto && table.get("mta").is_none()) {
        let what = "\"auto\" stands for the units of a mail server, and this rule has no \"mta\"".to_owned();
        reader.error(value.span(), what, "name the unit");
    }
    rule
}

/// What the keys of a rule mean together. Asks which keys are there, not which could be read: a second finding about
/// a key that is wrong already would not help.
fn together(reader: &mut Reader<'_>, span: Range<usize>, table: &DeTable<'_>, exe_alone: Option<Range<usize>>) {
    let key_span = |name: &str| table.keys().find(|key| key.get_ref().as_ref() == name).map(Spanned::span);
    let has = |name: &str| key_span(name).is_some();
    let who = ["user", "group", "unit", "cgroup"].into_iter().any(has);
    if let (Some(span), true) = (key_span("exe"), has("mta")) {
        let mend = "take one of them out: \"mta\" stands for the executable and the user of a known mail server";
        reader.error(span, "a rule has either \"mta\" or \"exe\"".to_owned(), mend);
    }
    if let (Some(span), true) = (key_span("sha256"), reader.whole()) {
        let one = table.get("exe").is_some_and(|exe| exe.get_ref().as_array().is_none_or(|list| list.len() == 1));
        if !one {
            let mend = "name the one executable in \"exe\", and give each further one a rule of its own";
            reader.error(span, "\"sha256\" needs a rule with exactly one executable".to_owned(), mend);
        }
    }
    match (exe_alone, key_span("exe")) {
        (None, Some(exe)) if !who && reader.whole() => {
            let what = "an executable alone is no identity: with LD_PRELOAD or PR_SET_MM_MAP any user's program runs \
                        with the mail server's face";
            let mend = "say who runs it with \"user\", \"group\", \"unit\" or \"cgroup\"; if any user may send through \
                        it, say exe_alone = true";
            reader.error(exe, what.to_owned(), mend);
        }
        (Some(alone), Some(_)) if !who => {
            let what = "this rule trusts an executable whoever runs it, and any user can run code of their own in it";
            reader.warning(alone, what.to_owned(), "add \"user\", \"group\", \"unit\" or \"cgroup\" when you can");
        }
        (Some(alone), _) => {
            let what = "\"exe_alone\" has no effect: the rule says who, or names no executable".to_owned();
            reader.warning(alone, what, "take it out");
        }
        (None, _) => {}
    }
    if !has("mta") && !has("exe") && reader.whole() {
        if who {
            let what = "this rule names no executable: every program of that user, group, unit or cgroup may send";
            reader.warning(span, what.to_owned(), "add \"exe\" when you can");
        } else {
            let what = "this rule does not say who may send".to_owned();
            reader.error(span, what, "add mta = \"auto\", or \"exe\" and \"user\"; see portreeve.toml for examples");
        }
    }
    if let (Some(span), false) = (key_span("root"), has("mta") || has("exe") || has("user") || has("group")) {
        let what = "\"root\" has no effect: the rule names nothing that is looked up below it".to_owned();
        reader.warning(span, what, "take it out");
    }
}

/// What makes no sense in a rule that lets a program have raw senders, and nobody connect.
fn raw_senders(reader: &mut Reader<'_>, table: &DeTable<'_>) {
    for (key, _) in table {
        let name = key.get_ref().as_ref();
        if ["mta", "to", "ports", "audit"].contains(&name) {
            let what = format!("\"{name}\" does not go with \"raw_senders\"");
            let mend = "a rule with raw_senders = true says which program may have packet sockets that pass by the guard, \
                        whatever they send, and allows no connection; write a rule of its own for connections";
            reader.error(key.span(), what, mend);
        }
    }
}

pub(super) fn rule_name(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Located<String>> {
    let name = reader.string(key, value)?;
    let length = name.value.chars().count();
    if length > LONGEST_NAME {
        let what = format!("the name has {length} characters");
        reader.error(value.span(), what, "use 64 at the most; the rest fits into \"description\"");
    }
    Some(name)
}

fn mta_choice(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Located<MtaChoice>> {
    let auto = [("auto", MtaChoice::Auto)].into_iter();
    let one = MTAS.iter().map(|mta| (mta.key, MtaChoice::One(mta)));
    let choices: Vec<(&str, MtaChoice)> = auto.chain(one).collect();
    let place = reader.place(value.span());
    reader.choice(key, value, &choices).map(|value| Located { value, place })
}

fn executables(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Vec<Located<PathBuf>> {
    let mut list = Vec::new();
    for element in reader.elements(key, value) {
        let Some(text) = reader.string(key, element) else { continue };
        if text.value.starts_with('/') {
            list.push(text.with(PathBuf::from(&text.value)));
        } else {
            let what = format!("\"{}\" is no absolute path", text.value);
            reader.error(element.span(), what, "write the whole path, from / on");
        }
    }
    reader.once(key, list)
}

fn accounts(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Vec<Located<Account>> {
    // The highest number stands for "none" in the kernel's calls (setresuid(2)).
    let most = u64::from(u32::MAX - 1);
    let mut list = Vec::new();
    for element in reader.elements(key, value) {
        let place = reader.place(element.span());
        // "" is a name that is empty, not a number without digits.
        let empty = element.get_ref().as_str() == Some("");
        let number = reader.number(element.get_ref(), most).filter(|_| !empty);
        let number = number.and_then(|number| u32::try_from(number).ok());
        if let Some(id) = number {
            list.push(Located { value: Account::Id(id), place });
        } else if let DeValue::Integer(number) = element.get_ref() {
            let what = format!("{number} is no {key} number");
            reader.error(element.span(), what, "write a number from 0 to 4294967294, or a name in quotes");
        } else if let Some(name) = reader.string(key, element) {
            list.push(name.with(Account::Name(name.value.clone())));
        }
    }
    reader.once(key, list)
}

fn units(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Vec<Located<UnitChoice>> {
    let mut list = Vec::new();
    for element in reader.elements(key, value) {
        let Some(text) = reader.string(key, element) else { continue };
        if text.value == "auto" {
            list.push(text.with(UnitChoice::Auto));
            continue;
        }
        match unit::check(&text.value) {
            Ok(()) => list.push(text.with(UnitChoice::Name(text.value.clone()))),
            Err(mend) => reader.error(element.span(), format!("\"{}\" is no unit with processes", text.value), mend),
        }
    }
    reader.once(key, list)
}

fn cgroups(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Vec<Located<CgroupPath>> {
    let mut list = Vec::new();
    for element in reader.elements(key, value) {
        let Some(text) = reader.string(key, element) else { continue };
        match CgroupPath::parse(&text.value) {
            Ok(path) if path.names().is_empty() => {
                let what = "the cgroup \"/\" holds every process that is guarded, and says nothing".to_owned();
                reader.error(element.span(), what, "name one below it, or take \"cgroup\" out");
            }
            Ok(path) => list.push(text.with(path)),
            Err(why) => {
                let mend = "write its path below the guarded sub-tree, as in \"/system.slice/postfix.service\"";
                reader.error(element.span(), format!("the cgroup \"{}\" {why}", text.value), mend);
            }
        }
    }
    reader.once(key, list)
}

pub(super) fn networks(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Vec<Located<ipnet::IpNet>> {
    let mut list = Vec::new();
    for element in reader.elements(key, value) {
        let Some(text) = reader.string(key, element) else { continue };
        match network::parse(&text.value) {
            Ok(network) => list.push(text.with(network)),
            Err(bad) => reader.error(element.span(), bad.what, &bad.mend),
        }
    }
    reader.once(key, list)
}

fn checksum(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Located<[u8; 32]>> {
    let text = reader.string(key, value)?;
    let Some(sum) = digits(&text.value) else {
        let mend = "write the 64 hexadecimal digits that sha256sum prints";
        reader.error(value.span(), format!("\"{}\" is no SHA-256", text.value), mend);
        return None;
    };
    Some(text.with(sum))
}

/// A SHA-256 from its digits.
pub(in super::super) fn digits(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    let mut sum = [0; 32];
    let read = digits.len() == 64
        && sum.iter_mut().zip(digits.chunks(2)).all(|(byte, pair)| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()));
            pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).map(|value| *byte = value).is_some()
        });
    read.then_some(sum)
}

fn root(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Located<PathBuf>> {
    let text = reader.string(key, value)?;
    if !text.value.starts_with('/') {
        reader.error(value.span(), format!("\"{}\" is no absolute path", text.value), "write the whole path");
        return None;
    }
    Some(text.with(PathBuf::from(&text.value)))
}

/// A date means its last moment in UTC; a date with a time and no offset is in UTC as well.
fn expiry(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Located<Timestamp>> {
    let mend = "write a date without quotes, as in 2027-01-31, or a time, as in 2027-01-31T18:00:00Z";
    let DeValue::Datetime(datetime) = value.get_ref() else {
        reader.error(value.span(), "\"expires\" must be a date or a date and time".to_owned(), mend);
        return None;
    };
    let time = timestamp(datetime);
    if time.is_none() {
        reader.error(value.span(), format!("{datetime} is no date and time that can be waited for"), mend);
    } else if datetime.time.is_some() && datetime.offset.is_none() {
        let what = "this time has no offset, and is taken as UTC".to_owned();
        reader.warning(value.span(), what, "put Z or an offset such as +01:00 behind it");
    }
    time.map(|time| Located { value: time, place: reader.place(value.span()) })
}

fn timestamp(datetime: &toml::value::Datetime) -> Option<Timestamp> {
    let day = datetime.date?;
    let (year, month, day) =
        (i16::try_from(day.year).ok()?, i8::try_from(day.month).ok()?, i8::try_from(day.day).ok()?);
    let date = civil::Date::new(year, month, day).ok()?;
    let Some(time) = datetime.time else {
        return TimeZone::UTC.to_timestamp(date.tomorrow().ok()?.at(0, 0, 0, 0)).ok();
    };
    let small = |number: u8| i8::try_from(number).ok();
    // A leap second is the last one before it (RFC 3339 §5.7).
    let second = small(time.second.unwrap_or(0).min(59))?;
    let nanosecond = i32::try_from(time.nanosecond.unwrap_or(0)).ok()?;
    let time = civil::Time::new(small(time.hour)?, small(time.minute)?, second, nanosecond).ok()?;
    let minutes = match datetime.offset {
        Some(toml::value::Offset::Custom { minutes }) => i32::from(minutes),
        Some(toml::value::Offset::Z) | None => 0,
    };
    let zone = TimeZone::fixed(jiff::tz::Offset::from_seconds(minutes * 60).ok()?);
    zone.to_timestamp(date.to_datetime(time)).ok()
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse_text;
    use super::*;

    fn whats(text: &str) -> Vec<String> {
        parse_text(text).diagnostics.into_iter().map(|found| format!("{:?} {}", found.severity, found.what)).collect()
    }

    #[test]
    fn an_executable_alone_is_an_error_that_says_why() {
        let found = whats("[[allow]]\nexe = \"/bin/x\"\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("Error an executable alone is no identity: with LD_PRELOAD"), "{found:?}");
        let found = whats("[[allow]]\nexe = \"/bin/x\"\nexe_alone = true\n");
        assert!(found.len() == 1 && found[0].starts_with("Warning"), "{found:?}");
        for who in ["user = \"a\"", "group = 5", "unit = \"a.service\"", "cgroup = \"/a\""] {
            assert_eq!(whats(&format!("[[allow]]\nexe = \"/bin/x\"\n{who}\n")), [""; 0]);
        }
    }

    #[test]
    fn a_key_of_the_wrong_type_is_one_finding_not_two() {
        assert_eq!(
            whats("[[allow]]\nexe = \"/bin/x\"\nuser = 1.5\n"),
            ["Error \"user\" must be a text in quotes, not a number with a point"]
        );
    }

    #[test]
    fn a_rule_that_says_nothing_is_an_error_and_one_without_executable_a_warning() {
        assert_eq!(whats("[[allow]]\nto = \"192.0.2.1\"\n"), ["Error this rule does not say who may send"]);
        let found = parse_text("[[allow]]\nuser = \"a\"\n").diagnostics;
        assert_eq!(
            (found.len(), found[0].is_error(), found[0].line, found[0].text.as_str()),
            (1, false, 1, "[[allow]]")
        );
    }

    #[test]
    fn a_bare_date_lasts_to_the_end_of_its_day() {
        let expires = |text: &str| {
            let parsed = parse_text(&format!("[[allow]]\nmta = \"auto\"\nexpires = {text}\n"));
            parsed.rules[0].expires.map(|time| time.value.to_string())
        };
        assert_eq!(expires("2027-01-31").as_deref(), Some("2027-02-01T00:00:00Z"));
        assert_eq!(expires("2027-01-31T18:00:00+01:00").as_deref(), Some("2027-01-31T17:00:00Z"));
        assert_eq!(expires("2027-01-31 18:00:00").as_deref(), Some("2027-01-31T18:00:00Z"));
        assert_eq!(expires("18:00:00"), None);
        assert_eq!(expires("\"2027-01-31\""), None);
    }

    #[test]
    fn a_checksum_goes_with_exactly_one_executable() {
        let sum = "00".repeat(32);
        let found = whats(&format!("[[allow]]\nexe = [\"/a\", \"/b\"]\nuser = \"a\"\nsha256 = \"{sum}\"\n"));
        assert_eq!(found, ["Error \"sha256\" needs a rule with exactly one executable"]);
        assert_eq!(whats(&format!("[[allow]]\nexe = [\"/a\"]\nuser = \"a\"\nsha256 = \"{sum}\"\n")), [""; 0]);
        assert!(whats("[[allow]]\nexe = \"/a\"\nuser = \"a\"\nsha256 = \"+0\"\n")[0].contains("no SHA-256"));
    }

    #[test]
    fn lists_are_checked_element_by_element() {
        let found = whats(
            "[[allow]]\nexe = [\"bin/x\", \"/bin/y\", \"/bin/y\"]\nuser = []\nto = [\"10.0.0.1/8\", \"x\"]\nunit = \"postfix\"\ncgroup = [\"/\", \"a\"]\n",
        );
        assert_eq!(found.len(), 8, "{found:#?}");
    }

    #[test]
    fn users_are_names_or_numbers() {
        let rule = &parse_text("[[allow]]\nuser = [\"nagios\", 1000, \"1001\"]\n").rules[0];
        let users: Vec<&Account> = rule.user.iter().map(|user| &user.value).collect();
        assert_eq!(users, [&Account::Name("nagios".to_owned()), &Account::Id(1000), &Account::Id(1001)]);
        for number in ["4294967295", "-1"] {
            let found = whats(&format!("[[allow]]\nexe = \"/x\"\nuser = {number}\n"));
            assert!(found.len() == 1 && found[0].contains("no user number"), "{found:?}");
        }
    }
}
