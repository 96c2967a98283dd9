//! One record for each message, and how messages are counted. What a message says is in neither.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::origin::Way;
use crate::journal::Timed;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// The upstream has taken it.
    Delivered,
    /// The upstream did not take it, for now or for good.
    Refused,
    /// A filter rejected it.
    Rejected,
    /// A filter left it in the mail server's queue.
    Held,
    /// A filter dropped it.
    Discarded,
    /// The upstream was lost, or none could be reached. The mail server tries again.
    Deferred,
    /// The client broke off before its end.
    Abandoned,
}

impl Fate {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Delivered, Self::Refused, Self::Rejected, Self::Held, Self::Discarded, Self::Deferred, Self::Abandoned];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::Held => "held",
            Self::Discarded => "discarded",
            Self::Deferred => "deferred",
            Self::Abandoned => "abandoned",
        }
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailRecord {
    /// When MAIL came.
    pub time: Timestamp,
    /// Its number in trace lines and replies.
    pub id: String,
    /// What became of it.
    pub fate: Fate,
    /// It may arrive twice: the upstream had it when the client, which tries again, was gone, or did not say whether it has
    /// it (RFC 1047).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub possible_duplicate: bool,
    /// How it came.
    pub way: Way,
    /// Who connected.
    pub peer: SocketAddr,
    /// Where the peer was going when the kernel brought it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<SocketAddr>,
    /// The name it gave itself.
    pub helo: String,
    /// Who is in front of the mail server, as that tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The subject at the other end of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The rule that allowed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The envelope's sender; empty for the null sender.
    pub from: String,
    /// The recipients.
    pub to: Vec<RecipientRecord>,
    /// Its `Message-ID:`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Its bytes as they came, dots and all.
    pub size: u64,
    /// What the filters said.
    pub verdicts: Vec<VerdictRecord>,
    /// The upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// TLS with the upstream: its version and cipher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_tls: Option<String>,
    /// The last answer that mattered: the upstream's, or the relay's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    /// How long it took, in milliseconds.
    pub ms: Timings,
}

/// How long a message took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// From MAIL to the answer to DATA.
    pub envelope: u64,
    /// From there to the end of the message.
    pub data: u64,
    /// What the upstream took to answer that.
    pub upstream: u64,
}

/// A recipient of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientRecord {
    /// Its address.
    pub address: String,
    /// The code of the answer; none if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
}

/// What a filter said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictRecord {
    /// Its name.
    pub filter: String,
    /// Where in the conversation.
    pub point: String,
    /// `tag`, `delay`, `reject`, `hold` or `discard`.
    pub verdict: String,
    /// Why.
    pub text: String,
}

impl Timed for MailRecord {
    fn time(&self) -> Timestamp {
        self.time
    }
}

impl fmt::Display for MailRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.time.strftime("%Y-%m-%dT%H:%M:%SZ");
        write!(f, "{time} {} {} from=<{}>", self.id, self.fate.name(), shown(&self.from))?;
        for to in self.to.iter().take(SHOWN) {
            write!(f, " to=<{}>", shown(&to.address))?;
        }
        if self.to.len() > SHOWN {
            write!(f, " and {} more", self.to.len() - SHOWN)?;
        }
        write!(f, " size={} peer={}", self.size, self.peer)?;
        if let Some(upstream) = &self.upstream {
            write!(f, " upstream={upstream}")?;
        }
        for verdict in &self.verdicts {
            write!(f, " {}={} ({})", verdict.filter.replace(' ', "-"), verdict.verdict, verdict.text)?;
        }
        if let Some(reply) = &self.reply {
            write!(f, " reply=\"{}\"", shown(reply))?;
        }
        if self.possible_duplicate {
            f.write_str(" (it may arrive twice)")?;
        }
        Ok(())
    }
}

/// How many recipients a line for people has.
const SHOWN: usize = 3;

/// A text of strangers, fit for a terminal.
fn shown(text: &str) -> impl fmt::Display + use<'_> {
    text.escape_debug()
}

/// How many messages and sessions there were.
#[derive(Debug, Default)]
pub(super) struct Counters {
    fates: [AtomicU64; Fate::ALL.len()],
    pub(super) possible_duplicates: AtomicU64,
    pub(super) sessions: AtomicU64,
    pub(super) active: AtomicU64,
    /// Connections of those who may not connect, or that were too many.
    pub(super) turned_away: AtomicU64,
}

/// How many messages became what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "they are the fates")]
pub struct Messages {
    pub delivered: u64,
    pub refused: u64,
    pub rejected: u64,
    pub held: u64,
    pub discarded: u64,
    pub deferred: u64,
    pub abandoned: u64,
    pub possible_duplicates: u64,
}

impl Counters {
    pub(super) fn count(&self, record: &MailRecord) {
        self.fates[record.fate as usize].fetch_add(1, Ordering::Relaxed);
        if record.possible_duplicate {
            self.possible_duplicates.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn messages(&self) -> Messages {
        let of = |fate: Fate| self.fates[fate as usize].load(Ordering::Relaxed);
        Messages {
            delivered: of(Fate::Delivered),
            refused: of(Fate::Refused),
            rejected: of(Fate::Rejected),
            held: of(Fate::Held),
            discarded: of(Fate::Discarded),
            deferred: of(Fate::Deferred),
            abandoned: of(Fate::Abandoned),
            possible_duplicates: self.possible_duplicates.load(Ordering::Relaxed),
        }
    }
}
