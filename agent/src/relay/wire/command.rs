//! Commands, read only as far as the relay needs them: what goes upstream are the client's own bytes.

/// A command, without the end of its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `EHLO name`
    Ehlo(&'a [u8]),
    /// `HELO name`
    Helo(&'a [u8]),
    /// `MAIL FROM:<path> parameters`
    Mail(Envelope<'a>),
    /// `RCPT TO:<path> parameters`
    Rcpt(Envelope<'a>),
    /// `DATA`
    Data,
    /// `RSET`
    Rset,
    /// `NOOP`
    Noop,
    /// `QUIT`
    Quit,
    /// `STARTTLS`
    StartTls,
    /// `XFORWARD attributes`
    Xforward(&'a [u8]),
    /// `VRFY`: answered without telling anything (RFC 5321 §3.5.3).
    Vrfy,
    /// A known command whose argument is none.
    Malformed(&'static str),
    /// Anything else.
    Unknown,
}

/// What MAIL and RCPT say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// What stands between `<` and `>`; empty for the null sender.
    pub address: &'a [u8],
    /// What follows, without the space before it.
    pub parameters: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// The parameters as keyword and value; the value is empty if there is none.
    pub fn parameters(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let words = self.parameters.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        words.map(|word| match word.iter().position(|byte| *byte == b'=') {
            Some(at) => (&word[..at], &word[at + 1..]),
            None => (word, &[][..]),
        })
    }
}

/// The longest address between its brackets (RFC 5321 §4.5.3.1.3: 256 octets with them), left some room: it is the upstream
/// that has a mailbox or not.
const LONGEST_PATH: usize = 1024;

/// Reads a line.
#[must_use]
pub fn parse(line: &[u8]) -> Command<'_> {
    let line = line.trim_ascii_end();
    let at = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let (verb, argument) = (&line[..at], line[at..].trim_ascii_start());
    let is = |name: &str| verb.eq_ignore_ascii_case(name.as_bytes());
    let bare = |command, usage| if argument.is_empty() { command } else { Command::Malformed(usage) };
    if is("MAIL") {
        envelope(argument, b"FROM:").map_or(Command::Malformed("MAIL FROM:<address>"), Command::Mail)
    } else if is("RCPT") {
        let recipient = envelope(argument, b"TO:").filter(|envelope| !envelope.address.is_empty());
        recipient.map_or(Command::Malformed("RCPT TO:<address>"), Command::Rcpt)
    } else if is("DATA") {
        bare(Command::Data, "DATA")
    } else if is("EHLO") {
        if is_name(argument) { Command::Ehlo(argument) } else { Command::Malformed("EHLO name") }
    } else if is("HELO") {
        if is_name(argument) { Command::Helo(argument) } else { Command::Malformed("HELO name") }
    } else if is("RSET") {
        bare(Command::Rset, "RSET")
    } else if is("QUIT") {
        bare(Command::Quit, "QUIT")
    } else if is("NOOP") {
        Command::Noop
    } else if is("STARTTLS") {
        bare(Command::StartTls, "STARTTLS")
    } else if is("VRFY") {
        Command::Vrfy
    } else if is("XFORWARD") {
        Command::Xforward(argument)
    } else {
        Command::Unknown
    }
}

/// A name or an address literal, of characters that can be sent on (RFC 5321 §4.1.2, and the underscore of many hosts).
fn is_name(name: &[u8]) -> bool {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte);
    !name.is_empty() && name.len() <= 255 && name.iter().all(good)
}

fn envelope<'a>(argument: &'a [u8], keyword: &[u8]) -> Option<Envelope<'a>> {
    let (word, rest) = argument.split_at_checked(keyword.len())?;
    if !word.eq_ignore_ascii_case(keyword) {
        return None;
    }
    // Some clients put a space before the bracket; the path itself has to be in brackets.
    let path = rest.trim_ascii_start().strip_prefix(b"<")?;
    let (mut quoted, mut escaped) = (false, false);
    let end = path.iter().position(|&byte| {
        match (escaped, byte) {
            (true, _) => escaped = false,
            (false, b'\\') => escaped = quoted,
            (false, b'"') => quoted = !quoted,
            (false, b'>') => return !quoted,
            (false, _) => {}
        }
        false
    })?;
    let (address, rest) = (&path[..end], &path[end + 1..]);
    let apart = rest.is_empty() || rest.starts_with(b" ");
    let clean = address.len() <= LONGEST_PATH && !address.iter().any(u8::is_ascii_control);
    (apart && clean).then_some(Envelope { address, parameters: rest.trim_ascii() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_of_each_command_is_read() {
        let mail = |address, parameters| Command::Mail(Envelope { address, parameters });
        assert_eq!(parse(b"mail from:<a@b.example>"), mail(b"a@b.example", b""));
        assert_eq!(parse(b"MAIL FROM:<> SIZE=100 BODY=8BITMIME"), mail(b"", b"SIZE=100 BODY=8BITMIME"));
        assert_eq!(parse(b"MAIL FROM: <a@b>"), mail(b"a@b", b""));
        assert_eq!(parse(br#"MAIL FROM:<"a>b\"c> "@d> X=1"#), mail(br#""a>b\"c> "@d"#, b"X=1"));
        assert_eq!(parse(b"EHLO  host.example "), Command::Ehlo(b"host.example"));
        assert_eq!(parse(b"data "), Command::Data);
        assert_eq!(parse(b"NOOP anything"), Command::Noop);
        assert_eq!(parse(b"XFORWARD NAME=a ADDR=b"), Command::Xforward(b"NAME=a ADDR=b"));
        assert_eq!(parse(b"BDAT 10 LAST"), Command::Unknown);
        assert_eq!(parse(b""), Command::Unknown);
    }

    #[test]
    fn what_is_malformed_is_told_from_what_is_unknown() {
        for line in [
            &b"MAIL"[..],
            b"MAIL FROM:a@b",
            b"MAIL FROM:<a@b",
            b"MAIL TO:<a@b>",
            b"MAIL FROM:<a@b>X",
            b"RCPT TO:<>",
            b"RCPT TO:<a\x01b@c>",
            b"EHLO",
            b"EHLO a b",
            b"EHLO a\xff",
            b"DATA x",
        ] {
            assert!(matches!(parse(line), Command::Malformed(_)), "{line:?}");
        }
    }

    #[test]
    fn parameters_are_keywords_with_values() {
        let Command::Rcpt(rcpt) = parse(b"RCPT TO:<a@b> NOTIFY=NEVER  ORCPT=rfc822;a@b FOO") else { panic!() };
        let parameters: Vec<_> = rcpt.parameters().collect();
        assert_eq!(parameters, [(&b"NOTIFY"[..], &b"NEVER"[..]), (b"ORCPT", b"rfc822;a@b"), (b"FOO", b"")]);
    }
}
