//! Frames of every kind that a bridge carries: what is TCP to a guarded port, or might be, goes no further, and all else
//! does.

use std::time::Duration;

use lab::gateway::address::{BOT, BOT_MAC, EXCHANGER, SERVER, SERVER_MAC};
use lab::{DEADLINE, Guard, Host, Lab, Probe, Tap, until};

use crate::attempts;
use crate::packet::{ACK, IPV4, IPV6, Macs, Packet, RST, SYN, Segment, TCP};

/// The MAC address of the far side.
pub(crate) const FAR_MAC: &str = "02:00:00:00:00:05";
/// EtherTypes (IEEE 802): customer's and provider's tag, ARP.
const VLAN: u16 = 0x8100;
const PROVIDER: u16 = 0x88a8;
const ARP: u16 = 0x0806;
/// The bit in IPv4's fragment field that says that more fragments follow.
const MORE: u16 = 0x2000;

/// A gateway that is a bridge: a LAN at one port of it, and the way out at the other.
pub(crate) struct Bridge {
    lab: Lab,
    pub(crate) gateway: Host,
    pub(crate) lan: Host,
    pub(crate) far: Host,
}

impl Bridge {
    pub(crate) fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        // The first, because the agent runs there.
        let gateway = lab.host("gateway");
        let (lan, far) = (lab.host("lan"), lab.host("far"));
        // Without snooping, which looks into packets and drops some.
        gateway.ip("link add br0 type bridge mcast_snooping 0");
        gateway.ip("link set br0 up");
        for (number, port, host, mac) in [(301, "lanp0", &lan, BOT_MAC), (302, "wanp0", &far, FAR_MAC)] {
            let netns = host.path().display().to_string();
            gateway.ip(&format!("link add {port} index {number} type veth peer name eth0 netns {netns}"));
            gateway.ip(&format!("link set {port} master br0 up"));
            host.ip(&format!("link set eth0 address {mac}"));
            host.ip("link set eth0 up");
        }
        let bridge = Self { lab, gateway, lan, far };
        let (tap, probe) = (Tap::on(&bridge.lan, "eth0"), Probe::listen(&bridge.far, 7));
        until("frames through the bridge", DEADLINE, || {
            tap.send(&Segment::syn(BOT[0], EXCHANGER[0], 7).frame(out()));
            if probe.settled() > 0 { Ok(()) } else { Err(()) }
        });
        bridge
    }

    /// Starts an agent whose LAN interface is the bridge's port.
    fn guard(&self, more: &str) -> Guard {
        self.guard_with(&format!("[gateway]\nlan = [\"lanp0\"]\n{more}"))
    }

    /// Starts an agent with another policy.
    pub(crate) fn guard_with(&self, policy: &str) -> Guard {
        Guard::start(&self.lab, policy)
    }
}

/// From the workstation to the far side.
fn out() -> Macs {
    Macs::new(FAR_MAC, BOT_MAC)
}

