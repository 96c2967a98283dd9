//! Frames by AF_PACKET (packet(7)), which goes round the whole IP layer.
//!
//! Each way takes the next hop's address as a further argument, for networks where it cannot be asked for.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::errno::Errno;

use crate::link::{Link, Mac};
use crate::packet::{self, Flow, protocol};
use crate::{Said, Way, txring};

/// EtherTypes (IEEE 802), as in include/uapi/linux/if_ether.h.
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const VLAN: u16 = 0x8100;
const MPLS: u16 = 0x8847;
const IPV6: u16 = 0x86dd;
const PROVIDER_VLAN: u16 = 0x88a8;

/// The ways.
pub(crate) const WAYS: &[Way] = &[
    ("packet_raw", |to, rest| whole(to, rest, Link::syn)),
    ("packet_dgram", |to, rest| dgram(to, rest)),
    ("packet_vlan", |to, rest| whole(to, rest, |link, flow| tagged(link, flow, &[(VLAN, 7)]))),
    ("packet_priority_tag", |to, rest| whole(to, rest, |link, flow| tagged(link, flow, &[(VLAN, 0)]))),
    ("packet_qinq", |to, rest| whole(to, rest, |link, flow| tagged(link, flow, &[(PROVIDER_VLAN, 6), (VLAN, 7)]))),
    ("packet_three_tags", |to, rest| {
        whole(to, rest, |link, flow| tagged(link, flow, &[(PROVIDER_VLAN, 0), (VLAN, 0), (VLAN, 0)]))
    }),
    ("packet_says_arp", |to, rest| says(to, rest, ARP)),
    ("packet_says_nothing", |to, rest| says(to, rest, 0)),
    ("packet_fragments", |to, rest| whole(to, rest, fragments)),
    ("packet_options", |to, rest| whole(to, rest, options)),
    ("packet_v6_chain", |to, rest| whole(to, rest, chain)),
    ("packet_snap", |to, rest| whole(to, rest, snap)),
    ("packet_mpls", |to, rest| whole(to, rest, mpls)),
    ("packet_vnet_hdr", vnet_hdr),
    ("packet_checksum", checksum),
    ("packet_bypass", bypass),
    ("packet_bypass_before", bypass_before),
    ("packet_tx_ring", tx_ring),
];

impl Link {
    /// A frame that carries `packet` as what `kind` says.
    pub(crate) fn frame(&self, kind: u16, packet: &[u8]) -> Vec<u8> {
        let mut frame = [self.peer, self.own].concat();
        frame.extend(kind.to_be_bytes());
        frame.extend(packet);
        frame
    }

    /// A SYN in the plainest frame.
    pub(crate) fn syn(&self, flow: &Flow) -> Vec<Vec<u8>> {
        vec![self.frame(ethertype(flow), &packet::plain(flow, &packet::syn(flow)))]
    }
}

pub(crate) fn ethertype(flow: &Flow) -> u16 {
    if flow.to.is_ipv4() { IPV4 } else { IPV6 }
}

/// A SYN behind VLAN tags (IEEE 802.1Q), the outer one first.
fn tagged(link: &Link, flow: &Flow, tags: &[(u16, u16)]) -> Vec<Vec<u8>> {
    let mut inner = ethertype(flow).to_be_bytes().to_vec();
    inner.extend(packet::plain(flow, &packet::syn(flow)));
    for (kind, number) in tags.iter().rev() {
        inner = [&kind.to_be_bytes()[..], &number.to_be_bytes()[..], &inner].concat();
    }
    vec![[&link.peer[..], &link.own[..], &inner].concat()]
}

fn fragments(link: &Link, flow: &Flow) -> Vec<Vec<u8>> {
    packet::fragments(flow).iter().map(|packet| link.frame(ethertype(flow), packet)).collect()
}

fn options(link: &Link, flow: &Flow) -> Vec<Vec<u8>> {
    let syn = packet::syn(flow);
    let packet = match flow.to {
        SocketAddr::V4(_) => packet::v4(flow, &packet::V4_OPTIONS, 0, &syn),
        SocketAddr::V6(_) => packet::v6_behind(flow, &[protocol::HOP_BY_HOP], &syn),
    };
    vec![link.frame(ethertype(flow), &packet)]
}

