//! The record of one attempt, as the ring buffer carries it.

use crate::ExeId;

/// Bytes of an executable's path in an event.
pub const EXE_PATH_LEN: usize = 512;
/// Bytes of a cgroup's path in an event.
pub const CGROUP_PATH_LEN: usize = 512;
/// The longest single name that is copied into a path, its NUL included.
pub const PATH_PART_LEN: usize = 256;
/// Bytes of a command line in an event.
pub const CMDLINE_LEN: usize = 256;
/// Bytes of a thread name (`TASK_COMM_LEN`, include/linux/sched.h).
pub const COMM_LEN: usize = 16;
/// How many ancestors of the process an event names.
pub const PARENTS: usize = 4;

/// What became of an attempt. Zero refuses: it is what a value holds that could not be read.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It was refused.
    Deny = 0,
    /// A rule allows it.
    Allow = 1,
    /// It passed, and would have been refused without observe mode or an audit rule.
    Observe = 2,
    /// Mail for this host's own loopback, exempt by policy.
    Local = 3,
}

impl Verdict {
    /// The verdict of a byte, where it is one.
    #[must_use]
    pub fn from_u8(byte: u8) -> Option<Self> {
        [Self::Allow, Self::Deny, Self::Observe, Self::Local].into_iter().find(|v| *v as u8 == byte)
    }
}

/// Why the verdict is what it is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A rule matched.
    Rule = 0,
    /// The loopback exemption.
    Local = 1,
    /// No rule matched.
    NoRule = 2,
    /// A kernel thread or a dying process: no executable is behind it.
    NoProcess = 3,
    /// The kernel's structures could not be read.
    Unreadable = 4,
    /// No policy is in force.
    NoPolicy = 5,
    /// A rule matched, but the process is tainted and the policy refuses those.
    Tainted = 6,
    /// A rule that only observes matched.
    AuditRule = 7,
    /// A packet of a socket that has no verdict: raw, older than the guard, or handed in from elsewhere.
    NoVerdict = 8,
    /// A frame that no socket of this host sent: forwarded, bridged or injected.
    Forwarded = 9,
    /// A packet that might be TCP to a guarded port and cannot be told: a tiny fragment, too many headers.
    Unclear = 10,
    /// A program asked for a way of sending that passes every packet hook.
    RawSender = 11,
    /// The kernel had no memory for the socket's verdict.
    NoMemory = 12,
    /// A rule allows the address, but not from this MAC address.
    OtherMac = 13,
    /// A rule allows the address, but not in this VLAN.
    OtherVlan = 14,
    /// A rule matched, and the connection is brought to the relay.
    Relayed = 15,
    /// A rule matched, but the relay that the connection is to be brought to does not listen.
    NoRelay = 16,
}

impl Reason {
    /// The reason of a byte, where it is one.
    #[must_use]
    pub fn from_u8(byte: u8) -> Option<Self> {
        [
            Self::Rule,
            Self::Local,
            Self::NoRule,
            Self::NoProcess,
            Self::Unreadable,
            Self::NoPolicy,
            Self::Tainted,
            Self::AuditRule,
            Self::NoVerdict,
            Self::Forwarded,
            Self::Unclear,
            Self::RawSender,
            Self::NoMemory,
            Self::OtherMac,
            Self::OtherVlan,
            Self::Relayed,
            Self::NoRelay,
        ]
        .into_iter()
        .find(|r| *r as u8 == byte)
    }
}

/// Which program saw the attempt.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// cgroup/connect4.
    Connect4 = 0,
    /// cgroup/connect6.
    Connect6 = 1,
    /// cgroup_skb/egress: a packet of a socket.
    Packet = 2,
    /// tc egress: a frame on its way to a device.
    Frame = 3,
    /// cgroup/setsockopt.
    Setsockopt = 4,
    /// The search for connections that are older than the guard.
    Existing = 5,
    /// tc ingress: a frame of a LAN host.
    Lan = 6,
}

impl Hook {
    /// The hook of a byte, where it is one.
    #[must_use]
    pub fn from_u8(byte: u8) -> Option<Self> {
        [Self::Connect4, Self::Connect6, Self::Packet, Self::Frame, Self::Setsockopt, Self::Existing, Self::Lan]
            .into_iter()
            .find(|h| *h as u8 == byte)
    }
}

/// Signs that a process may not be what its executable says; bits of a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taint;

