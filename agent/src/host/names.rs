//! What a host behind the gateway is called: by the policy's own list, else by the container's runtime or as the machine
//! that it is, else by its lease, else by the DNS.
//!
//! The card's address is what a name is kept by, so that a host that changes its address keeps its name; neighbours and
//! leases tell the card where a packet does not. All of it is bounded, and nothing here waits: what other threads have
//! found is handed in.

mod claims;
mod ports;
mod resolved;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use claims::Claims;

use super::lease::Lease;
use super::{Behind, BehindKind, Change, Mac, Neighbour, Reach};
use claims::Claimed;
use ports::Ports;
use resolved::Resolved;

/// How many neighbours are kept: far more than the kernel's own table has by default (`gc_thresh3`, 1024 a family).
const MOST_NEIGHBOURS: usize = 65_536;

/// A host that the policy names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its cards.
    pub macs: Vec<Mac>,
    /// Its addresses. With cards beside them, the name is that of a packet from one of them with one of these addresses.
    pub addresses: Vec<IpAddr>,
}

/// A host's name, and how it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostName {
    /// The name. All but a listed one, and those of containers and machines, is the host's own word.
    pub name: String,
    /// How it is known.
    pub source: Source,
}

impl HostName {
    /// The name for people, with how it is known, unless the policy's author has said it.
    #[must_use]
    pub fn shown(&self) -> String {
        match self.source {
            Source::Policy => self.name.clone(),
            Source::Container => format!("{} (container)", self.name),
            Source::Machine => format!("{} (virtual machine)", self.name),
            Source::Lease => format!("{} (lease)", self.name),
            Source::AddressLease => format!("{} (lease of the address)", self.name),
            Source::OtherCardsLease => format!("{} (another card's lease)", self.name),
            Source::ReverseDns => format!("{} (reverse DNS)", self.name),
        }
    }
}

/// How a name is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The policy's list.
    Policy,
    /// The runtime of a container on this host, whose interface the frame came by.
    Container,
    /// The emulator of a virtual machine on this host, whose interface the frame came by.
    Machine,
    /// The lease that the card has, or had.
    Lease,
    /// The lease of the address; the card is not known.
    AddressLease,
    /// The lease of the address, which is another card's: the host is behind a router, or has taken the address.
    OtherCardsLease,
    /// The name of the address in the DNS, whoever has it now.
    ReverseDns,
}

/// Names hosts.
#[derive(Debug, Default)]
pub struct Names {
    listed: Vec<Listed>,
    listed_macs: HashMap<Mac, Vec<usize>>,
    listed_addresses: HashMap<IpAddr, Vec<usize>>,
    leases: HashMap<IpAddr, Leased>,
    lease_names: HashMap<Mac, Leased>,
    neighbours: BTreeMap<(IpAddr, u32), Mac>,
    ports: Ports,
    resolved: Resolved,
    claimed: Claimed,
}

#[derive(Clone, Debug)]
struct Leased {
    mac: Option<Mac>,
    name: Option<String>,
    expires: Option<Timestamp>,
}

impl Names {
    /// Takes the list of a policy in the place of the one before.
    pub fn set_listed(&mut self, listed: Vec<Listed>) {
        self.listed_macs.clear();
        self.listed_addresses.clear();
        for (place, host) in listed.iter().enumerate() {
            for mac in &host.macs {
                self.listed_macs.entry(*mac).or_default().push(place);
            }
            for address in &host.addresses {
                self.listed_addresses.entry(*address).or_default().push(place);
            }
        }
        self.listed = listed;
    }

    /// Takes the leases of all files in the place of those before. How many they may be is the reader's matter
    /// ([`super::lease::MOST_LEASES`] a file).
    pub fn set_leases(&mut self, leases: Vec<Lease>) {
        self.leases.clear();
        self.lease_names.clear();
        for lease in leases {
            let Lease { address, mac, name, client_id: _, expires } = lease;
            let leased = Leased { mac, name, expires };
            if let Some(mac) = mac.filter(|_| leased.name.is_some()) {
                // A host may have been known by several names: that of the lease that lasts longest is its latest.
                let earlier = self.lease_names.get(&mac).is_some_and(|other| other.outlasts(&leased));
                if !earlier {
                    self.lease_names.insert(mac, leased.clone());
                }
            }
            self.leases.insert(address, leased);
        }
    }

    /// Takes what is behind this host's interfaces, by their indices, in the place of what was.
    pub fn set_guests(&mut self, guests: HashMap<u32, Behind>) {
        self.ports.set_guests(guests);
    }

    /// Takes what a resolver has said of an address: its name, or that there is none, until a time.
    pub fn set_resolved(&mut self, address: IpAddr, name: Option<String>, until: Timestamp, now: Timestamp) {
        self.resolved.set(address, name, until, now);
    }

    /// Forgets what resolvers have said.
    pub fn forget_resolved(&mut self) {
        self.resolved = Resolved::default();
    }

    /// Whether a resolver is to be asked for the name of an address: one of a LAN by its kind or by the kernel's knowledge,
    /// for hosts make up addresses; and not again before the time that its last answer was for.
    #[must_use]
    pub fn is_to_be_asked(&self, address: IpAddr, now: Timestamp) -> bool {
        let neighbour = || self.neighbours.range((address, 0)..=(address, u32::MAX)).next().is_some();
        (resolved::is_private(address) || neighbour()) && !self.resolved.knows(address, now)
    }

