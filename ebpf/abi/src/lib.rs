//! The types that cross the boundary between Portreeve's kernel programs and its agent.
//!
//! Everything here is `repr(C)`, made of fixed-width integers and byte arrays, with its padding spelt out and
//! zero, so that map keys compare byte for byte. Addresses are 16 bytes in network order, IPv4 in its mapped form
//! (RFC 4291 §2.5.5.2); ports are in host order. A change to any layout or map raises [`ABI_VERSION`].

#![no_std]
#![deny(unsafe_code)]

mod counters;
mod event;
mod flow;
mod identity;
mod lan;
mod names;
mod offsets;
mod policy;
mod rules;
mod stir;

pub use counters::{SubjectCount, SubjectKey, Tally, Total};
pub use event::{
    CGROUP_PATH_LEN, CMDLINE_LEN, COMM_LEN, EXE_PATH_LEN, Event, Hook, PARENTS, PATH_PART_LEN, Parent, Reason, Taint,
    Truncated, Verdict,
};
pub use flow::{Brought, BroughtKey, Connection, Existing, FlowKey, PASS_LAN, Pass, PassKey, SocketState, Standing};
pub use identity::{ExeId, ExecRecord, Learned, TICK};
pub use lan::{
    LAN_BESIDE, LAN_BRIDGED, LAN_COME, LAN_DROP, LAN_GONE, LAN_LEAVING, LAN_ON, LAN_PROHIBITED, LAN_RESET,
    LAN_SUBMISSION, LanDimension, LanFlow, LanHeader, LanMove, LanSource, MOVE_COUNTED, MOVE_KEPT, MOVE_NONE, MacKey,
    OwnAddress,
};
pub use names::{
    MAPS, Map, PROGRAM_BPF, PROGRAM_CONNECT4, PROGRAM_CONNECT6, PROGRAM_EXEC, PROGRAM_EXISTING, PROGRAM_EXIT,
    PROGRAM_FORK, PROGRAM_FRAME, PROGRAM_FRAME_IN, PROGRAM_FRAME_IP, PROGRAM_FRAME_IP_IN, PROGRAM_FRAME_LOOK,
    PROGRAM_FRAME_NO, PROGRAM_LAN, PROGRAM_LAN_COUNT, PROGRAM_LAN_IP, PROGRAM_LAN_JUDGE, PROGRAM_LAN_LOOK,
    PROGRAM_LAN_REFUSE, PROGRAM_LEARN, PROGRAM_LSM, PROGRAM_PACKET, PROGRAM_PACKET_NO, PROGRAM_PEERNAME4,
    PROGRAM_PEERNAME6, PROGRAM_REACH, PROGRAM_SETSOCKOPT, PROGRAM_SOCKOPS,
};
pub use offsets::{GuardedCgroup, KERN_CTX_CALL, Offsets};
pub use policy::{
    ActivePolicy, CGROUP_DEPTH, CGROUP_NAME_LEN, CgroupKey, CgroupNode, DestKey, Dimension, EXPIRY_GROUPS, ExeKey,
    ExpiryGroup, FLAG_FORWARDED, FLAG_LOCAL_SUBMISSION, FLAG_REFUSE_TAINTED, IdKey, MODE_ENFORCE, MODE_OBSERVE,
    PORT_WORDS, PolicyHeader, PortKey, RelayAt,
};
pub use rules::{MAX_RULES, RULE_LOCAL, RULE_NONE, RuleSet, WORDS};
pub use stir::Stir;

/// The version of every layout in this crate; part of the folder the maps are pinned under.
pub const ABI_VERSION: u32 = 6;

/// The version of the maps that say what sockets and connections may do ([`SocketState`], [`PassKey`], [`FlowKey`],
/// [`Pass`]). They outlive a change of the others: while an upgrade puts new programs in the place of old ones, both ask
/// the same maps, and no connection is between two.
pub const SOCKETS_VERSION: u32 = 1;

/// Implements aya's `Pod` for types of this crate when the agent asks for it.
macro_rules! pod {
    ($($name:ty),+ $(,)?) => {
        $(
            #[cfg(all(feature = "user", target_os = "linux"))]
            #[expect(unsafe_code, reason = "Pod is an unsafe marker trait")]
            // SAFETY: `repr(C)`, only integers and arrays of them, padding explicit: any bit pattern is a value.
            unsafe impl aya::Pod for $name {}
        )+
    };
}
pub(crate) use pod;
