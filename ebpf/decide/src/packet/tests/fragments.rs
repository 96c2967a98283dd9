//! What the guard lets pass of a packet in fragments is never enough for TCP to a guarded port.

extern crate std;

use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::super::{Packet, classify};
use super::build::{Layer, Transport, carried, inner_layers, tcp};
use super::receiver::ports_of_any;

const GUARDED: u16 = 25;

/// Whether the guard lets a packet pass that no `connect()` vouches for.
fn passes(packet: &[u8]) -> bool {
    match classify(packet, 0) {
        Packet::Other => true,
        Packet::Tcp(tcp) => tcp.dport != GUARDED,
        Packet::Unclear => false,
    }
}

/// One fragment of something.
#[derive(Clone, Debug)]
struct Fragment {
    /// Which of the contents its bytes are taken from.
    content: usize,
    /// In eight bytes.
    offset: usize,
    /// `None`: to the end.
    length: Option<usize>,
    more: bool,
    /// What it says the whole begins with, where it lies.
    next: Option<u8>,
    /// Bytes of a harmless segment behind the end that its header names, where a careless parser would find them.
    tail: bool,
    /// The length in its header is 0.
    no_length: bool,
    edit: Option<(Index, u8)>,
}

/// A packet in fragments.
#[derive(Clone, Debug)]
struct Sent {
    v6: bool,
    /// The headers behind the fragment header, before TCP's.
    behind: Vec<Layer>,
    /// Other headers, for the content that is to distract.
    decoy: Vec<Layer>,
    /// A tunnel around all of it.
    around: Option<Layer>,
    fragments: Vec<Fragment>,
}

impl Sent {
    /// Contents to take bytes from, each with what it begins with: TCP to the guarded port first.
    fn contents(&self) -> Vec<(u8, Vec<u8>)> {
        let mut contents = vec![
            carried(&self.behind, tcp(GUARDED)),
            carried(&self.behind, tcp(80)),
            carried(&self.behind, Transport::Udp),
            carried(&self.decoy, tcp(80)),
        ];
        for (_, bytes) in &mut contents {
            bytes.resize(bytes.len() + 24, 0);
        }
        contents
    }

    fn packets(&self) -> Vec<Vec<u8>> {
        let contents = self.contents();
        self.fragments.iter().map(|fragment| self.packet(&contents, fragment)).collect()
    }

    fn packet(&self, contents: &[(u8, Vec<u8>)], fragment: &Fragment) -> Vec<u8> {
        let (begins, content) = &contents[fragment.content];
        // Receivers of IPv4 put only fragments of one protocol together.
        let next = if self.v6 { fragment.next.unwrap_or(*begins) } else { contents[0].0 };
        let from = (fragment.offset * 8).min(content.len());
        let to = fragment.length.map_or(content.len(), |length| (from + length).min(content.len()));
        let mut data = content[from..to].to_vec();
        if let Some((at, byte)) = fragment.edit.filter(|_| !data.is_empty()) {
            *at.get_mut(&mut data) = byte;
        }
        let mut packet = if self.v6 {
            let field = (fragment.offset as u16) << 3 | u16::from(fragment.more);
            let mut header = vec![next, 0];
            header.extend_from_slice(&field.to_be_bytes());
            header.extend_from_slice(&[0, 0, 0x12, 0x34]);
            header.extend_from_slice(&data);
            Layer::V6.wrap(44, &header)
        } else {
            let mut packet = Layer::V4 { options: 0 }.wrap(next, &data);
            let field = fragment.offset as u16 | u16::from(fragment.more) << 13;
            packet[6..8].copy_from_slice(&field.to_be_bytes());
            packet
        };
        if fragment.no_length {
            let at = if self.v6 { 4 } else { 2 };
            packet[at..at + 2].fill(0);
        }
        if let Some(around) = self.around {
            packet = around.wrap(if self.v6 { 41 } else { 4 }, &packet);
        }
        if fragment.tail {
            packet.extend_from_slice(contents[1].1.get(to..).unwrap_or_default());
        }
        packet
    }
}

