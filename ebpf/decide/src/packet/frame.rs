//! From the beginning of a frame to its IP header.

use super::quick::ETHERNET;
use super::{Bytes, Packet, walk};

/// How many VLAN tags are followed, and how many MPLS labels. Two tags are QinQ (IEEE 802.1ad); a frame with more than
/// these is taken for unclear.
const MAX_TAGS: u32 = 4;

/// Where the IP header of a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpHeader {
    /// At this offset.
    At(u32),
    /// The frame carries something else.
    None,
    /// The frame ends inside its headers, or has more tags than are followed.
    Unclear,
}

/// Finds the IP header of a frame with an Ethernet header.
///
/// The type is read from the frame and not taken from the kernel's idea of it, which the sender of a packet socket
/// chooses (packet(7), `sll_protocol`).
#[inline(always)]
pub fn ip_header<P: Bytes + ?Sized>(frame: &P) -> IpHeader {
    let mut at = ETHERNET;
    for _ in 0..=MAX_TAGS {
        let Some(kind) = frame.get::<2>(at - 2) else { return IpHeader::Unclear };
        let kind = u16::from_be_bytes(kind);
        match kind {
            0x0800 | 0x86dd => return IpHeader::At(at),
            // 802.1Q, 802.1ad, and the numbers in use before the latter (ETH_P_QINQ1 to 3).
            0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x9300 => at += 4,
            // MPLS, unicast and multicast (RFC 3032 §2.1): labels, and behind the last what its first byte says.
            0x8847 | 0x8848 => return labelled(frame, at),
            // A PPPoE session (RFC 2516): six bytes, then the PPP protocol (RFC 1332, RFC 5072).
            0x8864 => {
                return match frame.get::<2>(at + 6) {
                    None => IpHeader::Unclear,
                    Some([0x00, 0x21] | [0x00, 0x57]) => IpHeader::At(at + 8),
                    // The protocol may be written in one byte (RFC 1661 §6.5).
                    Some([0x21, _] | [0x57, _]) => IpHeader::At(at + 7),
                    Some(_) => IpHeader::None,
                };
            }
            // A length (IEEE 802.3): LLC follows, and with a SNAP header a type of its own (RFC 1042).
            0..=0x05ff => {
                let Some([0xaa, 0xaa, 0x03, 0, 0, 0]) = frame.get::<6>(at) else { return IpHeader::None };
                at += 8;
            }
            _ => return IpHeader::None,
        }
    }
    IpHeader::Unclear
}

/// Behind the labels of MPLS.
#[inline(always)]
fn labelled<P: Bytes + ?Sized>(frame: &P, labels: u32) -> IpHeader {
    let mut at = labels;
    for _ in 0..MAX_TAGS {
        let Some([_, _, bottom, _]) = frame.get::<4>(at) else { return IpHeader::Unclear };
        at += 4;
        if bottom & 1 == 1 {
            return match frame.get::<2>(at) {
                None => IpHeader::Unclear,
                Some([first, _]) if matches!(first >> 4, 4 | 6) => IpHeader::At(at),
                Some(_) => IpHeader::None,
            };
        }
    }
    IpHeader::Unclear
}

/// Classifies a frame with an Ethernet header.
#[inline(always)]
pub fn classify_frame<P: Bytes + ?Sized>(frame: &P) -> Packet {
    walk_from(frame, ip_header(frame)).0
}

/// The same from where the IP header was found, and where the walk ended; at no place in a frame that carries no IP.
#[inline(always)]
pub fn walk_from<P: Bytes + ?Sized>(frame: &P, ip: IpHeader) -> (Packet, u32) {
    match ip {
        IpHeader::At(ip) => walk(frame, ip),
        IpHeader::None => (Packet::Other, u32::MAX),
        IpHeader::Unclear => (Packet::Unclear, u32::MAX),
    }
}
