//! Packets picked by hand.

extern crate std;

use std::vec;
use std::vec::Vec;

use super::super::{IpHeader, Packet, Quick, classify, ip_header, quick_frame, quick_ip};
use super::build::{Layer, Link, LinkKind, Transport, carried, packet, place, tcp};
use super::frame;

const V4: Layer = Layer::V4 { options: 0 };
const V6: Layer = Layer::V6;

/// A destination-options header of this many bytes.
fn options(length: usize) -> Layer {
    Layer::Extension { kind: 60, more: (length / 8 - 1) as u8 }
}

/// An IPv4 packet of a protocol, at an offset in eight bytes.
fn v4_fragment(protocol: u8, offset: u16, more: bool, data: &[u8]) -> Vec<u8> {
    let mut packet = V4.wrap(protocol, data);
    packet[6..8].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
    packet
}

fn v6_fragment(next: u8, offset: u16, more: bool, data: &[u8]) -> Vec<u8> {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    V6.wrap(44, &[&[next, 0, high, low, 0, 0, 0, 1], data].concat())
}

/// The port, where it is clear.
fn port(packet: &[u8]) -> Option<u16> {
    match classify(packet, 0) {
        Packet::Tcp(tcp) => Some(tcp.dport),
        Packet::Other | Packet::Unclear => None,
    }
}

#[track_caller]
fn is(packet: &[u8], expected: Packet) {
    assert_eq!(classify(packet, 0), expected, "{packet:02x?}");
}

/// A segment to port 25 with some data.
fn segment() -> Vec<u8> {
    [tcp(25).bytes(), vec![0; 1400]].concat()
}

#[test]
fn tiny_fragments_are_unclear() {
    let segment = segment();
    // RFC 1858 §3: the flags are in the second fragment.
    is(&v4_fragment(6, 0, true, &segment[..8]), Packet::Unclear);
    is(&v4_fragment(6, 1, true, &segment[8..16]), Packet::Unclear);
    is(&v6_fragment(6, 0, true, &segment[..8]), Packet::Unclear);
    is(&v6_fragment(6, 1, true, &segment[8..16]), Packet::Unclear);
    // RFC 3128 §2: a whole header to another port, then a fragment that is laid over its flags.
    assert_eq!(port(&v4_fragment(6, 0, true, &tcp(80).bytes())), Some(80));
    is(&v4_fragment(6, 1, false, &segment[8..]), Packet::Unclear);
    is(&v4_fragment(6, 2, false, &segment[16..]), Packet::Other);
}

#[test]
fn fragments_as_routers_and_hosts_make_them_are_clear() {
    let segment = segment();
    assert_eq!(port(&v4_fragment(6, 0, true, &segment[..1400])), Some(25));
    is(&v4_fragment(6, 175, false, &segment[1400..]), Packet::Other);
    assert_eq!(port(&v6_fragment(6, 0, true, &segment[..1232])), Some(25));
    is(&v6_fragment(6, 154, false, &segment[1232..]), Packet::Other);
    for (layer, number) in [(V4, 4), (V6, 41)] {
        let tunnelled = layer.wrap(6, &segment);
        assert_eq!(port(&v4_fragment(number, 0, true, &tunnelled[..1400])), Some(25));
        is(&v4_fragment(number, 175, false, &tunnelled[1400..]), Packet::Other);
        assert_eq!(port(&v6_fragment(number, 0, true, &tunnelled[..1232])), Some(25));
        is(&v6_fragment(number, 154, false, &tunnelled[1232..]), Packet::Other);
    }
    for (offset, more) in [(0, true), (1, true), (1, false), (100, false)] {
        is(&v4_fragment(17, offset, more, &segment[..800]), Packet::Other);
        assert_eq!(quick_ip(&v4_fragment(17, offset, more, &segment[..800])[..], 0), Quick::Other);
    }
    is(&v6_fragment(17, 0, true, &segment[..800]), Packet::Other);
    is(&v6_fragment(17, 100, false, &segment[..800]), Packet::Other);
}

#[test]
fn a_later_fragment_is_not_believed_in_what_comes_first() {
    // Receivers take that from the first fragment only (RFC 8200 §4.5).
    for next in [6, 17, 59, 60, 44] {
        is(&v6_fragment(next, 1, false, &segment()), Packet::Unclear);
        is(&v6_fragment(next, 8, false, &segment()), Packet::Unclear);
        is(&v6_fragment(next, 9, false, &segment()), Packet::Other);
    }
}