/// No frame at all for IPv4, which has no chains.
fn chain(link: &Link, flow: &Flow) -> Vec<Vec<u8>> {
    let frame = || link.frame(IPV6, &packet::v6_behind(flow, &[protocol::DESTINATION_OPTIONS; 10], &packet::syn(flow)));
    flow.to.is_ipv6().then(frame).into_iter().collect()
}

/// IEEE 802.3 with LLC and SNAP headers (RFC 1042): a length stands where others have the type.
fn snap(link: &Link, flow: &Flow) -> Vec<Vec<u8>> {
    let mut payload = vec![0xaa, 0xaa, 3, 0, 0, 0];
    payload.extend(ethertype(flow).to_be_bytes());
    payload.extend(packet::plain(flow, &packet::syn(flow)));
    vec![link.frame(payload.len() as u16, &payload)]
}

/// A packet socket, not bound to anything and taking nothing in.
pub(crate) fn socket(kind: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers.
    let fd = crate::step("socket", unsafe { libc::socket(libc::AF_PACKET, kind | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Where to send: the device, and what the sender says it sends, which need not be true.
pub(crate) fn address(link: &Link, says: u16) -> libc::sockaddr_ll {
    let mut addr = [0; 8];
    addr[..6].copy_from_slice(&link.peer as &Mac);
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: says.to_be(),
        sll_ifindex: link.index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: addr,
    }
}

pub(crate) fn send(socket: &OwnedFd, bytes: &[u8], to: &libc::sockaddr_ll) -> Result<(), Errno> {
    // SAFETY: buffer and address with their lengths.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            0,
            std::ptr::from_ref(to).cast(),
            size_of_val(to) as libc::socklen_t,
        )
    };
    crate::step("send", sent).map(drop)
}

/// Sends frames made by hand, whose type the socket is told truly.
fn whole(to: SocketAddr, rest: &[String], make: fn(&Link, &Flow) -> Vec<Vec<u8>>) -> Said {
    let (link, flow) = (Link::to(to, rest.first())?, Flow::to(to)?);
    let frames = make(&link, &flow);
    if frames.is_empty() {
        return Err(Errno::EAFNOSUPPORT);
    }
    let socket = socket(libc::SOCK_RAW)?;
    for frame in &frames {
        let says = u16::from_be_bytes([frame[12], frame[13]]);
        send(&socket, frame, &address(&link, says))?;
    }
    Ok("sent")
}

fn says(to: SocketAddr, rest: &[String], says: u16) -> Said {
    let (link, flow) = (Link::to(to, rest.first())?, Flow::to(to)?);
    let socket = socket(libc::SOCK_RAW)?;
    link.syn(&flow).iter().try_for_each(|frame| send(&socket, frame, &address(&link, says)))?;
    Ok("sent")
}

/// The kernel makes the frame's header.
fn dgram(to: SocketAddr, rest: &[String]) -> Said {
    let (link, flow) = (Link::to(to, rest.first())?, Flow::to(to)?);
    let packet = packet::plain(&flow, &packet::syn(&flow));
    send(&socket(libc::SOCK_DGRAM)?, &packet, &address(&link, ethertype(&flow)))?;
    Ok("sent")
}

pub(crate) fn set_option<T>(socket: &OwnedFd, name: &str, option: i32, value: &T) -> Result<(), Errno> {
    let (pointer, length) = (std::ptr::from_ref(value).cast(), size_of_val(value) as libc::socklen_t);
    // SAFETY: an option with its length.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, pointer, length) };
    crate::step(name, set).map(drop)
}

/// In front of the frame a `struct virtio_net_hdr` (include/uapi/linux/virtio_net.h) that asks for nothing.
fn vnet_hdr(to: SocketAddr, rest: &[String]) -> Said {
    let (link, flow) = (Link::to(to, rest.first())?, Flow::to(to)?);
    let socket = socket(libc::SOCK_RAW)?;
    set_option(&socket, "PACKET_VNET_HDR", libc::PACKET_VNET_HDR, &1i32)?;
    for frame in link.syn(&flow) {
        send(&socket, &[&[0; 10][..], &frame].concat(), &address(&link, ethertype(&flow)))?;
    }
    Ok("sent")
}

/// Behind two labels (RFC 3032 §2.1), the second the bottom of the stack.
fn mpls(link: &Link, flow: &Flow) -> Vec<Vec<u8>> {
    let labels = [0, 1, 0x00, 64, 0, 1, 0x11, 64];
    vec![link.frame(MPLS, &[&labels[..], &packet::plain(flow, &packet::syn(flow))].concat())]
}

/// The frame shows another port; the kernel is told to write the checksum of what follows the IP header (RFC 1071) into
/// the port's place, and the bytes are such that it comes out as the port that is meant.
fn checksum(to: SocketAddr, rest: &[String]) -> Said {
    let (link, flow) = (Link::to(to, rest.first())?, Flow::to(to)?);
    let shown = Flow { to: SocketAddr::new(to.ip(), 0), ..flow };
    let mut segment = packet::syn(&shown);
    // Where TCP's own checksum is, which is wrong then: what the rest makes up to the complement of the port.
    segment[16..18].copy_from_slice(&[0, 0]);
    let sum = packet::checksum(packet::sum(&segment));
    let missing = packet::checksum(u32::from(u16::from_be_bytes(sum.map(|byte| !byte))) + u32::from(to.port()));
    segment[16..18].copy_from_slice(&missing);
    let frame = link.frame(ethertype(&flow), &packet::plain(&flow, &segment));
    let start = (frame.len() - segment.len()) as u16;
    let socket = socket(libc::SOCK_RAW)?;
    set_option(&socket, "PACKET_VNET_HDR", libc::PACKET_VNET_HDR, &1i32)?;
    // `struct virtio_net_hdr`: NEEDS_CSUM, no segmentation, where to begin, and where to write from there.
    let mut header = vec![1, 0, 0, 0, 0, 0];
    header.extend(start.to_ne_bytes());
    header.extend(2_u16.to_ne_bytes());
    send(&socket, &[header, frame].concat(), &address(&link, ethertype(&flow)))?;
    Ok("sent")
}

/// Past the queueing discipline, and all that hangs on it.
fn bypass(to: SocketAddr, rest: &[String]) -> Said {
    let (link, flow) = (Link::to(to, rest.first())?, Flow::to(to)?);
    let socket = socket(libc::SOCK_RAW)?;
    set_option(&socket, "PACKET_QDISC_BYPASS", libc::PACKET_QDISC_BYPASS, &1i32)?;
    link.syn(&flow).iter().try_for_each(|frame| send(&socket, frame, &address(&link, ethertype(&flow))))?;
    Ok("sent")
}

/// `packet_bypass_before ADDRESS PORT FILE`: the same with a socket that says `ready`, and sends once the file is there.
fn bypass_before(to: SocketAddr, rest: &[String]) -> Said {
    let (link, flow) = (Link::to(to, None)?, Flow::to(to)?);
    let socket = socket(libc::SOCK_RAW)?;
    set_option(&socket, "PACKET_QDISC_BYPASS", libc::PACKET_QDISC_BYPASS, &1i32)?;
    crate::announce("ready");
    crate::before::told(rest.first());
    link.syn(&flow).iter().try_for_each(|frame| send(&socket, frame, &address(&link, ethertype(&flow))))?;
    Ok("sent")
}

fn tx_ring(to: SocketAddr, rest: &[String]) -> Said {
    let (link, flow) = (Link::to(to, rest.first())?, Flow::to(to)?);
    let socket = socket(libc::SOCK_RAW)?;
    link.syn(&flow).iter().try_for_each(|frame| txring::send(&socket, frame, &address(&link, ethertype(&flow))))?;
    Ok("sent")
}