    /// Takes what the kernel tells of neighbours, of interfaces, and of the cards behind the ports of bridges.
    pub fn apply(&mut self, change: &Change, now: Timestamp) {
        self.ports.apply(change);
        match change {
            Change::Everything { neighbours, links: _, learned: _ } => {
                self.neighbours.clear();
                for neighbour in neighbours {
                    self.neighbour(neighbour, now);
                }
            }
            Change::Neighbour(neighbour) => self.neighbour(neighbour, now),
            Change::NeighbourGone(neighbour) => {
                self.neighbours.remove(&(neighbour.address, neighbour.interface));
            }
            Change::LinkGone(link) => self.neighbours.retain(|(_, interface), _| *interface != link.index),
            Change::Link(_) | Change::Learned(_) | Change::Forgotten(_) | Change::Lost => {}
        }
    }

    /// Notes that a packet came from a card with an address.
    pub fn saw(&mut self, mac: Mac, address: IpAddr, now: Timestamp) {
        self.claimed.note(mac, address, now);
    }

    /// The name of the host that a packet came from; the card's address where the packet had one, and the interface that it
    /// came by where that is known.
    #[must_use]
    pub fn name_of(
        &self,
        mac: Option<Mac>,
        address: IpAddr,
        interface: Option<&str>,
        now: Timestamp,
    ) -> Option<HostName> {
        let card = mac.or_else(|| self.mac_of(address, now));
        if let Some(listed) = self.listed(card, address) {
            return Some(HostName { name: listed.name.clone(), source: Source::Policy });
        }
        if let Some(guest) = self.guest(card, address, interface) {
            return Some(guest);
        }
        self.leased(card, address, now).or_else(|| {
            let name = self.resolved.name(address, now)?.to_owned();
            Some(HostName { name, source: Source::ReverseDns })
        })
    }

    /// What a lease says.
    fn leased(&self, card: Option<Mac>, address: IpAddr, now: Timestamp) -> Option<HostName> {
        let of_address = self.leases.get(&address).filter(|leased| leased.holds(now));
        let name = |leased: &Leased, source| leased.name.clone().map(|name| HostName { name, source });
        match (card, of_address) {
            (Some(card), Some(leased)) if leased.mac == Some(card) => {
                name(leased, Source::Lease).or_else(|| self.name_of_card(card))
            }
            (Some(card), Some(leased)) => {
                let source = if leased.mac.is_some() { Source::OtherCardsLease } else { Source::AddressLease };
                self.name_of_card(card).or_else(|| name(leased, source))
            }
            (Some(card), None) => self.name_of_card(card),
            (None, Some(leased)) => name(leased, Source::AddressLease),
            (None, None) => None,
        }
    }

    /// The card that has an address: as the kernel has found, else as a lease says.
    #[must_use]
    pub fn mac_of(&self, address: IpAddr, now: Timestamp) -> Option<Mac> {
        let found = self.neighbours.range((address, 0)..=(address, u32::MAX)).next().map(|(_, mac)| *mac);
        found.or_else(|| self.leases.get(&address).filter(|leased| leased.holds(now)).and_then(|leased| leased.mac))
    }

    /// The addresses that a card has lately been seen to use or to answer for. A router has many, a host one of IPv4 and a
    /// few of IPv6: more are evidence, not proof, that a host makes them up.
    #[must_use]
    pub fn addresses_of(&self, mac: Mac, now: Timestamp) -> Claims {
        self.claimed.of(mac, now)
    }

    fn neighbour(&mut self, neighbour: &Neighbour, now: Timestamp) {
        let key = (neighbour.address, neighbour.interface);
        match neighbour.mac.filter(|_| neighbour.reach != Reach::Unanswered) {
            Some(mac) => {
                if self.neighbours.len() < MOST_NEIGHBOURS || self.neighbours.contains_key(&key) {
                    self.neighbours.insert(key, mac);
                }
                self.claimed.note(mac, neighbour.address, now);
            }
            None => {
                self.neighbours.remove(&key);
            }
        }
    }

    /// The listed host of a card and an address: both where the list has both, else the one that it has.
    fn listed(&self, card: Option<Mac>, address: IpAddr) -> Option<&Listed> {
        let of_card = card.and_then(|card| self.listed_macs.get(&card)).into_iter().flatten();
        let of_address = self.listed_addresses.get(&address).into_iter().flatten();
        of_card.chain(of_address).filter_map(|place| self.listed.get(*place)).find(|host| {
            let by_card = host.macs.is_empty() || card.is_some_and(|card| host.macs.contains(&card));
            by_card && (host.addresses.is_empty() || host.addresses.contains(&address))
        })
    }

    /// The container or the machine that a packet came from.
    fn guest(&self, card: Option<Mac>, address: IpAddr, interface: Option<&str>) -> Option<HostName> {
        let of_address = || Some(self.neighbours.range((address, 0)..=(address, u32::MAX)).next()?.0.1);
        let interface = interface.map_or_else(of_address, |name| self.ports.index(name));
        let behind = self.ports.guest(interface, card)?;
        let source = match behind.kind {
            BehindKind::Container => Source::Container,
            BehindKind::Machine => Source::Machine,
            // A VPN's other side is many hosts.
            BehindKind::Program => return None,
        };
        Some(HostName { name: behind.name.clone(), source })
    }

    fn name_of_card(&self, card: Mac) -> Option<HostName> {
        let name = self.lease_names.get(&card)?.name.clone()?;
        Some(HostName { name, source: Source::Lease })
    }
}

impl Leased {
    fn holds(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| expires > now)
    }

    fn outlasts(&self, other: &Self) -> bool {
        match (self.expires, other.expires) {
            (Some(this), Some(other)) => this > other,
            (None, Some(_)) => true,
            (Some(_) | None, None) => false,
        }
    }
}

#[cfg(test)]
mod tests;
