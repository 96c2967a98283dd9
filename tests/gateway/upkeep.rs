//! The guard of a LAN while the agent dies and comes back, the policy changes, and interfaces come and go.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lab::gateway::{Tried, connect, exchanger_at};
use lab::{DEADLINE, Gateway, Guard, Host, Sink, until};

use crate::pass::send_message;
use crate::{assert_refused_at_once, policy};

/// Connects from a host in both families until it is told to stop, and says how often what came of it.
fn hammer(host: &Host, port: u16, stop: &AtomicBool) -> BTreeMap<String, u64> {
    let mut outcomes = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        for family in [0, 1] {
            let outcome = connect(host, exchanger_at(family, port))
                .refused()
                .map_or_else(|other| format!("{other:?}"), |()| "refused".to_owned());
            *outcomes.entry(outcome).or_default() += 1;
        }
    }
    outcomes
}

/// Both ports are guarded for the LAN: 25, by which the server sends, and 587, which the bot is at, and which this host
/// lets alone, so that nothing but the LAN's guard keeps it in.
fn both(more: &str) -> String {
    policy(&format!("ports = [25, 587]\n{more}"))
}

#[test]
fn no_bot_gets_through_and_no_allowed_connection_ends_while_the_agent_dies_and_reloads() {
    let scene = Gateway::new("restart");
    let bait = Sink::listen(&scene.internet, 587);
    assert_eq!(connect(&scene.bot, exchanger_at(0, 587)), Tried::Greeted, "unguarded");
    let mut guard = Guard::start(&scene.lab, &both(""));
    let probe = scene.watch(587);
    let (stop, sent) = (AtomicBool::new(false), AtomicBool::new(false));
    let (bot, server) = (&scene.bot, &scene.server);
    let mut rounds = 0;
    let outcomes = std::thread::scope(|threads| {
        let hammer = threads.spawn(|| hammer(bot, 587, &stop));
        let mail = threads.spawn(|| {
            let pause = |_| std::thread::sleep(Duration::from_millis(100));
            let result = send_message(server, exchanger_at(0, 25), 8000, pause);
            sent.store(true, Ordering::Relaxed);
            result
        });
        while !sent.load(Ordering::Relaxed) || rounds < 3 {
            guard.kill();
            std::thread::sleep(Duration::from_millis(500));
            guard.resume();
            rounds += 1;
            guard.write_policy(&both(&format!("sources = {}", 1000 + rounds)));
            guard.reload();
        }
        stop.store(true, Ordering::Relaxed);
        mail.join().unwrap().unwrap();
        hammer.join().unwrap()
    });
    assert_eq!(scene.exchanger.wait_for_messages(1, DEADLINE)[0].data.len(), 8000 * 999);
    assert_eq!(outcomes.keys().collect::<Vec<_>>(), ["refused"], "{outcomes:?} over {rounds} rounds");
    assert_eq!((probe.settled(), bait.accepted()), (0, 1), "{:?}", probe.segments());
    let counters = guard.counters();
    assert_eq!((counters["refused"], counters["allowed"]), (outcomes["refused"], 1), "over {rounds} rounds");
}

/// Wires a host to a new device of the gateway's.
fn wire(scene: &Gateway, device: &str, last: u8) -> Host {
    let host = scene.lab.host(device);
    let netns = host.path().display().to_string();
    scene
        .gateway
        .ip(&format!("link add {device} index {} type veth peer name eth0 netns {netns}", 400 + u32::from(last)));
    scene.gateway.ip(&format!("link set {device} up"));
    host.ip("link set eth0 up");
    scene.gateway.ip(&format!("addr add 10.10.{last}.1/24 dev {device}"));
    scene.gateway.ip(&format!("-6 addr add fd10:{last}::1/64 dev {device} nodad"));
    host.ip(&format!("addr add 10.10.{last}.2/24 dev eth0"));
    host.ip(&format!("-6 addr add fd10:{last}::2/64 dev eth0 nodad"));
    host.ip(&format!("route add default via 10.10.{last}.1"));
    host.ip(&format!("-6 route add default via fd10:{last}::1"));
    host
}

