//! Interfaces and neighbours of a network namespace of the test's own.

use std::process::Command;
use std::sync::mpsc::sync_channel;

use super::*;
use crate::host::testing::{in_own_network, ip};
use crate::host::{Mac, Reach};

/// Waits for a change.
fn wait<T>(changes: &mut Changes, wanted: impl Fn(&Change) -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        let news = changes.next(Duration::from_millis(200)).unwrap();
        if let Some(found) = news.iter().find_map(&wanted) {
            return found;
        }
    }
    panic!("no such change");
}

fn link(name: &str) -> impl Fn(&Change) -> Option<Link> {
    move |change| {
        if let Change::Link(link) = change { Some(link.clone()).filter(|link| link.name == name) } else { None }
    }
}

#[test]
fn interfaces_are_followed_from_their_beginning_to_their_end() {
    in_own_network(|| {
        let mut changes = Changes::listen().unwrap();
        ip("link add lan0 address 02:00:00:00:00:01 type veth peer name far0");
        ip("link add br0 type bridge");
        let made = wait(&mut changes, link("lan0"));
        assert_eq!((made.kind.as_deref(), made.is_ethernet(), made.up), (Some("veth"), true, false));
        assert_eq!(made.address, "02:00:00:00:00:01".parse::<Mac>().ok());
        ip("link set lan0 master br0");
        let all = links().unwrap();
        let index = |name: &str| all.iter().find(|link| link.name == name).unwrap().index;
        wait(&mut changes, |change| link("lan0")(change).filter(|link| link.master == Some(index("br0"))));
        assert_eq!(all.iter().find(|link| link.name == "lan0").unwrap().peer, Some(index("far0")));
        // A port that leaves its bridge is still there, though the bridge says that it is gone.
        ip("link set lan0 nomaster");
        let freed = |change: &Change| {
            assert!(!matches!(change, Change::LinkGone(_)), "{change:?}");
            link("lan0")(change).filter(|link| link.master.is_none())
        };
        wait(&mut changes, freed);
        ip("link set lan0 name office");
        wait(&mut changes, link("office"));
        ip("link del office");
        let gone = |change: &Change| if let Change::LinkGone(link) = change { Some(link.name.clone()) } else { None };
        wait(&mut changes, |change| gone(change).filter(|name| name == "office"));
        assert!(!links().unwrap().iter().any(|link| link.name == "office"));
    });
}

#[test]
fn an_interface_without_ethernet_is_told_from_one_with_it() {
    in_own_network(|| {
        let made = Command::new("ip").args(["tuntap", "add", "mode", "tun", "name", "tun0"]).output().unwrap();
        ip("link add lan0 type bridge");
        let all = links().unwrap();
        let find = |name: &str| all.iter().find(|link| link.name == name);
        assert!(find("lan0").unwrap().is_ethernet());
        assert!(!find("lo").unwrap().is_ethernet());
        if made.status.success() {
            let tun = find("tun0").unwrap();
            assert_eq!((tun.is_ethernet(), tun.hardware, tun.kind.as_deref()), (false, 0xfffe, Some("tun")));
        }
    });
}

