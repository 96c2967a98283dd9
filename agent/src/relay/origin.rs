//! Where a session came from: told by whoever accepted the connection.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use portreeve_abi::Brought;
use serde::{Deserialize, Serialize};

/// How mail comes to the relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The mail server was told to send everything here.
    Relayhost,
    /// The mail server passes what it is offered through the relay before it takes it (Postfix's `smtpd_proxy_filter`).
    BeforeQueue,
    /// The kernel brings the mail server's own connections.
    #[default]
    Redirect,
}

impl Way {
    /// The word in the policy.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Relayhost => "relayhost",
            Self::BeforeQueue => "before-queue",
            Self::Redirect => "redirect",
        }
    }
}

/// A connection's origin.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Who connected.
    pub peer: SocketAddr,
    /// The way it came.
    pub way: Way,
    /// Where the peer asked to go, when it was not the relay.
    pub destination: Option<SocketAddr>,
    /// The subject that the kernel found at the other end of the connection, in words.
    pub subject: Option<String>,
    /// The rule that allowed it.
    pub rule: Option<String>,
}

impl Origin {
    /// Adds what the kernel knows of a connection that it has brought.
    pub(super) fn tell(&mut self, brought: &Brought, (generation, names): &(u32, Vec<String>)) {
        let address = Ipv6Addr::from(brought.address);
        self.destination = Some(SocketAddr::new(IpAddr::V6(address).to_canonical(), brought.port));
        let exe = std::fs::read_link(format!("/proc/{}/exe", brought.pid));
        let exe = exe.map_or_else(|_gone| "a process that is gone".to_owned(), |exe| exe.display().to_string());
        // Without the number of the process: the next one that the server starts is the same subject.
        self.subject = Some(format!("{exe} (uid {})", brought.euid));
        if *generation == brought.generation {
            self.rule = usize::try_from(brought.rule).ok().and_then(|rule| names.get(rule)).cloned();
        }
    }
}

/// What XFORWARD tells of the client in front of the mail server (Postfix, XFORWARD_README). An attribute that is not
/// known stays empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// The values by the place of their name in [`ATTRIBUTES`], decoded.
    values: [Option<String>; ATTRIBUTES.len()],
}

/// The attributes.
pub const ATTRIBUTES: [&str; 7] = ["NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE"];
/// The longest value that Postfix sends.
const LONGEST: usize = 255;

impl Forwarded {
    /// Takes the arguments of one XFORWARD.
    ///
    /// # Errors
    ///
    /// What is wrong with them; nothing is taken then.
    pub fn take(&mut self, arguments: &[u8]) -> Result<(), &'static str> {
        let mut values = self.values.clone();
        let words = arguments.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        for word in words {
            let at = word.iter().position(|byte| *byte == b'=').ok_or("an attribute has no value")?;
            let place = ATTRIBUTES.iter().position(|name| word[..at].eq_ignore_ascii_case(name.as_bytes()));
            let place = place.ok_or("there is no such attribute")?;
            let value = super::wire::xtext::decode(&word[at + 1..]).ok_or("a value is no xtext")?;
            let clean = value.len() <= LONGEST && !value.iter().any(u8::is_ascii_control);
            let text =
                String::from_utf8(value).ok().filter(|_| clean).ok_or("a value has characters it cannot have")?;
            values[place] = (!text.eq_ignore_ascii_case("[UNAVAILABLE]")).then_some(text);
        }
        self.values = values;
        Ok(())
    }

    /// The value of an attribute.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let place = ATTRIBUTES.iter().position(|attribute| *attribute == name)?;
        self.values[place].as_deref()
    }

    /// Whether anything is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.iter().all(Option::is_none)
    }

    /// The commands that tell the next server of it, of the attributes it takes; each below the 512 bytes of a line.
    #[must_use]
    pub fn commands(&self, takes: &[String]) -> Vec<String> {
        let mut commands: Vec<String> = Vec::new();
        for name in ATTRIBUTES.iter().filter(|name| takes.iter().any(|takes| takes == *name)) {
            let value = self
                .get(name)
                .map_or_else(|| "[UNAVAILABLE]".to_owned(), |value| super::wire::xtext::encode(value.as_bytes()));
            let word = format!(" {name}={value}");
            match commands.last_mut() {
                Some(command) if command.len() + word.len() <= 510 => command.push_str(&word),
                _ => commands.push(format!("XFORWARD{word}")),
            }
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postfix_sends_is_understood_and_sent_on() {
        let mut forwarded = Forwarded::default();
        forwarded.take(b"NAME=spike.example ADDR=IPv6:2001:db8::1 PORT=1234 SOURCE=REMOTE").unwrap();
        forwarded.take(b"PROTO=ESMTP HELO=a+2Bb IDENT=4Xq1 name=[UNAVAILABLE]").unwrap();
        assert_eq!((forwarded.get("NAME"), forwarded.get("HELO")), (None, Some("a+b")));
        let takes = ["NAME", "ADDR", "HELO"].map(str::to_owned);
        assert_eq!(forwarded.commands(&takes), ["XFORWARD NAME=[UNAVAILABLE] ADDR=IPv6:2001:db8::1 HELO=a+2Bb"]);
        assert!(Forwarded::default().is_empty() && !forwarded.is_empty());
    }

    #[test]
    fn what_is_wrong_changes_nothing() {
        let mut forwarded = Forwarded::default();
        for wrong in [&b"NAME"[..], b"X=1", b"NAME=a ADDR=+zz", b"NAME=+0D+0A", b"NAME=+FF"] {
            assert!(forwarded.take(wrong).is_err(), "{wrong:?}");
            assert!(forwarded.is_empty());
        }
    }
}
