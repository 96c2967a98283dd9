//! What was built is found, and the first look never says otherwise than the long one.

extern crate std;

use std::vec::Vec;

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::{
    IpHeader, MAX_HEADERS, NOWHERE, Packet, Quick, TCP_ACK, TCP_SYN, classify, ip_header, quick_end, quick_frame,
    quick_ip, spares, walk_from,
};
use super::build::{Layer, Link, Transport, V6_DESTINATION, V6_SOURCE, chains, inner_layers, links, packet, place};
use super::frame;
use crate::mapped;

/// How far behind a fragment header a TCP header may be, its first 16 bytes included.
const BELIEVED: usize = 72;

/// What was built as TCP is expected to be found, unless it has too many headers, too many behind a fragment header, or two
/// of those.
fn clear(layers: &[Layer]) -> bool {
    if layers.iter().filter(|layer| **layer == Layer::Atomic).count() > 1 {
        return false;
    }
    let behind = layers.iter().position(|layer| *layer == Layer::Atomic);
    let length = behind.map_or(0, |first| layers[first + 1..].iter().map(|layer| layer.len()).sum());
    layers.len() < MAX_HEADERS as usize && length + 16 <= BELIEVED
}

fn transports() -> impl Strategy<Value = Transport> {
    (any::<u16>(), any::<u16>(), any::<u32>(), any::<u8>()).prop_map(|(sport, dport, seq, flags)| Transport::Tcp {
        sport,
        dport,
        seq,
        flags,
    })
}

/// A packet as the frame's parsers see it, and as the socket's.
fn looks(link: &Link, packet: &[u8]) -> [(Quick, Packet); 2] {
    let framed = link.frame(packet);
    [(quick_frame(&framed[..]), frame(&framed)), (quick_ip(packet, 0), classify(packet, 0))]
}

/// The first look is right, as far as it says anything.
fn agree(quick: Quick, whole: Packet) -> Result<(), TestCaseError> {
    match (quick, whole) {
        (Quick::Look, _) | (Quick::Other, Packet::Other) => Ok(()),
        (Quick::Port(port), Packet::Tcp(tcp)) if tcp.dport == port => Ok(()),
        _ => Err(TestCaseError::fail(std::format!("{quick:?}, and then {whole:?}"))),
    }
}

