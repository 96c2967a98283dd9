//! `[[respond]]`.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::diagnostic::Located;
use super::super::respond::Respond;
use super::reader::Reader;
use crate::alert::response::Action;
use crate::detect::{Kind, Severity};

pub(super) const KEYS: &[&str] = &["action", "min_severity", "tests", "exe", "user", "unit"];

type Value<'i> = Spanned<DeValue<'i>>;

/// Reads all of them.
pub(super) fn all(reader: &mut Reader<'_>, value: &Value<'_>) -> Vec<Respond> {
    let Some(list) = value.get_ref().as_array() else {
        let mend = "write [[respond]] with two brackets on each side, once for each response";
        reader.error(value.span(), "\"respond\" must be a list of tables".to_owned(), mend);
        return Vec::new();
    };
    list.iter().filter_map(|value| Some(respond(reader, value.span(), value.get_ref().as_table()?))).collect()
}

/// Reads the one whose table is at `span`.
fn respond(reader: &mut Reader<'_>, span: Range<usize>, table: &DeTable<'_>) -> Respond {
    let mut respond = Respond::new(reader.place(span.clone()));
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        match name {
            "action" => {
                let choices = Action::ALL.map(|action| (action.name(), action));
                respond.action = reader.choice(name, value, &choices).unwrap_or_default();
            }
            "min_severity" => {
                let choices = Severity::ALL.map(|severity| (severity.name(), severity));
                respond.min_severity = reader.choice(name, value, &choices).unwrap_or(respond.min_severity);
            }
            "tests" => respond.tests = tests(reader, name, value),
            "exe" => respond.exe = executables(reader, name, value),
            "user" => respond.user = users(reader, name, value),
            "unit" => respond.unit = reader.strings(name, value).into_iter().map(|unit| unit.value).collect(),
            other => reader.unknown_key(key.span(), other, "respond", KEYS),
        }
    }
    if reader.whole() && !table.keys().any(|key| key.get_ref().as_ref() == "action") {
        let mend = "write action = \"stop\", \"kill\", \"freeze\" or \"none\"";
        reader.error(span, "this [[respond]] does not say what to do".to_owned(), mend);
    }
    respond
}

fn tests(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Vec<Kind> {
    let choices = Kind::ALL.map(|kind| (kind.name(), kind));
    let mut list = Vec::new();
    for element in reader.elements(key, value) {
        let place = reader.place(element.span());
        list.extend(reader.choice(key, element, &choices).map(|value| Located { value, place }));
    }
    reader.once(key, list).into_iter().map(|kind| kind.value).collect()
}

fn executables(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Vec<String> {
    let mut list = Vec::new();
    for element in reader.elements(key, value) {
        let Some(text) = reader.string(key, element) else { continue };
        if !text.value.starts_with(['/', '*', '?']) {
            let what = format!("\"{}\" matches no absolute path", text.value);
            reader.error(element.span(), what, "write the whole path, from / on, or * in front");
        }
        list.push(text.value);
    }
    list
}

fn users(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Vec<String> {
    let mut list = Vec::new();
    for element in reader.elements(key, value) {
        if let Some(number) = reader.number(element.get_ref(), u64::from(u32::MAX - 1)) {
            list.push(number.to_string());
        } else if let Some(name) = reader.string(key, element) {
            list.push(name.value);
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse_text;
    use super::*;

    fn whats(text: &str) -> Vec<String> {
        let found = parse_text(text).diagnostics;
        found.iter().map(|found| format!("{}:{} {}", found.line, found.column, found.what)).collect()
    }

    #[test]
    fn a_response_is_read_with_all_its_keys() {
        let parsed = parse_text(
            "[[respond]]\naction = \"none\"\nexe = \"/usr/bin/trusted\"\n[[respond]]\naction = \"freeze\"\n\
             min_severity = \"warning\"\ntests = [\"fan-out\", \"hammer\"]\nexe = [\"/tmp/*\", \"*/x\"]\n\
             user = [\"www-data\", 33]\nunit = \"apache2*\"\n",
        );
        assert_eq!(parsed.diagnostics, []);
        let [none, freeze] = parsed.respond.as_slice() else { panic!("{:?}", parsed.respond) };
        assert_eq!((none.action, none.min_severity, none.tests.len()), (Action::None, Severity::Critical, 0));
        assert_eq!((freeze.action, freeze.min_severity), (Action::Freeze, Severity::Warning));
        assert_eq!(freeze.tests, [Kind::FanOut, Kind::Hammer]);
        assert_eq!(freeze.user, ["www-data", "33"]);
        assert_eq!((freeze.exe.len(), freeze.unit.as_slice()), (2, ["apache2*".to_owned()].as_slice()));
    }

    #[test]
    fn what_is_wrong_with_a_response_is_said_where_it_stands() {
        assert_eq!(
            whats(
                "[[respond]]\nmin_severity = \"fatal\"\ntests = [\"fanout\", \"hammer\", \"hammer\"]\nexe = \"tmp/x\"\nuser = []\nunits = \"x\"\n"
            ),
            [
                "1:1 this [[respond]] does not say what to do",
                "2:16 \"fatal\" is no value of \"min_severity\"",
                "3:10 \"fanout\" is no value of \"tests\"",
                "3:30 \"tests\" names this twice",
                "4:7 \"tmp/x\" matches no absolute path",
                "5:8 the list \"user\" is empty",
                "6:1 unknown key \"units\" in [[respond]]",
            ]
        );
        assert_eq!(whats("[respond]\naction = \"stop\"\n"), ["1:1 \"respond\" must be a list of tables"]);
    }
}
