//! What is remembered of one subject, and of one owner of many.

use serde::{Deserialize, Serialize};

use super::bounded::Entry;
use super::finding::Kind;
use super::memory::Memory;
use super::rhythm::Rhythm;
use super::walk::Walk;

/// A subject. Its size is part of what the issue of memory rests on; see the assertion below.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Subject {
    /// Its number.
    pub(super) id: u64,
    /// The first attempt, in microseconds since 1970.
    pub(super) first: i64,
    /// The latest.
    pub(super) last: i64,
    /// Attempts.
    pub(super) attempts: u32,
    /// Of these, refused or what would have been.
    pub(super) refused: u32,
    /// Mail handed to the local mail server.
    pub(super) local: u32,
    /// Every sign it ever showed.
    pub(super) signs: u32,
    /// The tests that have found something in this episode, a bit each.
    pub(super) found: u8,
    /// New destinations of the burst that goes on.
    pub(super) burst: u8,
    /// Retries at once, one after the other.
    pub(super) retries: u8,
    /// The thread of the latest attempt.
    pub(super) thread: u32,
    /// The address of the latest attempt, as a hash.
    pub(super) address: u32,
    pub(super) fan_out: Walk,
    pub(super) persistent: Buckets,
    pub(super) hammer: Buckets,
    pub(super) path: Local,
    pub(super) rhythm: Rhythm,
    /// Destinations met.
    pub(super) met: Memory,
}

/// A test over stretches of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Buckets {
    pub(super) walk: Walk,
    /// The stretch that goes on, counted from 1970.
    pub(super) at: u32,
    /// What was counted in it.
    pub(super) count: u32,
}

/// Hand-overs to the local mail server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Local {
    pub(super) buckets: Buckets,
    /// The most of one stretch in the subject's past, which fades.
    pub(super) peak: f32,
    /// The most of one stretch since the walk left zero: part of the past only once the walk is back.
    pub(super) pending: f32,
}

// What a policy's number of subjects costs is said in its documentation.
const _: () = assert!(size_of::<Subject>() <= 448);

impl Subject {
    pub(super) fn new(id: u64, time: i64) -> Self {
        Self { id, first: time, last: time, ..Self::default() }
    }

    pub(super) fn has_found(&self, kind: Kind) -> bool {
        self.found & bit(kind) != 0
    }

    pub(super) fn remember_found(&mut self, kind: Kind) {
        self.found |= bit(kind);
    }

    /// How far the walk is that is nearest to a finding, in nats.
    fn nearest(&self) -> f64 {
        let walks = [&self.fan_out, &self.persistent.walk, &self.hammer.walk, &self.path.buckets.walk];
        walks.into_iter().map(|walk| walk.score).fold(0.0, f64::max)
    }
}

impl Entry for Subject {
    fn key(&self) -> u64 {
        self.id
    }

    fn degree(&self) -> u8 {
        match (self.found != 0, self.nearest()) {
            (true, _) => 3,
            // Two first contacts, or as much.
            (false, score) if score > 5.0 => 2,
            (false, score) if score > 0.0 || self.path.peak > 0.0 => 1,
            (false, _) => 0,
        }
    }

    fn used(&self) -> u32 {
        seconds(self.last)
    }
}

/// The owner of many subjects: a user, on this host or in a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) id: u64,
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) attempts: u32,
    pub(super) found: bool,
    pub(super) walk: Walk,
    /// Subjects met.
    pub(super) programs: Memory,
    /// Destinations met.
    pub(super) met: Memory,
}

impl Owner {
    pub(super) fn new(id: u64, time: i64) -> Self {
        Self { id, first: time, last: time, ..Self::default() }
    }
}

impl Entry for Owner {
    fn key(&self) -> u64 {
        self.id
    }

    fn degree(&self) -> u8 {
        match (self.found, self.walk.score) {
            (true, _) => 3,
            (false, score) if score > 5.0 => 2,
            (false, score) if score > 0.0 => 1,
            (false, _) => 0,
        }
    }

    fn used(&self) -> u32 {
        seconds(self.last)
    }
}

/// Whole seconds since 1970, of a time in microseconds.
pub(super) fn seconds(time: i64) -> u32 {
    u32::try_from(time / 1_000_000).unwrap_or(0)
}

fn bit(kind: Kind) -> u8 {
    1 << kind as u8
}
