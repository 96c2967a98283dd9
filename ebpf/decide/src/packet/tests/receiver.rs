//! A receiver of packets, written from the RFCs and not from the parsers: which TCP ports may it see?
//!
//! It is lenient where receivers differ, so that what it does not take for TCP no receiver does. The fuzz target
//! `packet` uses this file too.

extern crate std;

use std::collections::{BTreeMap, BTreeSet};
use std::vec;
use std::vec::Vec;

/// Which of two fragments a byte is taken from that both have (Shankar and Paxson, "Active Mapping", 2003).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// The one that came first.
    First,
    /// The one that came last.
    Last,
    /// The one with the lower offset, of two equal ones the first.
    Bsd,
    /// The one with the lower offset, of two equal ones the last.
    Linux,
    /// The one with the higher offset.
    BsdRight,
    /// None: all of them are thrown away (RFC 5722).
    Discard,
}

/// How a receiver takes what receivers take differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manners {
    /// What it does where fragments overlap.
    pub overlap: Overlap,
    /// It keeps packets in one piece apart from fragments in spite of their fragment header (RFC 6946).
    pub isolates_atomic: bool,
    /// It drops a packet whose length is 0 or more than there is; otherwise it takes what there is.
    pub strict_length: bool,
    /// It rounds the length of a fragment that is not the last down to eight bytes.
    pub rounds: bool,
}

impl Manners {
    /// Every combination.
    pub fn all() -> impl Iterator<Item = Self> {
        use Overlap::{Bsd, BsdRight, Discard, First, Last, Linux};
        let flags = (0..8).map(|bits| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0));
        flags.flat_map(|(isolates_atomic, strict_length, rounds)| {
            let overlaps = [First, Last, Bsd, Linux, BsdRight, Discard];
            overlaps.map(|overlap| Self { overlap, isolates_atomic, strict_length, rounds })
        })
    }
}

/// The destination ports of the TCP segments that a receiver may put together of these packets, whatever its manners.
pub fn ports_of_any<'a>(packets: impl Iterator<Item = &'a [u8]> + Clone) -> BTreeSet<u16> {
    Manners::all().flat_map(|manners| ports(packets.clone(), manners)).collect()
}

/// The destination ports of the TCP segments that a receiver sees in these packets, in the order in which they come.
pub fn ports<'a>(packets: impl Iterator<Item = &'a [u8]>, manners: Manners) -> BTreeSet<u16> {
    let mut receiver = Receiver { manners, queues: BTreeMap::new(), left: MOST_BYTES, ports: BTreeSet::new() };
    for packet in packets {
        receiver.ip(packet, 0);
    }
    receiver.ports
}

/// How many tunnels inside one another it opens.
const DEEPEST: u32 = 6;

/// How many bytes it puts together of fragments. Fragments that carry fragments of one another make ever more of them.
const MOST_BYTES: usize = 1 << 18;

/// What fragments of one packet have in common: addresses, identification, and in IPv4 the protocol.
type Key = (Vec<u8>, Vec<u8>);

#[derive(Clone, PartialEq, Eq)]
struct Piece {
    offset: usize,
    more: bool,
    /// What the whole begins with, by this piece.
    next: u8,
    data: Vec<u8>,
}

struct Receiver {
    manners: Manners,
    /// The pieces of each packet, in the order in which they came. They stay after the whole has been delivered.
    queues: BTreeMap<Key, Vec<Piece>>,
    /// How many bytes it still puts together.
    left: usize,
    ports: BTreeSet<u16>,
}

impl Receiver {
    fn ip(&mut self, packet: &[u8], depth: u32) {
        match packet.first() {
            Some(first) if first >> 4 == 4 => self.v4(packet, depth),
            Some(first) if first >> 4 == 6 => self.v6(packet, depth),
            _ => {}
        }
    }

