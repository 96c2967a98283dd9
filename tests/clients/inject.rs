//! Raw IP sockets: segments that no TCP socket has made.

use std::net::SocketAddr;

use nix::errno::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::packet::{self, ACK, DATA, Flow, PSH, SYN, protocol};
use crate::{Said, Way};

/// The ways. Those with a header of their own go to one family alone where the trick is that family's.
pub(crate) const WAYS: &[Way] = &[
    ("raw_syn", |to, _| segment(to, SYN, b"")),
    ("raw_data", |to, _| segment(to, PSH | ACK, DATA)),
    ("raw_ack", |to, _| segment(to, ACK, b"")),
    ("raw_tunnel", |to, _| tunnel(to)),
    ("raw_gre", |to, _| gre(to)),
    ("hdrincl", |to, _| packets(to, Kind::Raw, |flow| vec![packet::plain(flow, &packet::syn(flow))])),
    ("hdrincl_icmp_socket", |to, _| packets(to, Kind::Icmp, |flow| vec![packet::plain(flow, &packet::syn(flow))])),
    ("hdrincl_options", |to, _| v4(to, |flow| vec![packet::v4(flow, &packet::V4_OPTIONS, 0, &packet::syn(flow))])),
    ("hdrincl_fragments", |to, _| v4(to, packet::fragments)),
    ("hdrincl_tiny", |to, _| v4(to, |flow| packet::v4_fragments(flow, &packet::syn(flow), 8))),
    ("hdrincl_overlap", |to, _| v4(to, overlap)),
    ("v6_destopts", |to, _| behind(to, &[protocol::DESTINATION_OPTIONS])),
    ("v6_hopbyhop", |to, _| behind(to, &[protocol::HOP_BY_HOP])),
    ("v6_chain", |to, _| behind(to, &[protocol::DESTINATION_OPTIONS; 10])),
    ("v6_long_chain", |to, _| behind(to, &[protocol::DESTINATION_OPTIONS; 40])),
    ("v6_routing", |to, _| behind(to, &[protocol::ROUTING])),
    ("v6_ah", |to, _| behind(to, &[protocol::AUTHENTICATION])),
    ("v6_atomic_fragment", |to, _| behind(to, &[protocol::FRAGMENT])),
    ("v6_fragments", |to, _| v6(to, packet::fragments)),
    ("v6_tiny", |to, _| v6(to, |flow| packet::v6_fragments(flow, protocol::TCP, &packet::syn(flow), 8))),
    ("v6_fragment_chain", |to, _| v6(to, fragment_chain)),
];

/// Which raw socket carries packets with a header of their own.
#[derive(Clone, Copy)]
enum Kind {
    /// The one that is made for it: `IPPROTO_RAW`.
    Raw,
    /// One for ICMP, which a rule against raw sockets may well leave out.
    Icmp,
}

/// A segment whose IP header the kernel makes.
fn segment(to: SocketAddr, flags: u8, data: &[u8]) -> Said {
    let flow = Flow::to(to)?;
    let socket = raw(to, libc::IPPROTO_TCP)?;
    send(&socket, to, &packet::tcp(&flow, flags, data))?;
    Ok("sent")
}

/// A whole packet as the payload of another (RFC 2003, RFC 2473), for a far end that takes it out.
fn tunnel(to: SocketAddr) -> Said {
    let flow = Flow::to(to)?;
    let inner = if to.is_ipv4() { protocol::IPV4 } else { protocol::IPV6 };
    send(&raw(to, inner.into())?, to, &packet::plain(&flow, &packet::syn(&flow)))?;
    Ok("sent")
}

/// The same by generic routing encapsulation, with a key (RFC 2784, RFC 2890).
fn gre(to: SocketAddr) -> Said {
    let flow = Flow::to(to)?;
    let mut bytes = vec![0x20, 0];
    bytes.extend(crate::frame::ethertype(&flow).to_be_bytes());
    bytes.extend([0, 0, 0, 1]);
    bytes.extend(packet::plain(&flow, &packet::syn(&flow)));
    send(&raw(to, protocol::GRE.into())?, to, &bytes)?;
    Ok("sent")
}

fn packets(to: SocketAddr, kind: Kind, make: fn(&Flow) -> Vec<Vec<u8>>) -> Said {
    send_all(to, kind, &make(&Flow::to(to)?))
}

fn v4(to: SocketAddr, make: fn(&Flow) -> Vec<Vec<u8>>) -> Said {
    if to.is_ipv4() { packets(to, Kind::Raw, make) } else { Err(Errno::EAFNOSUPPORT) }
}

fn v6(to: SocketAddr, make: fn(&Flow) -> Vec<Vec<u8>>) -> Said {
    if to.is_ipv6() { packets(to, Kind::Raw, make) } else { Err(Errno::EAFNOSUPPORT) }
}

fn behind(to: SocketAddr, headers: &[u8]) -> Said {
    if to.is_ipv4() {
        return Err(Errno::EAFNOSUPPORT);
    }
    let flow = Flow::to(to)?;
    send_all(to, Kind::Raw, &[packet::v6_behind(&flow, headers, &packet::syn(&flow))])
}

/// The first fragment shows a web server's port, and a second one in the same place the port that is meant.
fn overlap(flow: &Flow) -> Vec<Vec<u8>> {
    let web = Flow { to: SocketAddr::new(flow.to.ip(), 80), ..*flow };
    packet::v4_overlap(flow, &packet::syn(&web), &packet::syn(flow), 24)
}

/// An extension header behind the fragment header fills the first fragment, so that the TCP header is in the second
/// alone (RFC 7112 forbids it).
fn fragment_chain(flow: &Flow) -> Vec<Vec<u8>> {
    let (next, bytes) = packet::behind(&[protocol::DESTINATION_OPTIONS; 2], &packet::syn(flow));
    packet::v6_fragments(flow, next, &bytes, 16)
}

fn raw(to: SocketAddr, protocol: i32) -> Result<Socket, Errno> {
    crate::os("socket", Socket::new(Domain::for_address(to), Type::RAW, Some(Protocol::from(protocol))))
}

fn send_all(to: SocketAddr, kind: Kind, packets: &[Vec<u8>]) -> Said {
    let protocol = match (kind, to) {
        (Kind::Raw, _) => libc::IPPROTO_RAW,
        (Kind::Icmp, SocketAddr::V4(_)) => libc::IPPROTO_ICMP,
        (Kind::Icmp, SocketAddr::V6(_)) => libc::IPPROTO_ICMPV6,
    };
    let socket = raw(to, protocol)?;
    let included = match to {
        SocketAddr::V4(_) => socket.set_header_included_v4(true),
        SocketAddr::V6(_) => socket.set_header_included_v6(true),
    };
    crate::os("header included", included)?;
    packets.iter().try_for_each(|packet| send(&socket, to, packet))?;
    Ok("sent")
}

fn send(socket: &Socket, to: SocketAddr, bytes: &[u8]) -> Result<(), Errno> {
    // A raw socket of IPv6 takes no port (raw(7), rawv6_sendmsg).
    let to = SockAddr::from(SocketAddr::new(to.ip(), 0));
    crate::os("send", socket.send_to(bytes, &to)).map(drop)
}
