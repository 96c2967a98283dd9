//! Names over leases, neighbours and the policy's list that are made up.

use jiff::ToSpan as _;
use proptest::prelude::*;

use super::claims::{MOST_ADDRESSES, MOST_CARDS};
use super::*;
use crate::host::Link;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A card of a number.
fn card(number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    Mac([0, 0x1b, a, b, c, d])
}

fn now() -> Timestamp {
    "2026-11-25T12:00:00Z".parse().unwrap()
}

fn lease(address: &str, mac: Option<Mac>, name: &str, hours: i64) -> Lease {
    let name = Some(name.to_owned()).filter(|name| !name.is_empty());
    Lease { address: ip(address), mac, name, client_id: None, expires: Some(now() + hours.hours()) }
}

fn neighbour(address: &str, interface: u32, mac: Option<Mac>, reach: Reach) -> Neighbour {
    Neighbour { address: ip(address), interface, mac, reach }
}

fn name(names: &Names, mac: Option<Mac>, address: &str) -> Option<(String, Source)> {
    names.name_of(mac, ip(address), now()).map(|found| (found.name, found.source))
}

fn is(name: &str, source: Source) -> Option<(String, Source)> {
    Some((name.to_owned(), source))
}

#[test]
fn the_list_is_before_the_lease_and_both_of_its_keys_must_fit() {
    let mut names = Names::default();
    names.set_leases(vec![lease("10.0.0.5", Some(card(5)), "liar", 1)]);
    names.set_listed(vec![
        Listed { name: "mail".into(), macs: vec![card(5)], addresses: vec![ip("10.0.0.5")] },
        Listed { name: "printer".into(), macs: vec![card(6)], addresses: vec![] },
        Listed { name: "scanner".into(), macs: vec![], addresses: vec![ip("10.0.0.7")] },
        Listed { name: "mail, elsewhere".into(), macs: vec![card(5)], addresses: vec![] },
    ]);
    assert_eq!(name(&names, Some(card(5)), "10.0.0.5"), is("mail", Source::Policy));
    assert_eq!(name(&names, Some(card(5)), "10.0.0.99"), is("mail, elsewhere", Source::Policy));
    assert_eq!(
        name(&names, Some(card(66)), "10.0.0.5"),
        is("liar", Source::OtherCardsLease),
        "an address is soon taken"
    );
    assert_eq!(name(&names, Some(card(6)), "10.9.9.9"), is("printer", Source::Policy));
    assert_eq!(name(&names, Some(card(66)), "10.0.0.7"), is("scanner", Source::Policy));
    names.set_listed(Vec::new());
    assert_eq!(name(&names, Some(card(5)), "10.0.0.5"), is("liar", Source::Lease));
}

#[test]
fn a_host_that_changes_its_address_keeps_its_name() {
    let mut names = Names::default();
    names.set_leases(vec![lease("10.0.0.5", Some(card(5)), "desk-7", -1), lease("10.0.0.6", Some(card(6)), "", 1)]);
    // Its lease is over, its address its own choice, or of IPv6 and made by itself.
    for address in ["10.0.0.5", "10.0.0.200", "2001:db8::5"] {
        assert_eq!(name(&names, Some(card(5)), address), is("desk-7", Source::Lease), "{address}");
    }
    assert_eq!(name(&names, None, "10.0.0.5"), None, "the address may be anybody's by now");
    // Another host gets the address: the old name is not the new host's.
    names
        .set_leases(vec![lease("10.0.0.5", Some(card(7)), "tablet", 1), lease("10.0.0.8", Some(card(5)), "desk-7", 1)]);
    assert_eq!(name(&names, Some(card(7)), "10.0.0.5"), is("tablet", Source::Lease));
    assert_eq!(name(&names, Some(card(5)), "10.0.0.5"), is("desk-7", Source::Lease));
    // Two leases of one card: the one that lasts longer has its name of today, whatever the order.
    for order in [[2, 1], [1, 2]] {
        let both = order.map(|hours| lease(&format!("10.0.0.{hours}"), Some(card(9)), &format!("name-{hours}"), hours));
        names.set_leases(both.into());
        assert_eq!(name(&names, Some(card(9)), "10.7.7.7"), is("name-2", Source::Lease));
    }
}

