//! Which addresses each card has been seen with.

use std::collections::HashMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::host::Mac;

/// How many cards are remembered: more than the 10,000 hosts that a gateway is made for. A host that makes up addresses of
/// cards drives out the cards that were not seen for longest.
pub(super) const MOST_CARDS: usize = 16_384;
/// How many addresses of a card are remembered; about 1 KiB.
pub(super) const MOST_ADDRESSES: usize = 32;
/// How long an address counts after it was last seen: a host that gets another one every day has one.
const LATELY: SignedDuration = SignedDuration::from_hours(1);

/// The addresses that a card has lately been seen with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// How many of IPv4.
    pub v4: usize,
    /// How many of IPv6, those of the link alone (`fe80::`) not counted: each interface has one.
    pub v6: usize,
    /// Whether there were more than are remembered.
    pub more: bool,
    /// The addresses, those seen last at the end.
    pub addresses: Vec<IpAddr>,
}

#[derive(Debug, Default)]
pub(super) struct Claimed {
    cards: HashMap<Mac, Card>,
}

#[derive(Debug, Default)]
struct Card {
    /// The one seen last at the end.
    seen: Vec<(IpAddr, Timestamp)>,
    /// When an address that was still counted had to go for another.
    overflowed: Option<Timestamp>,
}

impl Claimed {
    pub(super) fn note(&mut self, mac: Mac, address: IpAddr, now: Timestamp) {
        let local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        if local || address.is_unspecified() || address.is_multicast() || mac.is_multicast() {
            return;
        }
        if self.cards.len() >= MOST_CARDS && !self.cards.contains_key(&mac) {
            self.forget();
        }
        let card = self.cards.entry(mac).or_default();
        card.seen.retain(|(known, when)| *known != address && is_recent(*when, now));
        if card.seen.len() >= MOST_ADDRESSES {
            card.seen.remove(0);
            card.overflowed = Some(now);
        }
        card.seen.push((address, now));
    }

    pub(super) fn of(&self, mac: Mac, now: Timestamp) -> Claims {
        let Some(card) = self.cards.get(&mac) else { return Claims::default() };
        let recent = card.seen.iter().filter(|(_, when)| is_recent(*when, now)).map(|(address, _)| *address);
        let addresses: Vec<IpAddr> = recent.collect();
        let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
        let more = card.overflowed.is_some_and(|when| is_recent(when, now));
        Claims { v4, v6: addresses.len() - v4, more, addresses }
    }

    /// Forgets the half of the cards that was seen longest ago, so that one in many thousand pays for it.
    fn forget(&mut self) {
        let last = |card: &Card| card.seen.last().map_or(Timestamp::MIN, |(_, when)| *when);
        let mut times: Vec<Timestamp> = self.cards.values().map(last).collect();
        let half = times.len() / 2;
        let (_, middle, _) = times.select_nth_unstable(half);
        let middle = *middle;
        let mut spare = half;
        // Of those seen at the same time, as many as must go.
        self.cards.retain(|_, card| {
            let goes = spare > 0 && last(card) <= middle;
            spare -= usize::from(goes);
            !goes
        });
    }

    #[cfg(test)]
    pub(super) fn cards(&self) -> usize {
        self.cards.len()
    }
}

fn is_recent(when: Timestamp, now: Timestamp) -> bool {
    now.duration_since(when) < LATELY
}
