//! Floods from many sources: every attempt is counted, and answered.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use lab::gateway::address::{BOT_MAC, EXCHANGER};
use lab::{DEADLINE, Gateway, Guard, Host, Tap, until};

use crate::forget::table;
use crate::packet::{Packet, RST, Segment, mac};
use crate::{macs, policy};

/// How many sources there are, and how often each tries.
pub(crate) const SOURCES: u64 = 1000;
const EACH: u64 = 20;

fn source(number: u64) -> String {
    format!("10.9.{}.{}", 64 + number / 200, 1 + number % 200)
}

/// Sends all of it, and says how many resets came back.
fn flood(scene: &Gateway) -> u64 {
    flood_in(&scene.bot, EACH, Duration::ZERO)
}

/// In so many rounds, with a pause after each.
pub(crate) fn flood_in(bot: &Host, rounds: u64, pause: Duration) -> u64 {
    let tap = Tap::on(bot, "eth0");
    let mut resets = 0;
    for round in 0..rounds {
        for number in 0..SOURCES {
            let syn = Segment { sport: 20_000 + round as u16, ..Segment::syn(&source(number), EXCHANGER[0], 25) };
            tap.send(&syn.frame(macs()));
        }
        // Before the socket has no more room.
        let counted = |frame: &lab::Received| {
            let answer = Packet::of_frame(&frame.bytes)?.answer()?;
            (answer.flags & RST != 0 && answer.ports == (25, 20_000 + round as u16)).then_some(())
        };
        while resets < (round + 1) * SOURCES && tap.wait(Duration::from_secs(5), counted).is_some() {
            resets += 1;
        }
        std::thread::sleep(pause);
    }
    resets
}

/// The kernel's counters by source: address, prefix and MAC address, and what was refused.
fn sources(scene: &Gateway, guard: &Guard) -> BTreeMap<(String, u16, [u8; 6]), u64> {
    let entry = |(key, value): (Vec<u8>, Vec<u8>)| {
        // As `LanSource` and `SubjectCount` are laid out, ebpf/abi/src.
        let address = Ipv6Addr::from(<[u8; 16]>::try_from(&key[..16]).unwrap()).to_canonical();
        let prefix = u16::from_ne_bytes([key[30], key[31]]);
        let refused = u64::from_ne_bytes(value[8..16].try_into().unwrap());
        ((address.to_string(), prefix, key[24..30].try_into().unwrap()), refused)
    };
    table(scene, guard, "PR_LAN_SOURCES").into_iter().map(entry).collect()
}

/// Waits until all are counted, and fails if more are.
#[track_caller]
fn assert_counted(guard: &Guard) {
    let total = SOURCES * EACH;
    let status = until("the last of them", DEADLINE, || {
        let status = guard.status();
        if status["counters"]["refused"].as_u64() >= Some(total) { Ok(status) } else { Err(status["counters"].clone()) }
    });
    let counter = |name: &str| status["counters"][name].as_u64().unwrap();
    assert_eq!(["refused", "dropped", "allowed", "observed"].map(counter), [total, total, 0, 0]);
    assert_eq!(status["lost"]["uncounted_by_subject"], 0, "{}", status["lost"]);
}

#[test]
fn a_flood_from_a_thousand_sources_is_counted_and_answered_exactly() {
    let scene = Gateway::new("flood");
    let probe = scene.watch(25);
    let guard = Guard::start(&scene.lab, &policy(""));
    assert_eq!(flood(&scene), SOURCES * EACH);
    assert_counted(&guard);
    assert_eq!(probe.settled(), 0);
    let found = sources(&scene, &guard);
    let expected: BTreeMap<_, _> = (0..SOURCES).map(|number| ((source(number), 128, mac(BOT_MAC)), EACH)).collect();
    assert_eq!(found, expected);
}

#[test]
fn more_sources_than_the_policy_has_room_for_are_counted_by_network() {
    let scene = Gateway::new("networks");
    let guard = Guard::start(&scene.lab, &policy("sources = 100"));
    assert_eq!(flood(&scene), SOURCES * EACH);
    assert_counted(&guard);
    let found = sources(&scene, &guard);
    let (hosts, networks): (Vec<_>, Vec<_>) = found.iter().partition(|((_, prefix, _), _)| *prefix == 128);
    // The first hundred, and the networks of the rest: one CPU may see another's number late.
    assert!((100..=102).contains(&hosts.len()), "{}", hosts.len());
    assert!(hosts.iter().all(|(_, refused)| **refused == EACH), "{hosts:?}");
    let names: Vec<_> = networks.iter().map(|((address, prefix, _), _)| (address.as_str(), *prefix)).collect();
    assert_eq!(names, ["10.9.64.0", "10.9.65.0", "10.9.66.0", "10.9.67.0", "10.9.68.0"].map(|name| (name, 120)));
    assert_eq!(found.values().sum::<u64>(), SOURCES * EACH);
    let (gateway, said) = (&guard.status()["gateway"], guard.command(["status"]).stdout);
    assert_eq!((&gateway["sources"], &gateway["networks"]), (&(hosts.len() + 5).into(), &5.into()));
    assert!(said.contains("5 of these are networks"), "{said}");
}
