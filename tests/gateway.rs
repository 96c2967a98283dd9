//! A gateway and the hosts behind it: what of their mail leaves, what of it is refused and how, and what is said of it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "gateway/allow.rs"]
mod allow;
#[path = "gateway/answers.rs"]
mod answers;
#[path = "gateway/bypass.rs"]
mod bypass;
#[path = "gateway/counters.rs"]
mod counters;
#[path = "gateway/devices.rs"]
mod devices;
#[path = "gateway/dhcp.rs"]
mod dhcp;
#[path = "gateway/doctor.rs"]
mod doctor;
#[path = "gateway/forget.rs"]
mod forget;
#[path = "gateway/frames.rs"]
mod frames;
#[path = "gateway/layer3.rs"]
mod layer3;
#[path = "gateway/names.rs"]
mod names;
#[path = "gateway/office.rs"]
mod office;
#[path = "gateway/packet.rs"]
mod packet;
#[path = "gateway/pass.rs"]
mod pass;
#[path = "gateway/twice.rs"]
mod twice;
#[path = "gateway/upkeep.rs"]
mod upkeep;

use std::net::IpAddr;
use std::time::Duration;

use lab::gateway::address::{BOT_MAC, EXCHANGER, GATEWAY_MAC, SERVER, SERVER_MAC};
use lab::gateway::{Tried, connect, connect_from, exchanger_at};
use lab::{DEADLINE, Gateway, Guard, Sink, until};
use packet::Macs;
use serde_json::Value;

/// A reset must be there long before a first repetition (RFC 6298 §2.1: a second).
const AT_ONCE: Duration = Duration::from_millis(500);

/// Addresses in the LAN that no kernel has, which would answer in its own way: those of packets made by hand.
const NOBODY: [&str; 2] = ["10.9.0.77", "fd09::77"];

/// The mail server may send, by its address and MAC address.
fn policy(more: &str) -> String {
    format!(
        "[gateway]\nlan = [\"lan0\"]\n{more}\n[[gateway.allow]]\nname = \"mail\"\nfrom = [\"{}\", \"{}\"]\nmac = \"{SERVER_MAC}\"\n",
        SERVER[0], SERVER[1]
    )
}

/// Frames of the workstation's to the gateway.
fn macs() -> Macs {
    Macs::new(GATEWAY_MAC, BOT_MAC)
}

/// The attempts of LAN hosts once there are that many, and that no more come.
#[track_caller]
fn attempts(guard: &Guard, count: usize) -> Vec<Value> {
    until("the records", DEADLINE, || {
        let found = guard.attempts();
        if found.len() >= count { Ok(()) } else { Err(found.len()) }
    });
    std::thread::sleep(Duration::from_millis(100));
    let found = guard.attempts();
    assert_eq!(found.len(), count, "{found:#?}");
    assert!(found.iter().all(|attempt| attempt["hook"] == "lan"), "{found:#?}");
    found
}

#[track_caller]
fn assert_refused_at_once(tried: &Tried, what: &str) {
    assert!(matches!(tried, Tried::Refused(after) if *after < AT_ONCE), "{what}: {tried:?}");
}

#[test]
fn a_bot_behind_the_gateway_is_refused_at_once_and_recorded_once() {
    let scene = Gateway::new("bot");
    for family in [0, 1] {
        assert_eq!(connect(&scene.bot, exchanger_at(family, 25)), Tried::Greeted, "unguarded");
    }
    let guard = Guard::start(&scene.lab, &policy(""));
    assert!(guard.means("lan").contains("lan0"), "{}", guard.means("lan"));
    let probe = scene.watch(25);
    for (family, bot) in lab::gateway::address::BOT.into_iter().enumerate() {
        assert_refused_at_once(&connect(&scene.bot, exchanger_at(family, 25)), bot);
        let attempt = attempts(&guard, family + 1).pop().unwrap();
        let told = ["verdict", "reason", "hook", "interface", "mac", "protocol"]
            .map(|key| attempt[key].as_str().unwrap_or("-"));
        assert_eq!(told, ["deny", "no-rule", "lan", "lan0", BOT_MAC, "tcp"], "{attempt:#}");
        let source: std::net::SocketAddr = attempt["source"].as_str().unwrap().parse().unwrap();
        assert_eq!(source.ip(), bot.parse::<IpAddr>().unwrap(), "{attempt:#}");
        assert_eq!(attempt["destination"], exchanger_at(family, 25).to_string(), "{attempt:#}");
        assert_eq!(attempt["tcp_flags"][0], "syn", "{attempt:#}");
        assert_eq!((&attempt["pid"], &attempt["vlan"]), (&0.into(), &Value::Null), "{attempt:#}");
    }
    assert_eq!(probe.settled(), 0, "{:?}", probe.segments());
    let counters = guard.counters();
    assert_eq!((counters["refused"], counters["dropped"], counters["allowed"]), (2, 2, 0));
    assert!(guard.log().contains(&format!("host {} ({BOT_MAC})", lab::gateway::address::BOT[0])), "{}", guard.log());
    guard.detach();
    assert_eq!(connect(&scene.bot, exchanger_at(0, 25)), Tried::Greeted, "detach alone opens the port");
}