/// What the frame program makes of a frame into which a checksum is still to be written: whether it is let go.
fn passes(frame: &[u8], checksum: u32) -> bool {
    let quick = if checksum < quick_end(frame, true) { Quick::Look } else { quick_frame(frame) };
    match quick {
        Quick::Other => true,
        Quick::Port(port) => port != 25,
        Quick::Look => match walk_from(frame, ip_header(frame)) {
            (Packet::Other, end) => spares(checksum, end),
            (Packet::Tcp(tcp), _) if tcp.is_finished_by(checksum) => tcp.dport != 25,
            (Packet::Tcp(_) | Packet::Unclear, _) => false,
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tcp_is_found_where_it_was_put(link in links(), layers in chains(), transport in transports()) {
        let Transport::Tcp { sport, dport, seq, flags } = transport else { unreachable!() };
        let frame = link.frame(&packet(&layers, transport));
        prop_assert_eq!(ip_header(&frame[..]), IpHeader::At(link.len() as u32));
        let found = super::frame(&frame);
        if !clear(&layers) {
            prop_assert_eq!(found, Packet::Unclear);
            return Ok(());
        }
        let tcp = place(link.len() as u32, &layers, dport);
        prop_assert_eq!(found, Packet::Tcp(tcp));
        let (source, destination) = if tcp.v6 {
            (V6_SOURCE, V6_DESTINATION)
        } else {
            (mapped([192, 0, 2, 1]), mapped([203, 0, 113, 2]))
        };
        let frame = &frame[..];
        prop_assert_eq!((tcp.source(frame), tcp.destination(frame)), (source, destination));
        prop_assert_eq!((tcp.sport(frame), tcp.seq(frame), tcp.flags(frame)), (sport, seq, flags));
        let end = tcp.tcp + 20;
        prop_assert!(tcp.is_empty(frame, end) && !tcp.is_empty(frame, end + 1));
    }

    #[test]
    fn what_is_not_tcp_is_let_alone(link in links(), layers in chains(), udp in any::<bool>()) {
        let transport = if udp { Transport::Udp } else { Transport::Icmp };
        let found = frame(&link.frame(&packet(&layers, transport)));
        // The last step tells that the transport is another.
        let expected = if clear(&layers) { Packet::Other } else { found };
        prop_assert_eq!(found, expected);
        prop_assert!(!matches!(found, Packet::Tcp(_)));
    }

    #[test]
    fn a_packet_that_is_cut_off_is_never_taken_for_something_else(
        link in links(), layers in chains(), transport in transports(), cut in any::<Index>(),
    ) {
        let whole = link.frame(&packet(&layers, transport));
        let tail = whole.len() - cut.index(whole.len().min(200));
        for cut in [&whole[..cut.index(whole.len())], &whole[..tail]] {
            match frame(cut) {
                Packet::Unclear => {}
                // A frame that ends inside its LLC header announces no protocol to anybody.
                Packet::Other => prop_assert!(cut.len() < link.len()),
                found => prop_assert_eq!(found, frame(&whole)),
            }
            prop_assert!(!clear(&layers) || cut.len() < link.len() || frame(cut) != Packet::Other);
            agree(quick_frame(cut), frame(cut))?;
        }
    }

    #[test]
    fn the_first_look_agrees_with_the_long_one(
        link in links(), layers in chains(), transport in prop_oneof![transports(), Just(Transport::Udp)],
        edits in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..6), cut in any::<Index>(),
    ) {
        let mut packet = packet(&layers, transport);
        for (at, byte) in edits {
            // Near the beginning, where it matters.
            let within = packet.len().min(80);
            packet[at.index(within)] = byte;
        }
        for (quick, whole) in looks(&link, &packet) {
            agree(quick, whole)?;
        }
        packet.truncate(cut.index(packet.len()).max(1));
        for (quick, whole) in looks(&link, &packet) {
            agree(quick, whole)?;
        }
    }

    #[test]
    fn no_checksum_makes_a_segment_to_the_port_of_a_frame_that_passed(
        link in links(), layers in chains(), transport in prop_oneof![transports(), Just(Transport::Udp)],
        at in 0_u32..200, value in any::<u16>(), towards in any::<bool>(),
    ) {
        let frame = link.frame(&packet(&layers, transport));
        // Half of them are what a bot would have written: its port, TCP's number, a type of IP.
        let value = if towards { [25, 0x0006, 0x4006, 0x0600, 0x0800, 0x86dd][value as usize % 6] } else { value };
        let mut written = frame.clone();
        if let Some(place) = written.get_mut(at as usize..at as usize + 2) {
            place.copy_from_slice(&value.to_be_bytes());
        }
        prop_assert!(!passes(&frame, at) || passes(&written, NOWHERE), "{at}");
    }

    #[test]
    fn any_bytes_have_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 0x40_u8..0x70) {
        let mut bytes = bytes;
        agree(quick_frame(&bytes[..]), frame(&bytes))?;
        if let Some(first) = bytes.first_mut() {
            *first = version;
        }
        agree(quick_ip(&bytes[..], 0), classify(&bytes[..], 0))?;
    }

    #[test]
    fn the_walk_ends_after_as_many_headers_as_it_says(count in 1_u32..40, layer in inner_layers()) {
        prop_assume!(layer != Layer::Atomic);
        let layers: Vec<Layer> = std::iter::once(Layer::V6).chain((1..count).map(|_| layer)).collect();
        let syn = Transport::Tcp { sport: 1, dport: 25, seq: 0, flags: TCP_SYN | TCP_ACK };
        let found = classify(&packet(&layers, syn)[..], 0);
        let tcp = Packet::Tcp(place(0, &layers, 25));
        prop_assert_eq!(found, if count < MAX_HEADERS { tcp } else { Packet::Unclear });
    }
}
