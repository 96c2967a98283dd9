//! From an IP header along the chain of headers to TCP.

use super::{Bytes, Packet, Tcp};

/// Protocol numbers (IANA, "Assigned Internet Protocol Numbers").
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
const IPIP: u8 = 4;
const IPV6: u8 = 41;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const GRE: u8 = 47;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// How many headers are followed, IP's and TCP's included. Nothing in use comes near; whatever has more is unclear.
pub const MAX_HEADERS: u32 = 16;

/// The smallest first fragment that is believed: it ends behind TCP's flags (RFC 1858 §3.2.1, RFC 3128 §4).
const FIRST_FRAGMENT: u32 = 16;

/// Later fragments at this offset (in 8 bytes) and below are unclear where headers may follow in them.
const LAST_WITH_HEADERS: u32 = 8;

/// How much of a first fragment is believed: the part that no later one which passes can be laid over.
const BELIEVED: u32 = (LAST_WITH_HEADERS + 1) * 8;

/// The flag and offset bits of the third word of an IPv4 header, "more fragments" included (RFC 791 §3.1).
#[inline(always)]
pub(super) fn is_later_or_first_fragment(field: [u8; 2]) -> bool {
    u16::from_be_bytes(field) & 0x3fff != 0
}

/// Where the walk is.
struct Walk {
    /// What the next header is.
    protocol: u8,
    /// Where it is.
    at: u32,
    /// The innermost IP header.
    ip: u32,
    v6: bool,
    /// Where the packet ends, by the words of all IP headers so far; those of jumbograms and large GSO packets do not
    /// say. Of a first fragment, where the part ends that is believed.
    end: u32,
    /// One of the packets is the first of several fragments.
    first: bool,
}

impl Walk {
    /// What begins here is the first of several fragments.
    ///
    /// Of one inside another nothing is believed: what receivers cut off the outer one (they round its length down to eight
    /// bytes, and another last fragment can end it early) is missing from the inner one, and what was laid beneath that
    /// comes through.
    #[inline(always)]
    fn first_fragment(&mut self) {
        self.end = if self.first { 0 } else { self.end.min(self.at + BELIEVED) };
        self.first = true;
    }
}

/// What one step found.
enum Step {
    Next,
    Done(Packet),
}

/// Classifies the packet whose outermost IP header is at `ip`.
///
/// IP in IP (RFC 2003, RFC 4213) is looked into, like any other chain of headers.
#[inline(always)]
pub fn classify<P: Bytes + ?Sized>(packet: &P, ip: u32) -> Packet {
    walk(packet, ip).0
}

/// The same, and where the walk ended: at the beginning of the first header that was not followed.
#[inline(always)]
pub fn walk<P: Bytes + ?Sized>(packet: &P, ip: u32) -> (Packet, u32) {
    let protocol = match packet.get::<1>(ip) {
        Some([first]) if first >> 4 == 4 => IPIP,
        Some([first]) if first >> 4 == 6 => IPV6,
        // No receiver takes another version for IP.
        Some(_) => return (Packet::Other, ip),
        None => return (Packet::Unclear, ip),
    };
    let mut walk = Walk { protocol, at: ip, ip, v6: false, end: u32::MAX, first: false };
    for _ in 0..MAX_HEADERS {
        walk.at = packet.plain(walk.at);
        walk.end = packet.plain(walk.end);
        match step(packet, &mut walk) {
            Some(Step::Next) => {}
            Some(Step::Done(packet)) => return (packet, walk.at),
            // The packet ends inside a header.
            None => return (Packet::Unclear, walk.at),
        }
    }
    (Packet::Unclear, walk.at)
}

#[inline(always)]
fn step<P: Bytes + ?Sized>(packet: &P, walk: &mut Walk) -> Option<Step> {
    if !leads_to_tcp(walk.protocol) {
        return Some(Step::Done(Packet::Other));
    }
    // A first fragment must hold all headers and the beginning of TCP's (RFC 7112 §5): what lies behind its end in this
    // buffer, or can be laid over, is not in the packet that the receiver puts together.
    if walk.first && walk.at + FIRST_FRAGMENT > walk.end {
        return None;
    }
    match walk.protocol {
        TCP => tcp(packet, walk),
        IPIP => ipv4(packet, walk),
        IPV6 => ipv6(packet, walk),
        FRAGMENT => fragment(packet, walk),
        GRE => gre(packet, walk),
        AUTHENTICATION => {
            // RFC 4302 §2.2: the length in 4 bytes, minus two.
            let [next, length] = packet.get::<2>(walk.at)?;
            walk.protocol = next;
            walk.at += (u32::from(length) + 2) * 4;
            Some(Step::Next)
        }
        _ => {
            // RFC 8200 §4.2 and those after it: the length in 8 bytes, the first not counted.
            let [next, length] = packet.get::<2>(walk.at)?;
            walk.protocol = next;
            walk.at += (u32::from(length) + 1) * 8;
            Some(Step::Next)
        }
    }
}

