//! What a server offers in its answer to EHLO.

use super::super::wire::reply::Reply;

/// The extensions that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Capabilities {
    /// It answered EHLO, not only HELO.
    pub(in super::super) esmtp: bool,
    pub(in super::super) eight_bit: bool,
    pub(in super::super) smtputf8: bool,
    pub(in super::super) dsn: bool,
    pub(in super::super) enhanced: bool,
    pub(in super::super) pipelining: bool,
    pub(in super::super) starttls: bool,
    /// The largest message it takes; `Some(0)` if it offers SIZE and names none (RFC 1870 §4).
    pub(in super::super) size: Option<u64>,
    pub(in super::super) auth: Vec<String>,
    pub(in super::super) xforward: Vec<String>,
}

impl Capabilities {
    /// Reads an answer to EHLO.
    pub(in super::super) fn read(reply: &Reply) -> Self {
        let mut found = Self { esmtp: true, ..Self::default() };
        for line in reply.text().skip(1) {
            let line = String::from_utf8_lossy(line).to_ascii_uppercase();
            // AUTH=LOGIN is how some announce AUTH to old clients.
            let mut words = line.split([' ', '=']).filter(|word| !word.is_empty());
            match words.next().unwrap_or_default() {
                "8BITMIME" => found.eight_bit = true,
                "SMTPUTF8" => found.smtputf8 = true,
                "DSN" => found.dsn = true,
                "ENHANCEDSTATUSCODES" => found.enhanced = true,
                "PIPELINING" => found.pipelining = true,
                "STARTTLS" => found.starttls = true,
                "SIZE" => found.size = Some(words.next().and_then(|size| size.parse().ok()).unwrap_or(0)),
                "AUTH" => found.auth.extend(words.map(str::to_owned)),
                "XFORWARD" => found.xforward.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        found
    }

    /// What the relay offers its client, which takes `max_size` bytes itself: what the upstream offers and the relay passes
    /// on, and PIPELINING, which is the relay's own.
    pub(in super::super) fn offer(&self, max_size: u64) -> Vec<String> {
        let size = self.size.map(|theirs| if theirs == 0 { max_size } else { theirs.min(max_size) });
        let words = [
            Some("PIPELINING".to_owned()),
            size.map(|size| format!("SIZE {size}")),
            self.enhanced.then(|| "ENHANCEDSTATUSCODES".to_owned()),
            self.eight_bit.then(|| "8BITMIME".to_owned()),
            self.dsn.then(|| "DSN".to_owned()),
            self.smtputf8.then(|| "SMTPUTF8".to_owned()),
        ];
        words.into_iter().flatten().collect()
    }

    /// Whether a parameter of MAIL or RCPT belongs to something that is offered.
    pub(in super::super) fn knows(&self, keyword: &[u8], value: &[u8]) -> bool {
        let is = |name: &str| keyword.eq_ignore_ascii_case(name.as_bytes());
        if is("SIZE") {
            self.size.is_some()
        } else if is("BODY") {
            self.eight_bit && [&b"7BIT"[..], b"8BITMIME"].iter().any(|body| value.eq_ignore_ascii_case(body))
        } else if is("SMTPUTF8") {
            self.smtputf8
        } else {
            self.dsn && ["RET", "ENVID", "NOTIFY", "ORCPT"].iter().any(|name| is(name))
        }
    }

    /// Whether a server with these takes everything that was offered on the strength of others.
    pub(in super::super) fn covers(&self, offered: &Self) -> bool {
        let has = |mine: bool, other: bool| mine || !other;
        has(self.esmtp, offered.esmtp)
            && has(self.eight_bit, offered.eight_bit)
            && has(self.smtputf8, offered.smtputf8)
            && has(self.dsn, offered.dsn)
            && has(self.size.is_some(), offered.size.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_is_what_both_have() {
        let reply = Reply::lines(
            250,
            ["mx", "PIPELINING", "size 1000", "8BITMIME", "AUTH PLAIN LOGIN", "AUTH=LOGIN", "CHUNKING"],
        );
        let found = Capabilities::read(&reply);
        assert_eq!(found.offer(5000), ["PIPELINING", "SIZE 1000", "8BITMIME"]);
        assert_eq!(found.offer(500), ["PIPELINING", "SIZE 500", "8BITMIME"]);
        assert_eq!(found.auth, ["PLAIN", "LOGIN", "LOGIN"]);
        assert!(found.knows(b"body", b"8bitmime") && !found.knows(b"BODY", b"BINARYMIME"));
        assert!(!found.knows(b"NOTIFY", b"NEVER") && !found.knows(b"SMTPUTF8", b"") && !found.knows(b"AUTH", b"<>"));
        assert_eq!(Capabilities::default().offer(10), ["PIPELINING"]);
    }

    #[test]
    fn an_upstream_in_another_ones_place_must_offer_as_much() {
        let full = Capabilities { esmtp: true, eight_bit: true, dsn: true, size: Some(0), ..Capabilities::default() };
        assert!(full.covers(&Capabilities::default()) && full.covers(&full));
        assert!(!Capabilities { dsn: false, ..full.clone() }.covers(&full));
    }
}
