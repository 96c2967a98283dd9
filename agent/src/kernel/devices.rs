//! The devices of a network namespace, the thread's: what their frames begin with, and whether they lead inwards.

use std::collections::BTreeSet;
use std::io;

use portreeve_abi::{
    PROGRAM_FRAME, PROGRAM_FRAME_IN, PROGRAM_FRAME_IP, PROGRAM_FRAME_IP_IN, PROGRAM_LAN, PROGRAM_LAN_IP,
};

use super::sys::Way;
use crate::host::{Link, links};
use crate::policy::matches;

/// What the frames of a device begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// An Ethernet header.
    Ethernet,
    /// The same, on a device that leads to containers or virtual machines of this host alone, or a LAN interface.
    Inside,
    /// The IP header.
    Ip,
    /// The same, on a LAN interface.
    IpInside,
    /// Something that carries no IP, or in a way of its own.
    Foreign,
}

impl Framing {
    /// The framing of a type of device (`ARPHRD_…`, include/uapi/linux/if_arp.h).
    fn of(kind: u16) -> Self {
        match kind {
            // ETHER, LOOPBACK.
            1 | 772 => Self::Ethernet,
            // PPP, RAWIP, TUNNEL, TUNNEL6, SIT, IPGRE, IP6GRE, VOID, NONE (TUN, WireGuard).
            512 | 519 | 768 | 769 | 776 | 778 | 823 | 0xffff | 0xfffe => Self::Ip,
            _ => Self::Foreign,
        }
    }

    /// The program for such frames.
    pub(super) fn program(self, way: Way) -> Option<&'static str> {
        match (self, way) {
            (Self::Ethernet, Way::Out) => Some(PROGRAM_FRAME),
            (Self::Inside, Way::Out) => Some(PROGRAM_FRAME_IN),
            (Self::Ip, Way::Out) => Some(PROGRAM_FRAME_IP),
            (Self::IpInside, Way::Out) => Some(PROGRAM_FRAME_IP_IN),
            (Self::Ethernet | Self::Inside, Way::In) => Some(PROGRAM_LAN),
            (Self::Ip | Self::IpInside, Way::In) => Some(PROGRAM_LAN_IP),
            (Self::Foreign, _) => None,
        }
    }

    /// What it is on a device that leads inwards.
    fn inwards(self) -> Self {
        match self {
            Self::Ethernet | Self::Inside => Self::Inside,
            Self::Ip | Self::IpInside => Self::IpInside,
            Self::Foreign => Self::Foreign,
        }
    }
}

/// A device as it is found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) framing: Framing,
    /// It is a LAN interface.
    pub(super) lan: bool,
    /// It is a port of a bridge.
    pub(super) bridged: bool,
}

/// All devices; those whose names match one of the patterns of `inside` may lead inwards, those of `lan` are LAN
/// interfaces.
///
/// By netlink: `getifaddrs` (glibc's) leaves out devices without an address of their own, as WireGuard's, TUN's and PPP's are.
pub(super) fn all(inside: &[String], lan: &[String]) -> io::Result<Vec<Found>> {
    let links = links().map_err(io::Error::other)?;
    let named = |patterns: &[String], link: &Link| patterns.iter().any(|pattern| matches(pattern, &link.name));
    let inwards = inward(&links, |link| named(inside, link));
    let found = links.iter().map(|link| {
        let framing = Framing::of(link.hardware);
        let is_lan = named(lan, link);
        // What goes to a LAN is nothing of this guard's unless it is this host's own.
        let leads_inwards = is_lan || (framing == Framing::Ethernet && inwards.contains(&link.index));
        Found {
            index: link.index,
            name: link.name.clone(),
            framing: if leads_inwards { framing.inwards() } else { framing },
            lan: is_lan,
            bridged: link.master.is_some_and(|master| is_bridge(&links, master)),
        }
    });
    Ok(found.collect())
}

fn is_bridge(links: &[Link], index: u32) -> bool {
    links.iter().any(|link| link.index == index && link.kind.as_deref() == Some("bridge"))
}

/// The addresses of the thread's network namespace, IPv4 in its mapped form.
pub(super) fn own_addresses() -> io::Result<BTreeSet<[u8; 16]>> {
    let addresses = nix::ifaddrs::getifaddrs()?.filter_map(|found| {
        let address = found.address?;
        let v4 = address.as_sockaddr_in().map(|v4| v4.ip().to_ipv6_mapped().octets());
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().octets()))
    });
    Ok(addresses.collect())
}

/// Which devices lead inwards: of the named ones, veth and TAP devices, and bridges with no other ports than such; and the
/// ports of these bridges.
fn inward(links: &[Link], named: impl Fn(&Link) -> bool) -> BTreeSet<u32> {
    // At the other end of these is something of this host's.
    let is_virtual = |link: &Link| matches!(link.kind.as_deref(), Some("veth" | "tun"));
    let mut inward = BTreeSet::new();
    for link in links.iter().filter(|link| named(link)) {
        if is_virtual(link) && link.master.is_none() {
            inward.insert(link.index);
        } else if link.kind.as_deref() == Some("bridge") {
            let ports: Vec<&Link> = links.iter().filter(|port| port.master == Some(link.index)).collect();
            if ports.iter().all(|port| is_virtual(port)) {
                inward.insert(link.index);
                inward.extend(ports.iter().map(|port| port.index));
            }
        }
    }
    inward
}
