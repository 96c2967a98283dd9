//! What a refused host gets, byte for byte: a reset, an ICMP error, nothing.

use std::net::IpAddr;
use std::time::Duration;

use lab::gateway::address::{BOT_MAC, EXCHANGER, GATEWAY_MAC};
use lab::gateway::{Tried, connect, exchanger_at};
use lab::{DEADLINE, Gateway, Guard, Probe, Tap, until};

use crate::packet::{ACK, Answer, FIN, Macs, PSH, Packet, RST, SYN, Segment, TCP};
use crate::{NOBODY, assert_refused_at_once, macs, policy};

/// How long nothing must come where nothing shall.
const QUIET: Duration = Duration::from_millis(150);

/// The first packet with this protocol that the exchanger seems to send into the LAN.
fn answer(tap: &Tap, protocol: u8, time: Duration) -> Option<Packet> {
    tap.wait(time, |frame| {
        Packet::of_frame(&frame.bytes).filter(|packet| {
            packet.protocol == protocol && EXCHANGER.contains(&packet.from.to_string().as_str()) && !frame.unfinished
        })
    })
}

/// A segment of the workstation's of each kind, in each family, and the answer by RFC 9293 §3.10.7.1.
fn kinds() -> Vec<(&'static str, Segment, (u32, u32, u8))> {
    let mut kinds = Vec::new();
    for (from, to) in NOBODY.into_iter().zip(EXCHANGER) {
        let syn = Segment::syn(from, to, 25);
        let (seq, data) = (syn.seq, b"EHLO bot".to_vec());
        let with = |flags, ack, data: &[u8]| Segment { flags, ack, data: data.to_vec(), ..syn.clone() };
        kinds.extend([
            ("syn", syn.clone(), (0, seq + 1, RST | ACK)),
            ("syn with data", with(SYN, 0, &data), (0, seq + 9, RST | ACK)),
            ("ack", with(ACK, 0x0102_0304, b""), (0x0102_0304, 0, RST)),
            ("ack with data", with(ACK | PSH, 0x8000_0001, &data), (0x8000_0001, 0, RST)),
            ("fin", with(FIN, 0, b""), (0, seq + 1, RST | ACK)),
            ("fin with ack", with(FIN | ACK, 77, b""), (77, 0, RST)),
            ("data alone", with(PSH, 0, &data), (0, seq + 8, RST | ACK)),
            ("syn and ack", with(SYN | ACK, 99, b""), (99, 0, RST)),
            ("a wrap", Segment { seq: u32::MAX, ..syn.clone() }, (0, 0, RST | ACK)),
        ]);
    }
    kinds
}

#[track_caller]
fn assert_reset(tap: &Tap, what: &str, segment: &Segment, expected: (u32, u32, u8)) {
    let got = answer(tap, TCP, DEADLINE).unwrap_or_else(|| panic!("{what} from {}: no answer", segment.from));
    let (seq, ack, flags) = expected;
    assert_eq!(
        got.answer(),
        Some(Answer { ports: (25, segment.sport), seq, ack, flags }),
        "{what} from {}",
        segment.from
    );
    assert_eq!((got.from, got.to, got.payload.len()), (segment.to, segment.from, 20), "{what} from {}", segment.from);
    assert!(got.is_whole(), "{what} from {}: a wrong checksum: {got:x?}", segment.from);
}

/// Waits until the guard has refused that many.
#[track_caller]
fn refused(guard: &Guard, count: u64) {
    until("the refusal", DEADLINE, || match guard.counters()["refused"] {
        enough if enough >= count => Ok(()),
        fewer => Err(fewer),
    });
    assert_eq!(guard.counters()["refused"], count);
}

/// Without a guard all of it gets through.
#[track_caller]
fn assert_passes(tap: &Tap, probe: &Probe, frames: &[Vec<u8>]) {
    let before = probe.settled();
    frames.iter().for_each(|frame| tap.send(frame));
    assert_eq!(probe.settled(), before + frames.len() as u64, "unguarded");
}

