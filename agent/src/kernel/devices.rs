//! The devices of a network namespace, the thread's: what their frames begin with, and whether they lead inwards.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use portreeve_abi::{PROGRAM_FRAME, PROGRAM_FRAME_IN, PROGRAM_FRAME_IP};

use super::netlink::dump;
use crate::policy::matches;

/// What the frames of a device begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// An Ethernet header.
    Ethernet,
    /// The same, on a device that leads to containers or virtual machines of this host alone.
    Inside,
    /// The IP header.
    Ip,
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
    pub(super) fn program(self) -> Option<&'static str> {
        match self {
            Self::Ethernet => Some(PROGRAM_FRAME),
            Self::Inside => Some(PROGRAM_FRAME_IN),
            Self::Ip => Some(PROGRAM_FRAME_IP),
            Self::Foreign => None,
        }
    }
}

/// A device as it is found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) framing: Framing,
}

/// All devices; those whose names match one of the patterns of `inside` may lead inwards.
pub(super) fn all(inside: &[String]) -> io::Result<Vec<Found>> {
    let mut devices = BTreeMap::new();
    for address in nix::ifaddrs::getifaddrs()? {
        let Some(link) = address.address.as_ref().and_then(|address| address.as_link_addr()) else { continue };
        let (index, kind) = (link.ifindex() as u32, link.hatype());
        devices.insert(index, Found { index, name: address.interface_name, framing: Framing::of(kind) });
    }
    let named = |device: &Found| inside.iter().any(|pattern| matches(pattern, &device.name));
    if devices.values().any(named) {
        let named: BTreeSet<u32> = devices.values().filter(|device| named(device)).map(|device| device.index).collect();
        for index in inward(&named) {
            if let Some(device) = devices.get_mut(&index)
                && device.framing == Framing::Ethernet
            {
                device.framing = Framing::Inside;
            }
        }
    }
    Ok(devices.into_values().collect())
}

/// Which devices lead inwards: of the named ones, veth and TAP devices, and bridges with no other ports than such; and the
/// ports of these bridges. None where the kernel's answer is not understood: then all are guarded like any other.
fn inward(named: &BTreeSet<u32>) -> BTreeSet<u32> {
    let links = match dump(NETLINK_ROUTE, RouteNetlinkMessage::GetLink(LinkMessage::default())) {
        Ok(links) => links,
        Err(error) => {
            tracing::warn!("cannot tell which devices lead inwards: {error}");
            return BTreeSet::new();
        }
    };
    let links: Vec<Link> = links.iter().filter_map(Link::of).collect();
    let mut inward = BTreeSet::new();
    for link in links.iter().filter(|link| named.contains(&link.index)) {
        match link.kind {
            Kind::Virtual if link.bridge.is_none() => {
                inward.insert(link.index);
            }
            Kind::Bridge => {
                let ports: Vec<&Link> = links.iter().filter(|port| port.bridge == Some(link.index)).collect();
                if ports.iter().all(|port| port.kind == Kind::Virtual) {
                    inward.insert(link.index);
                    inward.extend(ports.iter().map(|port| port.index));
                }
            }
            Kind::Virtual | Kind::Other => {}
        }
    }
    inward
}

/// What a device is, as far as it matters where it leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A veth or TAP device: at its other end is something of this host's.
    Virtual,
    Bridge,
    Other,
}

struct Link {
    index: u32,
    kind: Kind,
    /// The bridge (or bond, or VRF) it is a port of.
    bridge: Option<u32>,
}

impl Link {
    fn of(message: &RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewLink(link) = message else { return None };
        let mut found = Self { index: link.header.index, kind: Kind::Other, bridge: None };
        for attribute in &link.attributes {
            if let LinkAttribute::Controller(bridge) = attribute {
                found.bridge = Some(*bridge).filter(|bridge| *bridge != 0);
            } else if let LinkAttribute::LinkInfo(infos) = attribute {
                found.kind = infos.iter().find_map(kind).unwrap_or(Kind::Other);
            }
        }
        Some(found)
    }
}

fn kind(info: &LinkInfo) -> Option<Kind> {
    let LinkInfo::Kind(kind) = info else { return None };
    Some(if matches!(kind, InfoKind::Veth | InfoKind::Tun) {
        Kind::Virtual
    } else if *kind == InfoKind::Bridge {
        Kind::Bridge
    } else {
        Kind::Other
    })
}