/// Whether TCP's header can be behind what this number announces.
#[inline(always)]
fn leads_to_tcp(protocol: u8) -> bool {
    matches!(
        protocol,
        TCP | IPIP
            | IPV6
            | FRAGMENT
            | GRE
            | AUTHENTICATION
            | HOP_BY_HOP
            | ROUTING
            | DESTINATION
            | MOBILITY
            | HIP
            | SHIM6
    )
}

#[inline(always)]
fn tcp<P: Bytes + ?Sized>(packet: &P, walk: &Walk) -> Option<Step> {
    let dport = u16::from_be_bytes(packet.get::<2>(walk.at + 2)?);
    Some(Step::Done(Packet::Tcp(Tcp { ip: walk.ip, v6: walk.v6, tcp: walk.at, dport })))
}

#[inline(always)]
fn ipv4<P: Bytes + ?Sized>(packet: &P, walk: &mut Walk) -> Option<Step> {
    let [first, _, length_high, length_low] = packet.get::<4>(walk.at)?;
    let header = u32::from(first & 0xf) * 4;
    let [fragment_high, fragment_low, _, protocol] = packet.get::<4>(walk.at + 6)?;
    if first >> 4 != 4 {
        return Some(Step::Done(Packet::Other));
    }
    if header < 20 {
        return Some(Step::Done(Packet::Unclear));
    }
    let fragment = u16::from_be_bytes([fragment_high, fragment_low]);
    let length = u32::from(u16::from_be_bytes([length_high, length_low]));
    walk.ip = walk.at;
    walk.v6 = false;
    if length != 0 {
        walk.end = walk.end.min(walk.at + length);
    }
    walk.protocol = protocol;
    walk.at += header;
    let headers_follow = match u32::from(fragment & 0x1fff) {
        0 => {
            if fragment & 0x2000 != 0 {
                walk.first_fragment();
            }
            return Some(Step::Next);
        }
        // Laid over the first fragment, it would change the flags that were judged (RFC 3128 §2).
        offset if protocol == TCP => offset == 1,
        // It would change where TCP's header is, or what it says.
        offset => offset <= LAST_WITH_HEADERS && leads_to_tcp(protocol),
    };
    Some(Step::Done(if headers_follow { Packet::Unclear } else { Packet::Other }))
}

#[inline(always)]
fn ipv6<P: Bytes + ?Sized>(packet: &P, walk: &mut Walk) -> Option<Step> {
    let [first] = packet.get::<1>(walk.at)?;
    let [length_high, length_low, next] = packet.get::<3>(walk.at + 4)?;
    if first >> 4 != 6 {
        return Some(Step::Done(Packet::Other));
    }
    let length = u32::from(u16::from_be_bytes([length_high, length_low]));
    walk.ip = walk.at;
    walk.v6 = true;
    if length != 0 {
        walk.end = walk.end.min(walk.at + 40 + length);
    }
    walk.protocol = next;
    walk.at += 40;
    Some(Step::Next)
}

/// Generic routing encapsulation (RFC 2784 §2.1, RFC 2890 §2). What is no plain packet in version 0 is a tunnel of another
/// kind, and outside.
#[inline(always)]
fn gre<P: Bytes + ?Sized>(packet: &P, walk: &mut Walk) -> Option<Step> {
    let [flags, version, kind_high, kind_low] = packet.get::<4>(walk.at)?;
    walk.protocol = match (version & 7, [kind_high, kind_low]) {
        (0, [0x08, 0x00]) => IPIP,
        (0, [0x86, 0xdd]) => IPV6,
        _ => return Some(Step::Done(Packet::Other)),
    };
    // A source route (RFC 1701) has a length of its own; no receiver takes it any more.
    if flags & 0x40 != 0 {
        return Some(Step::Done(Packet::Unclear));
    }
    // Checksum, key and sequence number, four bytes each where their flag is set.
    walk.at += 4 * (1 + u32::from(flags >> 7) + u32::from(flags >> 5 & 1) + u32::from(flags >> 4 & 1));
    Some(Step::Next)
}

/// The fragment header (RFC 8200 §4.5).
#[inline(always)]
fn fragment<P: Bytes + ?Sized>(packet: &P, walk: &mut Walk) -> Option<Step> {
    let [next, _, offset_high, offset_low] = packet.get::<4>(walk.at)?;
    let offset = u32::from(u16::from_be_bytes([offset_high, offset_low]) >> 3);
    walk.protocol = next;
    walk.at += 8;
    match offset {
        0 => {
            // Even if it says that no more follow: receivers older than RFC 6946 put it together with those that come.
            walk.first_fragment();
            Some(Step::Next)
        }
        // Whatever it says is next, as only the first fragment is believed in that.
        1..=LAST_WITH_HEADERS => Some(Step::Done(Packet::Unclear)),
        _ => Some(Step::Done(Packet::Other)),
    }
}
