//! `[relay]` of the policy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::origin::Way;
use super::wire::data::Smuggling;

/// How mail is relayed.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How mail comes here.
    pub way: Way,
    /// Where the relay listens.
    pub listen: Vec<SocketAddr>,
    /// Who may connect.
    pub peers: Vec<IpNet>,
    /// What the relay calls itself, unless it takes the first upstream's host.
    pub name: Option<String>,
    /// Where mail goes.
    pub upstreams: Vec<UpstreamSettings>,
    /// What is done about bare CR, bare LF and NUL.
    pub smuggling: Smuggling,
    /// The most bytes of a line of a message; 0 for no limit.
    pub longest_line: usize,
    /// The certificate for STARTTLS, with its key, both in PEM.
    pub certificate: Option<Certificate>,
    /// The most bytes of a message.
    pub max_size: u64,
    /// The most recipients of a message.
    pub max_recipients: usize,
    /// The most sessions at once.
    pub max_sessions: usize,
    /// The most `Received:` lines of a message.
    pub max_hops: usize,
    /// Rate limits.
    pub limits: Vec<LimitSettings>,
    /// What is done with a message that is too large, has too many recipients or comes round again.
    pub action: Action,
    /// Reports about refused messages go no further.
    pub bounce_guard: bool,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// Where the relay listens unless the policy says otherwise.
const LISTEN: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10_025),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 10_025),
];

impl Default for Settings {
    fn default() -> Self {
        Self {
            way: Way::Redirect,
            listen: LISTEN.to_vec(),
            peers: Vec::new(),
            name: None,
            upstreams: Vec::new(),
            smuggling: Smuggling::Deny,
            longest_line: 64 << 10,
            certificate: None,
            max_size: 50 << 20,
            max_recipients: 1000,
            max_sessions: 6000,
            max_hops: 50,
            limits: Vec::new(),
            action: Action::Reject,
            bounce_guard: true,
            timeouts: Timeouts::default(),
        }
    }
}

impl Settings {
    /// What the relay calls itself in its greeting. Never the mail server's own name: it would take the relay for itself,
    /// and return everything ("mail loops back to myself", Postfix).
    #[must_use]
    pub fn name(&self) -> String {
        let upstream = || match self.upstreams.first().map(|upstream| upstream.host.as_str()) {
            Some(host) => match host.parse::<IpAddr>() {
                Ok(IpAddr::V4(address)) => format!("[{address}]"),
                Ok(IpAddr::V6(address)) => format!("[IPv6:{address}]"),
                Err(_name) => host.to_owned(),
            },
            None => "portreeve.invalid".to_owned(),
        };
        self.name.clone().unwrap_or_else(upstream)
    }

    /// Whether a peer may connect.
    #[must_use]
    pub fn takes(&self, peer: SocketAddr) -> bool {
        let address = peer.ip().to_canonical();
        if self.peers.is_empty() { address.is_loopback() } else { self.peers.iter().any(|net| net.contains(&address)) }
    }
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, the server's own first.
    pub chain: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// One `[[relay.upstream]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether and how the connection is encrypted.
    pub tls: Tls,
    /// The name its certificate must have, if it is another than `host`.
    pub tls_name: Option<String>,
    /// The certificate authorities to trust, in PEM, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The file with user and password.
    pub auth_file: Option<PathBuf>,
    /// Lower ones are tried first.
    pub priority: u16,
}

impl UpstreamSettings {
    /// What it is called.
    #[must_use]
    pub fn title(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Whether and how a connection to an upstream is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Never.
    None,
    /// By STARTTLS where it is offered, whatever the certificate says (RFC 7435).
    #[default]
    Opportunistic,
    /// By STARTTLS, with a certificate that holds.
    Required,
    /// From the first byte on (RFC 8314), with a certificate that holds.
    Implicit,
}

impl Tls {
    /// Whether a certificate has to hold.
    #[must_use]
    pub fn verifies(self) -> bool {
        matches!(self, Self::Required | Self::Implicit)
    }
}

/// What is done with what is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// A final "no". Behind the queue, the mail server then writes a report to the sender.
    #[default]
    Reject,
    /// "Later": the message stays in the mail server's queue.
    Hold,
    /// "Yes", and the message is dropped.
    Discard,
}

/// One `[[relay.limit]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    /// Whose share it is.
    pub per: Per,
    /// So many recipients, all at once at first.
    pub recipients: u32,
    /// In so much time.
    pub every: Duration,
    /// What is done beyond.
    pub action: Action,
}

/// Whose share a limit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// The address that connected, or that XFORWARD tells.
    Peer,
    /// The envelope's sender; the null sender is one, too.
    Sender,
    /// The subject at the other end of the connection.
    Subject,
    /// The rule that allowed it.
    Rule,
}

impl Per {
    /// The word in the policy.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Sender => "sender",
            Self::Subject => "subject",
            Self::Rule => "rule",
        }
    }
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A connection to an upstream, from its begin to the answer to EHLO, TLS and AUTH within.
    pub connect: Duration,
    /// The upstream's answer to a command (RFC 5321 §4.5.3.2.2 and 3).
    pub command: Duration,
    /// Its answer to DATA (§4.5.3.2.4).
    pub data: Duration,
    /// A part of the message, of the client or to the upstream (§4.5.3.2.5).
    pub block: Duration,
    /// The upstream's answer to the end of the message. Clients wait ten minutes (§4.5.3.2.6), for everything.
    pub end: Duration,
    /// The client's next command (§4.5.3.2.7).
    pub client: Duration,
    /// What sessions in progress have when the agent ends.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            command: Duration::from_secs(240),
            data: Duration::from_secs(120),
            block: Duration::from_secs(180),
            end: Duration::from_secs(480),
            client: Duration::from_secs(300),
            drain: Duration::from_secs(20),
        }
    }
}
