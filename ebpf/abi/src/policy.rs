//! The compiled policy: what the agent writes into maps and the kernel programs look up.
//!
//! Every key begins with the policy's generation. A new policy is written beside the old one, the generation in
//! [`ActivePolicy`] is flipped in one store, and only after an RCU grace period are the old keys deleted: no decision
//! sees two policies.

use crate::{ExeId, RuleSet};

/// [`PolicyHeader::mode`]: refuse what no rule allows.
pub const MODE_ENFORCE: u32 = 1;
/// [`PolicyHeader::mode`]: let everything pass and record what would have been refused.
pub const MODE_OBSERVE: u32 = 2;
/// [`PolicyHeader::flags`]: mail handed to this host's own loopback is exempt.
pub const FLAG_LOCAL_SUBMISSION: u32 = 1;
/// [`PolicyHeader::flags`]: a tainted process is refused even where a rule allows it.
pub const FLAG_REFUSE_TAINTED: u32 = 2;
/// [`PolicyHeader::flags`]: frames that no socket of this host sent may go to guarded ports.
pub const FLAG_FORWARDED: u32 = 4;

/// The 64-bit words of one generation's guarded-port bitmap.
pub const PORT_WORDS: usize = 65_536 / 64;
/// How many different expiry times the kernel can tell apart; the agent recompiles at each, so more may exist.
pub const EXPIRY_GROUPS: usize = 8;
/// The deepest cgroup level that is compared with the policy; the deeper ones belong to their ancestors all the same.
pub const CGROUP_DEPTH: u32 = 32;
/// The bytes of a cgroup's name in a key. A name has at most two bytes less: its closing NUL, and one by which the
/// programs tell that they saw the whole of it. The longest in use, `cri-containerd-` and 64 digits and `.scope`, has 85.
/// Longer names are in no policy; the key is on the programs' small stack.
pub const CGROUP_NAME_LEN: usize = 96;

/// What a rule can ask about. The value is the index in [`PolicyHeader::wildcard`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// The executable.
    Exe = 0,
    /// The effective user.
    User = 1,
    /// The effective group.
    Group = 2,
    /// The cgroup and all above it.
    Cgroup = 3,
    /// The destination address.
    Destination = 4,
    /// The destination port.
    Port = 5,
}

impl Dimension {
    /// All of them, in the order of their values.
    pub const ALL: [Self; 6] = [Self::Exe, Self::User, Self::Group, Self::Cgroup, Self::Destination, Self::Port];
}

/// Which generation is in force: the one value that a reload flips.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActivePolicy {
    /// The generation; its header and port bitmap are in slot `generation & 1`.
    pub generation: u32,
    /// The generation that the agent is about to put in force, 0 when it is not: connections that are there already are
    /// judged by it first.
    pub coming: u32,
}

/// Rules that end at one time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpiryGroup {
    /// Nanoseconds of CLOCK_BOOTTIME from which the rules no longer count; 0 marks an unused group.
    pub deadline: u64,
    /// The rules.
    pub rules: RuleSet,
}

/// What holds for one generation as a whole.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyHeader {
    /// The generation this header belongs to; a header of another generation decides nothing (refuse).
    pub generation: u32,
    /// [`MODE_ENFORCE`] or [`MODE_OBSERVE`]; anything else refuses.
    pub mode: u32,
    /// The errno of a refused `connect()`, positive.
    pub refuse_errno: u32,
    /// `FLAG_…` bits.
    pub flags: u32,
    /// For each [`Dimension`] the rules that leave it open: they match whatever the look-up finds.
    pub wildcard: [RuleSet; 6],
    /// Rules that only observe.
    pub audit: RuleSet,
    /// Rules that let a program have senders which pass every packet hook, and let nobody connect.
    pub raw_senders: RuleSet,
    /// Rules whose connections are brought to the relay.
    pub relayed: RuleSet,
    /// Where the relay listens for them, by IPv4 and by IPv6.
    pub relay: [RelayAt; 2],
    /// Rules that end, by time.
    pub expiry: [ExpiryGroup; EXPIRY_GROUPS],
}

const _: () = assert!(size_of::<PolicyHeader>() == 16 + 9 * 32 + 2 * 40 + 8 * 40);

/// An address of the relay's, as the helper wants it that finds the listener there: a `struct bpf_sock_tuple`
/// (include/uapi/linux/bpf.h) without a source. The programs have no room on their stack to make one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayAt {
    /// Of IPv4 the first three words: source, destination, and both ports; of IPv6 four, four and one. Network order.
    pub tuple: [u32; 9],
    /// The port, host order; 0 where the relay does not listen.
    pub port: u32,
}

impl RelayAt {
    /// A listener.
    #[must_use]
    pub fn new(at: core::net::SocketAddr) -> Self {
        let port = at.port().to_be_bytes();
        let ports = u32::from_ne_bytes([0, 0, port[0], port[1]]);
        let mut tuple = [0; 9];
        match at.ip() {
            core::net::IpAddr::V4(address) => (tuple[1], tuple[2]) = (u32::from_ne_bytes(address.octets()), ports),
            core::net::IpAddr::V6(address) => {
                for (word, octets) in tuple[4..8].iter_mut().zip(address.octets().chunks_exact(4)) {
                    *word = u32::from_ne_bytes([octets[0], octets[1], octets[2], octets[3]]);
                }
                tuple[8] = ports;
            }
        }
        Self { tuple, port: u32::from(at.port()) }
    }
}

/// Key of the executable table.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExeKey {
    /// The executable.
    pub exe: ExeId,
    /// The policy generation.
    pub generation: u32,
    /// Zero.
    pub _pad: u32,
}

const _: () = assert!(size_of::<ExeKey>() == 40);

/// Key of the user and group tables.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdKey {
    /// The policy generation.
    pub generation: u32,
    /// The user or group as the host's user namespace numbers it.
    pub id: u32,
}

/// Key of the port table.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortKey {
    /// The policy generation.
    pub generation: u32,
    /// The port, host order.
    pub port: u32,
}

/// Data of the destination trie's key; the prefix length counts from the first bit of the generation.
///
/// Byte arrays, because the trie compares from the first byte on and its key has no alignment.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DestKey {
    /// The policy generation, native order (always compared whole).
    pub generation: [u8; 4],
    /// The address, IPv4 in its mapped form.
    pub address: [u8; 16],
}

const _: () = assert!(size_of::<DestKey>() == 20 && align_of::<DestKey>() == 1);

/// Key of the cgroup table: an edge of the tree of cgroup names that the policy mentions.
///
/// Names instead of cgroup ids, so that a unit that is restarted (a new cgroup with a new id) is recognised by its
/// first connection, with the agent running or not.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CgroupKey {
    /// The policy generation.
    pub generation: u32,
    /// The node the edge leaves from; the hierarchy's root is 0.
    pub node: u32,
    /// The cgroup's own name, NUL-terminated, the rest zero.
    pub name: [u8; CGROUP_NAME_LEN],
}

const _: () = assert!(size_of::<CgroupKey>() == 104);

/// Value of the cgroup table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupNode {
    /// The node the edge leads to, never 0.
    pub node: u32,
    /// Zero.
    pub _pad: u32,
    /// Rules satisfied by this cgroup and everything below it.
    pub rules: RuleSet,
}

const _: () = assert!(size_of::<CgroupNode>() == 40);

crate::pod!(ActivePolicy, PolicyHeader, ExeKey, IdKey, PortKey, DestKey, CgroupKey, CgroupNode);
