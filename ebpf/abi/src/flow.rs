//! What the packet programs remember of connections.

/// What a socket may do at guarded ports.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its segments pass.
    Passes = 1,
    /// Its segments pass in observe mode only. The refusal has been counted.
    Refused = 2,
    /// The same, and nothing has been refused yet: it was connected to something else before.
    Used = 3,
    /// The relay's own, about to be connected: the agent has said so. It passes once.
    Relay = 4,
    /// What the relay listens with for connections that are brought to it.
    Listens = 5,
}

/// The value in the socket storage of a socket that has met the guard.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketState {
    /// [`Standing`].
    pub standing: u32,
    /// 1 once a segment has been noted in the table of passes (of a socket that passes).
    pub noted: u32,
}

const _: () = assert!(size_of::<SocketState>() == 8);

/// Key of the passes: a segment of an allowed socket, by what network address translation leaves alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PassKey {
    /// The destination address.
    pub daddr: [u8; 16],
    /// The TCP sequence number, network order.
    pub seq: u32,
    /// The destination port, host order.
    pub dport: u16,
    /// 0, or [`PASS_LAN`].
    pub of: u16,
}

const _: () = assert!(size_of::<PassKey>() == 24);

/// In [`PassKey::of`]: a segment of a LAN host's, which counts only where the frame has come in by a LAN interface, and so
/// needs no destination: translation may have changed that.
pub const PASS_LAN: u16 = 1;

/// Value of the passes and flows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub time: u64,
}

/// Key of the flows: a connection of an allowed socket of another network namespace, as the device sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The source address.
    pub saddr: [u8; 16],
    /// The destination address.
    pub daddr: [u8; 16],
    /// The source port, host order.
    pub sport: u16,
    /// The destination port, host order.
    pub dport: u16,
}

const _: () = assert!(size_of::<FlowKey>() == 36);

/// A connection that is older than the guard and was refused: what the iterator writes to the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Existing {
    /// The local address.
    pub saddr: [u8; 16],
    /// The destination.
    pub daddr: [u8; 16],
    /// The rest.
    pub connection: Connection,
}

/// The end of [`Existing`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// The inode number of the socket's network namespace.
    pub netns: u32,
    /// A process that holds it.
    pub pid: u32,
    /// The local port, host order.
    pub sport: u16,
    /// The destination port, host order.
    pub dport: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// `IPPROTO_…`
    pub protocol: u16,
}

const _: () = assert!(size_of::<Existing>() == 48);

crate::pod!(Brought, BroughtKey, Existing, SocketState, PassKey, Pass, FlowKey);

/// Where a connection was to go that is brought to the relay, and on whose account. Kept in the socket, and by its own
/// address in the table that the relay asks.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// The address it asked for, IPv4 in its mapped form.
    pub address: [u8; 16],
    /// The port it asked for, host order.
    pub port: u16,
    /// 1 when it is taken to the relay's IPv4 address.
    pub by_v4: u16,
    /// The rule that allows it.
    pub rule: u32,
    /// The policy's generation.
    pub generation: u32,
    /// The process.
    pub pid: u32,
    /// Its effective user.
    pub euid: u32,
    /// Zero.
    pub _pad: u32,
}

const _: () = assert!(size_of::<Brought>() == 40);

/// Key of the table of these: the end of the connection that is not the relay's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BroughtKey {
    /// Its address, IPv4 in its mapped form.
    pub address: [u8; 16],
    /// Its port, host order.
    pub port: u32,
}

const _: () = assert!(size_of::<BroughtKey>() == 20);
