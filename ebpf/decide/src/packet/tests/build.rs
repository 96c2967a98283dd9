//! Frames, built from the inside out.

extern crate std;

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use proptest::sample::select;

use super::super::Tcp;

/// A header between the frame's and the transport's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// IPv4 with so many words of options.
    V4 { options: u8 },
    /// IPv6.
    V6,
    /// An extension header of this protocol number, so many times eight bytes longer than the shortest.
    Extension { kind: u8, more: u8 },
    /// An authentication header, so many times four bytes longer than the shortest.
    Authentication { more: u8 },
    /// A fragment header of a packet that is in one piece (RFC 6946).
    Atomic,
}

/// What the packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp { sport: u16, dport: u16, seq: u32, flags: u8 },
    Udp,
    Icmp,
}

/// What a frame has before the IP header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// The types of the VLAN tags.
    pub tags: Vec<u16>,
    pub kind: LinkKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkKind {
    Plain,
    /// A length, LLC and SNAP (RFC 1042).
    Snap,
    /// A PPPoE session, its protocol in two bytes or in one.
    Pppoe {
        short: bool,
    },
}

impl Layer {
    /// The number that announces it.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::V4 { .. } => 4,
            Self::V6 => 41,
            Self::Extension { kind, .. } => kind,
            Self::Authentication { .. } => 51,
            Self::Atomic => 44,
        }
    }

    pub(super) fn len(self) -> usize {
        match self {
            Self::V4 { options } => 20 + usize::from(options) * 4,
            Self::V6 => 40,
            Self::Extension { more, .. } => 8 + usize::from(more) * 8,
            Self::Authentication { more } => 8 + usize::from(more) * 4,
            Self::Atomic => 8,
        }
    }

    /// The header in front of what it carries.
    pub(super) fn wrap(self, next: u8, inner: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        match self {
            Self::V4 { options } => {
                let length = (bytes.len() + inner.len()) as u16;
                bytes[0] = 0x45 + options;
                bytes[2..4].copy_from_slice(&length.to_be_bytes());
                bytes[4..6].copy_from_slice(&[0x12, 0x34]);
                bytes[8..10].copy_from_slice(&[64, next]);
                bytes[12..20].copy_from_slice(&[192, 0, 2, 1, 203, 0, 113, 2]);
                // No-operation (RFC 791 §3.1).
                bytes[20..].fill(1);
            }
            Self::V6 => {
                bytes[0] = 0x60;
                bytes[4..6].copy_from_slice(&(inner.len() as u16).to_be_bytes());
                bytes[6..8].copy_from_slice(&[next, 64]);
                bytes[8..24].copy_from_slice(&V6_SOURCE);
                bytes[24..40].copy_from_slice(&V6_DESTINATION);
            }
            Self::Extension { more, .. } | Self::Authentication { more } => bytes[..2].copy_from_slice(&[next, more]),
            Self::Atomic => {
                bytes[0] = next;
                bytes[4..8].copy_from_slice(&[0, 0, 0x12, 0x34]);
            }
        }
        bytes.extend_from_slice(inner);
        bytes
    }
}

pub(super) const V6_SOURCE: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub(super) const V6_DESTINATION: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

impl Transport {
    pub(super) fn number(self, v6: bool) -> u8 {
        match self {
            Self::Tcp { .. } => 6,
            Self::Udp => 17,
            Self::Icmp if v6 => 58,
            Self::Icmp => 1,
        }
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        // Where TCP has its ports, the others have bytes that look like them.
        let mut bytes = vec![0, 25, 0, 25];
        bytes.resize(24, 0xee);
        if let Self::Tcp { sport, dport, seq, flags } = self {
            bytes[..2].copy_from_slice(&sport.to_be_bytes());
            bytes[2..4].copy_from_slice(&dport.to_be_bytes());
            bytes[4..8].copy_from_slice(&seq.to_be_bytes());
            bytes[12..14].copy_from_slice(&[0x50, flags]);
        }
        bytes
    }
}

/// TCP to a port.
pub(super) fn tcp(dport: u16) -> Transport {
    Transport::Tcp { sport: 40000, dport, seq: 7, flags: 2 }
}

/// The packet, from its first IP header on.
pub(super) fn packet(layers: &[Layer], transport: Transport) -> Vec<u8> {
    carried(layers, transport).1
}