    /// What a packet has behind its header, of the length that it says it has.
    fn payload<'p>(&self, packet: &'p [u8], header: usize, total: usize, says_nothing: bool) -> Option<&'p [u8]> {
        if says_nothing || total > packet.len() {
            return if self.manners.strict_length { None } else { packet.get(header..) };
        }
        packet.get(header..total)
    }

    fn v4(&mut self, packet: &[u8], depth: u32) {
        let Some(fixed) = packet.get(..20) else { return };
        let header = usize::from(fixed[0] & 15) * 4;
        let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        let Some(data) = self.payload(packet, header, total, total == 0).filter(|_| header >= 20) else { return };
        let field = u16::from_be_bytes([fixed[6], fixed[7]]);
        let (more, offset) = (field & 0x2000 != 0, usize::from(field & 0x1fff) * 8);
        let addresses = &fixed[12..20];
        if !more && offset == 0 {
            return self.chain(fixed[9], data, addresses, depth);
        }
        let key = (addresses.to_vec(), vec![fixed[4], fixed[5], fixed[9]]);
        self.piece(key, Piece { offset, more, next: fixed[9], data: data.to_vec() }, depth);
    }

    fn v6(&mut self, packet: &[u8], depth: u32) {
        let Some(fixed) = packet.get(..40) else { return };
        let length = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        if let Some(data) = self.payload(packet, 40, 40 + length, length == 0) {
            self.chain(fixed[6], data, &fixed[8..40], depth);
        }
    }

    /// Follows the headers behind an IP header, however many they are.
    fn chain(&mut self, mut next: u8, mut data: &[u8], addresses: &[u8], depth: u32) {
        loop {
            let length = match (next, data) {
                (6, [_, _, high, low, ..]) => {
                    self.ports.insert(u16::from_be_bytes([*high, *low]));
                    return;
                }
                // The version has to be the one that was announced (ip_rcv_core, net/ipv4/ip_input.c).
                (4, [0x40..=0x4f, ..]) | (41, [0x60..=0x6f, ..]) if depth < DEEPEST => return self.ip(data, depth + 1),
                (44, [next, _, high, low, id @ ..]) if id.len() >= 4 => {
                    let field = u16::from_be_bytes([*high, *low]);
                    let (more, offset) = (field & 1 != 0, usize::from(field & !7));
                    if more || offset != 0 || !self.manners.isolates_atomic {
                        let piece = Piece { offset, more, next: *next, data: id[4..].to_vec() };
                        return self.piece((addresses.to_vec(), id[..4].to_vec()), piece, depth);
                    }
                    8
                }
                (0 | 43 | 60 | 135 | 139 | 140, [_, length, ..]) => usize::from(*length) * 8 + 8,
                (51, [_, length, ..]) => usize::from(*length) * 4 + 8,
                _ => return,
            };
            next = data[0];
            let Some(rest) = data.get(length..) else { return };
            data = rest;
        }
    }

    fn piece(&mut self, key: Key, mut piece: Piece, depth: u32) {
        if depth >= DEEPEST {
            return;
        }
        if piece.more && self.manners.rounds {
            piece.data.truncate(piece.data.len() & !7);
        }
        let pieces = self.queues.entry(key.clone()).or_default();
        if pieces.contains(&piece) {
            return;
        }
        pieces.push(piece);
        let ends: BTreeSet<usize> =
            pieces.iter().filter(|piece| !piece.more).map(|piece| piece.offset + piece.data.len()).collect();
        let mut wholes = Vec::new();
        for end in ends {
            // A packet of a few bytes costs as much as the search for its pieces.
            let cost = end.max(64);
            if cost > self.left {
                break;
            }
            self.left -= cost;
            wholes.extend(whole(pieces, end, self.manners.overlap));
        }
        for (next, data) in wholes {
            self.chain(next, &data, &key.0, depth + 1);
        }
    }
}

/// The packet of which these are the pieces, and what it begins with; `None` while a part is missing.
fn whole(pieces: &[Piece], end: usize, overlap: Overlap) -> Option<(u8, Vec<u8>)> {
    // Later ones are laid over earlier ones.
    let mut order: Vec<&Piece> = pieces.iter().collect();
    match overlap {
        Overlap::Last | Overlap::Discard => {}
        Overlap::First => order.reverse(),
        Overlap::Bsd => {
            order.reverse();
            order.sort_by_key(|piece| std::cmp::Reverse(piece.offset));
        }
        Overlap::Linux => order.sort_by_key(|piece| std::cmp::Reverse(piece.offset)),
        Overlap::BsdRight => order.sort_by_key(|piece| piece.offset),
    }
    let mut bytes: Vec<Option<(u8, u8)>> = vec![None; end];
    for piece in order {
        for (byte, place) in piece.data.iter().zip(bytes.iter_mut().skip(piece.offset)) {
            if place.is_some() && overlap == Overlap::Discard {
                return None;
            }
            *place = Some((*byte, piece.next));
        }
    }
    let (_, next) = (*bytes.first()?)?;
    Some((next, bytes.into_iter().map(|byte| Some(byte?.0)).collect::<Option<_>>()?))
}
