//! Values of the types a policy has, with a finding for each that is of another.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::diagnostic::{Diagnostic, Located, Place, Severity, Sources};
use super::suggest::nearest;

type Value<'i> = Spanned<DeValue<'i>>;

/// Reads values and collects findings.
pub(super) struct Reader<'a> {
    sources: &'a Sources,
    file: usize,
    whole: bool,
    found: Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    /// `whole`: the file had no syntax error, so what is not there was not written.
    pub(super) fn new(sources: &'a Sources, file: usize, whole: bool) -> Self {
        Self { sources, file, whole, found: Vec::new() }
    }

    /// The findings.
    pub(super) fn finish(self) -> Vec<Diagnostic> {
        self.found
    }

    /// Whether something that is not there was really not written.
    pub(super) fn whole(&self) -> bool {
        self.whole
    }

    pub(super) fn place(&self, span: Range<usize>) -> Place {
        Place::new(self.file, span)
    }

    pub(super) fn error(&mut self, span: Range<usize>, what: String, mend: &str) {
        self.find(Severity::Error, span, what, mend);
    }

    pub(super) fn warning(&mut self, span: Range<usize>, what: String, mend: &str) {
        self.find(Severity::Warning, span, what, mend);
    }

    /// An error in a value that was read already.
    pub(super) fn error_at(&mut self, place: Place, what: String, mend: &str) {
        self.found.push(self.sources.diagnostic(Severity::Error, place, what, mend.to_owned()));
    }

    fn find(&mut self, severity: Severity, span: Range<usize>, what: String, mend: &str) {
        let place = self.place(span);
        self.found.push(self.sources.diagnostic(severity, place, what, mend.to_owned()));
    }

    /// A key that means nothing in `table`.
    pub(super) fn unknown_key(&mut self, span: Range<usize>, key: &str, table: &str, known: &[&str]) {
        let bracketed = |table: &str| match table {
            "" => "at the top of the file, before the first [table]".to_owned(),
            "allow" | "gateway.allow" | "gateway.host" | "respond" | "detect.site" | "alert.sink"
            | "relay.upstream" | "relay.limit" => format!("in [[{table}]]"),
            table => format!("in [{table}]"),
        };
        let what = match table {
            "" => format!("unknown key \"{key}\""),
            table => format!("unknown key \"{key}\" {}", bracketed(table)),
        };
        let elsewhere = super::keys().find(|(_, other)| *other == key);
        let mend = match (elsewhere, nearest(key, known.iter().copied())) {
            (Some((table, _)), Some(meant)) => {
                format!("did you mean \"{meant}\"? \"{key}\" belongs {}", bracketed(table))
            }
            (Some((table, _)), None) => format!("\"{key}\" belongs {}", bracketed(table)),
            (None, Some(meant)) => format!("did you mean \"{meant}\"? If not, take it out"),
            (None, None) => format!("take it out; the keys here are {}", known.join(", ")),
        };
        self.error(span, what, &mend);
    }

    fn wrong_type(&mut self, key: &str, value: &Value<'_>, wanted: &str, mend: &str) {
        let is = match value.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a number with a point",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.error(value.span(), format!("\"{key}\" must be {wanted}, not {is}"), mend);
    }

    pub(super) fn table<'v, 'i>(&mut self, key: &str, value: &'v Value<'i>) -> Option<&'v DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(key, value, "a table", &format!("write [{key}] on a line of its own, its keys below it"));
        }
        table
    }

    pub(super) fn boolean(&mut self, key: &str, value: &Value<'_>) -> Option<bool> {
        let boolean = value.get_ref().as_bool();
        if boolean.is_none() {
            self.wrong_type(key, value, "true or false", "write true or false without quotes");
        }
        boolean
    }

    /// A text that is not empty.
    pub(super) fn string(&mut self, key: &str, value: &Value<'_>) -> Option<Located<String>> {
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(key, value, "a text in quotes", &format!("write {key} = \"…\""));
            return None;
        };
        if text.is_empty() || text.chars().any(char::is_control) {
            let what = match text {
                "" => format!("\"{key}\" is empty"),
                _ => format!("\"{key}\" has a control character in it"),
            };
            self.error(value.span(), what, &format!("give it a value, or take \"{key}\" out"));
            return None;
        }
        Some(Located { value: text.to_owned(), place: self.place(value.span()) })
    }

    /// One of a few texts.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, value: &Value<'_>, choices: &[(&str, T)]) -> Option<T> {
        let text = self.string(key, value)?.value;
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*choice);
        }
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let all = format!("write one of {}", names.join(", "));
        let mend = match nearest(&text, choices.iter().map(|(name, _)| *name)) {
            Some(meant) => format!("did you mean \"{meant}\"? {}{}", all[..1].to_ascii_uppercase(), &all[1..]),
            None => all,
        };
        self.error(value.span(), format!("\"{text}\" is no value of \"{key}\""), &mend);
        None
    }

    /// The elements of a list, or the one value that stands for a list of one.
    pub(super) fn elements<'v, 'i>(&mut self, key: &str, value: &'v Value<'i>) -> Vec<&'v Value<'i>> {
        let Some(list) = value.get_ref().as_array() else { return vec![value] };
        if list.is_empty() {
            let mend = format!("name at least one; to leave it open, take \"{key}\" out");
            self.error(value.span(), format!("the list \"{key}\" is empty"), &mend);
        }
        list.iter().collect()
    }

    /// A text, or a list of texts.
    pub(super) fn strings(&mut self, key: &str, value: &Value<'_>) -> Vec<Located<String>> {
        let elements = self.elements(key, value);
        elements.into_iter().filter_map(|element| self.string(key, element)).collect()
    }

    /// Warns of the elements that are in a list twice, and leaves one of each.
    pub(super) fn once<T: PartialEq>(&mut self, key: &str, list: Vec<Located<T>>) -> Vec<Located<T>> {
        let mut kept: Vec<Located<T>> = Vec::with_capacity(list.len());
        for element in list {
            if kept.iter().any(|before| before.value == element.value) {
                self.found.push(self.sources.diagnostic(
                    Severity::Warning,
                    element.place,
                    format!("\"{key}\" names this twice"),
                    "take one of them out".to_owned(),
                ));
            } else {
                kept.push(element);
            }
        }
        kept
    }

    /// An integer from 0 to `most`, or a text of digits.
    pub(super) fn number(&mut self, value: &DeValue<'_>, most: u64) -> Option<u64> {
        let number = match value {
            DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
            DeValue::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            DeValue::String(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => None,
        };
        number.filter(|number| *number <= most)
    }

    /// A whole number within bounds.
    pub(super) fn integer(
        &mut self,
        key: &str,
        value: &Value<'_>,
        bounds: RangeInclusive<u64>,
        mend: &str,
    ) -> Option<u64> {
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_type(key, value, "a whole number", &format!("write {key} = {}", bounds.start()));
            return None;
        };
        let number = self.number(value.get_ref(), u64::MAX).filter(|number| bounds.contains(number));
        if number.is_none() {
            let what = format!("\"{key}\" is {integer}, not from {} to {}", bounds.start(), bounds.end());
            self.error(value.span(), what, mend);
        }
        number
    }

    /// A number within bounds, with or without a point.
    pub(super) fn fraction(
        &mut self,
        key: &str,
        value: &Value<'_>,
        bounds: RangeInclusive<f64>,
        mend: &str,
    ) -> Option<f64> {
        let text = match value.get_ref() {
            DeValue::Float(float) => float.as_str().to_owned(),
            DeValue::Integer(integer) => integer.as_str().to_owned(),
            DeValue::String(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                self.wrong_type(key, value, "a number", mend);
                return None;
            }
        };
        let number = text.replace('_', "").parse().ok().filter(|number| bounds.contains(number));
        if number.is_none() {
            let what = format!("\"{key}\" is {text}, not from {} to {}", bounds.start(), bounds.end());
            self.error(value.span(), what, mend);
        }
        number
    }

    /// A length of time within bounds, in seconds.
    pub(super) fn seconds(&mut self, key: &str, value: &Value<'_>, bounds: RangeInclusive<u64>) -> Option<u64> {
        let text = self.string(key, value)?.value;
        let mend = "write a number with its unit, as in \"90s\", \"15m\", \"2h\", \"7d\"";
        let Some(seconds) = seconds(&text) else {
            self.error(value.span(), format!("\"{text}\" is no length of time"), mend);
            return None;
        };
        if bounds.contains(&seconds) {
            return Some(seconds);
        }
        let what = format!("\"{key}\" is {text}, not from {}s to {}s", bounds.start(), bounds.end());
        self.error(value.span(), what, mend);
        None
    }

    /// Ports and ranges of ports.
    pub(super) fn ports(&mut self, key: &str, value: &Value<'_>) -> BTreeSet<u16> {
        let mut ports = BTreeSet::new();
        for element in self.elements(key, value) {
            for port in self.port_range(key, element).into_iter().flatten() {
                if !ports.insert(port) {
                    let what = format!("\"{key}\" names port {port} twice");
                    self.warning(element.span(), what, "take one of them out");
                    break;
                }
            }
        }
        ports
    }

    fn port_range(&mut self, key: &str, value: &Value<'_>) -> Option<RangeInclusive<u16>> {
        let mend = "write ports as in [25, 587] and ranges as in [\"2525-2530\"], from 1 to 65535";
        let port = |number: u64| u16::try_from(number).ok().filter(|port| *port != 0);
        if let Some(port) = self.number(value.get_ref(), u64::from(u16::MAX)).and_then(port) {
            return Some(port..=port);
        }
        match value.get_ref() {
            DeValue::String(text) => {
                let ends = text.split_once('-').and_then(|(first, last)| {
                    let end = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port != 0);
                    Some((end(first)?, end(last)?))
                });
                if let Some((first, last)) = ends
                    && first <= last
                {
                    return Some(first..=last);
                }
                let what = if text.contains('-') { "range of ports" } else { "port" };
                self.error(value.span(), format!("\"{text}\" is no {what}"), mend);
            }
            DeValue::Integer(number) => self.error(value.span(), format!("{number} is no port"), mend),
            DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                self.wrong_type(key, value, "a port, a range or a list of them", mend)
            }
        }
        None
    }
}

/// Seconds of a text like `15m`.
fn seconds(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}