#[test]
fn a_later_fragment_cannot_be_laid_over_headers_of_the_first() {
    for (number, first) in [(4, V4), (41, V6), (51, Layer::Authentication { more: 4 })] {
        for (offset, expected) in [(3, Packet::Unclear), (8, Packet::Unclear), (9, Packet::Other)] {
            is(&v4_fragment(number, offset, false, &segment()), expected);
        }
        // Where it could be laid over TCP's header, the first is not believed.
        for length in [8, 16, 24, 32, 64, 256] {
            let inner = if first == V4 { vec![V4; length / 24 + 1] } else { vec![first, options(length)] };
            let (number, content) = carried(&inner, tcp(80));
            let deep = inner.iter().map(|layer| layer.len()).sum::<usize>() + 16 > 72;
            assert_eq!(port(&v4_fragment(number, 0, true, &content)), (!deep).then_some(80), "{inner:?}");
            assert_eq!(port(&v6_fragment(number, 0, true, &content)), (!deep).then_some(80), "{inner:?}");
        }
    }
}

#[test]
fn a_first_fragment_says_where_it_ends_and_what_lies_behind_is_nothing() {
    let content = packet(&[V6, options(72)], tcp(80));
    // The tunnelled packet's TCP header comes with the second fragment, at an offset of 104; in this buffer there is
    // another.
    let mut first = v4_fragment(41, 0, true, &content);
    first[2..4].copy_from_slice(&(20 + 104_u16).to_be_bytes());
    is(&first, Packet::Unclear);
    let mut first = v4_fragment(4, 0, true, &packet(&[V4], tcp(80)));
    first[2..4].copy_from_slice(&(20 + 24_u16).to_be_bytes());
    is(&first, Packet::Unclear);
    // The same without a tunnel.
    let mut first = v4_fragment(6, 0, true, &tcp(80).bytes());
    first[2..4].copy_from_slice(&(20 + 8_u16).to_be_bytes());
    is(&first, Packet::Unclear);
    let mut first = v6_fragment(6, 0, true, &tcp(80).bytes());
    first[4..6].copy_from_slice(&(8 + 8_u16).to_be_bytes());
    is(&first, Packet::Unclear);
    // Eight bytes of options with TCP next, and behind their end what they are not followed by: another first fragment
    // may bring that.
    let mut first = v4_fragment(60, 0, true, &packet(&[options(8)], tcp(80)));
    first[2..4].copy_from_slice(&(20 + 8_u16).to_be_bytes());
    is(&first, Packet::Unclear);
    // Of a packet in one piece no receiver makes anything else.
    let mut short = v4_fragment(6, 0, false, &tcp(80).bytes());
    short[2..4].copy_from_slice(&(20 + 8_u16).to_be_bytes());
    assert_eq!(port(&short), Some(80));
}

#[test]
fn chains_of_headers_are_followed_up_to_a_limit() {
    let chain = |count| [vec![V6], vec![options(8); count]].concat();
    is(&packet(&chain(10), tcp(25)), Packet::Tcp(place(0, &chain(10), 25)));
    is(&packet(&chain(10), Transport::Udp), Packet::Other);
    is(&packet(&chain(14), tcp(25)), Packet::Tcp(place(0, &chain(14), 25)));
    is(&packet(&chain(15), tcp(25)), Packet::Unclear);
    is(&packet(&chain(40), tcp(25)), Packet::Unclear);
    is(&packet(&[V4; 40], tcp(25)), Packet::Unclear);
    // The longest header there is.
    let long = [V6, options(2048), options(2048)];
    is(&packet(&long, tcp(25)), Packet::Tcp(place(0, &long, 25)));
}

#[test]
fn an_atomic_fragment_is_a_packet_in_one_piece() {
    let layers = [V6, Layer::Atomic, options(16)];
    is(&packet(&layers, tcp(25)), Packet::Tcp(place(0, &layers, 25)));
    // Older receivers put it together with others, as with any first fragment.
    is(&packet(&[V6, Layer::Atomic, options(64)], tcp(25)), Packet::Unclear);
}

#[test]
fn lengths_of_nothing_are_those_of_large_packets() {
    // A jumbogram (RFC 2675), and what the kernel hands down for a device to cut into segments.
    let jumbo = Layer::Extension { kind: 0, more: 0 };
    let layers = [V6, jumbo];
    let mut bytes = packet(&layers, tcp(25));
    bytes[4..6].fill(0);
    bytes[42..44].copy_from_slice(&[0xc2, 4]);
    is(&bytes, Packet::Tcp(place(0, &layers, 25)));
    let mut bytes = packet(&[V6], tcp(25));
    bytes[4..6].fill(0);
    assert_eq!((port(&bytes), quick_ip(&bytes[..], 0)), (Some(25), Quick::Port(25)));
    let mut bytes = packet(&[V4], tcp(25));
    bytes[2..4].fill(0);
    assert_eq!((port(&bytes), quick_ip(&bytes[..], 0)), (Some(25), Quick::Port(25)));
}

