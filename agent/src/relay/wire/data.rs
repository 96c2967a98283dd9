//! What follows DATA, up to the line that ends it.
//!
//! Servers disagree about what ends a message: many take `LF . LF`, `LF . CR LF` or `CR LF . CR CR LF` for an end. Where two
//! servers in a row disagree, a message can hide another, with an envelope of its choice, that the first never saw (SMTP
//! smuggling, CVE-2023-51764). So a message ends here with CRLF.CRLF and nothing else (RFC 5321 §4.1.1.4), and what another
//! server could take for an end is never passed on: it is refused, or mended.

mod mend;

use std::borrow::Cow;

use memchr::memchr3;

use super::Bare;
use mend::Mender;

/// What is done about bare CR, bare LF and NUL, CR CR LF among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Smuggling {
    /// The message is refused.
    #[default]
    Deny,
    /// Line ends become CRLF and NUL a space, and lines that only thereby begin with a dot get another.
    Fix,
}

/// Why a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It has such a byte.
    Bare(Bare),
    /// It has a line longer than it may be.
    LongLine,
}

/// What is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// More of the message.
    More,
    /// Nothing: that was the end, which is not among the bytes to pass on.
    End,
    /// Nothing that may be passed on. The rest goes through [`Drain`].
    Refused(Fault),
}

/// What was made of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// How many of them are done with.
    pub used: usize,
    /// What to pass on, dots and all.
    pub pass: Cow<'a, [u8]>,
    /// What is to come.
    pub next: Next,
}

/// Reads one message.
#[derive(Debug)]
pub struct DataReader {
    kind: Kind,
    longest: usize,
}

#[derive(Debug)]
enum Kind {
    Deny {
        /// How many bytes the current line has so far.
        line: usize,
    },
    Fix(Mender),
}

impl DataReader {
    /// Begins a message. `longest` is the most bytes of a line without its end; 0 for no limit.
    #[must_use]
    pub fn new(smuggling: Smuggling, longest: usize) -> Self {
        let kind = match smuggling {
            Smuggling::Deny => Kind::Deny { line: 0 },
            Smuggling::Fix => Kind::Fix(Mender::default()),
        };
        Self { kind, longest: if longest == 0 { usize::MAX } else { longest } }
    }

    /// Reads what has been received and is not used yet.
    pub fn read<'a>(&mut self, input: &'a [u8]) -> Part<'a> {
        match &mut self.kind {
            Kind::Deny { line } => deny(line, self.longest, input),
            Kind::Fix(mender) => mender.read(input, self.longest),
        }
    }
}

/// The bytes themselves, up to the first that is not allowed.
fn deny<'a>(line: &mut usize, longest: usize, input: &'a [u8]) -> Part<'a> {
    let mut at = 0;
    let (used, pass, next) = loop {
        let rest = &input[at..];
        if *line == 0 && rest.first() == Some(&b'.') {
            match END.len().min(rest.len()) {
                seen if rest[..seen] != END[..seen] => {}
                3 => break (at + 3, at, Next::End),
                _ => break (at, at, Next::More),
            }
        }
        let Some(found) = memchr3(b'\r', b'\n', 0, rest) else {
            *line += rest.len();
            let next = if *line > longest { Next::Refused(Fault::LongLine) } else { Next::More };
            break (input.len(), input.len(), next);
        };
        *line += found;
        at += found;
        if *line > longest {
            break (at, at, Next::Refused(Fault::LongLine));
        }
        match (rest[found], rest.get(found + 1)) {
            (b'\r', Some(b'\n')) => {
                at += 2;
                *line = 0;
            }
            // What it is shows with the next byte.
            (b'\r', None) => break (at, at, Next::More),
            (b'\r', Some(_)) => break (at, at, Next::Refused(Fault::Bare(Bare::Cr))),
            (b'\n', _) => break (at, at, Next::Refused(Fault::Bare(Bare::Lf))),
            _ => break (at, at, Next::Refused(Fault::Bare(Bare::Nul))),
        }
    };
    Part { used, pass: Cow::Borrowed(&input[..pass]), next }
}

/// The line that ends a message, with the end of the line before it, or of DATA, in front.
const END: &[u8] = b".\r\n";

/// Finds the end of a message that is not passed on.
#[derive(Debug, Default)]
pub struct Drain {
    /// How much of CRLF.CRLF the bytes so far end with.
    matched: usize,
}

impl Drain {
    /// Begins with the message, whose first line may be the last.
    #[must_use]
    pub fn at_start() -> Self {
        Self { matched: 2 }
    }

    /// How many of the bytes belong to the message, and whether that is all of it.
    pub fn read(&mut self, input: &[u8]) -> (usize, bool) {
        const WHOLE: &[u8] = b"\r\n.\r\n";
        for (at, byte) in input.iter().enumerate() {
            self.matched = match *byte {
                byte if byte == WHOLE[self.matched] => self.matched + 1,
                b'\r' => 1,
                _ => 0,
            };
            if self.matched == WHOLE.len() {
                self.matched = 0;
                return (at + 1, true);
            }
        }
        (input.len(), false)
    }
}

#[cfg(test)]
mod tests;
