//! The local control socket: what the CLI asks the agent, and how it asks. The agent answers in agent/server.rs.
//!
//! One request, a line of JSON; then the answer, one or more lines of JSON. Reading needs the group of the socket
//! file, changing needs root; the kernel says who the peer is (SO_PEERCRED, unix(7)).

mod client;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

use crate::alert::{Alert, Filter, Occasion, Resolution};
use crate::host::Mac;

pub use client::{Client, ClientError};

/// The group whose members may read.
pub const GROUP: &str = "portreeve";

/// A question or an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How the agent is doing.
    Status,
    /// The attempts.
    Attempts {
        /// Only those since.
        since: Option<Timestamp>,
        /// Go on with those to come.
        follow: bool,
    },
    /// The messages that have come by the relay.
    Mail {
        /// Only those since.
        since: Option<Timestamp>,
        /// Go on with those to come.
        follow: bool,
    },
    /// The kernel's counters, subject by subject.
    Subjects,
    /// What the verdict would be, and why.
    Explain(Question),
    /// The alerts.
    Alerts {
        /// Which.
        filter: Filter,
        /// Go on with what happens to them.
        follow: bool,
    },
    /// One alert.
    Alert {
        /// Its number.
        id: u64,
    },
    /// Say that an alert was looked at. For root.
    AckAlert {
        /// Its number.
        id: u64,
        /// What is to be noted.
        note: Option<String>,
    },
    /// Say what an alert was. For root.
    ResolveAlert {
        /// Its number.
        id: u64,
        /// What it was.
        #[serde(rename = "as")]
        resolution: Resolution,
        /// What is to be noted.
        note: Option<String>,
    },
    /// Say that a rule was written for an alert's subject, which resolves it as allowed. For root.
    NoteAlert {
        /// Its number.
        id: u64,
        /// What was done, for its history: `allowed by rule "…"`.
        what: String,
        /// What is to be noted.
        note: Option<String>,
    },
    /// Undo what was done about an alert's subject. For root.
    UndoAlert {
        /// Its number.
        id: u64,
    },
    /// Read the policy again. For root.
    Reload,
    /// End, because another agent takes over. For root.
    HandOver,
    /// Switch between enforce and observe. For root.
    Mode {
        /// Observe, or enforce.
        observe: bool,
    },
}

impl Request {
    /// Whether only root may ask it.
    #[must_use]
    pub fn changes(&self) -> bool {
        match self {
            Self::Status
            | Self::Subjects
            | Self::Attempts { .. }
            | Self::Mail { .. }
            | Self::Alerts { .. }
            | Self::Alert { .. }
            | Self::Explain(_) => false,
            Self::AckAlert { .. }
            | Self::ResolveAlert { .. }
            | Self::NoteAlert { .. }
            | Self::UndoAlert { .. }
            | Self::Reload
            | Self::HandOver
            | Self::Mode { .. } => true,
        }
    }
}

/// Whose attempt, and where to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// A running process; what is given beside it counts instead of what it is.
    pub pid: Option<u32>,
    /// An executable.
    pub exe: Option<String>,
    /// A user, by name or number.
    pub user: Option<String>,
    /// A group, by name or number.
    pub group: Option<String>,
    /// A cgroup's path or a unit's name.
    pub unit: Option<String>,
    /// A LAN host's address, in place of a process.
    #[serde(default)]
    pub from: Option<IpAddr>,
    /// Its MAC address.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// The VLAN it is in.
    #[serde(default)]
    pub vlan: Option<String>,
    /// The destination.
    pub to: Option<SocketAddr>,
}

/// An alert in an answer; told to a follower, with what has happened to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertLine {
    /// What has happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub occasion: Option<Occasion>,
    /// The alert.
    #[serde(flatten)]
    pub alert: Alert,
}

/// The answer to a change of an alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// The alert as it is now.
    pub alert: Alert,
    /// Why the change is only in memory; none when it is on disk.
    pub not_on_disk: Option<String>,
}

/// An answer that is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong, in a sentence.
    pub error: String,
    /// The caller lacks the right.
    #[serde(default)]
    pub forbidden: bool,
}

/// Told to a follower that was too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// How many attempts, alerts or messages it did not get.
    pub lost: u64,
}
