//! What a refused LAN host gets: packets written byte for byte, so that the client fails at once.

use crate::packet::{TCP_ACK, TCP_RST};

/// FIN and SYN (RFC 9293 §3.1): each takes a sequence number.
const TCP_FIN: u8 = 1;
const TCP_SYN: u8 = 2;
/// Protocol numbers (IANA).
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Time to live of the answers, as the kernel's own (IPDEFTTL, include/uapi/linux/ip.h).
const TTL: u8 = 64;

/// Bytes of an IPv4 header without options, an IPv6 header, and a TCP header without options.
const V4: usize = 20;
const V6: usize = 40;

/// A segment that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its source, IPv4 in its mapped form.
    pub source: [u8; 16],
    /// Its destination, likewise.
    pub destination: [u8; 16],
    /// Its source port.
    pub sport: u16,
    /// Its destination port.
    pub dport: u16,
    /// Its sequence number.
    pub seq: u32,
    /// Its acknowledgement number.
    pub ack: u32,
    /// Its flags.
    pub flags: u8,
    /// How many bytes of data it carries.
    pub data: u32,
    /// The checksum of what is sent is completed by the device (`CHECKSUM_PARTIAL`, include/linux/skbuff.h): it gets the
    /// sum over the pseudo-header alone.
    pub partial: bool,
}

/// A sum of 16-bit words (RFC 1071), before it is folded.
#[derive(Clone, Copy)]
struct Sum(u32);

impl Sum {
    #[inline(always)]
    fn word(self, word: u16) -> Self {
        Self(self.0 + u32::from(word))
    }