#[test]
fn the_mail_server_sends_through_the_gateway_and_nobody_does_in_its_name() {
    let scene = Gateway::new("server");
    let guard = Guard::start(&scene.lab, &policy(""));
    for family in [0, 1] {
        assert_eq!(connect(&scene.server, exchanger_at(family, 25)), Tried::Greeted, "to {}", EXCHANGER[family]);
        let attempt = attempts(&guard, family + 1).pop().unwrap();
        let told = ["verdict", "rule", "mac"].map(|key| attempt[key].as_str().unwrap_or("-"));
        assert_eq!(told, ["allow", "mail", SERVER_MAC], "{attempt:#}");
    }
    assert_eq!(guard.counters()["refused"], 0);
    // Who takes the server's addresses has not its MAC address.
    scene.server.ip("link set eth0 down");
    let probe = scene.watch(25);
    for (family, address) in SERVER.into_iter().enumerate() {
        scene.bot.ip(&format!("addr add {address}/{} dev eth0", ["24", "64 nodad"][family]));
        let from = Some(address.parse().unwrap());
        let tried = connect_from(&scene.bot, from, exchanger_at(family, 25));
        assert_refused_at_once(&tried, address);
        let attempt = attempts(&guard, family + 3).pop().unwrap();
        let told = ["verdict", "reason", "mac"].map(|key| attempt[key].as_str().unwrap_or("-"));
        assert_eq!(told, ["deny", "other-mac", BOT_MAC], "{attempt:#}");
    }
    assert_eq!(probe.settled(), 0, "{:?}", probe.segments());
    // And would pass if the MAC address did not matter. The gateway still knows the old one of these addresses.
    scene.gateway.ip("neigh flush dev lan0");
    guard.write_policy(&policy("").replace(SERVER_MAC, "any"));
    guard.reload();
    for (family, address) in SERVER.into_iter().enumerate() {
        let from = Some(address.parse().unwrap());
        assert_eq!(connect_from(&scene.bot, from, exchanger_at(family, 25)), Tried::Greeted, "{address} without mac");
    }
}

#[test]
fn ports_that_are_not_guarded_pass_and_the_gateway_may_have_its_own() {
    let scene = Gateway::new("ports");
    let (web, submission) = (Sink::listen(&scene.internet, 80), Sink::listen(&scene.internet, 587));
    let guard = Guard::start(&scene.lab, &policy(""));
    let probe = scene.watch(587);
    for family in [0, 1] {
        assert_eq!(connect(&scene.bot, exchanger_at(family, 80)), Tried::Greeted, "80");
        assert_eq!(connect(&scene.bot, exchanger_at(family, 587)), Tried::Greeted, "587");
    }
    assert!(probe.settled() > 0);
    assert_eq!(guard.counters()["refused"], 0);
    // The gateway's LAN is guarded for another port than the gateway is.
    guard.write_policy(&policy("ports = [587]"));
    guard.reload();
    let seen = probe.settled();
    for family in [0, 1] {
        assert_refused_at_once(&connect(&scene.bot, exchanger_at(family, 587)), "587");
        assert_eq!(connect(&scene.bot, exchanger_at(family, 25)), Tried::Greeted, "25");
    }
    assert_eq!((probe.settled(), guard.counters()["refused"]), (seen, 2));
    assert_eq!((web.accepted(), submission.accepted(), scene.exchanger.accepted()), (2, 2, 2));
}

#[test]
fn observe_lets_the_bot_pass_and_records_what_would_have_been_refused() {
    let scene = Gateway::new("observe");
    let guard = Guard::start(&scene.lab, &policy("mode = \"observe\""));
    for family in [0, 1] {
        assert_eq!(connect(&scene.bot, exchanger_at(family, 25)), Tried::Greeted, "to {}", EXCHANGER[family]);
        let attempt = attempts(&guard, family + 1).pop().unwrap();
        assert_eq!((&attempt["verdict"], &attempt["reason"]), (&"observe".into(), &"no-rule".into()), "{attempt:#}");
    }
    let counters = guard.counters();
    assert_eq!((counters["observed"], counters["refused"], counters["dropped"]), (2, 0, 0));
}
