//! The network interfaces: what they are, what their frames begin with, and which are parts of which.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;

use super::Mac;
use super::netlink::{RouteError, attributes, dump, number, text};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index, which no other interface of the namespace has while it is there.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What its driver calls itself: `bridge`, `veth`, `vlan`, `wireguard`, `tun`; none for a network card.
    pub kind: Option<String>,
    /// What its frames begin with: `ARPHRD_…`, include/uapi/linux/if_arp.h.
    pub hardware: u16,
    /// The bridge, bond or VRF that it is a port of.
    pub master: Option<u32>,
    /// The index of what it lies upon, or of its other end for a veth; in the namespace of `peer_netns` where there is one.
    pub peer: Option<u32>,
    /// The number by which this namespace knows that of the peer.
    pub peer_netns: Option<i32>,
    /// The VLAN that it is.
    pub vlan: Option<Vlan>,
    /// Its own card's address.
    pub address: Option<Mac>,
    /// Whether it has been turned on (`IFF_UP`).
    pub up: bool,
}

/// The tag of a VLAN's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// The VLAN's number, 1 to 4094.
    pub id: u16,
    /// The tag's type: 0x8100 (802.1Q), 0x88a8 (802.1ad).
    pub protocol: u16,
}

/// `ARPHRD_ETHER`, include/uapi/linux/if_arp.h.
const ETHERNET: u16 = 1;
/// `ETH_P_8021Q`, include/uapi/linux/if_ether.h.
const TAG: u16 = 0x8100;
/// The length of `struct ifinfomsg`, include/uapi/linux/rtnetlink.h.
const HEADER: usize = 16;
/// Attributes within `IFLA_LINKINFO`, and within the data of a VLAN: include/uapi/linux/if_link.h.
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VLAN_ID: u16 = 1;
const VLAN_PROTOCOL: u16 = 5;

/// All interfaces of the thread's network namespace.
///
/// # Errors
///
/// The kernel's.
pub fn links() -> Result<Vec<Link>, RouteError> {
    let said = dump(RouteNetlinkMessage::GetLink(LinkMessage::default()));
    let said = said.map_err(|source| RouteError::Ask { what: "interfaces", source })?;
    Ok(said.iter().filter_map(|said| Link::of(&said.body)).collect())
}

impl Link {
    /// Whether its frames begin with an Ethernet header, so that a host behind it has a MAC address.
    #[must_use]
    pub fn is_ethernet(&self) -> bool {
        self.hardware == ETHERNET
    }

    /// The interface in a message. `None` for a bridge's message about its port, which says that the port comes or goes
    /// and not that the interface does, and for a wireless card's about its radio, which has only a part of what there is.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER] = body.get(..HEADER)?.try_into().ok()?;
        if i32::from(header[0]) != libc::AF_UNSPEC {
            return None;
        }
        let mut link = Self {
            index: u32::from_ne_bytes([header[4], header[5], header[6], header[7]]),
            name: String::new(),
            kind: None,
            hardware: u16::from_ne_bytes([header[2], header[3]]),
            master: None,
            peer: None,
            peer_netns: None,
            vlan: None,
            address: None,
            up: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) & libc::IFF_UP as u32 != 0,
        };
        for (kind, value) in attributes(body.get(HEADER..)?) {
            match kind {
                libc::IFLA_WIRELESS => return None,
                libc::IFLA_IFNAME => link.name = text(value)?,
                libc::IFLA_MASTER => link.master = number(value).filter(|index| *index != 0),
                libc::IFLA_LINK => link.peer = number(value).filter(|index| *index != 0),
                libc::IFLA_LINK_NETNSID => link.peer_netns = number(value).map(|id| id as i32),
                libc::IFLA_ADDRESS => link.address = Mac::from_bytes(value),
                libc::IFLA_LINKINFO => link.info(value),
                _unknown => {}
            }
        }
        (!link.name.is_empty()).then_some(link)
    }

    fn info(&mut self, value: &[u8]) {
        let find = |wanted| attributes(value).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        self.kind = find(INFO_KIND).and_then(text);
        if self.kind.as_deref() != Some("vlan") {
            return;
        }
        let (mut id, mut protocol) = (None, TAG);
        for (kind, value) in attributes(find(INFO_DATA).unwrap_or_default()) {
            let Ok(value) = <[u8; 2]>::try_from(value) else { continue };
            match kind {
                VLAN_ID => id = Some(u16::from_ne_bytes(value)),
                // The one number here that is in the network's order.
                VLAN_PROTOCOL => protocol = u16::from_be_bytes(value),
                _unknown => {}
            }
        }
        self.vlan = id.map(|id| Vlan { id, protocol });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An attribute, its length and type before it.
    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = [(value.len() as u16 + 4).to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(family: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![family, 0];
        bytes.extend(1_u16.to_ne_bytes());
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(1_u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(attributes.concat());
        bytes
    }

    #[test]
    fn a_vlan_is_read_with_its_tag_and_an_unknown_attribute_is_passed_by() {
        let data = [attribute(VLAN_ID, &100_u16.to_ne_bytes()), attribute(VLAN_PROTOCOL, &[0x88, 0xa8])].concat();
        let info = [attribute(INFO_KIND, b"vlan\0"), attribute(INFO_DATA, &data)].concat();
        let body = message(
            0,
            &[
                attribute(libc::IFLA_IFNAME, b"lan0.100\0"),
                attribute(4242, b"from a newer kernel"),
                attribute(libc::IFLA_LINK, &3_u32.to_ne_bytes()),
                attribute(libc::IFLA_LINKINFO | 0x8000, &info),
                attribute(libc::IFLA_ADDRESS, &[0, 0x1b, 0x21, 1, 2, 3]),
            ],
        );
        let link = Link::of(&body).unwrap();
        assert_eq!((link.index, link.name.as_str(), link.peer, link.up), (7, "lan0.100", Some(3), true));
        assert_eq!(link.vlan, Some(Vlan { id: 100, protocol: 0x88a8 }));
        assert!(link.is_ethernet() && link.address.unwrap().to_string() == "00:1b:21:01:02:03");
    }

    #[test]
    fn what_is_not_said_of_the_whole_interface_is_no_interface() {
        let name = attribute(libc::IFLA_IFNAME, b"lan0\0");
        assert!(Link::of(&message(0, std::slice::from_ref(&name))).is_some());
        assert_eq!(Link::of(&message(libc::AF_BRIDGE as u8, std::slice::from_ref(&name))), None);
        assert_eq!(Link::of(&message(0, &[name, attribute(libc::IFLA_WIRELESS, b"x")])), None);
        assert_eq!(Link::of(&message(0, &[])), None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reading(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            Link::of(&bytes);
            crate::host::Neighbour::of(&bytes);
            crate::host::Learned::of(&bytes);
        }
    }
}
