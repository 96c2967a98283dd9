//! Messages with broken line ends, mended: `smuggling = "fix"`.

use std::borrow::Cow;

use super::{Fault, Next, Part};

/// Where the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// After CRLF, or at the begin: a dot here was doubled by the sender, or ends the message.
    #[default]
    Start,
    /// After a line end that was mended: a dot here is text, and has to be doubled.
    MendedStart,
    /// After a dot at [`At::Start`], which is held back.
    Dot,
    /// Within a line.
    Within,
}

/// Mends a message byte by byte.
#[derive(Debug, Default)]
pub(super) struct Mender {
    at: At,
    /// Carriage returns whose meaning shows with the next byte.
    returns: usize,
    line: usize,
}

impl Mender {
    pub(super) fn read(&mut self, input: &[u8], longest: usize) -> Part<'static> {
        let mut out = Vec::with_capacity(input.len() + 16);
        for (at, &byte) in input.iter().enumerate() {
            let next = self.byte(byte, &mut out);
            let next = if self.line > longest { Next::Refused(Fault::LongLine) } else { next };
            if next != Next::More {
                return Part { used: at + 1, pass: Cow::Owned(out), next };
            }
        }
        Part { used: input.len(), pass: Cow::Owned(out), next: Next::More }
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) -> Next {
        match byte {
            b'\r' => self.returns += 1,
            b'\n' => {
                let whole = self.returns == 1;
                self.returns = 0;
                if whole && self.at == At::Dot {
                    return Next::End;
                }
                self.line_end(whole, out);
            }
            byte => {
                for _ in 0..std::mem::take(&mut self.returns) {
                    self.line_end(false, out);
                }
                self.text(if byte == 0 { b' ' } else { byte }, byte != 0, out);
            }
        }
        Next::More
    }

    fn text(&mut self, byte: u8, as_sent: bool, out: &mut Vec<u8>) {
        self.line += 1;
        match self.at {
            At::Start if byte == b'.' && as_sent => {
                self.at = At::Dot;
                return;
            }
            At::MendedStart if byte == b'.' => out.push(b'.'),
            At::Dot => out.push(b'.'),
            At::Start | At::MendedStart | At::Within => {}
        }
        self.at = At::Within;
        out.push(byte);
    }

    /// Ends a line; `whole` if the sender ended it with CRLF.
    fn line_end(&mut self, whole: bool, out: &mut Vec<u8>) {
        // A dot alone on a line whose end was mended is no end of the message, and must not become one.
        if self.at == At::Dot {
            out.extend_from_slice(b"..");
        }
        out.extend_from_slice(b"\r\n");
        self.at = if whole { At::Start } else { At::MendedStart };
        self.line = 0;
    }
}