#[test]
fn neighbours_tell_the_card_and_leases_where_they_do_not() {
    let mut names = Names::default();
    names.set_leases(vec![lease("10.0.0.5", Some(card(5)), "desk-7", 1), lease("2001:db8::9", None, "by-duid", 1)]);
    assert_eq!(names.mac_of(ip("10.0.0.5"), now()), Some(card(5)));
    let neighbours = vec![
        neighbour("10.0.0.5", 2, Some(card(6)), Reach::Reachable),
        neighbour("2001:db8::5", 2, Some(card(5)), Reach::Stale),
        neighbour("10.0.0.77", 2, Some(card(7)), Reach::Unanswered),
    ];
    names.apply(&Change::Everything { links: Vec::new(), neighbours }, now());
    assert_eq!(names.mac_of(ip("10.0.0.5"), now()), Some(card(6)), "what the kernel has found is newer");
    assert_eq!(name(&names, None, "2001:db8::5"), is("desk-7", Source::Lease));
    assert_eq!(name(&names, None, "2001:db8::9"), is("by-duid", Source::AddressLease));
    assert_eq!(name(&names, Some(card(9)), "2001:db8::9"), is("by-duid", Source::AddressLease));
    assert_eq!(names.mac_of(ip("10.0.0.77"), now()), None);

    names.apply(&Change::NeighbourGone(neighbour("10.0.0.5", 2, None, Reach::Unanswered)), now());
    assert_eq!(names.mac_of(ip("10.0.0.5"), now()), Some(card(5)));
    names.apply(&Change::Neighbour(neighbour("10.0.0.8", 3, Some(card(8)), Reach::Reachable)), now());
    names.apply(&Change::Neighbour(neighbour("10.0.0.8", 3, Some(card(8)), Reach::Unanswered)), now());
    assert_eq!(names.mac_of(ip("10.0.0.8"), now()), None);
    let link = Link {
        index: 2,
        name: "lan0".into(),
        kind: None,
        hardware: 1,
        master: None,
        peer: None,
        peer_netns: None,
        vlan: None,
        address: None,
        up: false,
    };
    names.apply(&Change::LinkGone(link), now());
    assert_eq!(names.mac_of(ip("2001:db8::5"), now()), None);
}

#[test]
fn a_card_with_many_addresses_is_told_from_one_that_moves() {
    let mut names = Names::default();
    let mut at = now();
    for day in 0..40 {
        at = now() + (24 * day).hours();
        names.saw(card(1), ip(&format!("10.0.0.{day}")), at);
    }
    assert_eq!(names.addresses_of(card(1), at), Claims { v4: 1, v6: 0, more: false, addresses: vec![ip("10.0.0.39")] });
    for last in 0..5 {
        names.saw(card(2), ip(&format!("10.0.1.{last}")), at);
        names.saw(card(2), ip("10.0.1.0"), at);
    }
    for address in ["fe80::1", "2001:db8::1", "0.0.0.0", "ff02::1"] {
        names.saw(card(2), ip(address), at);
    }
    let claims = names.addresses_of(card(2), at);
    assert_eq!((claims.v4, claims.v6, claims.more), (5, 1, false));
    for last in 0..=MOST_ADDRESSES {
        names.saw(card(3), ip(&format!("10.0.2.{last}")), at);
    }
    let claims = names.addresses_of(card(3), at);
    assert_eq!((claims.v4, claims.more), (MOST_ADDRESSES, true));
    assert_eq!(names.addresses_of(card(3), at + 2.hours()), Claims::default());
    assert_eq!(names.addresses_of(card(4), at), Claims::default());
}

#[test]
fn a_flood_of_cards_and_neighbours_is_bounded_and_forgets_the_oldest() {
    let mut names = Names::default();
    for number in 0..3 * MOST_CARDS as u32 {
        names.saw(card(number), ip("10.0.0.1"), now() + i64::from(number).milliseconds());
    }
    let cards = names.claimed.cards();
    assert!((MOST_CARDS / 2..=MOST_CARDS).contains(&cards), "{cards}");
    let last = 3 * MOST_CARDS as u32 - 1;
    assert_eq!(names.addresses_of(card(last), now()).v4, 1);
    assert_eq!(names.addresses_of(card(0), now()).v4, 0);
    for number in 0..MOST_NEIGHBOURS as u32 + 10 {
        let address = IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number));
        let entry = Neighbour { address, interface: 2, mac: Some(card(1)), reach: Reach::Reachable };
        names.apply(&Change::Neighbour(entry), now());
    }
    assert_eq!(names.neighbours.len(), MOST_NEIGHBOURS);
}

proptest! {
    #[test]
    fn claims_are_bounded_whatever_comes(seen in proptest::collection::vec((0_u32..4, any::<u8>(), 0_i64..7200), 0..400)) {
        let mut names = Names::default();
        let mut at = now();
        for (number, last, step) in seen {
            at += step.seconds();
            names.saw(card(number), ip(&format!("10.0.0.{last}")), at);
            let claims = names.addresses_of(card(number), at);
            prop_assert!(claims.addresses.len() <= MOST_ADDRESSES);
            let newest = ip(&format!("10.0.0.{last}"));
            prop_assert_eq!(claims.addresses.last(), Some(&newest));
        }
    }
}