    /// Adds bytes, an even number of them.
    #[inline(always)]
    fn bytes<const N: usize>(self, bytes: &[u8; N]) -> Self {
        let mut sum = self;
        let mut at = 0;
        while at + 1 < N {
            sum = sum.word(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
            at += 2;
        }
        sum
    }

    #[inline(always)]
    fn folded(self) -> u16 {
        let sum = (self.0 & 0xffff) + (self.0 >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }
}

impl Segment {
    /// Whether its source is an address that a host may have: no answer goes to this network's own (0.0.0.0/8), loopback,
    /// multicast or reserved addresses, nor to the unspecified one (RFC 1122 §3.2.1.3 and §3.2.2, RFC 4443 §2.4).
    #[inline(always)]
    pub fn has_a_source(&self) -> bool {
        let [a, b, c, d] = words(&self.source);
        if a == 0 && b == 0 && c == 0xffff {
            let first = d >> 24;
            return first != 0 && first != 127 && first < 224;
        }
        let unspecified_or_loopback = a == 0 && b == 0 && c == 0 && d <= 1;
        !unspecified_or_loopback && a >> 24 != 0xff
    }

    /// The reset (RFC 9293 §3.10.7.1): of a segment with ACK by what it acknowledges, of others it acknowledges them.
    #[inline(always)]
    fn reset(&self, v6: bool) -> [u8; V4] {
        let (seq, ack, flags) = if self.flags & TCP_ACK != 0 {
            (self.ack, 0, TCP_RST)
        } else {
            let taken = u32::from(self.flags & TCP_SYN != 0) + u32::from(self.flags & TCP_FIN != 0);
            (0, self.seq.wrapping_add(self.data).wrapping_add(taken), TCP_RST | TCP_ACK)
        };
        let ([s0, s1], [d0, d1]) = (self.dport.to_be_bytes(), self.sport.to_be_bytes());
        let ([q0, q1, q2, q3], [a0, a1, a2, a3]) = (seq.to_be_bytes(), ack.to_be_bytes());
        let mut header = [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, 0x50, flags, 0, 0, 0, 0, 0, 0];
        let addresses = if v6 {
            Sum(0).bytes(&self.source).bytes(&self.destination)
        } else {
            Sum(0).bytes(&v4(&self.source)).bytes(&v4(&self.destination))
        };
        let pseudo = addresses.word(u16::from(TCP)).word(V4 as u16);
        let sum = if self.partial { pseudo.folded() } else { !pseudo.bytes(&header).folded() };
        [header[16], header[17]] = sum.to_be_bytes();
        header
    }

    /// The reset as an IPv4 packet.
    #[inline(always)]
    pub fn reset_v4(&self) -> [u8; V4 + V4] {
        let mut packet = [0; V4 + V4];
        let ip = ipv4(TCP, (V4 + V4) as u16, &v4(&self.destination), &v4(&self.source));
        put(&mut packet, 0, &ip);
        put(&mut packet, V4, &self.reset(false));
        packet
    }

    /// The reset as an IPv6 packet.
    #[inline(always)]
    pub fn reset_v6(&self) -> [u8; V6 + V4] {
        let mut packet = [0; V6 + V4];
        put(&mut packet, 0, &ipv6(TCP, V4 as u16, &self.destination, &self.source));
        put(&mut packet, V6, &self.reset(true));
        packet
    }
}

/// What an ICMP error quotes of an IPv4 packet: its header, without options, and eight bytes (RFC 792).
pub const QUOTE_V4: usize = V4 + 8;
/// What it quotes here of an IPv6 packet: its header and eight bytes. RFC 4443 §3.1 asks for as much as fits; who sends
/// looks at no more than the ports.
pub const QUOTE_V6: usize = V6 + 8;

/// "Communication administratively prohibited" (RFC 1812 §5.2.7.1: type 3, code 13) for an IPv4 packet, in the name of its
/// destination.
#[inline(always)]
pub fn prohibited_v4(quote: &[u8; QUOTE_V4]) -> [u8; V4 + 8 + QUOTE_V4] {
    let mut packet = [0; V4 + 8 + QUOTE_V4];
    let (source, destination) = (part::<4, QUOTE_V4>(quote, 12), part::<4, QUOTE_V4>(quote, 16));
    put(&mut packet, 0, &ipv4(ICMP, (V4 + 8 + QUOTE_V4) as u16, &destination, &source));
    let sum = !Sum(0).word(0x030d).bytes(quote).folded();
    let [high, low] = sum.to_be_bytes();
    put(&mut packet, V4, &[3, 13, high, low, 0, 0, 0, 0]);
    put(&mut packet, V4 + 8, quote);
    packet
}

/// The same for IPv6 (RFC 4443 §3.1: type 1, code 1).
#[inline(always)]
pub fn prohibited_v6(quote: &[u8; QUOTE_V6]) -> [u8; V6 + 8 + QUOTE_V6] {
    let mut packet = [0; V6 + 8 + QUOTE_V6];
    let (source, destination) = (part::<16, QUOTE_V6>(quote, 8), part::<16, QUOTE_V6>(quote, 24));
    let length = (8 + QUOTE_V6) as u16;
    put(&mut packet, 0, &ipv6(ICMPV6, length, &destination, &source));
    let pseudo = Sum(0).bytes(&source).bytes(&destination).word(length).word(u16::from(ICMPV6));
    let [high, low] = (!pseudo.word(0x0101).bytes(quote).folded()).to_be_bytes();
    put(&mut packet, V6, &[1, 1, high, low, 0, 0, 0, 0]);
    put(&mut packet, V6 + 8, quote);
    packet
}

/// An IPv4 header (RFC 791 §3.1) that forbids fragments, its checksum included.
#[inline(always)]
fn ipv4(protocol: u8, length: u16, from: &[u8; 4], to: &[u8; 4]) -> [u8; V4] {
    let [high, low] = length.to_be_bytes();
    let mut header = [0x45, 0, high, low, 0, 0, 0x40, 0, TTL, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    put(&mut header, 12, from);
    put(&mut header, 16, to);
    [header[10], header[11]] = (!Sum(0).bytes(&header).folded()).to_be_bytes();
    header
}

/// An IPv6 header (RFC 8200 §3).
#[inline(always)]
fn ipv6(next: u8, length: u16, from: &[u8; 16], to: &[u8; 16]) -> [u8; V6] {
    let [high, low] = length.to_be_bytes();
    let mut header = [0; V6];
    put(&mut header, 0, &[0x60, 0, 0, 0, high, low, next, TTL]);
    put(&mut header, 8, from);
    put(&mut header, 24, to);
    header
}

/// An address by its four words.
#[inline(always)]
fn words(address: &[u8; 16]) -> [u32; 4] {
    let word = |at: usize| u32::from_be_bytes([address[at], address[at + 1], address[at + 2], address[at + 3]]);
    [word(0), word(4), word(8), word(12)]
}

/// The IPv4 address in a mapped one.
#[inline(always)]
fn v4(mapped: &[u8; 16]) -> [u8; 4] {
    [mapped[12], mapped[13], mapped[14], mapped[15]]
}

/// Some bytes from a place.
#[inline(always)]
fn part<const N: usize, const FROM: usize>(bytes: &[u8; FROM], at: usize) -> [u8; N] {
    let mut part = [0; N];
    let mut place = 0;
    while place < N {
        part[place] = bytes[at + place];
        place += 1;
    }
    part
}

/// Writes bytes to a place.
#[inline(always)]
fn put<const N: usize, const TO: usize>(to: &mut [u8; TO], at: usize, bytes: &[u8; N]) {
    let mut place = 0;
    while place < N {
        to[at + place] = bytes[place];
        place += 1;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;

    use super::*;
    use crate::mapped;
    use crate::packet::{Packet, classify};

    impl Segment {
        fn is_v4(&self) -> bool {
            matches!(self.source, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, _, _, _, _])
        }
    }

    /// The sum a receiver makes over a pseudo-header and all bytes: all ones when it is right.
    fn sum(words: &[&[u8]]) -> u16 {
        let mut sum = 0_u64;
        for bytes in words {
            for pair in bytes.chunks(2) {
                sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            }
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    fn segments() -> impl Strategy<Value = Segment> {
        let rest = (any::<u16>(), any::<u16>(), any::<u32>(), any::<u32>(), any::<u8>(), 0_u32..70_000);
        (any::<bool>(), any::<[u8; 16]>(), any::<[u8; 16]>(), rest).prop_map(
            |(v6, a, b, (sport, dport, seq, ack, flags, data))| {
                let address = |bytes: [u8; 16]| if v6 { bytes } else { mapped(v4(&bytes)) };
                let (mut source, destination) = (address(a), address(b));
                if v6 {
                    source[0] = 0x20;
                }
                Segment { source, destination, sport, dport, seq, ack, flags, data, partial: false }
            },
        )
    }

    #[test]
    fn nothing_is_answered_to_what_is_no_hosts_address() {
        let answered = |source: &str| {
            let source = match source.parse().unwrap() {
                std::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                std::net::IpAddr::V6(address) => address.octets(),
            };
            let destination = [0; 16];
            let (sport, dport, seq, ack, flags, data, partial) = (1, 25, 0, 0, TCP_SYN, 0, false);
            Segment { source, destination, sport, dport, seq, ack, flags, data, partial }.has_a_source()
        };
        for host in
            ["10.9.0.66", "1.0.0.0", "126.255.255.255", "128.0.0.1", "223.255.255.255", "fd09::66", "fe80::1", "::2"]
        {
            assert!(answered(host), "{host}");
        }
        for nobody in
            ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"]
        {
            assert!(!answered(nobody), "{nobody}");
        }
    }

    proptest! {
        #[test]
        fn a_reset_is_what_the_sender_takes_for_one(segment in segments()) {
            let (v4_packet, v6_packet) = (segment.reset_v4(), segment.reset_v6());
            let (packet, tcp): (&[u8], usize) =
                if segment.is_v4() { (&v4_packet, 20) } else { (&v6_packet, 40) };
            let Packet::Tcp(found) = classify(packet, 0) else { panic!("no TCP") };
            prop_assert_eq!(found.tcp as usize, tcp);
            prop_assert_eq!((found.source(packet), found.destination(packet)), (segment.destination, segment.source));
            prop_assert_eq!((found.sport(packet), found.dport), (segment.dport, segment.sport));
            prop_assert!(found.is_empty(packet, packet.len() as u32));
            // RFC 9293 §3.10.7.1, in its own words.
            if segment.flags & TCP_ACK != 0 {
                prop_assert_eq!((found.seq(packet), found.flags(packet)), (segment.ack, TCP_RST));
            } else {
                let length = segment.data + u32::from(segment.flags >> 1 & 1) + u32::from(segment.flags & 1);
                let ack = u32::from_be_bytes(packet[tcp + 8..tcp + 12].try_into().unwrap());
                prop_assert_eq!((found.seq(packet), found.flags(packet)), (0, TCP_RST | TCP_ACK));
                prop_assert_eq!(ack, segment.seq.wrapping_add(length));
            }
            let pseudo: [&[u8]; 2] = if tcp == 20 { [&packet[12..20], &[0, 6, 0, 20]] } else { [&packet[8..40], &[0, 20, 0, 6]] };
            prop_assert_eq!(sum(&[pseudo[0], pseudo[1], &packet[tcp..]]), 0xffff);
            if tcp == 20 {
                prop_assert_eq!(sum(&[&packet[..20]]), 0xffff);
                prop_assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
            } else {
                prop_assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])), packet.len() - 40);
            }
        }

        #[test]
        fn a_checksum_that_the_device_completes_is_right_then(segment in segments()) {
            let segment = Segment { partial: true, ..segment };
            let (mut v4_packet, mut v6_packet) = (segment.reset_v4(), segment.reset_v6());
            let (packet, tcp): (&mut [u8], usize) =
                if segment.is_v4() { (&mut v4_packet, 20) } else { (&mut v6_packet, 40) };
            // `skb_checksum_help`, net/core/dev.c.
            let completed = !sum(&[&packet[tcp..]]);
            packet[tcp + 16..tcp + 18].copy_from_slice(&completed.to_be_bytes());
            let whole = Segment { partial: false, ..segment };
            let expected = if tcp == 20 { whole.reset_v4().to_vec() } else { whole.reset_v6().to_vec() };
            prop_assert_eq!(&packet[..], &expected[..]);
        }

        #[test]
        fn a_prohibition_quotes_what_it_is_about(quote in proptest::collection::vec(any::<u8>(), 48)) {
            let quote_v4: [u8; QUOTE_V4] = quote[..QUOTE_V4].try_into().unwrap();
            let packet = prohibited_v4(&quote_v4);
            prop_assert_eq!(sum(&[&packet[..20]]), 0xffff);
            prop_assert_eq!(sum(&[&packet[20..]]), 0xffff);
            prop_assert_eq!((&packet[12..16], &packet[16..20]), (&quote[16..20], &quote[12..16]));
            prop_assert_eq!((packet[9], packet[20], packet[21], &packet[28..]), (1, 3, 13, &quote[..QUOTE_V4]));

            let quote_v6: [u8; QUOTE_V6] = quote[..QUOTE_V6].try_into().unwrap();
            let packet = prohibited_v6(&quote_v6);
            let length = u16::from_be_bytes([packet[4], packet[5]]);
            prop_assert_eq!(usize::from(length), packet.len() - 40);
            prop_assert_eq!(sum(&[&packet[8..40], &length.to_be_bytes(), &[0, 58], &packet[40..]]), 0xffff);
            prop_assert_eq!((&packet[8..24], &packet[24..40]), (&quote[24..40], &quote[8..24]));
            prop_assert_eq!((packet[6], packet[40], packet[41], &packet[48..]), (58, 1, 1, &quote[..]));
        }
    }
}
