//! Frames, packets and fragments through the parsers of the packet programs.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portreeve_decide::packet::{Packet, Quick, classify, classify_frame, quick_frame, quick_ip};
use receiver::ports_of_any;

#[path = "../../ebpf/decide/src/packet/tests/receiver.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod receiver;

const GUARDED: u16 = 25;

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((0x00..=0x3f, frame)) => agree(quick_frame(frame), classify_frame(frame), frame),
        Some((0x40..=0x7f, packet)) => agree(quick_ip(packet, 0), classify(packet, 0), packet),
        Some((kind, fragments)) => reassembled(kind & 1 != 0, fragments),
        None => {}
    }
});

/// The first look says nothing else than the long one, as far as it says anything; and all of a segment can be asked.
fn agree(quick: Quick, whole: Packet, bytes: &[u8]) {
    match (quick, whole) {
        (Quick::Look, _) | (Quick::Other, Packet::Other) => {}
        (Quick::Port(port), Packet::Tcp(tcp)) => assert_eq!(port, tcp.dport),
        _ => panic!("{quick:?}, and then {whole:?}"),
    }
    if let Packet::Tcp(tcp) = whole {
        // The addresses are before the port, which was read.
        assert!(tcp.tcp >= tcp.ip + if tcp.v6 { 40 } else { 20 });
        let addresses = (tcp.source(bytes), tcp.destination(bytes));
        std::hint::black_box((addresses, tcp.sport(bytes), tcp.seq(bytes), tcp.flags(bytes)));
        std::hint::black_box(tcp.is_empty(bytes, bytes.len() as u32));
    }
}

/// Whether the guard lets a packet pass that no `connect()` vouches for.
fn passes(packet: &[u8]) -> bool {
    match classify(packet, 0) {
        Packet::Other => true,
        Packet::Tcp(tcp) => tcp.dport != GUARDED,
        Packet::Unclear => false,
    }
}

/// No receiver sees the guarded port in what passes.
fn reassembled(v6: bool, mut data: &[u8]) {
    let mut packets = Vec::new();
    while let ([offset, length, flags, next, rest @ ..], true) = (data, packets.len() < 4) {
        let (content, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        packets.push(fragment(v6, *offset, *flags, *next, content));
        data = rest;
    }
    let passed = packets.iter().map(Vec::as_slice).filter(|packet| passes(packet));
    assert!(!ports_of_any(passed).contains(&GUARDED), "{packets:02x?}");
}

/// A fragment with a header that any other has, too, so that receivers put them together.
fn fragment(v6: bool, offset: u8, flags: u8, next: u8, content: &[u8]) -> Vec<u8> {
    let more = u16::from(flags & 1);
    let offset = u16::from(offset);
    // What is behind the end that the header names.
    let behind = if flags & 2 != 0 { content.len() / 2 } else { 0 };
    let length = (content.len() - behind) as u16;
    let mut packet = if v6 {
        let mut header = vec![0x60, 0, 0, 0, 0, 0, 44, 64];
        header[4..6].copy_from_slice(&(length + 8).to_be_bytes());
        header.resize(40, 1);
        header.extend_from_slice(&[next, 0]);
        header.extend_from_slice(&(offset << 3 | more).to_be_bytes());
        header.extend_from_slice(&[0, 0, 0, 1]);
        header
    } else {
        let mut header = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, next, 0, 0];
        header[2..4].copy_from_slice(&(length + 20).to_be_bytes());
        header[6..8].copy_from_slice(&(offset | more << 13).to_be_bytes());
        header.resize(20, 1);
        header
    };
    packet.extend_from_slice(content);
    packet
}
