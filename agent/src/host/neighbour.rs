//! The kernel's neighbour table: which card has an address, as ARP and neighbour discovery have found (ip-neighbour(8)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Mac;
use super::netlink::{RouteError, attributes, dump, number};

/// An entry of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The host's address.
    pub address: IpAddr,
    /// The index of the interface that it is behind.
    pub interface: u32,
    /// Its card's address; none where the host has not answered, and on links without such addresses.
    pub mac: Option<Mac>,
    /// How sure the kernel is.
    pub reach: Reach,
}

/// A card that a bridge has learned, by a frame that came from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned {
    /// The card's address.
    pub mac: Mac,
    /// The index of the bridge's port that it is behind.
    pub port: u32,
    /// The bridge's index.
    pub bridge: u32,
}

/// How sure the kernel is of an entry (`NUD_…`, include/uapi/linux/neighbour.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The host has answered lately.
    Reachable,
    /// It has answered once, or is being asked again.
    Stale,
    /// An entry that somebody has made by hand, or that needs no asking.
    Permanent,
    /// It was asked and has not answered: the card's address is none, or of old.
    Unanswered,
}

/// The length of `struct ndmsg`, include/uapi/linux/neighbour.h.
const HEADER: usize = 12;
/// `NUD_INCOMPLETE` and `NUD_FAILED`.
const UNANSWERED: u16 = 0x01 | 0x20;
/// `NUD_NOARP` and `NUD_PERMANENT`.
const PERMANENT: u16 = 0x40 | 0x80;
/// `NUD_REACHABLE`.
const REACHABLE: u16 = 0x02;
/// `NUD_PERMANENT` alone: with bridges, an address of the bridge's own (net/bridge/br_fdb.c, `fdb_to_nud`).
const OWN: u16 = 0x80;
/// `NDA_MASTER`.
const MASTER: u16 = 9;

/// All entries of the thread's network namespace, IPv4's and IPv6's.
///
/// # Errors
///
/// The kernel's.
pub fn neighbours() -> Result<Vec<Neighbour>, RouteError> {
    let said = dump(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()));
    let said = said.map_err(|source| RouteError::Ask { what: "neighbours", source })?;
    Ok(said.iter().filter_map(|said| Neighbour::of(&said.body)).collect())
}

/// All cards that the bridges of the thread's network namespace have learned.
///
/// # Errors
///
/// The kernel's.
pub fn learned() -> Result<Vec<Learned>, RouteError> {
    let mut question = NeighbourMessage::default();
    question.header.family = AddressFamily::Bridge;
    let said = dump(RouteNetlinkMessage::GetNeighbour(question));
    let said = said.map_err(|source| RouteError::Ask { what: "bridges' cards", source })?;
    Ok(said.iter().filter_map(|said| Learned::of(&said.body)).collect())
}

impl Learned {
    /// The card in a message of a bridge's; `None` for the bridge's own addresses, and for what a device filters by.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER] = body.get(..HEADER)?.try_into().ok()?;
        let state = u16::from_ne_bytes([header[8], header[9]]);
        if i32::from(header[0]) != libc::AF_BRIDGE || state & OWN != 0 {
            return None;
        }
        let port = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
        let find = |wanted| attributes(body.get(HEADER..)?).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let mac = find(libc::NDA_LLADDR).and_then(Mac::from_bytes).filter(|mac| !mac.is_multicast())?;
        let bridge = find(MASTER).and_then(number)?;
        Some(Self { mac, port, bridge })
    }
}

impl Neighbour {
    /// The entry in a message. `None` for those of bridges, which say behind which port a card is and no address, and for
    /// groups, which are no host's.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER] = body.get(..HEADER)?.try_into().ok()?;
        let family = i32::from(header[0]);
        let interface = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
        let state = u16::from_ne_bytes([header[8], header[9]]);
        let (mut address, mut mac) = (None, None);
        for (kind, value) in attributes(body.get(HEADER..)?) {
            if kind == libc::NDA_DST {
                address = ip(family, value);
            } else if kind == libc::NDA_LLADDR {
                mac = Mac::from_bytes(value);
            }
        }
        let address = address.filter(|address| !address.is_multicast())?;
        if mac.is_some_and(|mac| mac.is_multicast()) {
            return None;
        }
        Some(Self { address, interface, mac, reach: Reach::of(state) })
    }
}

impl Reach {
    fn of(state: u16) -> Self {
        if state & UNANSWERED != 0 {
            Self::Unanswered
        } else if state & PERMANENT != 0 {
            Self::Permanent
        } else if state & REACHABLE != 0 {
            Self::Reachable
        } else {
            Self::Stale
        }
    }
}

fn ip(family: i32, value: &[u8]) -> Option<IpAddr> {
    match family {
        libc::AF_INET => <[u8; 4]>::try_from(value).ok().map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes))),
        libc::AF_INET6 => <[u8; 16]>::try_from(value).ok().map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes))),
        _bridge => None,
    }
}
