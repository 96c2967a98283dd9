//! What is wrong with a policy, shown the way a compiler shows it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy, or this rule of it, is not put in force.
    Error,
    /// The policy works, and its author should know.
    Warning,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// The column in characters, from 1; 0 where the file as a whole is meant.
    pub column: usize,
    /// The offending text, as far as it is on one line.
    pub text: String,
    /// The whole line.
    pub source: String,
    /// What is wrong, one sentence.
    pub what: String,
    /// How to mend it.
    pub mend: String,
}

impl Diagnostic {
    /// An error about a file as a whole.
    pub(crate) fn of_file(file: &Path, what: String, mend: &str) -> Self {
        Self {
            severity: Severity::Error,
            file: file.to_owned(),
            line: 0,
            column: 0,
            text: String::new(),
            source: String::new(),
            what,
            mend: mend.to_owned(),
        }
    }

    /// Whether it is an error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The order in which findings are shown.
    pub(super) fn position(&self) -> (usize, usize, Severity) {
        (self.line, self.column, self.severity)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{word}: {}", self.what)?;
        if self.line == 0 {
            writeln!(f, " --> {}", self.file.display())?;
        } else {
            let number = self.line.to_string();
            let gutter = " ".repeat(number.len());
            let before = " ".repeat(self.column.saturating_sub(1));
            let carets = "^".repeat(self.text.chars().count().max(1));
            writeln!(f, "{gutter}--> {}:{}:{}", self.file.display(), self.line, self.column)?;
            writeln!(f, "{gutter} |\n{number} | {}\n{gutter} | {before}{carets}", self.source)?;
        }
        write!(f, "  = mend: {}", self.mend)
    }
}

/// Where in the policy's files something stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    file: usize,
    start: usize,
    end: usize,
}

impl Place {
    /// Whether it is in the policy's own file, not in one that it includes.
    #[must_use]
    pub fn in_main(self) -> bool {
        self.file == 0
    }

    /// The bytes of a span in file number `file`.
    pub(super) fn new(file: usize, span: Range<usize>) -> Self {
        Self { file, start: span.start, end: span.end }
    }
}

/// A value and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

impl<T> Located<T> {
    /// Another value at the same place.
    pub(super) fn with<U>(&self, value: U) -> Located<U> {
        Located { value, place: self.place }
    }
}

/// The text of a policy's files, so that findings can show it.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<(PathBuf, String)>);

impl Sources {
    /// Adds a file and returns its number.
    pub(super) fn add(&mut self, path: PathBuf, text: String) -> usize {
        self.0.push((path, text));
        self.0.len() - 1
    }

    /// The text of every file, in the order they were read.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, text)| text.as_str())
    }

    /// A finding about a place.
    pub(super) fn diagnostic(&self, severity: Severity, place: Place, what: String, mend: String) -> Diagnostic {
        let Some((file, text)) = self.0.get(place.file) else {
            return Diagnostic { severity, ..Diagnostic::of_file(Path::new(""), what, &mend) };
        };
        let start = floor(text, place.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let end = floor(text, place.end.clamp(start, line_end));
        Diagnostic {
            severity,
            file: file.clone(),
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            text: printable(&text[start..end]),
            source: printable(text[line_start..line_end].trim_end()),
            what,
            mend,
        }
    }

    /// The place as `file:line`.
    pub(super) fn line(&self, place: Place) -> String {
        let (file, line) = self.at(place);
        format!("{}:{line}", file.display())
    }

    /// The place as a file and a line, from 1.
    pub(super) fn at(&self, place: Place) -> (PathBuf, usize) {
        let found = self.diagnostic(Severity::Warning, place, String::new(), String::new());
        (found.file, found.line)
    }
}

/// The nearest character boundary at or below a byte index.
fn floor(text: &str, index: usize) -> usize {
    (0..=index.min(text.len())).rev().find(|index| text.is_char_boundary(*index)).unwrap_or(0)
}

/// Tabs as one space, so that the caret stays below what it means, and no control character for the terminal.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_is_below_the_text_it_means() {
        let mut sources = Sources::default();
        let text = "# ü\n\tuser = \"nagois\"\n";
        let file = sources.add(PathBuf::from("/etc/portreeve/portreeve.toml"), text.to_owned());
        let start = text.find("\"nagois\"").unwrap();
        let place = Place::new(file, start..start + 8);
        let found = sources.diagnostic(Severity::Error, place, "unknown user \"nagois\"".into(), "add it".into());
        assert_eq!(
            found.to_string(),
            "error: unknown user \"nagois\"\n --> /etc/portreeve/portreeve.toml:2:9\n  |\n2 |  user = \"nagois\"\n  |         \
             ^^^^^^^^\n  = mend: add it"
        );
    }

    #[test]
    fn a_place_beyond_the_text_or_inside_a_character_is_shown_all_the_same() {
        let mut sources = Sources::default();
        let file = sources.add(PathBuf::from("x"), "ü".to_owned());
        for span in [0..1, 1..2, 5..9, 2..2] {
            let found = sources.diagnostic(Severity::Error, Place::new(file, span), String::new(), String::new());
            assert_eq!(found.line, 1);
        }
    }
}
