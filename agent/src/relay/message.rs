//! What the relay sees of a message that passes through, and the line it adds.

use std::net::SocketAddr;

use jiff::Timestamp;

/// The most bytes of a line that are looked at.
const LOOKED_AT: usize = 512;
/// The most references that are kept of a report.
const REFERENCES: usize = 32;
/// What the relay writes of itself into its trace line.
const MARK: &str = "(Portreeve)";

/// Looks at a message while it passes: at its header, and in reports also at what they report on.
#[derive(Debug, Default)]
pub struct Inspector {
    line: Vec<u8>,
    in_body: bool,
    /// What was seen.
    pub seen: Headers,
    report: bool,
}

/// What was seen of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// How many `Received:` lines it has.
    pub hops: usize,
    /// How many of them are a relay's like this one.
    pub own: usize,
    /// Its `Message-ID:`.
    pub message_id: Option<String>,
    /// The queue id in the topmost `Received:` line.
    pub queue_id: Option<String>,
    /// What a report refers to: message ids, queue ids and recipients.
    pub references: Vec<String>,
    /// The last field, whose folded lines follow.
    field: Field,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Field {
    #[default]
    Other,
    Received,
    MessageId,
}

impl Inspector {
    /// Begins a message; a report is one whose sender is null.
    #[must_use]
    pub fn new(report: bool) -> Self {
        Self { report, ..Self::default() }
    }

    /// Takes the next bytes.
    pub fn take(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !self.is_done() && !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest);
            let part = &rest[..end.unwrap_or(rest.len())];
            let room = LOOKED_AT - self.line.len();
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            let Some(end) = end else { return };
            let line = std::mem::take(&mut self.line);
            self.line_ended(line.strip_suffix(b"\r").unwrap_or(&line));
            self.line = line;
            self.line.clear();
            rest = &rest[end + 1..];
        }
    }

    /// Whether nothing that follows matters.
    fn is_done(&self) -> bool {
        self.in_body && (!self.report || self.seen.references.len() >= REFERENCES)
    }

    fn line_ended(&mut self, line: &[u8]) {
        if self.in_body {
            if let Some(reference) = reference(line) {
                self.seen.references.push(reference);
            }
        } else if line.is_empty() {
            self.in_body = true;
        } else if line[0] == b' ' || line[0] == b'\t' {
            self.seen.folded(line);
        } else {
            self.seen.field(line);
        }
    }
}

impl Headers {
    fn field(&mut self, line: &[u8]) {
        self.field = Field::Other;
        if value(line, b"Received:").is_some() {
            self.hops += 1;
            self.field = Field::Received;
            self.folded(line);
        } else if let Some(value) = value(line, b"Message-ID:") {
            self.field = Field::MessageId;
            self.message_id = text(value);
        }
    }

    /// A line, or another line of the same field.
    fn folded(&mut self, line: &[u8]) {
        match self.field {
            Field::Received => {
                if memchr::memmem::find(line, MARK.as_bytes()).is_some() {
                    self.own += 1;
                }
                if self.hops == 1 && self.queue_id.is_none() {
                    let words = line.split(|byte| b" \t;".contains(byte)).filter(|word| !word.is_empty());
                    let mut words = words.skip_while(|word| *word != b"id");
                    self.queue_id = words.nth(1).and_then(text);
                }
            }
            Field::MessageId if self.message_id.is_none() => self.message_id = text(line),
            Field::MessageId | Field::Other => {}
        }
    }
}

/// What follows a field's name, in whatever case that is.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(rest)
}

fn text(value: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(value.trim_ascii()).into_owned();
    (!text.is_empty() && !text.contains(char::is_control)).then_some(text)
}

/// What a line of a report (RFC 3464 §2, and the header of the message that it returns) refers to.
fn reference(line: &[u8]) -> Option<String> {
    if let Some(id) = value(line, b"Message-ID:").or_else(|| value(line, b"X-Postfix-Queue-ID:")) {
        return text(id);
    }
    let recipient = value(line, b"Final-Recipient:").or_else(|| value(line, b"Original-Recipient:"))?;
    let address = recipient.iter().position(|byte| *byte == b';').map(|at| &recipient[at + 1..])?;
    text(address).map(|address| address.trim_matches(['<', '>']).to_ascii_lowercase())
}

/// The line that the relay puts in front of a message (RFC 5321 §4.4).
#[must_use]
pub fn trace(helo: &str, peer: SocketAddr, name: &str, with: &str, id: &str, now: Timestamp) -> String {
    let address = match peer.ip().to_canonical() {
        std::net::IpAddr::V4(address) => format!("[{address}]"),
        std::net::IpAddr::V6(address) => format!("[IPv6:{address}]"),
    };
    let date = now.strftime("%a, %d %b %Y %H:%M:%S +0000");
    format!("Received: from {helo} ({address})\r\n\tby {name} {MARK} with {with}\r\n\tid {id}; {date}\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(report: bool, message: &[u8]) -> Headers {
        let whole = pieces(report, message, message.len().max(1));
        for size in 1..8 {
            assert_eq!(pieces(report, message, size), whole);
        }
        whole
    }

    fn pieces(report: bool, message: &[u8], size: usize) -> Headers {
        let mut inspector = Inspector::new(report);
        message.chunks(size).for_each(|piece| inspector.take(piece));
        inspector.seen
    }

    #[test]
    fn hops_and_ids_are_seen_in_the_header_alone() {
        let mine =
            trace("a.example", ([192, 0, 2, 1], 25).into(), "relay.example", "ESMTP", "x1", Timestamp::UNIX_EPOCH);
        assert!(mine.ends_with("\tid x1; Thu, 01 Jan 1970 00:00:00 +0000\r\n"), "{mine}");
        let message = format!(
            "Received: by host.example (Postfix, from userid 0)\r\n\tid 4B8C2; Mon\r\n{mine}Message-Id:\r\n <1@a>\r\n\
             Subject: x\r\n\r\nReceived: no\r\nMessage-ID: <2@a>\r\n"
        );
        let seen = look(false, message.as_bytes());
        assert_eq!((seen.hops, seen.own, seen.message_id.as_deref()), (2, 1, Some("<1@a>")));
        assert_eq!((seen.queue_id.as_deref(), seen.references.len()), (Some("4B8C2"), 0));
        assert_eq!(look(false, b""), Headers::default());
    }

    #[test]
    fn a_report_is_known_by_what_it_refers_to() {
        let report = b"Subject: Undelivered\r\n\r\nX-Postfix-Queue-ID: 4B8C2\r\nFinal-Recipient: rfc822; B@Example\r\n\
                       \r\nMessage-ID: <1@a>\r\nOriginal-Recipient: rfc822;<b@c>\r\n";
        assert_eq!(look(true, report).references, ["4B8C2", "b@example", "<1@a>", "b@c"]);
        let many = [&b"\r\n"[..], &b"Message-ID: <1@a>\r\n".repeat(1000)].concat();
        assert_eq!(look(true, &many).references.len(), REFERENCES);
    }
}
