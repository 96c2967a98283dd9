use std::net::IpAddr;

use super::*;

fn key(address: &str, prefix: u16) -> LanSource {
    let address = match address.parse::<IpAddr>().unwrap() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mac = if prefix & !LAN_BESIDE == 128 { [2; 6] } else { [0; 6] };
    LanSource { address: address.octets(), interface: 1, vlan: 7, mac, prefix }
}

fn count(number: u64, last: u64) -> SubjectCount {
    SubjectCount { verdicts: [0, number, 0, 0], first: 1, last }
}

fn there() -> Interfaces {
    Interfaces(Some(BTreeSet::from([1])))
}

#[test]
fn a_source_goes_to_its_network_and_a_network_to_all() {
    assert_eq!(network(&key("10.9.8.7", 128), true), key("10.9.8.0", 120));
    assert_eq!(network(&key("fd00:1:2:3:4:5:6:7", 128), true), key("fd00:1:2:3::", 64));
    assert_eq!(network(&key("10.9.8.0", 120), true), key("10.9.8.0", 120));
    assert_eq!(network(&key("10.9.8.7", 128), false), LanSource { interface: 0, ..key("10.9.8.0", 120) });
    for (one, every) in [("10.9.8.0", "0.0.0.0"), ("fd00:1:2:3::", "::")] {
        let v4 = one.contains('.');
        let all = all(&key(one, if v4 { 120 } else { 64 }));
        assert_eq!(all, LanSource { interface: 0, vlan: 0, ..key(every, if v4 { 96 } else { 0 }) });
        assert!(is_all(&all) && !is_host(&all));
    }
}

#[test]
fn the_oldest_go_first_and_an_entry_never_with_the_one_beside_it() {
    let beside = |address: &str| key(address, 128 | LAN_BESIDE);
    let counted = Counts::from([
        (key("10.0.0.1", 128), count(1, 50)),
        (beside("10.0.0.1"), count(1, 40)),
        (key("10.0.0.2", 128), count(1, 30)),
        (key("10.0.0.3", 128), count(1, 100)),
        (beside("10.0.0.3"), count(1, 20)),
        (beside("10.0.0.4"), count(1, 10)),
        (LanSource { interface: u32::MAX, ..key("10.0.0.5", 128) }, count(1, 200)),
    ]);
    let (leaving, more) = oldest(&counted, 100, &there());
    let expected = [
        beside("10.0.0.4"),
        beside("10.0.0.3"),
        key("10.0.0.2", 128),
        key("10.0.0.1", 128),
        LanSource { interface: u32::MAX, ..key("10.0.0.5", 128) },
    ];
    assert_eq!((leaving.as_slice(), more), (expected.as_slice(), false));
    let many = (0..2000_u32).map(|number| {
        let source = LanSource { vlan: number, ..key("10.0.0.1", 128) };
        (source, count(1, u64::from(number)))
    });
    let (leaving, more) = oldest(&many.collect(), 1500, &there());
    assert!(more && leaving.iter().map(|key| key.vlan).eq(0..LAN_LEAVING), "{}", leaving.len());
}

#[test]
fn what_finds_no_room_is_counted_with_all() {
    let full: Counts = (0..ROOM as u32).map(|vlan| (LanSource { vlan, ..key("10.0.0.0", 120) }, count(1, 1))).collect();
    let (known, new) = (LanSource { vlan: 5, ..key("10.0.0.0", 120) }, key("10.1.0.0", 120));
    assert_eq!((room(&full, known), room(&full, new)), (known, all(&new)));
    assert_eq!(room(&Counts::new(), new), new);
}

#[test]
fn a_move_that_another_layouts_agent_has_not_finished_counts_once() {
    let (host, network) = (key("10.9.8.7", 128), key("10.9.8.0", 120));
    let before = Counts::from([(network, count(3, 1))]);
    let counted = Counts::from([(host, count(4, 2)), (key("10.9.8.7", 128 | LAN_BESIDE), count(1, 3))]);
    let moved = LanMove { of: MOVE_COUNTED, _pad: 0, from: host, to: network, sum: count(7, 2) };
    // Killed before the sum was written, before the entry was deleted, and after that.
    let after = Counts::from([(network, count(7, 2))]);
    let mut rest = counted.clone();
    rest.remove(&host);
    for (counted, kept) in [(counted.clone(), before.clone()), (counted.clone(), after.clone()), (rest, after)] {
        let settled = settled(counted, kept, &moved);
        assert_eq!(settled, Counts::from([(network, count(7, 2)), (host, count(1, 3))]));
    }
    let none = settled(counted, before, &LanMove::default());
    assert_eq!(none, Counts::from([(network, count(3, 1)), (host, count(5, 3))]));
}
