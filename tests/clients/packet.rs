//! Packets made by hand: TCP (RFC 9293) in IPv4 (RFC 791) and IPv6 (RFC 8200), whole, in fragments, behind options
//! and extension headers.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use nix::errno::Errno;

use crate::ways::errno;

/// The flags of a TCP segment (RFC 9293 §3.1).
pub(crate) const SYN: u8 = 0x02;
/// As `SYN`.
pub(crate) const PSH: u8 = 0x08;
/// As `SYN`.
pub(crate) const ACK: u8 = 0x10;

/// What a bot would say.
pub(crate) const DATA: &[u8] = b"EHLO bot";

/// The protocol numbers that IPv4's protocol field and IPv6's next-header field share (IANA).
pub(crate) mod protocol {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const IPV4: u8 = 4;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const IPV6: u8 = 41;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const GRE: u8 = 47;
    pub(crate) const AUTHENTICATION: u8 = 51;
    pub(crate) const DESTINATION_OPTIONS: u8 = 60;
}

/// Who sends to whom; both of one family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
}

impl Flow {
    /// From the address that the routes choose. The port is the process's own, so that no run is mistaken for another.
    pub(crate) fn to(to: SocketAddr) -> Result<Self, Errno> {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let asked = UdpSocket::bind(any).and_then(|socket| {
            socket.connect(to)?;
            socket.local_addr()
        });
        Ok(Self::between(asked.map_err(|error| errno(&error))?.ip(), to))
    }

    /// From an address of the caller's choice.
    pub(crate) fn between(from: IpAddr, to: SocketAddr) -> Self {
        let port = 20_000 + std::process::id() % 40_000;
        Self { from: SocketAddr::new(from, port as u16), to }
    }
}

/// A number for all fragments of this process's packets.
fn identification() -> u32 {
    std::process::id()
}

/// The Internet checksum (RFC 1071), not yet complemented.
pub(crate) fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum()
}

pub(crate) fn checksum(sum: u32) -> [u8; 2] {
    let mut sum = sum;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A segment with a right checksum: 24 bytes of header (the option is the maximum segment size), then `data`.
pub(crate) fn tcp(flow: &Flow, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(flow.from.port().to_be_bytes());
    segment.extend(flow.to.port().to_be_bytes());
    segment.extend(identification().to_be_bytes());
    segment.extend(if flags & ACK == 0 { [0; 4] } else { [0, 0, 0, 1] });
    segment.extend([6 << 4, flags, 0xff, 0xff]);
    segment.extend([0, 0, 0, 0]);
    segment.extend([2, 4, 0x05, 0x00]);
    segment.extend(data);
    let pseudo_header = sum(&octets(flow.from.ip())) + sum(&octets(flow.to.ip()));
    let pseudo_header = pseudo_header + u32::from(protocol::TCP) + segment.len() as u32;
    let check = checksum(pseudo_header + sum(&segment));
    segment[16..18].copy_from_slice(&check);
    segment
}

/// A SYN with some data, so that there is something to cut.
pub(crate) fn syn(flow: &Flow) -> Vec<u8> {
    tcp(flow, SYN, DATA)
}

/// A segment in the plainest packet of its family.
pub(crate) fn plain(flow: &Flow, segment: &[u8]) -> Vec<u8> {
    match flow.to {
        SocketAddr::V4(_) => v4(flow, &[], 0, segment),
        SocketAddr::V6(_) => v6(flow, protocol::TCP, segment),
    }
}

/// The bit in IPv4's fragment field that says that more fragments follow.
const MORE: u16 = 0x2000;

/// An IPv4 packet that carries TCP. `fragment` is the field of flags and offset, the options a multiple of four bytes.
pub(crate) fn v4(flow: &Flow, options: &[u8], fragment: u16, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend((identification() as u16).to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol::TCP, 0, 0]);
    packet.extend(octets(flow.from.ip()));
    packet.extend(octets(flow.to.ip()));
    packet.extend(options);
    let check = checksum(sum(&packet));
    packet[10..12].copy_from_slice(&check);
    packet.extend(payload);
    packet
}

