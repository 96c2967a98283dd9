//! What the policy says of alerts and of who is told of them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use lettre::message::Mailbox;

use super::{Occasion, ReporterSettings};
use crate::detect::Severity;

/// Where journald listens (systemd.io/JOURNAL_NATIVE_PROTOCOL).
pub const JOURNAL: &str = "/run/systemd/journal/socket";
/// Where the local syslog daemon listens (syslog(3)).
pub const SYSLOG: &str = "/dev/log";
/// The certificate authorities that Debian and its kin trust.
pub const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// `[alert]` of the policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How long resolved alerts are kept.
    pub keep: Duration,
    /// How many bytes the store may take before the oldest resolved alerts go.
    pub keep_bytes: u64,
    /// How many notices within [`Self::flood_window`] a sink is told one by one; more become one summary.
    pub flood: usize,
    /// The time within which they are counted.
    pub flood_window: Duration,
    /// Who reports an alert to others.
    pub reporter: ReporterSettings,
    /// Who is told.
    pub sinks: Vec<SinkSettings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keep: Duration::from_secs(365 * 24 * 60 * 60),
            keep_bytes: 64 << 20,
            flood: 10,
            flood_window: Duration::from_secs(10),
            reporter: ReporterSettings::default(),
            sinks: Vec::new(),
        }
    }
}

/// One `[[alert.sink]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkSettings {
    /// Its name, which no other sink has.
    pub name: String,
    /// What it is.
    pub kind: SinkKind,
    /// Alerts below this are not told.
    pub min_severity: Severity,
    /// The occasions it is told of.
    pub on: Vec<Occasion>,
    /// How often a message is tried before it is given up.
    pub tries: u32,
    /// How long it waits after the first failure; each further one doubles it.
    pub retry: Duration,
    /// How many messages wait for it at most.
    pub queue: usize,
}

impl SinkSettings {
    /// A sink of a kind, with the defaults of a policy that says no more.
    #[must_use]
    pub fn new(name: &str, kind: SinkKind) -> Self {
        let on = kind.occasions().to_vec();
        Self {
            name: name.to_owned(),
            kind,
            min_severity: Severity::Notice,
            on,
            tries: 10,
            retry: Duration::from_secs(5),
            queue: 256,
        }
    }
}

/// What a sink is.
#[derive(Clone, Debug, PartialEq)]
pub enum SinkKind {
    /// The systemd journal.
    Journald {
        /// Its socket.
        socket: PathBuf,
    },
    /// A syslog daemon.
    Syslog {
        /// How it is reached.
        to: SyslogTo,
        /// How messages are written.
        format: SyslogFormat,
        /// The facility's number (RFC 5424 §6.2.1).
        facility: u8,
    },
    /// A file of JSON Lines.
    File {
        /// The file.
        path: PathBuf,
        /// At how many bytes it is turned over.
        rotate: u64,
        /// How many older files are kept.
        keep: u32,
    },
    /// An HTTP server.
    Webhook(Webhook),
    /// Mail through the local mail server.
    Email {
        /// The mail server.
        host: String,
        /// Its port.
        port: u16,
        /// Who it is from; none for `portreeve` at this host.
        from: Option<Mailbox>,
        /// Who gets it.
        to: Vec<Mailbox>,
    },
    /// A program.
    Command {
        /// Its path.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
        /// After how long it is killed.
        timeout: Duration,
    },
}

impl SinkKind {
    /// Its name, as in the policy.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Journald { .. } => "journald",
            Self::Syslog { .. } => "syslog",
            Self::File { .. } => "file",
            Self::Webhook(_) => "webhook",
            Self::Email { .. } => "email",
            Self::Command { .. } => "command",
        }
    }

    /// What it is told of unless the policy says otherwise: a record gets everything, people only what they did not do
    /// themselves and should act on.
    #[must_use]
    pub fn occasions(&self) -> &'static [Occasion] {
        match self {
            Self::Journald { .. } | Self::Syslog { .. } | Self::File { .. } => &Occasion::ALL,
            Self::Webhook(_) | Self::Email { .. } | Self::Command { .. } => {
                &[Occasion::Opened, Occasion::Reopened, Occasion::Worse, Occasion::Responded]
            }
        }
    }
}

/// How syslog messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyslogFormat {
    /// With structured data (RFC 5424).
    Rfc5424,
    /// As syslog(3) writes to `/dev/log` (RFC 3164 §4.1, without the host): the one line, and no structured data.
    Rfc3164,
}

/// How a syslog daemon is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogTo {
    /// Datagrams to a socket of this host.
    Local(PathBuf),
    /// UDP (RFC 5426) to a host and port.
    Udp(String, u16),
    /// TCP with octet counting (RFC 6587 §3.4.1) to a host and port.
    Tcp(String, u16),
}

/// An HTTP server and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where to. It may be a secret by itself, so it is not shown in errors.
    pub url: String,
    /// What is sent.
    pub template: Template,
    /// The file with the secret that the body is signed with.
    pub secret_file: Option<PathBuf>,
    /// The certificate authorities to trust, in PEM.
    pub ca_file: PathBuf,
    /// The HTTP proxy to go through.
    pub proxy: Option<String>,
    /// Give up waiting after this.
    pub timeout: Duration,
}

/// What a webhook sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// The notice as plain JSON.
    Json,
    /// A message as Slack and Mattermost take it.
    Slack,
}

/// Whether a host's name or address stays within this machine.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