/// Offsets and lengths at which something begins or ends, more often than others.
fn fragments() -> impl Strategy<Value = Fragment> {
    let offset = prop_oneof![6 => Just(0), 6 => 1_usize..4, 4 => 4_usize..24, 1 => 0_usize..300];
    let length = prop_oneof![
        4 => Just(None),
        4 => (1_usize..12).prop_map(|units| Some(units * 8)),
        2 => (0_usize..80).prop_map(Some),
        1 => (0_usize..300).prop_map(|units| Some(units * 8)),
    ];
    let next = prop_oneof![4 => Just(None), 3 => select(&[6, 17, 59, 60, 44, 41, 4, 51, 0][..]).prop_map(Some)];
    let flags = (any::<bool>(), any::<bool>(), proptest::bool::weighted(0.1));
    let edit = prop_oneof![6 => Just(None), 1 => (any::<Index>(), any::<u8>()).prop_map(Some)];
    (prop_oneof![3 => Just(0), 3 => 1_usize..4], offset, length, flags, next, edit).prop_map(
        |(content, offset, length, (more, tail, no_length), next, edit)| Fragment {
            content,
            offset,
            length,
            more,
            next,
            tail,
            no_length,
            edit,
        },
    )
}

fn behind() -> impl Strategy<Value = Vec<Layer>> {
    prop_oneof![2 => Just(Vec::new()), 4 => proptest::collection::vec(inner_layers(), 1..4)]
}

fn sent() -> impl Strategy<Value = Sent> {
    let around = prop_oneof![4 => Just(None), 1 => Just(Some(Layer::V6)), 1 => Just(Some(Layer::V4 { options: 0 }))];
    (any::<bool>(), behind(), behind(), around, proptest::collection::vec(fragments(), 1..=4))
        .prop_map(|(v6, behind, decoy, around, fragments)| Sent { v6, behind, decoy, around, fragments })
}

/// The ports that a receiver may see when every packet arrives, and when only those do that the guard lets pass.
fn seen(packets: &[Vec<u8>]) -> (BTreeSet<u16>, BTreeSet<u16>) {
    let all = packets.iter().map(Vec::as_slice);
    (ports_of_any(all.clone()), ports_of_any(all.filter(|packet| passes(packet))))
}

proptest! {
    // 256 times this, or as many times as PROPTEST_CASES says.
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases * 10, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn no_receiver_puts_tcp_to_a_guarded_port_together_of_what_passes(sent in sent()) {
        let packets = sent.packets();
        let (_, passed) = seen(&packets);
        let classes: Vec<_> = packets.iter().map(|packet| classify(&packet[..], 0)).collect();
        prop_assert!(!passed.contains(&GUARDED), "{:?}\n{:02x?}", classes, packets);
    }
}

/// The property above means something only if such packets come up.
#[test]
fn without_the_guard_receivers_do_see_the_port() {
    let mut runner = TestRunner::deterministic();
    let mut reached = [0; 2];
    for _ in 0..4000 {
        let sent = sent().new_tree(&mut runner).unwrap().current();
        let packets = sent.packets();
        // In more than one piece.
        if !packets.iter().any(|packet| ports_of_any(std::iter::once(&packet[..])).contains(&GUARDED)) {
            reached[usize::from(sent.v6)] += usize::from(seen(&packets).0.contains(&GUARDED));
        }
    }
    assert!(reached.iter().all(|count| *count >= 20), "{reached:?}");
}

/// An IPv6 fragment that carries IPv4.
fn outer(id: u8, more: bool, data: &[u8]) -> Vec<u8> {
    let fragment = [&[4, 0, 0, u8::from(more), 0, 0, 0, id], data].concat();
    Layer::V6.wrap(44, &fragment)
}

/// A fragment of IPv4 in IPv4.
fn inner(offset: u16, more: bool, data: &[u8]) -> Vec<u8> {
    let mut packet = Layer::V4 { options: 0 }.wrap(4, data);
    packet[6..8].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
    packet
}

/// Where fragments are tunnelled in fragments, what receivers cut off the outer one is missing from the inner one, and what
/// another one has laid beneath that comes through.
#[test]
fn what_receivers_cut_off_is_not_believed() {
    let wanted = Layer::V4 { options: 0 }.wrap(6, &tcp(GUARDED).bytes());
    let mut harmless = wanted.clone();
    harmless[9] = 17;
    let mut beneath = wanted;
    beneath[0] = 0x55;
    beneath.resize(80, 0);
    let mut reached = 0;
    for length in 8..24 {
        let packets = [
            outer(9, false, &inner(0, true, &beneath)),
            outer(8, false, &inner(10, false, &[0; 8])),
            outer(1, false, &[0x55; 32]),
            outer(1, true, &inner(0, true, &harmless[..length])),
        ];
        let (all, passed) = seen(&packets);
        let classes: Vec<_> = packets.iter().map(|packet| classify(&packet[..], 0)).collect();
        assert!(!passed.contains(&GUARDED), "{length}: {classes:?}");
        reached += u32::from(all.contains(&GUARDED));
    }
    assert!(reached > 0);
}
