//! What the detector is told of an attempt.

use std::net::IpAddr;

use super::SubjectId;

/// One attempt, as far as it matters to the tests. Nothing of a mail's content is in it, and nothing may be: sequential
/// tests over that are patented (US 8,280,968, 8,560,624, 8,572,197, 8,601,081).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// When, in microseconds since 1970-01-01 UTC. Attempts come in the order of their times; one that is older than the
    /// one before it counts as if it came at the same moment.
    pub time: i64,
    /// Whom it is held against.
    pub subject: SubjectId,
    /// The user (on this host or in a container) whose programs are looked at together; 0 where there is none to tell.
    pub owner: SubjectId,
    /// The thread or process that made it, 0 if unknown: a mail server tries all addresses of one mail exchanger in one
    /// go.
    pub thread: u32,
    /// Where to.
    pub address: IpAddr,
    /// The mail domain or the host name that was looked up, as a hash, where the answer is known; else 0.
    pub domain: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// What the attempt shows of the subject.
    pub signs: Signs,
}

/// What became of an attempt, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was refused, or would have been (observe mode, a capture without a guard).
    Refused,
    /// A rule allows it: counted, and held against nobody.
    Allowed,
    /// Mail handed to the local mail server.
    Local,
}

/// Signs that move the prior; bits of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Signs(pub u32);

impl Signs {
    /// The executable's file is deleted.
    pub const DELETED: Self = Self(1);
    /// The executable was only ever in memory.
    pub const IN_MEMORY: Self = Self(1 << 1);
    /// The executable lies in a temporary folder (`/tmp`, `/var/tmp`, `/dev/shm`, `/run/user`).
    pub const TEMPORARY: Self = Self(1 << 2);
    /// The executable lies in a folder that everybody may write to.
    pub const WORLD_WRITABLE: Self = Self(1 << 3);
    /// The host has a package database, and no package owns the executable.
    pub const NO_PACKAGE: Self = Self(1 << 4);
    /// A package owns the executable, and there is no script.
    pub const PACKAGED: Self = Self(1 << 5);
    /// An ancestor is a web server or its script engine.
    pub const WEB_PARENT: Self = Self(1 << 6);
    /// A script interpreter is the executable or the parent.
    pub const INTERPRETER: Self = Self(1 << 7);
    /// The login session that it was started in is over.
    pub const SESSION_GONE: Self = Self(1 << 8);
    /// A mail server listens on this host's loopback and is not used.
    pub const MTA_UNUSED: Self = Self(1 << 9);
    /// The process asked for MX records, and is no mail server.
    pub const MX_LOOKUPS: Self = Self(1 << 10);
    /// The executable is one of a known mail server, where a package or an image has put it.
    pub const MAIL_SERVER: Self = Self(1 << 11);
    /// Preloaded libraries, a tracer, a changed executable: the process may not be what its executable says.
    pub const TAINTED: Self = Self(1 << 12);
    /// The attempt went around the socket layer: raw packets, frames.
    pub const RAW: Self = Self(1 << 13);
    /// Found by the detector itself: many refused executables of one user.
    pub const MANY_EXECUTABLES: Self = Self(1 << 14);
    /// Found by the detector itself: attempts at regular intervals.
    pub const REGULAR: Self = Self(1 << 15);
    /// Found by the detector itself: retries at once, before any server could have answered.
    pub const IMMEDIATE_RETRIES: Self = Self(1 << 16);
    /// The script that an interpreter of a package's runs is root's, in folders that only root may write to, and no web
    /// server is behind it: as an administrator puts a cron job.
    ///
    /// That is what the command line says, and a process may write over that. So the sign counts in the fan-out test only,
    /// which decides three destinations later for it and needs no more than that; it holds as long as every attempt shows it.
    pub const ROOT_SCRIPT: Self = Self(1 << 17);

    /// The LAN host's network card has claimed more addresses lately than a host has: it makes them up, or is a router's.
    pub const MANY_ADDRESSES: Self = Self(1 << 18);

    /// Every sign, by its name in `[detect.weights]`.
    pub const NAMES: [(Self, &'static str); 19] = [
        (Self::DELETED, "deleted"),
        (Self::IN_MEMORY, "in_memory"),
        (Self::TEMPORARY, "temporary_folder"),
        (Self::WORLD_WRITABLE, "world_writable"),
        (Self::NO_PACKAGE, "no_package"),
        (Self::PACKAGED, "packaged"),
        (Self::WEB_PARENT, "web_parent"),
        (Self::INTERPRETER, "interpreter"),
        (Self::SESSION_GONE, "session_gone"),
        (Self::MTA_UNUSED, "mta_unused"),
        (Self::MX_LOOKUPS, "mx_lookups"),
        (Self::MAIL_SERVER, "mail_server"),
        (Self::TAINTED, "tainted"),
        (Self::RAW, "raw"),
        (Self::MANY_EXECUTABLES, "many_executables"),
        (Self::REGULAR, "regular"),
        (Self::IMMEDIATE_RETRIES, "immediate_retries"),
        (Self::ROOT_SCRIPT, "root_script"),
        (Self::MANY_ADDRESSES, "many_addresses"),
    ];

    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This, if something holds.
    #[must_use]
    pub fn when(self, holds: bool) -> Self {
        if holds { self } else { Self(0) }
    }

    /// These, but not `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` are among them.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
