//! Typed reading of TOML values that collects findings instead of stopping at one.

use std::ops::Range;
use std::rc::Rc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Place, Severity, SourceFile};
use super::model::At;

/// The reader of one file.
pub(super) struct Reader {
    pub(super) file: Rc<SourceFile>,
    pub(super) found: Vec<Diagnostic>,
}

/// A value of the document.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

impl Reader {
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        Place { file: Rc::clone(&self.file), span }
    }

    pub(super) fn error(&mut self, span: Range<usize>, what: impl Into<String>, mend: impl Into<String>) {
        self.found.push(Diagnostic::new(Severity::Error, &self.place(span), what, mend));
    }

    pub(super) fn warning(&mut self, span: Range<usize>, what: impl Into<String>, mend: impl Into<String>) {
        self.found.push(Diagnostic::new(Severity::Warning, &self.place(span), what, mend));
    }

    /// Complains of every key that is not known, with the nearest that is.
    pub(super) fn known_keys(&mut self, table: &DeTable<'_>, section: &str, known: &[&str]) {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if known.contains(&name) {
                continue;
            }
            let nearest = known.iter().min_by_key(|candidate| distance(name, candidate));
            let mend = match nearest {
                Some(nearest) if distance(name, nearest) <= 3 => format!("did you mean {nearest}?"),
                _ => format!("{section} has the keys {}", known.join(", ")),
            };
            self.error(key.span(), format!("unknown key {name} in {section}"), mend);
        }
    }

    pub(super) fn table<'a, 'i>(&mut self, value: &'a Value<'i>, example: &str) -> Option<&'a DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(value, "a table", example);
        }
        table
    }

    pub(super) fn string(&mut self, value: &Value<'_>, example: &str) -> Option<At<String>> {
        match value.get_ref().as_str() {
            Some("") => {
                self.error(value.span(), "empty text", format!("write something like {example}, or leave the key out"));
                None
            }
            Some(text) => Some(At { value: text.to_owned(), place: self.place(value.span()) }),
            None => {
                self.wrong_type(value, "text", example);
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, value: &Value<'_>) -> Option<bool> {
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.wrong_type(value, "true or false", "true");
        }
        found
    }

    /// A value, or a list of them.
    pub(super) fn list<T>(
        &mut self,
        value: &Value<'_>,
        example: &str,
        mut read: impl FnMut(&mut Self, &Value<'_>) -> Option<T>,
    ) -> Vec<T> {
        let Some(array) = value.get_ref().as_array() else { return read(self, value).into_iter().collect() };
        if array.is_empty() {
            self.error(value.span(), "an empty list matches nothing", format!("write something like [{example}], or leave the key out"));
        }
        array.iter().filter_map(|member| read(self, member)).collect()
    }

    /// Text or a whole number, as text.
    pub(super) fn name_or_number(&mut self, value: &Value<'_>, example: &str) -> Option<At<String>> {
        match value.get_ref().as_integer() {
            Some(number) => Some(At { value: number.to_string(), place: self.place(value.span()) }),
            None => self.string(value, example),
        }
    }

    pub(super) fn wrong_type(&mut self, value: &Value<'_>, wanted: &str, example: &str) {
        let is = value.get_ref().type_str();
        self.error(value.span(), format!("this is {is} where {wanted} belongs"), format!("write something like {example}"));
    }
}

/// Edits from one word to another (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let cost = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