/// A segment cut at `cut`, a multiple of eight.
pub(crate) fn v4_fragments(flow: &Flow, segment: &[u8], cut: usize) -> Vec<Vec<u8>> {
    let (first, second) = segment.split_at(cut);
    vec![v4(flow, &[], MORE, first), v4(flow, &[], (cut / 8) as u16, second)]
}

/// Two first fragments that overlap, `shown` and then `meant`, and a last one that completes either.
pub(crate) fn v4_overlap(flow: &Flow, shown: &[u8], meant: &[u8], cut: usize) -> Vec<Vec<u8>> {
    let first = v4(flow, &[], MORE, &shown[..cut]);
    let mut packets = v4_fragments(flow, meant, cut);
    packets.insert(0, first);
    packets
}

/// An IPv6 packet; `next` names what `payload` begins with.
pub(crate) fn v6(flow: &Flow, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(octets(flow.from.ip()));
    packet.extend(octets(flow.to.ip()));
    packet.extend(payload);
    packet
}

/// One extension header of the given kind, without consequences for who receives it: padding as the only option
/// (RFC 8200 §4.2), a route with no segments left (§4.4), a fragment that is the whole packet (RFC 6946), an
/// authentication header without a key (RFC 4302 §2).
fn extension(kind: u8, next: u8) -> Vec<u8> {
    match kind {
        protocol::ROUTING => vec![next, 0, 0, 0, 0, 0, 0, 0],
        protocol::FRAGMENT => fragment_header(next, 0, false),
        protocol::AUTHENTICATION => {
            let mut header = vec![next, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
            header.extend([0xaa; 12]);
            header
        }
        _ => vec![next, 0, 1, 4, 0, 0, 0, 0],
    }
}

/// Where a packet begins that carries `headers` in this order and `segment` behind them: the first next-header value,
/// and all the bytes.
pub(crate) fn behind(headers: &[u8], segment: &[u8]) -> (u8, Vec<u8>) {
    let mut next = protocol::TCP;
    let mut bytes = segment.to_vec();
    for &kind in headers.iter().rev() {
        let mut header = extension(kind, next);
        header.append(&mut bytes);
        bytes = header;
        next = kind;
    }
    (next, bytes)
}

/// A segment behind extension headers.
pub(crate) fn v6_behind(flow: &Flow, headers: &[u8], segment: &[u8]) -> Vec<u8> {
    let (next, bytes) = behind(headers, segment);
    v6(flow, next, &bytes)
}

fn fragment_header(next: u8, offset: usize, more: bool) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend((offset as u16 | u16::from(more)).to_be_bytes());
    header.extend(identification().to_be_bytes());
    header
}

/// `bytes`, which begin with what `next` names, cut at `cut`, a multiple of eight.
pub(crate) fn v6_fragments(flow: &Flow, next: u8, bytes: &[u8], cut: usize) -> Vec<Vec<u8>> {
    let (first, second) = bytes.split_at(cut);
    [(first, 0, true), (second, cut, false)]
        .into_iter()
        .map(|(part, offset, more)| {
            let mut payload = fragment_header(next, offset, more);
            payload.extend(part);
            v6(flow, protocol::FRAGMENT, &payload)
        })
        .collect()
}

/// A SYN in two fragments of its family, the first with the whole TCP header.
pub(crate) fn fragments(flow: &Flow) -> Vec<Vec<u8>> {
    match flow.to {
        SocketAddr::V4(_) => v4_fragments(flow, &syn(flow), 24),
        SocketAddr::V6(_) => v6_fragments(flow, protocol::TCP, &syn(flow), 24),
    }
}

/// IPv4 options (RFC 791 §3.1): a record route with one empty place, and padding.
pub(crate) const V4_OPTIONS: [u8; 8] = [7, 7, 4, 0, 0, 0, 0, 0];
