//! What resolvers have said of addresses, for the time that they have said it for.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;

/// How many addresses are remembered: more than the 10,000 hosts that a gateway is made for.
pub(super) const MOST_RESOLVED: usize = 16_384;

/// The names of addresses; those that have none are remembered as well.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    said: HashMap<IpAddr, (Option<String>, Timestamp)>,
}

impl Resolved {
    pub(super) fn set(&mut self, address: IpAddr, name: Option<String>, until: Timestamp, now: Timestamp) {
        if self.said.len() >= MOST_RESOLVED && !self.said.contains_key(&address) {
            self.make_room(now);
        }
        self.said.insert(address, (name, until));
    }

    /// Whether there is an answer, that there is no name included.
    pub(super) fn knows(&self, address: IpAddr, now: Timestamp) -> bool {
        self.said.get(&address).is_some_and(|(_, until)| *until > now)
    }

    pub(super) fn name(&self, address: IpAddr, now: Timestamp) -> Option<&str> {
        let (name, until) = self.said.get(&address)?;
        name.as_deref().filter(|_| *until > now)
    }

    /// Forgets what holds no more, and at least half of all: that which would hold the shortest.
    fn make_room(&mut self, now: Timestamp) {
        let mut times: Vec<Timestamp> = self.said.values().map(|(_, until)| *until).collect();
        let half = times.len() / 2;
        let (_, middle, _) = times.select_nth_unstable(half);
        let bound = (*middle).max(now);
        self.said.retain(|_, (_, until)| *until > bound);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.said.len()
    }
}

/// Whether an address is of a kind that no public resolver knows: RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291 §2.5.6.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || is_shared(v4),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// 100.64.0.0/10, RFC 6598.
fn is_shared(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 100 && second & 0xc0 == 64
}