#[test]
fn a_reset_is_right_for_every_segment() {
    let scene = Gateway::new("reset");
    let (tap, probe) = (Tap::on(&scene.bot, "eth0"), scene.watch(25));
    let kinds = kinds();
    assert_passes(&tap, &probe, &kinds.iter().take(1).map(|(_, segment, _)| segment.frame(macs())).collect::<Vec<_>>());
    let guard = Guard::start(&scene.lab, &policy("refuse_with = \"reset\""));
    let (seen, mut count) = (probe.settled(), 0);
    tap.forget();
    for (what, segment, expected) in &kinds {
        tap.send(&segment.frame(macs()));
        assert_reset(&tap, what, segment, *expected);
        count += 1;
        refused(&guard, count);
    }
    // Behind options and extension headers, and with padding, which is no data.
    let v4 = Segment::syn(NOBODY[0], EXCHANGER[0], 25);
    let v6 = Segment::syn(NOBODY[1], EXCHANGER[1], 25);
    let options = v4.v4(&[7, 7, 4, 0, 0, 0, 0, 0], 0, TCP, &v4.tcp());
    let destination = v6.v6(60, &[&[TCP, 0, 1, 4, 0, 0, 0, 0][..], &v6.tcp()].concat());
    let padded = [v4.packet(), vec![0xee; 6]].concat();
    let padded_v6 = [v6.packet(), vec![0xee; 6]].concat();
    for (what, segment, packet) in [
        ("options", &v4, options),
        ("destination options", &v6, destination),
        ("padding", &v4, padded),
        ("padding", &v6, padded_v6),
    ] {
        tap.send(&macs().frame(&packet));
        assert_reset(&tap, what, segment, (0, segment.seq + 1, RST | ACK));
        count += 1;
        refused(&guard, count);
    }
    assert_eq!(probe.settled(), seen, "{:?}", probe.segments());
}

#[test]
fn a_reset_and_a_frame_for_many_get_no_answer() {
    let scene = Gateway::new("unanswered");
    let tap = Tap::on(&scene.bot, "eth0");
    // What the gateway sends, before the switch drops what no host can have sent.
    let out = Tap::on(&scene.switch, "to-gateway");
    let guard = Guard::start(&scene.lab, &policy(""));
    let syn = Segment::syn(NOBODY[0], EXCHANGER[0], 25);
    let rst = Segment { flags: RST, ..syn.clone() };
    let rst_ack = Segment { flags: RST | ACK, ack: 5, ..syn.clone() };
    let broadcast = Macs::new("ff:ff:ff:ff:ff:ff", BOT_MAC);
    let group = Macs::new("01:00:5e:00:00:01", BOT_MAC);
    let mut frames = vec![rst.frame(macs()), rst_ack.frame(macs()), syn.frame(broadcast), syn.frame(group)];
    // Sources that are no host's.
    let nobody =
        [("0.0.0.0", 0), ("127.0.0.1", 0), ("224.0.0.9", 0), ("255.255.255.255", 0), ("::", 1), ("ff02::9", 1)];
    frames.extend(nobody.map(|(from, family)| Segment::syn(from, EXCHANGER[family], 25).frame(macs())));
    for (number, frame) in (1..).zip(&frames) {
        tap.send(frame);
        refused(&guard, number);
        assert_eq!(answer(&out, TCP, QUIET), None, "frame {number}");
    }
    tap.send(&syn.frame(macs()));
    assert!(answer(&out, TCP, DEADLINE).is_some(), "the tap is deaf");
}

#[test]
fn a_kernels_socket_is_refused_with_checksums_by_the_device_and_without() {
    let scene = Gateway::new("checksums");
    let guard = Guard::start(&scene.lab, &policy(""));
    let hosts = [(&scene.bot, "eth0"), (&scene.gateway, "lan0")];
    // Who writes the SYN's checksum, the sender or nobody; and who the reset's, the device or nobody.
    for (number, (client, gateway)) in
        [("on", "on"), ("on", "off"), ("off", "on"), ("off", "off")].into_iter().enumerate()
    {
        for ((host, device), how) in hosts.iter().zip([client, gateway]) {
            host.run("ethtool", &["-K", device, "tx", how]);
        }
        for family in [0, 1] {
            let tap = Tap::on(&scene.bot, "eth0");
            let what = format!("client {client}, gateway {gateway}");
            assert_refused_at_once(&connect(&scene.bot, exchanger_at(family, 25)), &what);
            if (client, gateway) == ("on", "on") {
                // Nobody has written it, and nobody looks.
                continue;
            }
            let reset = answer(&tap, TCP, DEADLINE).unwrap_or_else(|| panic!("{what}: no finished reset"));
            assert!(reset.is_whole(), "{what}: a wrong checksum: {reset:x?}");
        }
        refused(&guard, 2 * (number as u64 + 1));
    }
}

