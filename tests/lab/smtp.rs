//! Enough of an SMTP server (RFC 5321) to take mail and remember it. No I/O: bytes in, bytes out.

/// One message as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The reverse-path, without the angle brackets.
    pub from: String,
    /// The forward-paths, without the angle brackets.
    pub to: Vec<String>,
    /// What DATA carried, with dots unstuffed and CRLF line ends.
    pub body: String,
}

/// The server's side of one session.
#[derive(Debug, Default)]
pub(crate) struct Session {
    line: Vec<u8>,
    from: String,
    to: Vec<String>,
    body: Option<String>,
}

/// What a server says first.
pub(crate) const GREETING: &[u8] = b"220 mx.example ESMTP lab\r\n";

/// What one piece of input led to.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) reply: Vec<u8>,
    pub(crate) messages: Vec<Message>,
    pub(crate) quit: bool,
}

impl Session {
    /// Takes in what the client sent.
    pub(crate) fn ingest(&mut self, bytes: &[u8]) -> Answer {
        let mut answer = Answer::default();
        for &byte in bytes {
            self.line.push(byte);
            if self.line.ends_with(b"\r\n") {
                let line = String::from_utf8_lossy(&self.line[..self.line.len() - 2]).into_owned();
                self.line.clear();
                self.line(&line, &mut answer);
            }
        }
        answer
    }

    fn line(&mut self, line: &str, answer: &mut Answer) {
        if let Some(body) = &mut self.body {
            if line != "." {
                // RFC 5321 §4.5.2
                body.push_str(line.strip_prefix('.').unwrap_or(line));
                body.push_str("\r\n");
                return;
            }
            answer.messages.push(Message {
                from: std::mem::take(&mut self.from),
                to: std::mem::take(&mut self.to),
                body: self.body.take().unwrap_or_default(),
            });
            answer.reply.extend_from_slice(b"250 2.0.0 taken\r\n");
            return;
        }
        let upper = line.to_ascii_uppercase();
        let reply: &[u8] = if upper.starts_with("EHLO") {
            b"250-mx.example greets you\r\n250-8BITMIME\r\n250-PIPELINING\r\n250 SIZE 10485760\r\n"
        } else if upper.starts_with("HELO") {
            b"250 mx.example\r\n"
        } else if upper.starts_with("MAIL FROM:") {
            self.from = path(line);
            self.to.clear();
            b"250 2.1.0 sender ok\r\n"
        } else if upper.starts_with("RCPT TO:") {
            self.to.push(path(line));
            b"250 2.1.5 recipient ok\r\n"
        } else if upper == "DATA" {
            self.body = Some(String::new());
            b"354 go on\r\n"
        } else if upper == "RSET" || upper == "NOOP" {
            b"250 2.0.0 ok\r\n"
        } else if upper == "QUIT" {
            answer.quit = true;
            b"221 2.0.0 bye\r\n"
        } else {
            b"502 5.5.1 not here\r\n"
        };
        answer.reply.extend_from_slice(reply);
    }
}

/// What stands between the angle brackets.
fn path(line: &str) -> String {
    let inner = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or(line, |(path, _)| path).into()
}
