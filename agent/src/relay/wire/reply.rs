//! Replies: a code, and lines of text.

use std::fmt;

use memchr::memchr;

/// The most bytes of one line. RFC 5321 §4.5.3.1.5 has 512; some servers write longer ones.
const LONGEST_LINE: usize = 4096;
/// The most bytes of one reply: more lines than any EHLO has.
const LONGEST_REPLY: usize = 32 << 10;

/// A whole reply.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    /// The code, from 200 to 599.
    pub code: u16,
    /// Its lines as they go on the wire, each with its code and CRLF.
    bytes: Vec<u8>,
}

/// Why something is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReply {
    /// A line does not begin with a code.
    #[error("it does not begin with a code")]
    Code,
    /// Two lines of one reply have different codes.
    #[error("its lines have different codes")]
    Codes,
    /// It is longer than any reply.
    #[error("it is too long")]
    TooLong,
}

impl Reply {
    /// One line of our own.
    #[must_use]
    pub fn new(code: u16, text: &str) -> Self {
        Self::lines(code, [text])
    }

    /// Several lines of our own. Characters that have no place in a reply are replaced.
    #[must_use]
    pub fn lines<T: AsRef<str>>(code: u16, lines: impl IntoIterator<Item = T>) -> Self {
        let mut bytes = Vec::new();
        let mut lines = lines.into_iter().peekable();
        while let Some(line) = lines.next() {
            let separator = if lines.peek().is_some() { '-' } else { ' ' };
            bytes.extend_from_slice(format!("{code}{separator}").as_bytes());
            bytes.extend(line.as_ref().bytes().map(printable));
            bytes.extend_from_slice(b"\r\n");
        }
        Self { code, bytes }
    }

    /// The lines as they go on the wire.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The lines without code and end.
    pub fn text(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| line.get(4..line.len() - 1).unwrap_or_default())
    }

    /// The first digit.
    #[must_use]
    pub fn class(&self) -> u16 {
        self.code / 100
    }

    /// The enhanced status code that it begins with (RFC 3463 §2), if there is one.
    #[must_use]
    pub fn enhanced(&self) -> Option<&str> {
        let word = self.text().next()?.split(|byte| *byte == b' ').next()?;
        let word = std::str::from_utf8(word).ok()?;
        let mut parts = word.split('.');
        // One digit: a number would do with zeros before it.
        let class = parts.next()? == self.class().to_string();
        let detail = |part: &str| !part.is_empty() && part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
        let whole = detail(parts.next()?) && detail(parts.next()?) && parts.next().is_none();
        (whole && class).then_some(word)
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        self.text().try_for_each(|line| write!(f, " {}", String::from_utf8_lossy(line)))
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({self})")
    }
}

/// Reads a reply from the bytes received so far: how many of them it takes, and the reply. `None` if it is not whole yet.
///
/// A line may end with a bare LF: what is sent on ends with CRLF all the same, and control characters in it are replaced.
///
/// # Errors
///
/// When it is none. Nothing after that can be understood.
pub fn parse(input: &[u8]) -> Result<Option<(usize, Reply)>, NoReply> {
    let (mut at, mut code, mut bytes) = (0, None, Vec::new());
    loop {
        let rest = &input[at..];
        let Some(end) = memchr(b'\n', rest) else {
            if rest.len() > LONGEST_LINE || at + rest.len() > LONGEST_REPLY {
                return Err(NoReply::TooLong);
            }
            // What can be seen of a line is enough to know that it is none.
            begins(rest)?;
            return Ok(None);
        };
        if end > LONGEST_LINE || at + end > LONGEST_REPLY {
            return Err(NoReply::TooLong);
        }
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        let (this, last) = line_code(line)?;
        if *code.get_or_insert(this) != this {
            return Err(NoReply::Codes);
        }
        bytes.extend_from_slice(format!("{this}{}", if last { ' ' } else { '-' }).as_bytes());
        bytes.extend(line.get(4..).unwrap_or_default().iter().copied().map(printable));
        bytes.extend_from_slice(b"\r\n");
        at += end + 1;
        if last {
            return Ok(Some((at, Reply { code: this, bytes })));
        }
    }
}