#[test]
fn what_no_receiver_takes_for_ip_is_let_alone_and_a_header_too_short_is_not() {
    let mut bytes = packet(&[V4], tcp(25));
    for version in [0, 5, 7, 15] {
        bytes[0] = version << 4 | 5;
        assert_eq!((classify(&bytes[..], 0), quick_ip(&bytes[..], 0)), (Packet::Other, Quick::Look));
    }
    for length in 0..5 {
        bytes[0] = 0x40 | length;
        assert_eq!((classify(&bytes[..], 0), quick_ip(&bytes[..], 0)), (Packet::Unclear, Quick::Look));
    }
    // In a tunnel, the version has to be the one that was announced.
    is(&V4.wrap(4, &packet(&[V6], tcp(25))), Packet::Other);
    is(&V6.wrap(41, &packet(&[V4], tcp(25))), Packet::Other);
    is(&[], Packet::Unclear);
}

#[test]
fn vlan_tags_are_followed_up_to_a_limit() {
    let tagged = |tags: &[u16], kind| Link { tags: tags.to_vec(), kind };
    let syn = packet(&[V4], tcp(25));
    // QinQ (IEEE 802.1ad), and with the number in use before.
    for tags in [&[0x88a8, 0x8100][..], &[0x9100, 0x8100], &[0x8100; 4]] {
        let link = tagged(tags, LinkKind::Plain);
        let bytes = link.frame(&syn);
        assert_eq!(frame(&bytes), Packet::Tcp(place(link.len() as u32, &[V4], 25)), "{tags:x?}");
        assert_eq!(quick_frame(&bytes[..]), Quick::Look);
    }
    assert_eq!(frame(&tagged(&[0x8100; 5], LinkKind::Plain).frame(&syn)), Packet::Unclear);
    assert_eq!(frame(&tagged(&[0x8100; 4], LinkKind::Snap).frame(&syn)), Packet::Unclear);
    let link = tagged(&[0x8100; 3], LinkKind::Snap);
    assert_eq!(frame(&link.frame(&syn)), Packet::Tcp(place(link.len() as u32, &[V4], 25)));
}

#[test]
fn frames_that_carry_something_else_are_let_alone() {
    // ARP, LLDP, spanning tree (LLC without SNAP), PPPoE discovery.
    for kind in [[0x08, 0x06], [0x88, 0xcc], [0x00, 0x26], [0x88, 0x63]] {
        let bytes = [&[2; 12][..], &kind, &[0x42; 60]].concat();
        assert_eq!(ip_header(&bytes[..]), IpHeader::None, "{kind:x?}");
    }
    assert_eq!(quick_frame(&[&[2; 12][..], &[0x08, 0x06]].concat()[..]), Quick::Other);
    // PPP's own protocols (LCP) in a PPPoE session.
    let lcp = [&[2; 12][..], &[0x88, 0x64, 0x11, 0, 0, 1, 0, 10, 0xc0, 0x21], &[1; 8]].concat();
    assert_eq!(ip_header(&lcp[..]), IpHeader::None);
}

#[test]
fn labels_of_mpls_and_generic_routing_encapsulation_are_looked_behind() {
    let packet = V4.wrap(6, &tcp(25).bytes());
    let label = |bottom: u8| [0, 1, bottom, 64];
    for labels in [vec![label(1)], vec![label(0), label(1)], vec![label(0), label(0), label(0), label(1)]] {
        let bytes = [&[0; 12], &[0x88, 0x47][..], &labels.concat(), &packet].concat();
        assert!(matches!(frame(&bytes), Packet::Tcp(tcp) if tcp.dport == 25), "{labels:?}");
    }
    // More than are followed, and what is neither IPv4 nor IPv6.
    let many = [&[0; 12], &[0x88, 0x47][..], &label(0).repeat(5), &label(1), &packet].concat();
    assert_eq!(frame(&many), Packet::Unclear);
    let ethernet = [&[0; 12], &[0x88, 0x47][..], &label(1), &[0, 0, 0, 0]].concat();
    assert_eq!(frame(&ethernet), Packet::Other);

    for (flags, more) in [(0x00, 0), (0x20, 4), (0x80, 4), (0xb0, 12)] {
        let header = [&[flags, 0, 0x08, 0x00][..], &vec![0; more]].concat();
        assert_eq!(port(&V4.wrap(47, &[&header[..], &packet].concat())), Some(25), "{flags:02x}");
        assert_eq!(port(&V6.wrap(47, &[&header[..], &packet].concat())), Some(25), "{flags:02x}");
    }
    // A source route; a version of its own (PPTP, RFC 2637); a frame in it.
    is(&V4.wrap(47, &[&[0x40, 0, 0x08, 0x00, 0, 0, 0, 0][..], &packet].concat()), Packet::Unclear);
    is(&V4.wrap(47, &[0x30, 1, 0x88, 0x0b, 0, 0, 0, 0]), Packet::Other);
    is(&V4.wrap(47, &[0x00, 0, 0x65, 0x58, 0, 0, 0, 0]), Packet::Other);
}