#[test]
fn an_icmp_error_says_that_it_is_prohibited() {
    let scene = Gateway::new("prohibited");
    let (tap, probe) = (Tap::on(&scene.bot, "eth0"), scene.watch(25));
    let syns = [0, 1].map(|family| Segment::syn(NOBODY[family], EXCHANGER[family], 25));
    assert_passes(&tap, &probe, &[syns[0].frame(macs()), syns[1].frame(macs())]);
    let guard = Guard::start(&scene.lab, &policy("refuse_with = \"icmp-prohibited\""));
    let seen = probe.settled();
    // Type and code: RFC 1812 §5.2.7.1, RFC 4443 §3.1.
    for (syn, (protocol, kind, code)) in syns.iter().zip([(1, 3, 13), (58, 1, 1)]) {
        let packet = syn.packet();
        tap.send(&macs().frame(&packet));
        let error = answer(&tap, protocol, DEADLINE).unwrap_or_else(|| panic!("{}: no ICMP error", syn.from));
        assert_eq!((error.to, &error.payload[..2]), (syn.from, &[kind, code][..]), "{error:x?}");
        assert!(error.is_whole(), "a wrong checksum: {error:x?}");
        assert!(packet.starts_with(&error.payload[8..]) && error.payload.len() >= 8 + 28, "it quotes: {error:x?}");
    }
    refused(&guard, 2);
    // A kernel's socket takes it for what it is. Perhaps only that for its second SYN: of one that comes while connect() is
    // still sending, and so fast no real one comes, the kernel only makes a note (`tcp_v4_err`, net/ipv4/tcp_ipv4.c).
    scene.bot.run("ethtool", &["-K", "eth0", "tx", "off"]);
    for family in [0, 1] {
        let tried = connect(&scene.bot, exchanger_at(family, 25));
        assert!(matches!(tried, Tried::Prohibited(_)), "{family}: {tried:?}");
    }
    // A checksum that the device would write in the wrong place: it gets the reset.
    scene.bot.run("ethtool", &["-K", "eth0", "tx", "on"]);
    for family in [0, 1] {
        assert_refused_at_once(&connect(&scene.bot, exchanger_at(family, 25)), "checksums by the device");
    }
    assert_eq!(probe.settled(), seen, "{:?}", probe.segments());
}

#[test]
fn dropped_means_that_nothing_comes_back() {
    let scene = Gateway::new("drop");
    let (tap, probe) = (Tap::on(&scene.bot, "eth0"), scene.watch(25));
    let frames = [0, 1].map(|family| Segment::syn(NOBODY[family], EXCHANGER[family], 25).frame(macs()));
    assert_passes(&tap, &probe, &frames);
    let guard = Guard::start(&scene.lab, &policy("refuse_with = \"drop\""));
    let seen = probe.settled();
    tap.forget();
    for (number, frame) in (1..).zip(&frames) {
        tap.send(frame);
        refused(&guard, number);
    }
    let to: Vec<IpAddr> = NOBODY.iter().map(|address| address.parse().unwrap()).collect();
    let back = tap.wait(QUIET * 2, |frame| {
        let whole = frame.bytes.starts_with(&crate::packet::mac(BOT_MAC))
            && frame.bytes[6..12] == crate::packet::mac(GATEWAY_MAC);
        Packet::of_frame(&frame.bytes)
            .filter(|packet| whole && to.contains(&packet.to) && [1, 6].contains(&packet.protocol))
    });
    assert_eq!(back, None);
    assert_eq!(connect(&scene.bot, exchanger_at(0, 25)), Tried::Silence);
    assert_eq!((probe.settled(), scene.exchanger.accepted()), (seen, 0));
}
