//! How the kernel names an executable.

/// An executable as the kernel sees it, never as `stat()` shows it (the two differ on btrfs and overlayfs).
///
/// A program file that is written to, renamed over, hard-linked or re-created gets another value: the change time
/// moves. The generation is 0 where the file system has none (overlayfs, images).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExeId {
    /// `inode->i_ino`.
    pub ino: u64,
    /// `inode->i_ctime` in seconds.
    pub ctime_sec: i64,
    /// `inode->i_ctime` in nanoseconds; bit 31 is a flag of kernels with multigrain timestamps and masked out
    /// (`I_CTIME_QUERIED`, include/linux/fs.h of 6.13).
    pub ctime_nsec: u32,
    /// `inode->i_sb->s_dev`, the kernel's own encoding (`major << 20 | minor`).
    pub dev: u32,
    /// `inode->i_generation`.
    pub generation: u32,
    /// Zero.
    pub _pad: u32,
}

const _: () = assert!(size_of::<ExeId>() == 32 && align_of::<ExeId>() == 8);

/// What a process was at its last `execve`, kept while it lives.
///
/// Written by the exec and fork programs (and once, for what already runs, by the agent), read by the connect programs
/// to tell a process that was started as the mail server from one that took its face later (`PR_SET_MM_EXE_FILE`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecRecord {
    /// The executable at exec.
    pub exe: ExeId,
    /// When the process started, in clock ticks since boot as /proc/PID/stat has it (`nsec_to_clock_t` of
    /// `task->group_leader->start_boottime`), so that a reused pid is no match.
    pub start: u64,
    /// [`crate::Taint`] bits seen at exec.
    pub taint: u32,
    /// Zero.
    pub _pad: u32,
}

const _: () = assert!(size_of::<ExecRecord>() == 48 && align_of::<ExecRecord>() == 8);

/// Nanoseconds of a clock tick, `NSEC_PER_SEC / USER_HZ`; USER_HZ is 100 on every architecture Linux still runs on but
/// Alpha (include/asm-generic/param.h).
pub const TICK: u64 = 10_000_000;

/// The question to the learn program, and its answer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// In: the number of the agent's open file.
    pub fd: u32,
    /// Out: 1 when `exe` was filled.
    pub found: u32,
    /// Out: the file as the kernel sees it.
    pub exe: ExeId,
}

const _: () = assert!(size_of::<Learned>() == 40);

crate::pod!(ExeId, ExecRecord, Learned);