/// The code of a line, and whether it is the last.
fn line_code(line: &[u8]) -> Result<(u16, bool), NoReply> {
    begins(line)?;
    let digits = line.get(..3).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or(NoReply::Code)?;
    let code = digits.parse().map_err(|_not_digits: std::num::ParseIntError| NoReply::Code)?;
    Ok((code, line.get(3) != Some(&b'-')))
}

/// What a line may begin with: RFC 5321 §4.2, `Reply-code`.
fn begins(line: &[u8]) -> Result<(), NoReply> {
    let good = line.iter().take(4).enumerate().all(|(at, byte)| match at {
        0 => (b'2'..=b'5').contains(byte),
        1 | 2 => byte.is_ascii_digit(),
        // A line of the code alone is one, and its CR may have come without its LF yet.
        _ => b" -\r".contains(byte),
    });
    if good { Ok(()) } else { Err(NoReply::Code) }
}

fn printable(byte: u8) -> u8 {
    if byte.is_ascii_control() && byte != b'\t' { b'?' } else { byte }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn replies_of_one_and_of_several_lines() {
        let (used, reply) = parse(b"250 2.1.5 Ok\r\n354 go").unwrap().unwrap();
        assert_eq!((used, reply.code, reply.enhanced()), (14, 250, Some("2.1.5")));
        let (used, reply) = parse(b"250-a\r\n250-SIZE 10\n250 b\r\n").unwrap().unwrap();
        assert_eq!((used, reply.bytes()), (26, &b"250-a\r\n250-SIZE 10\r\n250 b\r\n"[..]));
        assert_eq!(reply.text().collect::<Vec<_>>(), [&b"a"[..], b"SIZE 10", b"b"]);
        assert_eq!(parse(b"250\r\n").unwrap().unwrap().1.bytes(), b"250 \r\n");
        assert_eq!(Reply::new(550, "no\r\n250 yes").bytes(), b"550 no??250 yes\r\n");
    }

    #[test]
    fn what_is_no_reply_is_refused_as_soon_as_it_shows() {
        for nonsense in [&b"HTTP/1.1"[..], b"199 a\r\n", b"600 a\r\n", b"25", b"2x", b"250x", b"\r\n", b"250_a\r\n"] {
            let read = parse(nonsense);
            assert!(read == Err(NoReply::Code) || nonsense == b"25" && read == Ok(None), "{nonsense:?} {read:?}");
        }
        assert_eq!(parse(b"250-a\r\n251 b\r\n"), Err(NoReply::Codes));
        assert_eq!(parse(&[&b"250 "[..], &[b'a'; LONGEST_LINE]].concat()), Err(NoReply::TooLong));
        assert_eq!(parse(&b"250-aaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(2000)), Err(NoReply::TooLong));
    }

    #[test]
    fn an_enhanced_code_is_of_the_replys_class() {
        for (text, code) in
            [("5.7.1 no", Some("5.7.1")), ("4.7.1 no", None), ("5.7 no", None), ("5.7.1234", None), ("05.7.1 no", None)]
        {
            assert_eq!(Reply::new(550, text).enhanced(), code, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again_at_every_split(
            code in 200u16..600, lines in proptest::collection::vec("[ -~]{0,20}", 1..5), cut in 0usize..100,
        ) {
            let reply = Reply::lines(code, &lines);
            let bytes = [reply.bytes(), b"250 next"].concat();
            prop_assert_eq!(parse(&bytes), Ok(Some((reply.bytes().len(), reply.clone()))));
            let cut = cut % reply.bytes().len();
            prop_assert_eq!(parse(&bytes[..cut]), Ok(None));
        }
    }
}