#[test]
fn neighbours_of_both_families_are_listed_and_followed() {
    in_own_network(|| {
        ip("link add lan0 type bridge");
        ip("link set lan0 up");
        ip("addr add 10.0.0.1/24 dev lan0");
        ip("neigh add 10.0.0.23 lladdr 00:1b:21:0a:0b:0c dev lan0 nud reachable");
        ip("neigh add 2001:db8::23 lladdr 00:1b:21:0a:0b:0c dev lan0 nud permanent");
        let all = neighbours().unwrap();
        let find =
            |address: &str| all.iter().find(|found| found.address == address.parse::<std::net::IpAddr>().unwrap());
        let lan0 = links().unwrap().iter().find(|link| link.name == "lan0").unwrap().index;
        let mac = "00:1b:21:0a:0b:0c".parse::<Mac>().ok();
        let v4 = find("10.0.0.23").unwrap();
        assert_eq!((v4.mac, v4.reach, v4.interface), (mac, Reach::Reachable, lan0));
        let v6 = find("2001:db8::23").unwrap();
        assert_eq!((v6.mac, v6.reach), (mac, Reach::Permanent));

        let mut changes = Changes::listen().unwrap();
        ip("neigh change 10.0.0.23 lladdr 00:1b:21:0a:0b:0d dev lan0 nud stale");
        ip("neigh del 2001:db8::23 dev lan0");
        let (mut moved, mut gone) = (false, false);
        let until = Instant::now() + Duration::from_secs(5);
        while !(moved && gone) && Instant::now() < until {
            for change in changes.next(Duration::from_millis(200)).unwrap() {
                if let Change::Neighbour(now) = &change
                    && now.address == v4.address
                {
                    moved |= now.mac == "00:1b:21:0a:0b:0d".parse::<Mac>().ok();
                }
                // Removing an entry is told as one that does not answer, and as one that is gone.
                match change {
                    Change::NeighbourGone(now) => gone |= now.address == v6.address,
                    Change::Neighbour(now) => gone |= now.address == v6.address && now.reach == Reach::Unanswered,
                    Change::Everything { .. }
                    | Change::Link(_)
                    | Change::LinkGone(_)
                    | Change::Learned(_)
                    | Change::Forgotten(_)
                    | Change::Lost => {}
                }
            }
        }
        assert!(moved && gone, "moved {moved}, gone {gone}");
    });
}

#[test]
fn a_bridge_tells_behind_which_port_a_card_is() {
    in_own_network(|| {
        ip("link add lan0 type bridge");
        for port in ["port0", "port1"] {
            ip(&format!("link add {port} type veth peer name far-{port}"));
            ip(&format!("link set {port} master lan0"));
        }
        let mut changes = Changes::listen().unwrap();
        let index = |name: &str| links().unwrap().iter().find(|link| link.name == name).unwrap().index;
        let mac: Mac = "00:1b:21:0a:0b:0c".parse().unwrap();
        let at = |port| Learned { mac, port: index(port), bridge: index("lan0") };
        Command::new("bridge").args("fdb add 00:1b:21:0a:0b:0c dev port0 master static".split(' ')).status().unwrap();
        let first = at("port0");
        wait(&mut changes, |change| (*change == Change::Learned(first)).then_some(()));
        // The ports' own addresses are no hosts'.
        assert_eq!(learned().unwrap(), [first]);
        Command::new("bridge")
            .args("fdb replace 00:1b:21:0a:0b:0c dev port1 master static".split(' '))
            .status()
            .unwrap();
        let second = at("port1");
        wait(&mut changes, |change| (*change == Change::Learned(second)).then_some(()));
        ip("link set port1 nomaster");
        wait(&mut changes, |change| (*change == Change::Forgotten(second)).then_some(()));
    });
}

#[test]
fn a_thread_begins_with_everything_and_begins_anew_when_news_are_lost() {
    in_own_network(|| {
        let (out, news) = sync_channel(1);
        // It inherits the namespace from the thread that starts it.
        let thread = follow(out).unwrap();
        let first = news.recv_timeout(Duration::from_secs(5)).unwrap();
        assert!(matches!(&first[..], [Change::Everything { links, .. }] if links.len() == 1), "{first:?}");
        // Far more than the kernel keeps for one who does not listen: about 1.5 KiB a message.
        let batch: String = (0..600).map(|n| format!("link add name d{n} type bridge\n")).collect();
        let list = std::env::temp_dir().join(format!("portreeve-links-{}", std::process::id()));
        std::fs::write(&list, batch).unwrap();
        ip(&format!("-batch {}", list.display()));
        std::fs::remove_file(&list).unwrap();
        let mut last = Vec::new();
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            let Ok(changes) = news.recv_timeout(Duration::from_millis(500)) else { break };
            for change in changes {
                match change {
                    Change::Everything { links, .. } => last = links.into_iter().map(|link| link.name).collect(),
                    Change::Link(link) if !last.contains(&link.name) => last.push(link.name),
                    Change::Link(_)
                    | Change::LinkGone(_)
                    | Change::Neighbour(_)
                    | Change::NeighbourGone(_)
                    | Change::Learned(_)
                    | Change::Forgotten(_)
                    | Change::Lost => {}
                }
            }
        }
        assert_eq!(last.len(), 601);
        drop(news);
        ip("link add last0 type bridge");
        thread.join().unwrap();
    });
}
