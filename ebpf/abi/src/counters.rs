//! Exact counters.

use crate::ExeId;

/// Whose attempts are counted together: executable, effective user and cgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubjectKey {
    /// `inode->i_ino` of the executable, 0 where there is none.
    pub ino: u64,
    /// The cgroup2 id.
    pub cgroup: u64,
    /// The kernel's device number of the executable.
    pub dev: u32,
    /// The effective user as the host sees it.
    pub euid: u32,
}

const _: () = assert!(size_of::<SubjectKey>() == 24);

impl SubjectKey {
    /// The key of a process with this executable, user and cgroup.
    #[must_use]
    #[inline(always)]
    pub fn new(exe: &ExeId, euid: u32, cgroup: u64) -> Self {
        Self { ino: exe.ino, cgroup, dev: exe.dev, euid }
    }
}

/// What is counted for a subject: one number a verdict, and when it was last seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubjectCount {
    /// Attempts: allowed, refused, observed, local.
    pub verdicts: [u64; 4],
    /// CLOCK_BOOTTIME of the first attempt, nanoseconds.
    pub first: u64,
    /// CLOCK_BOOTTIME of the last attempt, nanoseconds.
    pub last: u64,
}

const _: () = assert!(size_of::<SubjectCount>() == 48);

/// The index of a total in the totals map (one value a CPU, summed by the reader).
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    /// Attempts allowed.
    Allowed = 0,
    /// Attempts refused.
    Refused = 1,
    /// Attempts that observe mode or an audit rule let pass.
    Observed = 2,
    /// Mail handed to this host's own loopback.
    Local = 3,
    /// Events whose details were shed because the ring buffer was full.
    Shed = 4,
    /// Allowed attempts of subjects beyond the subject table.
    UncountedAllowed = 5,
    /// Refused attempts of subjects beyond the subject table.
    UncountedRefused = 6,
    /// Observed attempts of subjects beyond the subject table.
    UncountedObserved = 7,
    /// Local hand-overs of subjects beyond the subject table.
    UncountedLocal = 8,
    /// Exec records that found no room.
    ExecUnrecorded = 9,
    /// Packets and frames dropped, those of one refused connection each on its own.
    Dropped = 10,
    /// Attempts of LAN hosts beyond the tables of sources and of networks: in the totals alone.
    LanUncounted = 11,
}

impl Total {
    /// How many totals there are.
    pub const COUNT: u32 = 12;
}

/// The totals, summed over CPUs; see [`Total`] for the meaning of each place.
pub type Tally = [u64; Total::COUNT as usize];

crate::pod!(SubjectKey, SubjectCount);