/// The pinned links of LAN interfaces.
fn pinned(guard: &Guard) -> Vec<PathBuf> {
    let place = format!("/sys/fs/bpf/portreeve/{}", guard.instance());
    let mut folders = vec![PathBuf::from(place)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.file_name().to_string_lossy().starts_with("lan-") {
                found.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn an_interface_that_comes_later_is_guarded_and_one_that_the_policy_drops_is_let_go() {
    let scene = Gateway::new("later");
    let bait = Sink::listen(&scene.internet, 587);
    let lan = |names: &str| both("").replace("[\"lan0\"]", names);
    let guard = Guard::start(&scene.lab, &lan("[\"lan*\"]"));
    assert_eq!(pinned(&guard).len(), 1);
    let late = wire(&scene, "lan1", 1);
    // Within a second, by how often it looks; and another one for this test.
    until("lan1 to be guarded", Duration::from_secs(2), || match guard.means("lan") {
        by if by.contains("lan1") => Ok(()),
        by => Err(by),
    });
    for family in [0, 1] {
        assert_refused_at_once(&connect(&late, exchanger_at(family, 587)), "the late host");
        assert_refused_at_once(&connect(&scene.bot, exchanger_at(family, 587)), "the bot");
    }
    assert_eq!((bait.accepted(), pinned(&guard).len()), (0, 2));
    // A policy without it.
    guard.write_policy(&lan("[\"lan0\"]"));
    guard.reload();
    until("lan1 to be let go", Duration::from_secs(2), || connect(&late, exchanger_at(0, 587)).greeted());
    assert_eq!(connect(&late, exchanger_at(1, 587)), Tried::Greeted);
    assert!(!guard.means("lan").contains("lan1"), "{}", guard.means("lan"));
    assert_eq!(pinned(&guard).len(), 1, "{:?}", pinned(&guard));
    // With it again, and then the device goes.
    guard.write_policy(&lan("[\"lan0\", \"lan1\"]"));
    guard.reload();
    until("lan1 to be guarded again", Duration::from_secs(2), || connect(&late, exchanger_at(0, 587)).refused());
    scene.gateway.ip("link del lan1");
    until("lan1's link to be let go", Duration::from_secs(3), || match pinned(&guard) {
        one if one.len() == 1 => Ok(()),
        more => Err(more),
    });
    assert!(guard.status()["alarms"].as_array().unwrap().is_empty(), "{:#}", guard.status()["alarms"]);
    // A policy without a gateway at all.
    guard.write_policy("");
    guard.reload();
    until("lan0 to be let go", Duration::from_secs(2), || connect(&scene.bot, exchanger_at(0, 587)).greeted());
    until("lan0's link to be let go", Duration::from_secs(3), || match pinned(&guard) {
        none if none.is_empty() => Ok(()),
        more => Err(more),
    });
}

/// What is said of each LAN host and network.
fn hosts(guard: &Guard) -> BTreeMap<String, u64> {
    let one = |subject: &serde_json::Value| {
        let host = &subject["host"];
        (format!("{} {}", host["address"], host["mac"]), subject["refused"].as_u64().unwrap())
    };
    guard.subjects().iter().filter(|subject| !subject["host"].is_null()).map(one).collect()
}

#[test]
fn an_upgrade_with_another_map_layout_keeps_the_counters_of_lan_hosts() {
    let scene = Gateway::new("lan-upgrade");
    let mut guard = Guard::start(&scene.lab, &policy("sources = 1"));
    let (stop, bot) = (AtomicBool::new(false), &scene.bot);
    let outcomes =
        std::thread::scope(|threads| {
            let hammer = threads.spawn(|| hammer(bot, 25, &stop));
            for version in ["901", "902"] {
                let before = guard.counters()["refused"];
                until("some refusals", DEADLINE, || {
                    if guard.counters()["refused"] > before + 50 { Ok(()) } else { Err(()) }
                });
                assert_eq!(guard.take_over(&["--map-version", version]), 0, "{}", guard.log());
            }
            stop.store(true, Ordering::Relaxed);
            hammer.join().unwrap()
        });
    assert_eq!(outcomes.keys().collect::<Vec<_>>(), ["refused"], "{outcomes:?}");
    let (total, hosts) = (outcomes["refused"], hosts(&guard));
    assert_eq!(guard.counters()["refused"], total);
    // The first by itself, the other by its network; in each layout the one that came first.
    let known = |name: &String| {
        ["10.9.0.66/32", "fd09::66/128", "10.9.0.0/24", "fd09::/64"].iter().any(|part| name.contains(part))
    };
    assert!((2..=4).contains(&hosts.len()) && hosts.keys().all(known), "{hosts:?}");
    assert_eq!(hosts.values().sum::<u64>(), total, "{hosts:?}");
}
