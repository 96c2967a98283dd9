//! Is this packet TCP, and to which port?
//!
//! The same parsers run in the packet programs (over the kernel's buffers) and, on the host, in property tests and
//! fuzzers (over slices). A packet that might be TCP and cannot be followed to its ports is [`Packet::Unclear`], and is
//! refused by who asks; nothing is waved through because it is odd.

mod frame;
mod header;
mod quick;
#[cfg(test)]
mod tests;

pub use frame::{IpHeader, classify_frame, ip_header, walk_from};
pub use header::{MAX_HEADERS, classify, walk};
pub use quick::{Quick, quick_end, quick_frame, quick_ip};

/// The bytes of a packet.
pub trait Bytes {
    /// `N` bytes at an offset; `None` where the packet is shorter.
    fn get<const N: usize>(&self, at: u32) -> Option<[u8; N]>;

    /// The same number. In the kernel the verifier is made to forget what it knew of it: otherwise it follows a walk from
    /// header to header once for each sum of lengths that there can be.
    #[inline(always)]
    fn plain(&self, number: u32) -> u32 {
        number
    }
}

/// A packet on the host: tests, fuzzers, `explain`.
impl Bytes for [u8] {
    #[inline(always)]
    fn get<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        let from = at as usize;
        <[u8]>::get(self, from..from.checked_add(N)?)?.try_into().ok()
    }
}

/// The place of a checksum that is still to be written when there is none. Otherwise the kernel or the device writes it,
/// behind whose back nobody looks, in a place that the sender has chosen.
pub const NOWHERE: u32 = u32::MAX;

/// Whether a checksum at `checksum` leaves alone what says that a packet is no TCP, in a walk that ended at `end`: the
/// ports, where there are any, are the last of it.
#[inline(always)]
pub fn spares(checksum: u32, end: u32) -> bool {
    checksum == NOWHERE || checksum >= end.saturating_add(4)
}

/// What a packet is to the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// Not TCP, or a later fragment, which carries no port and means nothing without the first.
    Other,
    /// TCP, and its port can be read.
    Tcp(Tcp),
    /// It might be TCP to any port, and its port cannot be read.
    Unclear,
}

/// Where a TCP segment is in its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Offset of the innermost IP header.
    pub ip: u32,
    /// That header is IPv6.
    pub v6: bool,
    /// Offset of the TCP header.
    pub tcp: u32,
    /// The destination port, host order.
    pub dport: u16,
}

/// SYN in [`Tcp::flags`].
pub const TCP_SYN: u8 = 2;
/// RST in [`Tcp::flags`].
pub const TCP_RST: u8 = 4;
/// ACK in [`Tcp::flags`].
pub const TCP_ACK: u8 = 16;

impl Tcp {
    /// The source, IPv4 in its mapped form; zeros when the packet ends before.
    ///
    /// An array and not an option of one: of the bytes of a `None` the compiler makes what the verifier does not take.
    #[inline(always)]
    pub fn source<P: Bytes + ?Sized>(&self, packet: &P) -> [u8; 16] {
        if self.v6 {
            packet.get(self.ip + 8).unwrap_or([0; 16])
        } else {
            crate::mapped(packet.get(self.ip + 12).unwrap_or([0; 4]))
        }
    }

    /// The destination, likewise.
    #[inline(always)]
    pub fn destination<P: Bytes + ?Sized>(&self, packet: &P) -> [u8; 16] {
        if self.v6 {
            packet.get(self.ip + 24).unwrap_or([0; 16])
        } else {
            crate::mapped(packet.get(self.ip + 16).unwrap_or([0; 4]))
        }
    }

    /// The source port, host order.
    #[inline(always)]
    pub fn sport<P: Bytes + ?Sized>(&self, packet: &P) -> u16 {
        packet.get(self.tcp).map_or(0, u16::from_be_bytes)
    }

    /// The sequence number; 0 when the packet ends before.
    #[inline(always)]
    pub fn seq<P: Bytes + ?Sized>(&self, packet: &P) -> u32 {
        packet.get(self.tcp + 4).map_or(0, u32::from_be_bytes)
    }

    /// Whether a checksum at `checksum` is its own, or none is still to be written.
    #[inline(always)]
    pub fn is_finished_by(&self, checksum: u32) -> bool {
        checksum == NOWHERE || checksum == self.tcp + 16
    }

    /// Whether nothing follows the header in a packet of `length` bytes.
    #[inline(always)]
    pub fn is_empty<P: Bytes + ?Sized>(&self, packet: &P, length: u32) -> bool {
        packet.get::<1>(self.tcp + 12).is_some_and(|[offset]| self.tcp + u32::from(offset >> 4) * 4 == length)
    }

    /// The flags (RFC 9293 §3.1); 0 when the packet ends before.
    #[inline(always)]
    pub fn flags<P: Bytes + ?Sized>(&self, packet: &P) -> u8 {
        packet.get::<1>(self.tcp + 13).map_or(0, |[flags]| flags)
    }
}
