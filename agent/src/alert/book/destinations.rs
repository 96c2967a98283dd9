//! How often an alert's subject went where, in bounded room.

use std::net::SocketAddr;

use crate::alert::{DESTINATIONS, Destination};

/// Counters for the destinations met most, after Metwally, Agrawal & El Abbadi 2005 (space-saving): a destination without
/// a counter takes over the smallest, and its rank with it, so that one that is tried often cannot be pushed out by many
/// that are tried once. What is shown is only what was counted for the destination itself.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    counters: Vec<Counter>,
}

#[derive(Debug)]
struct Counter {
    to: SocketAddr,
    /// By which counters are ranked.
    rank: u64,
    /// Attempts since it has the counter.
    attempts: u64,
}

impl Destinations {
    /// Counts an attempt.
    pub(super) fn count(&mut self, to: SocketAddr) {
        if let Some(counter) = self.counters.iter_mut().find(|counter| counter.to == to) {
            counter.rank += 1;
            counter.attempts += 1;
        } else if self.counters.len() < DESTINATIONS {
            self.counters.push(Counter { to, rank: 1, attempts: 1 });
        } else if let Some(least) = self.counters.iter_mut().min_by_key(|counter| counter.rank) {
            *least = Counter { to, rank: least.rank + 1, attempts: 1 };
        }
    }

    /// The destinations, the one tried most first.
    pub(super) fn list(&self) -> Vec<Destination> {
        let mut sorted: Vec<&Counter> = self.counters.iter().collect();
        sorted.sort_by_key(|counter| (std::cmp::Reverse(counter.attempts), counter.to));
        sorted.into_iter().map(|c| Destination { to: c.to.to_string(), attempts: c.attempts }).collect()
    }

    /// How many attempts are in the list.
    pub(super) fn listed(&self) -> u64 {
        self.counters.iter().map(|counter| counter.attempts).sum()
    }

    /// Counters that go on from a list.
    pub(super) fn from_list(list: &[Destination]) -> Self {
        let counter = |d: &Destination| {
            let to = d.to.parse().ok()?;
            Some(Counter { to, rank: d.attempts, attempts: d.attempts })
        };
        Self { counters: list.iter().filter_map(counter).take(DESTINATIONS).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(n: u32) -> SocketAddr {
        SocketAddr::new(std::net::Ipv4Addr::from_bits(n).into(), 25)
    }

    #[test]
    fn one_that_is_tried_often_is_not_pushed_out_by_many_tried_once() {
        let mut destinations = Destinations::default();
        for n in 0..100_000 {
            destinations.count(to(0x0a00_0000 + n));
            if n % 50 == 0 {
                destinations.count(to(7));
            }
        }
        let list = destinations.list();
        assert_eq!(list.len(), DESTINATIONS);
        assert_eq!(list[0].to, "0.0.0.7:25");
        // It may have lost its counter at the beginning, when it was one of many.
        assert!(list[0].attempts > 1900, "{}", list[0].attempts);
        assert!(destinations.listed() <= 102_000);
    }

    #[test]
    fn few_destinations_are_counted_exactly_over_a_restart_too() {
        let mut whole = Destinations::default();
        let mut split = Destinations::default();
        for n in 0..1000 {
            whole.count(to(n % 60));
            split.count(to(n % 60));
            if n == 500 {
                split = Destinations::from_list(&split.list());
            }
        }
        assert_eq!(whole.list(), split.list());
        assert_eq!(whole.listed(), 1000);
    }
}
