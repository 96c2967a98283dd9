//! What is wrong with a policy: what, where, and how to mend it.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;

use serde::Serialize;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy is not put in force.
    Error,
    /// It is, and the author should know.
    Warning,
}

/// A place in a file of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Rc<SourceFile>,
    /// Bytes of its text.
    pub span: Range<usize>,
}

/// A file and its text.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The offending text.
    pub text: String,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub mend: String,
    /// The whole line, for display.
    #[serde(skip)]
    source_line: String,
}

impl Diagnostic {
    /// A finding at a place.
    #[must_use]
    pub fn new(severity: Severity, place: &Place, what: impl Into<String>, mend: impl Into<String>) -> Self {
        let text = &place.file.text;
        let start = floor(text, place.span.start.min(text.len()));
        let end = floor(text, place.span.end.clamp(start, text.len()));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        Self {
            severity,
            file: place.file.path.clone(),
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            text: text[start..end.min(line_end).max(start)].to_owned(),
            what: what.into(),
            mend: mend.into(),
            source_line: text[line_start..line_end].to_owned(),
        }
    }

    /// A finding about a file that has no text to point at.
    #[must_use]
    pub fn of_file(file: PathBuf, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file,
            line: 0,
            column: 0,
            text: String::new(),
            what: what.into(),
            mend: mend.into(),
            source_line: String::new(),
        }
    }

    /// Whether the policy cannot be put in force with it.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{word}: {}", self.what)?;
        if self.line == 0 {
            writeln!(f, "  --> {}", self.file.display())?;
        } else {
            let number = self.line.to_string();
            let gutter = " ".repeat(number.len());
            let indent: String =
                self.source_line.chars().take(self.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            writeln!(f, "{gutter}--> {}:{}:{}", self.file.display(), self.line, self.column)?;
            writeln!(f, "{number} | {}", self.source_line)?;
            writeln!(f, "{gutter} | {indent}{}", "^".repeat(self.text.chars().count().max(1)))?;
        }
        write!(f, "  = mend: {}", self.mend)
    }
}
