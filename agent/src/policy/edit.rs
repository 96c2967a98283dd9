//! Changing the rules of a policy file: what is written is looked at first, and everything else of the file stays as
//! it was, byte for byte.
//!
//! `toml_edit` says where in the text the rules stand and writes the values of a new one; the text itself is cut and
//! joined, because writing a document out again would make the line endings and the spacing its own.

mod layout;
mod new_rule;
mod proposal;
mod write;

use std::path::PathBuf;

use thiserror::Error;

use super::diagnostic::Diagnostic;

pub use layout::{Which, add_lan_rule, add_rule, remove_rule};
pub use new_rule::{NewLanRule, NewRule, Stamp};
pub use proposal::Proposal;
pub use write::WriteError;

/// Why there is no proposal.
#[derive(Debug, Error)]
pub enum EditError {
    /// The file cannot be read.
    #[error("{what}; {mend}")]
    Unreadable {
        /// What is wrong.
        what: String,
        /// The remedy.
        mend: &'static str,
    },
    /// The text is no TOML.
    #[error("the policy is no TOML ({message}); mend it first, portreeve check shows the place")]
    Syntax {
        /// What the parser says.
        message: String,
    },
    /// The rules are values of one list.
    #[error("the rules are written as one list, allow = […]; begin each with [[allow]] on a line of its own first")]
    OneList,
    /// No rule is called so.
    #[error("there is no rule {which}; portreeve allow list shows all, with their numbers")]
    NoSuchRule {
        /// What was asked for.
        which: String,
    },
    /// More than one rule is called so.
    #[error("{which} may mean the rules {}; say the number of the one that is meant", .numbers.join(", "))]
    Ambiguous {
        /// What was asked for.
        which: String,
        /// The rules' numbers.
        numbers: Vec<String>,
    },
    /// The rule stands in a file that the policy includes.
    #[error("the rule {which} stands in an included file; edit {}, line {line}, by hand", .file.display())]
    Included {
        /// What was asked for.
        which: String,
        /// The file.
        file: PathBuf,
        /// The line of its `[[allow]]`.
        line: usize,
    },
    /// The policy would have errors.
    #[error("{}", summary(*.already))]
    Errors {
        /// It has errors as it is.
        already: bool,
        /// The errors it would have.
        findings: Vec<Diagnostic>,
    },
    /// The text that was made is not what it should be.
    #[error("the file is laid out in a way that cannot be edited safely ({what}); edit it by hand")]
    Unsafe {
        /// What is in the way.
        what: String,
    },
}

fn summary(already: bool) -> &'static str {
    match already {
        true => "nothing was changed: the policy has errors as it is, mend them first",
        false => "nothing was changed: the policy would have errors",
    }
}

#[cfg(test)]
mod tests;
