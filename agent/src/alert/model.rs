//! An alert: what an administrator works through.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::attempt::Attempt;
use crate::detect::{Finding, Severity, SubjectId};
use crate::subject::Container;

/// How many destinations an alert counts one by one.
pub const DESTINATIONS: usize = 64;
/// How many findings an alert keeps, the latest.
pub const FINDINGS: usize = 32;
/// How many changes of its life an alert keeps, the first and the latest.
pub const CHANGES: usize = 64;

/// What is known of one subject that was found to be suspicious, from its first episode to its last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Its number, from 1 on, never used twice.
    pub id: u64,
    /// The subject's number.
    pub subject: SubjectId,
    /// The subject, for people.
    pub who: Who,
    /// How much it should worry: the worst of its findings.
    pub severity: Severity,
    /// How far its review is.
    pub state: State,
    /// What it turned out to be, once resolved.
    pub resolution: Option<Resolution>,
    /// When the first episode's first finding was made.
    pub opened: Timestamp,
    /// The last attempt of the subject.
    pub last: Timestamp,
    /// The subject's first attempt.
    pub first: Timestamp,
    /// When the latest episode ended: after so long without an attempt. None while it goes on.
    pub quiet_since: Option<Timestamp>,
    /// How many episodes there were, the present one included.
    pub episodes: u32,
    /// What was found, by which test, with the numbers behind it; the oldest first.
    pub findings: Vec<Finding>,
    /// Attempts since the first finding, and those before it as the finding counted them.
    pub attempts: u64,
    /// Of these, refused or what would have been refused.
    pub refused: u64,
    /// Of these, mail handed to the local mail server.
    pub local: u64,
    /// Destinations by attempts, the most first, from the first finding on and as far as older attempts were still
    /// known. At most [`DESTINATIONS`].
    pub destinations: Vec<Destination>,
    /// Attempts to destinations beyond those.
    pub elsewhere: u64,
    /// The attempt at the worst moment, with the process tree as it was then.
    pub worst: Option<Attempt>,
    /// The executable's SHA-256.
    pub sha256: Option<String>,
    /// The package that owns the executable.
    pub package: Option<String>,
    /// What it would have taken to clear the subject.
    pub clear: Vec<String>,
    /// What to do next: a sentence each, followed by commands, each in a line of its own.
    pub next: Vec<String>,
    /// What was done about the alert, by whom and when.
    pub history: Vec<Change>,
    /// What the agent did about the subject by itself; at most [`DEEDS`](super::response::DEEDS).
    #[serde(default)]
    pub deeds: Vec<super::response::Deed>,
    /// The process tree at the worst moment: the process, its forebears and its descendants.
    #[serde(default)]
    pub tree: Vec<crate::subject::Member>,
}

/// A subject, for people and for filters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// In one line.
    pub name: String,
    /// The executable's path.
    pub exe: Option<String>,
    /// The script behind an interpreter.
    pub script: Option<String>,
    /// The effective user.
    pub user: Option<String>,
    /// The effective user's number.
    pub euid: Option<u32>,
    /// The systemd unit.
    pub unit: Option<String>,
    /// The container.
    pub container: Option<Container>,
    /// The address, for a host whose programs are not known.
    pub address: Option<String>,
    /// The MAC address of a LAN host.
    #[serde(default)]
    pub mac: Option<String>,
    /// Who has made its card.
    #[serde(default)]
    pub vendor: Option<String>,
    /// The interface behind which it is.
    #[serde(default)]
    pub interface: Option<String>,
    /// The VLAN that it is in.
    #[serde(default)]
    pub vlan: Option<String>,
}

/// How far the review is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nobody has looked at it.
    Open,
    /// Somebody has.
    Acknowledged,
    /// Done with, until the subject comes back.
    Resolved,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Open, Self::Acknowledged, Self::Resolved];

    /// Its name, as in the JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an alert turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolution {
    /// A spam bot.
    SpamBot,
    /// A program that is set up wrongly.
    Misconfigured,
    /// A program that may send, and has a rule now.
    Allowed,
    /// Somebody trying something out.
    Test,
}

impl Resolution {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::SpamBot, Self::Misconfigured, Self::Allowed, Self::Test];

    /// Its name, as in the JSON and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SpamBot => "spam-bot",
            Self::Misconfigured => "misconfigured",
            Self::Allowed => "allowed",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A destination and how often it was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// The address and port.
    pub to: String,
    /// Attempts.
    pub attempts: u64,
}

/// Something that was done about an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When.
    pub time: Timestamp,
    /// By whom: the user's name as the kernel tells it of the caller of the control socket, or `portreeve` itself.
    pub who: String,
    /// What: `opened`, `reopened`, `quiet`, `worse`, `acknowledged`, `resolved as …`, `allowed by …`, `stopped`, …
    pub what: String,
    /// The note given with it.
    pub note: Option<String>,
}

/// Why something is told to the sinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Occasion {
    /// A new alert.
    Opened,
    /// A subject came back.
    Reopened,
    /// An alert is more severe than it was, or another test has found something.
    Worse,
    /// The subject has made no attempt for a while.
    Quiet,
    /// Somebody has acknowledged it.
    Acknowledged,
    /// Somebody has resolved it.
    Resolved,
    /// The agent did something about the subject by itself, or undid it.
    Responded,
}

impl Occasion {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Opened, Self::Reopened, Self::Worse, Self::Quiet, Self::Acknowledged, Self::Resolved, Self::Responded];

    /// Its name, as in the JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Reopened => "reopened",
            Self::Worse => "worse",
            Self::Quiet => "quiet",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
            Self::Responded => "responded",
        }
    }
}

impl Alert {
    /// The alert in one line, for a subject line or a chat message.
    #[must_use]
    pub fn headline(&self) -> String {
        let tests: Vec<&str> = self.tests().into_iter().map(crate::detect::Kind::name).collect();
        format!("{}: {} ({}; {} attempts)", self.severity, self.who.name, tests.join(", "), self.attempts)
    }

    /// The tests that found something, each once, in the order of their names.
    #[must_use]
    pub fn tests(&self) -> Vec<crate::detect::Kind> {
        let mut kinds: Vec<_> = self.findings.iter().map(|finding| finding.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// Adds a change, and forgets the oldest but the first when there are too many.
    pub fn note(&mut self, change: Change) {
        if self.history.len() >= CHANGES {
            self.history.remove(1);
        }
        self.history.push(change);
    }
}
