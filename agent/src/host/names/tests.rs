//! Names over leases, neighbours and the policy's list that are made up.

use jiff::ToSpan as _;
use proptest::prelude::*;

use super::claims::{MOST_ADDRESSES, MOST_CARDS};
use super::ports::MOST_CARDS_BEHIND;
use super::resolved::MOST_RESOLVED;
use super::*;
use crate::host::{Learned, Link, Vlan};

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

fn link(index: u32, name: &str, kind: &str) -> Link {
    Link {
        index,
        name: name.into(),
        kind: Some(kind.into()),
        hardware: 1,
        master: None,
        peer: None,
        peer_netns: None,
        vlan: None,
        address: None,
        up: false,
    }
}

fn name(names: &Names, mac: Option<Mac>, address: &str) -> Option<(String, Source)> {
    names.name_of(mac, ip(address), None, now()).map(|found| (found.name, found.source))
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
    names.apply(&Change::Everything { links: Vec::new(), neighbours, learned: Vec::new() }, now());
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
    names.apply(&Change::LinkGone(link(2, "lan0", "veth")), now());
    assert_eq!(names.mac_of(ip("2001:db8::5"), now()), None);
}

#[test]
fn what_the_dns_says_comes_last_and_is_forgotten() {
    let mut names = Names::default();
    let (later, address) = (now() + 2.hours(), ip("10.0.0.5"));
    assert!(names.is_to_be_asked(address, now()));
    names.set_resolved(address, Some("desk.example".into()), now() + 1.hours(), now());
    names.set_resolved(ip("10.0.0.6"), None, now() + 1.hours(), now());
    assert_eq!(name(&names, Some(card(5)), "10.0.0.5"), is("desk.example", Source::ReverseDns));
    assert_eq!(name(&names, Some(card(6)), "10.0.0.6"), None);
    assert!(!names.is_to_be_asked(address, now()) && !names.is_to_be_asked(ip("10.0.0.6"), now()), "known for now");
    assert!(names.is_to_be_asked(address, later) && names.is_to_be_asked(ip("10.0.0.6"), later));
    assert_eq!(names.name_of(None, address, None, later), None);
    names.set_leases(vec![lease("10.0.0.5", Some(card(5)), "desk-5", 1)]);
    assert_eq!(name(&names, Some(card(5)), "10.0.0.5"), is("desk-5", Source::Lease));
    // Public addresses only where the kernel has met them, for a host can make up any.
    assert!(!names.is_to_be_asked(ip("2001:db8::5"), now()) && !names.is_to_be_asked(ip("203.0.113.9"), now()));
    names.apply(&Change::Neighbour(neighbour("2001:db8::5", 2, Some(card(5)), Reach::Reachable)), now());
    assert!(names.is_to_be_asked(ip("2001:db8::5"), now()) && names.is_to_be_asked(ip("fd00::5"), now()));
}

#[test]
fn a_flood_of_answers_is_bounded() {
    let mut names = Names::default();
    for number in 0..2 * MOST_RESOLVED as u32 {
        let address = IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number));
        names.set_resolved(address, None, now() + i64::from(number + 1).seconds(), now());
        assert!(names.resolved.len() <= MOST_RESOLVED);
    }
    let last = std::net::Ipv4Addr::from_bits(0x0a00_0000 + 2 * MOST_RESOLVED as u32 - 1);
    assert!(!names.is_to_be_asked(last.into(), now()), "the newest is kept");
}

/// A gateway with a bridge of two ports, a VLAN upon the bridge, and a veth that is no port.
fn with_guests() -> Names {
    let mut names = Names::default();
    let vlan = Link { peer: Some(2), vlan: Some(Vlan { id: 30, protocol: 0x8100 }), ..link(5, "docker0.30", "vlan") };
    let links = vec![
        link(2, "docker0", "bridge"),
        link(3, "veth3", "veth"),
        link(4, "vnet4", "tun"),
        vlan,
        link(6, "veth6", "veth"),
        link(8, "eth8", "veth"),
    ];
    let learned = vec![Learned { mac: card(3), port: 3, bridge: 2 }, Learned { mac: card(4), port: 4, bridge: 2 }];
    names.apply(&Change::Everything { links, neighbours: Vec::new(), learned }, now());
    let behind = |kind, name: &str| Behind { kind, name: name.into(), runtime: None, pid: 1 };
    names.set_guests(HashMap::from([
        (3, behind(BehindKind::Container, "web")),
        (4, behind(BehindKind::Machine, "win10")),
        (6, behind(BehindKind::Container, "db")),
        (7, behind(BehindKind::Program, "openvpn")),
    ]));
    names
}

#[test]
fn containers_and_machines_are_named_by_the_port_that_their_card_is_behind() {
    let mut names = with_guests();
    names.set_leases(vec![lease("10.0.0.3", Some(card(3)), "liar", 1)]);
    let at = |names: &Names, mac: u32, interface: Option<&str>| {
        let found = names.name_of(Some(card(mac)), ip("10.0.0.3"), interface, now());
        found.map(|found| (found.name, found.source))
    };
    assert_eq!(at(&names, 3, Some("docker0")), is("web", Source::Container));
    assert_eq!(at(&names, 4, Some("docker0")), is("win10", Source::Machine));
    assert_eq!(at(&names, 3, Some("docker0.30")), is("web", Source::Container), "upon the bridge");
    assert_eq!(at(&names, 9, Some("veth6")), is("db", Source::Container), "the interface itself");
    assert_eq!(at(&names, 3, None), is("web", Source::Container), "by the card alone");
    assert_eq!(at(&names, 9, Some("docker0")), is("liar", Source::OtherCardsLease), "not learned");
    assert_eq!(at(&names, 3, Some("eth8")), is("liar", Source::Lease), "another interface");
    // The card of a neighbour is behind a port as well.
    names.apply(&Change::Neighbour(neighbour("10.0.0.4", 2, Some(card(4)), Reach::Stale)), now());
    assert_eq!(name(&names, None, "10.0.0.4"), is("win10", Source::Machine));
    names.set_listed(vec![Listed { name: "shop".into(), macs: vec![card(3)], addresses: vec![] }]);
    assert_eq!(at(&names, 3, Some("docker0")), is("shop", Source::Policy));
}

#[test]
fn what_has_gone_or_moved_names_nothing() {
    let mut names = with_guests();
    let at = |names: &Names, mac: u32| names.name_of(Some(card(mac)), ip("10.0.0.3"), Some("docker0"), now());
    names.apply(&Change::Learned(Learned { mac: card(3), port: 4, bridge: 2 }), now());
    assert_eq!(at(&names, 3).unwrap().name, "win10", "the card has moved");
    // The old port's entry, told late.
    names.apply(&Change::Forgotten(Learned { mac: card(3), port: 3, bridge: 2 }), now());
    assert_eq!(at(&names, 3).unwrap().name, "win10");
    names.apply(&Change::LinkGone(link(4, "vnet4", "tun")), now());
    assert_eq!((at(&names, 3), at(&names, 4)), (None, None));
    for number in 0..MOST_CARDS_BEHIND as u32 + 10 {
        names.apply(&Change::Learned(Learned { mac: card(number), port: 3, bridge: 2 }), now());
    }
    assert_eq!(names.ports.cards(), MOST_CARDS_BEHIND);
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