/// The same, with the number that announces its first header.
pub(super) fn carried(layers: &[Layer], transport: Transport) -> (u8, Vec<u8>) {
    let v6 = layers.iter().rev().find(|layer| is_ip(**layer)) == Some(&Layer::V6);
    let start = (transport.number(v6), transport.bytes());
    layers.iter().rev().fold(start, |(next, inner), layer| (layer.number(), layer.wrap(next, &inner)))
}

pub(super) fn is_ip(layer: Layer) -> bool {
    matches!(layer, Layer::V4 { .. } | Layer::V6)
}

/// Where the parsers should find TCP in a packet that begins at an offset.
pub(super) fn place(from: u32, layers: &[Layer], dport: u16) -> Tcp {
    let mut tcp = Tcp { ip: from, v6: false, tcp: from, dport };
    for layer in layers {
        if is_ip(*layer) {
            (tcp.ip, tcp.v6) = (tcp.tcp, *layer == Layer::V6);
        }
        tcp.tcp += layer.len() as u32;
    }
    tcp
}

impl Link {
    pub(super) fn frame(&self, packet: &[u8]) -> Vec<u8> {
        let v6 = packet[0] >> 4 == 6;
        let kind: u16 = if v6 { 0x86dd } else { 0x0800 };
        let mut frame = vec![2; 12];
        for tag in &self.tags {
            frame.extend_from_slice(&tag.to_be_bytes());
            frame.extend_from_slice(&[0, 5]);
        }
        match self.kind {
            LinkKind::Plain => frame.extend_from_slice(&kind.to_be_bytes()),
            LinkKind::Snap => {
                frame.extend_from_slice(&((packet.len() as u16 + 8) & 0x3ff).to_be_bytes());
                frame.extend_from_slice(&[0xaa, 0xaa, 3, 0, 0, 0]);
                frame.extend_from_slice(&kind.to_be_bytes());
            }
            LinkKind::Pppoe { short } => {
                frame.extend_from_slice(&[0x88, 0x64, 0x11, 0, 0, 1]);
                frame.extend_from_slice(&(packet.len() as u16 + 2 - u16::from(short)).to_be_bytes());
                let protocol = if v6 { [0, 0x57] } else { [0, 0x21] };
                frame.extend_from_slice(&protocol[usize::from(short)..]);
            }
        }
        frame.extend_from_slice(packet);
        frame
    }

    /// Where the IP header is in the frame.
    pub(super) fn len(&self) -> usize {
        let kind = match self.kind {
            LinkKind::Plain => 14,
            LinkKind::Snap => 22,
            LinkKind::Pppoe { short } => 22 - usize::from(short),
        };
        kind + self.tags.len() * 4
    }
}

pub(super) fn links() -> impl Strategy<Value = Link> {
    let tags = proptest::collection::vec(select(&[0x8100, 0x88a8, 0x9100, 0x9200, 0x9300][..]), 0..=3);
    let kinds = prop_oneof![
        3 => Just(LinkKind::Plain),
        1 => Just(LinkKind::Snap),
        1 => any::<bool>().prop_map(|short| LinkKind::Pppoe { short }),
    ];
    (tags, kinds).prop_map(|(tags, kind)| Link { tags, kind })
}

/// Extension headers by their numbers (RFC 8200 §4.1, RFC 6275, RFC 7401, RFC 5533).
const EXTENSIONS: [u8; 6] = [0, 43, 60, 135, 139, 140];

/// Anything that may stand between two headers.
pub(super) fn inner_layers() -> impl Strategy<Value = Layer> {
    prop_oneof![
        1 => (0_u8..=10).prop_map(|options| Layer::V4 { options }),
        1 => Just(Layer::V6),
        4 => (select(&EXTENSIONS[..]), prop_oneof![4 => 0_u8..4, 1 => any::<u8>()])
            .prop_map(|(kind, more)| Layer::Extension { kind, more }),
        1 => (0_u8..8).prop_map(|more| Layer::Authentication { more }),
        1 => Just(Layer::Atomic),
    ]
}

/// The headers of a packet, an IP header first.
pub(super) fn chains() -> impl Strategy<Value = Vec<Layer>> {
    let first = prop_oneof![(0_u8..=10).prop_map(|options| Layer::V4 { options }), Just(Layer::V6)];
    let rest = prop_oneof![1 => Just(Vec::new()), 3 => proptest::collection::vec(inner_layers(), 0..12)];
    (first, rest).prop_map(|(first, rest)| [vec![first], rest].concat())
}
