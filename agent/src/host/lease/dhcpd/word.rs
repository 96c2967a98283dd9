//! The words of dhcpd's language: conflex.c of ISC DHCP 4.4.

/// The longest word kept, in bytes; the longest that is read is a client identifier.
const LONGEST: usize = 512;

/// A piece of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// A word without quotes: a name, an address, a number, an equals sign.
    Plain(Vec<u8>),
    /// What is between quotes, its escapes undone.
    Quoted(Vec<u8>),
    /// `{`
    Open,
    /// `}`
    Close,
    /// `;`
    End,
}

impl Word {
    /// The text of the word; nothing for braces and semicolons.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Plain(bytes) | Self::Quoted(bytes) => bytes,
            Self::Open | Self::Close | Self::End => b"",
        }
    }
}

/// The words of a text, each with the number of its line.
pub(super) struct Words<'a> {
    rest: &'a [u8],
    line: u64,
}

impl<'a> Words<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { rest: text, line: 1 }
    }

    /// The next byte, which is taken.
    fn take(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        self.line += u64::from(byte == b'\n');
        Some(byte)
    }

    /// Passes by blanks and comments.
    fn skip(&mut self) {
        while let Some(&byte) = self.rest.first() {
            if byte == b'#' {
                while self.rest.first().is_some_and(|byte| *byte != b'\n') {
                    self.take();
                }
            } else if byte.is_ascii_whitespace() {
                self.take();
            } else {
                return;
            }
        }
    }

    /// The rest of a string whose quote has been taken; `None` when it is not ended, as in a file that is being written.
    fn quoted(&mut self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let byte = match self.take()? {
                b'"' => return Some(bytes),
                b'\\' => self.escaped()?,
                byte => byte,
            };
            if bytes.len() < LONGEST {
                bytes.push(byte);
            }
        }
    }

    /// What an escape stands for: three octal digits (as dhcpd itself writes), `x` and two hexadecimal ones, a letter of C,
    /// or the byte itself.
    fn escaped(&mut self) -> Option<u8> {
        Some(match self.take()? {
            first @ b'0'..=b'7' => self.digits(u32::from(first - b'0'), 8, 2),
            b'x' => self.digits(0, 16, 2),
            b't' => b'\t',
            b'r' => b'\r',
            b'n' => b'\n',
            b'b' => 8,
            byte => byte,
        })
    }

    fn digits(&mut self, mut value: u32, base: u32, most: usize) -> u8 {
        for _ in 0..most {
            let Some(digit) = self.rest.first().and_then(|byte| char::from(*byte).to_digit(base)) else { break };
            value = value * base + digit;
            self.take();
        }
        value as u8
    }
}

impl Iterator for Words<'_> {
    type Item = (u64, Word);

    fn next(&mut self) -> Option<Self::Item> {
        self.skip();
        let line = self.line;
        let word = match self.take()? {
            b'{' => Word::Open,
            b'}' => Word::Close,
            b';' => Word::End,
            b'"' => Word::Quoted(self.quoted()?),
            first => {
                let mut bytes = vec![first];
                while let Some(&byte) = self.rest.first() {
                    if byte.is_ascii_whitespace() || b"{};\"#".contains(&byte) {
                        break;
                    }
                    self.take();
                    if bytes.len() < LONGEST {
                        bytes.push(byte);
                    }
                }
                Word::Plain(bytes)
            }
        };
        Some((line, word))
    }
}
