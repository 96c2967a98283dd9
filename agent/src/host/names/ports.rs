//! Which container or machine of this host a card belongs to: by the interface that it is behind, or the bridge's port.

use std::collections::{BTreeMap, HashMap};

use crate::host::{Behind, Change, Learned, Link, Mac};

/// How many learned cards are kept: as many as neighbours.
pub(super) const MOST_CARDS_BEHIND: usize = 65_536;
/// How many VLANs may lie upon each other: two tags are the most that is judged.
const DEEPEST: usize = 4;

/// This host's interfaces, the cards that its bridges have learned, and what is behind which interface.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// The index of each interface, by its name.
    indices: HashMap<String, u32>,
    /// What each VLAN lies upon.
    below: HashMap<u32, u32>,
    /// The port that a bridge has learned a card behind, by the card and the bridge.
    learned: BTreeMap<(Mac, u32), u32>,
    guests: HashMap<u32, Behind>,
}

impl Ports {
    pub(super) fn set_guests(&mut self, guests: HashMap<u32, Behind>) {
        self.guests = guests;
    }

    /// Takes what the kernel tells.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Everything { links, learned, neighbours: _ } => {
                self.indices.clear();
                self.below.clear();
                self.learned.clear();
                links.iter().for_each(|link| self.link(link));
                learned.iter().for_each(|learned| self.learn(learned));
            }
            Change::Link(link) => {
                self.forget(link.index);
                self.link(link);
            }
            Change::LinkGone(link) => {
                self.forget(link.index);
                // Its index may be another's by the time that anybody looks again.
                self.guests.remove(&link.index);
                self.learned.retain(|(_, bridge), port| *bridge != link.index && *port != link.index);
            }
            Change::Learned(learned) => self.learn(learned),
            Change::Forgotten(Learned { mac, port, bridge }) => {
                if self.learned.get(&(*mac, *bridge)) == Some(port) {
                    self.learned.remove(&(*mac, *bridge));
                }
            }
            Change::Neighbour(_) | Change::NeighbourGone(_) | Change::Lost => {}
        }
    }

    /// The index of an interface.
    pub(super) fn index(&self, name: &str) -> Option<u32> {
        self.indices.get(name).copied()
    }

    /// What a card is behind: by the interface that its frame came by, where that is known, else by what any bridge has
    /// learned.
    pub(super) fn guest(&self, interface: Option<u32>, card: Option<Mac>) -> Option<&Behind> {
        let Some(mut interface) = interface else {
            let card = card?;
            let mut ports = self.learned.range((card, 0)..=(card, u32::MAX)).map(|(_, port)| port);
            return ports.find_map(|port| self.guests.get(port));
        };
        for _ in 0..DEEPEST {
            if let Some(behind) = self.guests.get(&interface) {
                return Some(behind);
            }
            if let Some(port) = card.and_then(|card| self.learned.get(&(card, interface))) {
                return self.guests.get(port);
            }
            interface = *self.below.get(&interface)?;
        }
        None
    }

    fn link(&mut self, link: &Link) {
        self.indices.insert(link.name.clone(), link.index);
        if let Some(below) = link.peer.filter(|_| link.vlan.is_some()) {
            self.below.insert(link.index, below);
        }
    }

    fn forget(&mut self, index: u32) {
        self.indices.retain(|_, known| *known != index);
        self.below.remove(&index);
    }

    fn learn(&mut self, learned: &Learned) {
        let key = (learned.mac, learned.bridge);
        if self.learned.len() < MOST_CARDS_BEHIND || self.learned.contains_key(&key) {
            self.learned.insert(key, learned.port);
        }
    }

    #[cfg(test)]
    pub(super) fn cards(&self) -> usize {
        self.learned.len()
    }
}