impl Taint {
    /// `LD_PRELOAD` was set at exec.
    pub const LD_PRELOAD: u32 = 1;
    /// `LD_AUDIT` was set at exec.
    pub const LD_AUDIT: u32 = 2;
    /// A tracer is attached.
    pub const TRACED: u32 = 4;
    /// The executable is not the one that was executed.
    pub const EXE_CHANGED: u32 = 8;
    /// Whether it was is unknown: the process is older than the guard, or its exec found no room in the record.
    pub const EXEC_UNSEEN: u32 = 16;
    /// `LD_LIBRARY_PATH` was set at exec.
    pub const LD_LIBRARY_PATH: u32 = 32;
    /// The environment at exec was too large, or not there to read, so that nobody knows what was set.
    pub const ENV_UNSEEN: u32 = 64;
}

/// Which texts of an event are shorter than what they quote; bits of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

impl Truncated {
    /// The walk up from the executable did not reach the root.
    pub const EXE_PATH: u16 = 1;
    /// Deeper cgroups than these were left out.
    pub const CGROUP_PATH: u16 = 2;
    /// The command line goes on.
    pub const CMDLINE: u16 = 4;
}

/// One ancestor of a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its process id in the host's pid namespace; 0 marks an unused place.
    pub pid: u32,
    /// Its real user.
    pub uid: u32,
    /// The inode of its executable, 0 where there is none.
    pub ino: u64,
    /// Its thread name.
    pub comm: [u8; COMM_LEN],
}

const _: () = assert!(size_of::<Parent>() == 32);

/// One attempt.
///
/// Every name that ends in a path is a sequence of NUL-terminated parts. Whatever could not be read is zero.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub time: u64,
    /// When the process started, CLOCK_BOOTTIME in nanoseconds.
    pub start: u64,
    /// The executable.
    pub exe: ExeId,
    /// The cgroup2 id.
    pub cgroup: u64,
    /// The socket's cookie.
    pub cookie: u64,
    /// The process id (thread group) in the host's pid namespace.
    pub pid: u32,
    /// The thread id.
    pub tid: u32,
    /// The real user.
    pub uid: u32,
    /// The effective user.
    pub euid: u32,
    /// The real group.
    pub gid: u32,
    /// The effective group.
    pub egid: u32,
    /// The network namespace's inode number, as in /proc/PID/ns/net.
    pub netns: u32,
    /// The policy generation that decided.
    pub generation: u32,
    /// The rule that decided, [`crate::RULE_NONE`] or [`crate::RULE_LOCAL`].
    pub rule: u32,
    /// Links to the executable's inode; 0: deleted, or only ever in memory.
    pub nlink: u32,
    /// [`Taint`] bits.
    pub taint: u32,
    /// [`Verdict`].
    pub verdict: u8,
    /// [`Reason`].
    pub reason: u8,
    /// [`Hook`].
    pub hook: u8,
    /// The flags of a packet's TCP header (RFC 9293 §3.1), 0 where no packet was seen.
    pub tcp_flags: u8,
    /// The destination.
    pub daddr: [u8; 16],
    /// The source the socket is bound to, zero when it is not yet.
    pub saddr: [u8; 16],
    /// The destination port, host order.
    pub dport: u16,
    /// The source port, host order, 0 when none is chosen yet.
    pub sport: u16,
    /// Bytes used of `exe_path`.
    pub exe_path_used: u16,
    /// Bytes used of `cgroup_path`.
    pub cgroup_path_used: u16,
    /// Bytes used of `cmdline`.
    pub cmdline_used: u16,
    /// [`Truncated`] bits.
    pub truncated: u16,
    /// `IPPROTO_…` of the socket: 6 TCP, 262 MPTCP.
    pub protocol: u16,
    /// Zero.
    pub _pad: u16,
    /// The index of the device a frame was to leave by, or a LAN host's came in by; 0 where none was seen.
    pub interface: u32,
    /// The VLAN of a LAN host's frame, see [`crate::LanSource::vlan`].
    pub vlan: u32,
    /// The MAC address of the LAN host, zero where there is none.
    pub mac: [u8; 6],
    /// Zero.
    pub _pad2: u16,
    /// The thread's name.
    pub comm: [u8; COMM_LEN],
    /// The parent, its parent, and so on.
    pub parents: [Parent; PARENTS],
    /// The names on the way to the executable, the file's own first, the root's child last.
    pub exe_path: [u8; EXE_PATH_LEN],
    /// The names on the way to the cgroup, the root's child first.
    pub cgroup_path: [u8; CGROUP_PATH_LEN],
    /// The beginning of the command line, arguments separated by NUL.
    pub cmdline: [u8; CMDLINE_LEN],
}

const _: () = assert!(size_of::<Event>() == 160 + 32 + 128 + EXE_PATH_LEN + CGROUP_PATH_LEN + CMDLINE_LEN);

crate::pod!(Parent, Event);
