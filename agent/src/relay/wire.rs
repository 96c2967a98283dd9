//! SMTP on the wire: what can be decided from bytes alone, without a socket.
//!
//! Everything here takes what has been received so far and says how much of it it has used. What it does not use yet stays
//! in the caller's buffer, so that the segments it came in make no difference.

pub mod command;
pub mod data;
pub mod line;
pub mod reply;
pub mod xtext;

/// A byte that has no place in SMTP's lines (RFC 5321 §2.3.8: "bare" characters; §4.5.2 for NUL).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bare {
    /// A line feed without a carriage return before it.
    Lf,
    /// A carriage return without a line feed after it.
    Cr,
    /// A byte of value 0.
    Nul,
}

impl Bare {
    /// Its name in replies.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lf => "bare LF",
            Self::Cr => "bare CR",
            Self::Nul => "NUL",
        }
    }
}
