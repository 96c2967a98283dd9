//! The common packets, by a few loads at fixed places: what the rest of the machine's traffic pays for.

use super::Bytes;
use super::header::{ICMPV6, TCP, UDP, is_later_or_first_fragment};

/// What a first look says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quick {
    /// Not TCP.
    Other,
    /// TCP to this port.
    Port(u16),
    /// Not one of the common packets: to be followed header by header.
    Look,
}

/// `ETH_P_…`, include/uapi/linux/if_ether.h.
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ARP: [u8; 2] = [0x08, 0x06];

/// Bytes of an Ethernet header.
pub(super) const ETHERNET: u32 = 14;

/// A frame with an Ethernet header.
#[inline(always)]
pub fn quick_frame<P: Bytes + ?Sized>(frame: &P) -> Quick {
    match frame.get::<2>(12) {
        Some(IPV4) | Some(IPV6) => quick_ip(frame, ETHERNET),
        Some(ARP) => Quick::Other,
        _ => Quick::Look,
    }
}

/// A packet whose IP header is at `at`.
#[inline(always)]
pub fn quick_ip<P: Bytes + ?Sized>(packet: &P, at: u32) -> Quick {
    // Never one byte alone: the compiler makes "not behind the end" of it, by which the verifier learns nothing.
    match packet.get::<2>(at) {
        // Version 4, no options.
        Some([0x45, _]) => {
            let (Some([_, protocol]), Some(fragment)) = (packet.get::<2>(at + 8), packet.get::<2>(at + 6)) else {
                return Quick::Look;
            };
            match protocol {
                TCP if !is_later_or_first_fragment(fragment) => port(packet, at + 22),
                UDP => Quick::Other,
                _ => Quick::Look,
            }
        }
        Some([first, _]) if first >> 4 == 6 => match packet.get::<2>(at + 6) {
            Some([TCP, _]) => port(packet, at + 42),
            Some([UDP | ICMPV6, _]) => Quick::Other,
            _ => Quick::Look,
        },
        _ => Quick::Look,
    }
}

/// Where the first look stops reading, of a frame with an Ethernet header or one without.
#[inline(always)]
pub fn quick_end<P: Bytes + ?Sized>(packet: &P, ethernet: bool) -> u32 {
    let ip = if ethernet { ETHERNET } else { 0 };
    match packet.get::<2>(ip) {
        Some([0x45, _]) => ip + 24,
        _ => ip + 44,
    }
}

#[inline(always)]
fn port<P: Bytes + ?Sized>(packet: &P, at: u32) -> Quick {
    packet.get::<2>(at).map_or(Quick::Look, |port| Quick::Port(u16::from_be_bytes(port)))
}
