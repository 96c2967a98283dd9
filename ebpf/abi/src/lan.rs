//! The gateway guard: its part of the compiled policy, and what is counted and remembered of LAN hosts.

use crate::{RuleSet, SubjectCount};

/// [`LanHeader::flags`]: the policy guards LAN interfaces.
pub const LAN_ON: u32 = 1;
/// [`LanHeader::flags`]: LAN hosts may hand mail to this host's own addresses.
pub const LAN_SUBMISSION: u32 = 2;

/// A LAN interface that is a port of a bridge: most of its frames are for others than this host.
pub const LAN_BRIDGED: u32 = 1;

/// [`LanHeader::refuse`]: a refused host gets nothing.
pub const LAN_DROP: u32 = 0;
/// [`LanHeader::refuse`]: a refused host gets a TCP reset.
pub const LAN_RESET: u32 = 1;
/// [`LanHeader::refuse`]: a refused host gets "administratively prohibited" by ICMP.
pub const LAN_PROHIBITED: u32 = 2;

/// What a rule of the gateway can ask about. The value is the index in [`LanHeader::wildcard`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LanDimension {
    /// The source address.
    From = 0,
    /// The source's MAC address.
    Mac = 1,
    /// The VLAN.
    Vlan = 2,
    /// The destination address.
    To = 3,
    /// The destination port.
    Port = 4,
}

impl LanDimension {
    /// All of them, in the order of their values.
    pub const ALL: [Self; 5] = [Self::From, Self::Mac, Self::Vlan, Self::To, Self::Port];
}

/// What holds for the gateway's part of one generation as a whole.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LanHeader {
    /// The generation this header belongs to; a header of another generation decides nothing (refuse).
    pub generation: u32,
    /// [`crate::MODE_ENFORCE`] or [`crate::MODE_OBSERVE`]; anything else refuses.
    pub mode: u32,
    /// `LAN_DROP`, `LAN_RESET` or `LAN_PROHIBITED`.
    pub refuse: u32,
    /// `LAN_ON` and `LAN_SUBMISSION`.
    pub flags: u32,
    /// How many sources are counted one by one; the rest by their networks.
    pub sources: u32,
    /// Zero.
    pub _pad: u32,
    /// For each [`LanDimension`] the rules that leave it open: they match whatever the look-up finds.
    pub wildcard: [RuleSet; 5],
}

const _: () = assert!(size_of::<LanHeader>() == 24 + 5 * 32);

/// Key of the table of MAC addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacKey {
    /// The policy generation.
    pub generation: u32,
    /// The address.
    pub mac: [u8; 6],
    /// Zero.
    pub _pad: u16,
}

const _: () = assert!(size_of::<MacKey>() == 12);

/// Whose attempts are counted together: a LAN host, as its packets show it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LanSource {
    /// The source address, IPv4 in its mapped form; of a network all behind its prefix zero.
    pub address: [u8; 16],
    /// The device it came in by.
    pub interface: u32,
    /// The VLAN: the tag's number, 0 without one, with two tags the outer one's times 4096 and the inner one's.
    pub vlan: u32,
    /// The source's MAC address; zero where there is none, and for a network.
    pub mac: [u8; 6],
    /// The length of the prefix that the sources of a network have in common; 128 for a single host. With
    /// [`LAN_BESIDE`] it is a second entry of the same source.
    pub prefix: u16,
}

const _: () = assert!(size_of::<LanSource>() == 32);

/// [`LanSource::prefix`]: this entry counts what came while the other one was being taken out.
pub const LAN_BESIDE: u16 = 0x100;

/// Index of the number of hosts that the programs have ever made an entry for.
pub const LAN_COME: u32 = 0;
/// Index of the number of those that the agent has taken out again.
pub const LAN_GONE: u32 = 1;

/// How many entries may be taken out together.
pub const LAN_LEAVING: u32 = 1024;

/// [`LanMove::of`]: nothing is being moved.
pub const MOVE_NONE: u32 = 0;
/// [`LanMove::of`]: from the table that the programs count in.
pub const MOVE_COUNTED: u32 = 1;
/// [`LanMove::of`]: from the table of those that were taken out before.
pub const MOVE_KEPT: u32 = 2;

/// A count on its way from one entry to another. It says what is to be, not what is to be added: who finds it can do all
/// of it again.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LanMove {
    /// `MOVE_NONE`, `MOVE_COUNTED` or `MOVE_KEPT`.
    pub of: u32,
    /// Zero.
    pub _pad: u32,
    /// The entry that goes.
    pub from: LanSource,
    /// The entry, of those that were taken out, which its count is added to.
    pub to: LanSource,
    /// What that one's count is then.
    pub sum: SubjectCount,
}

const _: () = assert!(size_of::<LanMove>() == 120);

/// Value of the LAN's connections that pass. What belongs to one and comes from elsewhere, or is judged by another policy,
/// is judged anew.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LanFlow {
    /// When it was last judged, in the kernel's ticks (`jiffies_64`).
    pub ticks: u64,
    /// The sequence number of its SYN, 0 where that was not seen.
    pub seq: u32,
    /// The policy that let it pass.
    pub generation: u32,
    /// The LAN interface.
    pub interface: u32,
    /// See [`LanSource::vlan`].
    pub vlan: u32,
    /// See [`LanSource::mac`].
    pub mac: [u8; 6],
    /// Zero.
    pub _pad: u16,
}

const _: () = assert!(size_of::<LanFlow>() == 32);

/// An address of this host's own.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnAddress {
    /// The address, IPv4 in its mapped form.
    pub address: [u8; 16],
}

crate::pod!(LanHeader, MacKey, LanSource, LanMove, LanFlow, OwnAddress);