/// The frames that bring a segment.
type Wrap = fn(&Segment) -> Vec<Vec<u8>>;
/// A kind of frame, and its name.
type Kind = (&'static str, Wrap);
/// A VLAN tag: its EtherType, and its priority and number.
type Tag = (u16, u16);

fn fragments_v4(segment: &Segment, cut: usize) -> Vec<Vec<u8>> {
    let tcp = segment.tcp();
    let (first, second) = tcp.split_at(cut);
    vec![out().frame(&segment.v4(&[], MORE, TCP, first)), out().frame(&segment.v4(&[], (cut / 8) as u16, TCP, second))]
}

fn fragments_v6(segment: &Segment, cut: usize) -> Vec<Vec<u8>> {
    let tcp = segment.tcp();
    let (first, second) = tcp.split_at(cut);
    let header = |field: u16| [&[TCP, 0][..], &field.to_be_bytes(), &u32::from(segment.dport).to_be_bytes()].concat();
    vec![
        out().frame(&segment.v6(44, &[&header(1)[..], first].concat())),
        out().frame(&segment.v6(44, &[&header(cut as u16)[..], second].concat())),
    ]
}

/// Behind one extension header of eight bytes after another.
fn behind(segment: &Segment, headers: &[u8]) -> Vec<Vec<u8>> {
    let (mut next, mut bytes) = (TCP, segment.tcp());
    for kind in headers.iter().rev() {
        let header = match kind {
            // An authentication header (RFC 4302 §2.2), and a route with no segments left.
            51 => [&[next, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1][..], &[0xaa; 12]].concat(),
            43 | 44 => vec![next, 0, 0, 0, 0, 0, 0, 0],
            _ => vec![next, 0, 1, 4, 0, 0, 0, 0],
        };
        bytes = [header, bytes].concat();
        next = *kind;
    }
    vec![out().frame(&segment.v6(next, &bytes))]
}

fn tagged(segment: &Segment, tags: &[Tag]) -> Vec<Vec<u8>> {
    vec![out().tagged(tags, &segment.packet())]
}

/// The whole packet in another one.
fn tunnelled(segment: &Segment, outer: usize) -> Vec<Vec<u8>> {
    let packet = segment.packet();
    let inner = if segment.from.is_ipv4() { IPV4 } else { IPV6 };
    let wrap = Segment::syn(BOT[outer], EXCHANGER[outer], 0);
    let wrapped = if outer == 0 { wrap.v4(&[], 0, inner, &packet) } else { wrap.v6(inner, &packet) };
    vec![out().frame(&wrapped)]
}

/// Kinds for both families.
const BOTH: &[Kind] = &[
    ("plain", |segment| vec![segment.frame(out())]),
    ("priority tag", |segment| tagged(segment, &[(VLAN, 0xe000)])),
    ("vlan", |segment| tagged(segment, &[(VLAN, 7)])),
    ("provider's vlan", |segment| tagged(segment, &[(PROVIDER, 7)])),
    ("qinq", |segment| tagged(segment, &[(PROVIDER, 100), (VLAN, 30)])),
    ("two customers' tags", |segment| tagged(segment, &[(VLAN, 100), (VLAN, 30)])),
    ("pppoe", |segment| vec![out().session(&segment.packet())]),
    ("in ipv4", |segment| tunnelled(segment, 0)),
    ("in ipv6", |segment| tunnelled(segment, 1)),
    ("a length", |segment| {
        let packet = segment.packet();
        let kind = if segment.from.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
        let snap = [&[0xaa, 0xaa, 3, 0, 0, 0][..], &kind, &packet].concat();
        vec![out().typed(snap.len() as u16, &snap)]
    }),
    ("mpls", |segment| vec![out().typed(0x8847, &[&[0, 1, 0x11, 64][..], &segment.packet()].concat())]),
];
/// Kinds for IPv4.
const V4: &[Kind] = &[
    ("options", |segment| vec![out().frame(&segment.v4(&[7, 7, 4, 0, 0, 0, 0, 0], 0, TCP, &segment.tcp()))]),
    ("fragments", |segment| fragments_v4(segment, 24)),
];
/// Kinds for IPv6.
const V6: &[Kind] = &[
    ("hop by hop", |segment| behind(segment, &[0])),
    ("destination options", |segment| behind(segment, &[60])),
    ("a route", |segment| behind(segment, &[43])),
    ("authenticated", |segment| behind(segment, &[51])),
    ("a chain", |segment| behind(segment, &[0, 60, 43, 60])),
    ("an atomic fragment", |segment| behind(segment, &[44])),
    // A second one nearer to the beginning would be refused for itself: what it is laid over nobody knows.
    ("fragments", |segment| fragments_v6(&Segment { data: vec![b'x'; 90], ..segment.clone() }, 80)),
];

/// All kinds with the family they are of.
fn kinds() -> Vec<(&'static str, usize, Wrap)> {
    let of =
        |kinds: &[Kind], family: usize| kinds.iter().map(|(name, make)| (*name, family, *make)).collect::<Vec<_>>();
    [of(BOTH, 0), of(BOTH, 1), of(V4, 0), of(V6, 1)].concat()
}

fn segment(family: usize, port: u16) -> Segment {
    Segment { data: b"EHLO bot".to_vec(), ..Segment::syn(BOT[family], EXCHANGER[family], port) }
}

#[test]
fn no_wrapping_gets_a_segment_to_a_guarded_port_over_the_bridge() {
    let scene = Bridge::new("wrapping");
    let (tap, guarded, other) =
        (Tap::on(&scene.lan, "eth0"), Probe::listen(&scene.far, 25), Probe::listen(&scene.far, 80));
    let send = |port: u16, family: usize, make: Wrap| {
        make(&segment(family, port)).iter().for_each(|frame| tap.send(frame));
    };
    for (what, family, make) in kinds() {
        let seen = guarded.settled();
        send(25, family, make);
        assert_eq!(guarded.settled(), seen + 1, "{what}, family {family}, unguarded");
    }
    let guard = scene.guard("");
    let (seen, mut refused) = (guarded.settled(), 0);
    for (what, family, make) in kinds() {
        send(25, family, make);
        until("the refusal", DEADLINE, || match guard.counters()["refused"] {
            now if now > refused => Ok(()),
            now => Err((what, family, now)),
        });
        assert_eq!(guarded.settled(), seen, "{what}, family {family}: {:?}", guarded.segments().last());
        refused = guard.counters()["refused"];
        // The same to another port.
        let before = other.settled();
        send(80, family, make);
        assert_eq!(other.settled(), before + 1, "{what}, family {family}, to port 80: {:?}", other.segments());
        assert_eq!(guard.counters()["refused"], refused, "{what}, family {family}, to port 80");
    }
}

#[test]
fn what_cannot_be_told_is_refused_and_later_fragments_pass() {
    let scene = Bridge::new("unclear");
    let tap = Tap::on(&scene.lan, "eth0");
    let watch = Tap::on(&scene.far, "eth0");
    let v4 = segment(0, 25);
    let v6 = segment(1, 25);
    let fragment_v6 =
        |field: u16, bytes: &[u8]| v6.v6(44, &[&[TCP, 0][..], &field.to_be_bytes(), &[0, 0, 0, 9], bytes].concat());
    let six = v6.tcp();
    let unclear = [
        ("a tiny first fragment", out().frame(&v4.v4(&[], MORE, TCP, &v4.tcp()[..8]))),
        ("one over its flags", out().frame(&v4.v4(&[], 1, TCP, &v4.tcp()[8..]))),
        ("a tiny first fragment of IPv6", out().frame(&fragment_v6(1, &six[..8]))),
        ("an end in the tcp header", out().frame(&v4.v4(&[], 0, TCP, &v4.tcp()[..2]))),
        ("an end in the extension header", out().frame(&v6.v6(60, &[TCP]))),
        // The kernel takes the outer one out.
        (
            "five tags behind another",
            out().tagged(&[(VLAN, 1), (VLAN, 2), (VLAN, 3), (VLAN, 4), (VLAN, 5), (VLAN, 6)], &v4.packet()),
        ),
    ];
    let harmless = [
        ("a later fragment", out().frame(&v4.v4(&[], MORE | 100, TCP, &[0x41; 64]))),
        ("a last fragment", out().frame(&v4.v4(&[], 180, TCP, &[0x41; 64]))),
        ("a later fragment of IPv6", out().frame(&fragment_v6(0x400, &[0x41; 64]))),
        ("a datagram", out().frame(&v4.v4(&[], 0, 17, &[&v4.tcp()[..4], &[0, 28, 0, 0], &[0; 20]].concat()))),
        ("arp", out().typed(ARP, &[&[0, 1, 8, 0, 6, 4, 0, 1][..], &[9; 38]].concat())),
    ];
    let arrives = |frame: &[u8]| {
        watch.forget();
        tap.send(frame);
        watch.wait(Duration::from_millis(150), |got| got.bytes.starts_with(frame).then_some(())).is_some()
    };
    for (what, frame) in unclear.iter().chain(&harmless) {
        assert!(arrives(frame), "{what}, unguarded");
    }
    let guard = scene.guard("");
    for (number, (what, frame)) in unclear.iter().enumerate() {
        assert!(!arrives(frame), "{what}");
        let attempt = attempts(&guard, number + 1).pop().unwrap();
        assert_eq!(attempt["reason"], "unclear", "{what}: {attempt:#}");
    }
    for (what, frame) in &harmless {
        assert!(arrives(frame), "{what}");
    }
    assert_eq!(guard.counters()["refused"], unclear.len() as u64);
}

#[test]
fn a_rule_for_a_vlan_holds_in_that_vlan_alone() {
    let scene = Bridge::new("vlan");
    let (tap, probe) = (Tap::on(&scene.lan, "eth0"), Probe::listen(&scene.far, 25));
    let rule = format!("[[gateway.allow]]\nname = \"mail\"\nfrom = {SERVER:?}\nmac = \"{SERVER_MAC}\"\n");
    let guard = scene.guard(&format!("{rule}vlan = [30, \"100.31\"]\n"));
    let macs = Macs::new(FAR_MAC, SERVER_MAC);
    let rows: [(&[Tag], Result<&str, &str>); 8] = [
        (&[(VLAN, 30)], Ok("30")),
        (&[(VLAN, 0x6000 | 30)], Ok("30")),
        (&[(PROVIDER, 100), (VLAN, 31)], Ok("100.31")),
        (&[(VLAN, 31)], Err("31")),
        (&[(PROVIDER, 30), (VLAN, 31)], Err("30.31")),
        (&[(PROVIDER, 31), (VLAN, 30)], Err("31.30")),
        (&[(PROVIDER, 100)], Err("100")),
        (&[], Err("-")),
    ];
    let (mut count, mut passed) = (0, 0);
    for family in [0, 1] {
        for (tags, expected) in &rows {
            count += 1;
            let syn = Segment { sport: 30_000 + count as u16, ..Segment::syn(SERVER[family], EXCHANGER[family], 25) };
            tap.forget();
            tap.send(&macs.tagged(tags, &syn.packet()));
            passed += u64::from(expected.is_ok());
            assert_eq!(probe.settled(), passed, "{tags:x?}, family {family}");
            let attempt = attempts(&guard, count).pop().unwrap();
            let told = ["verdict", "reason", "vlan"].map(|key| attempt[key].as_str().unwrap_or("-"));
            let words = match expected {
                Ok(vlan) => ["allow", "rule", vlan],
                Err(vlan) => ["deny", "other-vlan", vlan],
            };
            assert_eq!(told, words, "{tags:x?}, family {family}: {attempt:#}");
            if expected.is_err() {
                assert_answered_in(&tap, tags, &syn);
            }
        }
    }
    // Neither does another host in the right VLAN.
    tap.send(&out().tagged(&[(VLAN, 30)], &Segment::syn(SERVER[0], EXCHANGER[0], 25).packet()));
    assert_eq!(attempts(&guard, count + 1).pop().unwrap()["reason"], "other-mac");
    assert_eq!(probe.settled(), passed);
}

/// The reset comes in the VLAN of what it answers.
#[track_caller]
fn assert_answered_in(tap: &Tap, tags: &[Tag], syn: &Segment) {
    let reset = tap.wait(DEADLINE, |frame| {
        let at = 12 + 4 * tags.len();
        let packet = Packet::read(frame.bytes.get(at + 2..)?)?;
        let answer = packet.answer()?;
        (answer.ports == (25, syn.sport)).then(|| (frame.bytes[..at].to_vec(), answer.flags, packet.is_whole()))
    });
    let (head, flags, whole) = reset.unwrap_or_else(|| panic!("{tags:x?}: no answer"));
    let expected = Macs::new(SERVER_MAC, FAR_MAC).tagged(tags, &syn.packet());
    assert_eq!((&head[..], flags, whole), (&expected[..head.len()], RST | ACK, true), "{tags:x?}");
    assert_eq!(syn.flags, SYN);
}
