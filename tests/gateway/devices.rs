//! LAN interfaces of a kernel's own making: 802.1Q devices, the trunk below them, and WireGuard. They need modules that not
//! every kernel has.

use std::net::SocketAddr;
use std::process::Command;

use lab::gateway::address::{BOT_MAC, EXCHANGER, SERVER_MAC};
use lab::gateway::{Tried, connect, exchanger_at};
use lab::{DEADLINE, Gateway, Guard, Host, until};

use crate::{assert_refused_at_once, attempts};

/// Addresses of the gateway, an allowed host and another one, in networks of their own.
const VLAN: [[&str; 2]; 3] = [["10.10.10.1", "fd10::1"], ["10.10.10.25", "fd10::25"], ["10.10.10.66", "fd10::66"]];
const TUNNEL: [[&str; 2]; 3] = [["10.8.0.1", "fd08::1"], ["10.8.0.25", "fd08::25"], ["10.8.0.66", "fd08::66"]];

/// Whether the kernel has a kind of device; if not, the test is not run, and that is said.
fn has(host: &Host, test: &str, add: &str) -> bool {
    let words: Vec<&str> = add.split(' ').collect();
    let done = host.enter(|| Command::new("ip").args(["link", "add"]).args(&words).output().unwrap());
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        assert!(said.contains("Unknown device type") || said.contains("not supported"), "ip link add {add}: {said}");
        lab::skip(test, &format!("ip link add {add}: {said}"));
    }
    done.status.success()
}

fn address(host: &Host, device: &str, [v4, v6]: [&str; 2]) {
    host.ip(&format!("link set {device} up"));
    host.ip(&format!("addr add {v4}/24 dev {device}"));
    host.ip(&format!("-6 addr add {v6}/64 dev {device} nodad"));
}

/// A device in VLAN 10 on each host's own, by which the hosts then send; false where the kernel has none.
fn tag(scene: &Gateway, test: &str) -> bool {
    if !has(&scene.gateway, test, "link lan0 name lan0.10 type vlan id 10") {
        return false;
    }
    address(&scene.gateway, "lan0.10", VLAN[0]);
    for (host, addresses) in [(&scene.server, VLAN[1]), (&scene.bot, VLAN[2])] {
        host.ip("link add link eth0 name eth0.10 type vlan id 10");
        address(host, "eth0.10", addresses);
        host.ip(&format!("route replace default via {} dev eth0.10", VLAN[0][0]));
        host.ip(&format!("-6 route replace default via {} dev eth0.10", VLAN[0][1]));
        until("packets in the VLAN", DEADLINE, || connect(host, exchanger_at(0, 25)).greeted());
        until("packets in the VLAN", DEADLINE, || connect(host, exchanger_at(1, 25)).greeted());
    }
    true
}

/// What an attempt of a host says: verdict, reason, interface, MAC address, VLAN, and where it came from.
type Told<'t> = [&'t str; 5];

/// The bot is refused by a reset that arrives, the server sends, and both are recorded and counted so.
#[track_caller]
fn assert_guards(scene: &Gateway, guard: &Guard, hosts: [[&str; 2]; 3], server: Told<'_>, bot: Told<'_>) {
    let probe = scene.watch(25);
    for family in [0, 1] {
        let seen = probe.settled();
        assert_refused_at_once(&connect(&scene.bot, exchanger_at(family, 25)), "the bot");
        assert_told(guard, 2 * family + 1, hosts[2][family], bot);
        assert_eq!(probe.settled(), seen, "{:?}", probe.segments());
        assert_eq!(connect(&scene.server, exchanger_at(family, 25)), Tried::Greeted, "to {}", EXCHANGER[family]);
        assert_told(guard, 2 * family + 2, hosts[1][family], server);
    }
    let counters = guard.counters();
    assert_eq!((counters["refused"], counters["dropped"], counters["allowed"]), (2, 2, 2));
    let one = |subject: &serde_json::Value| {
        let host = &subject["host"];
        let number = |key: &str| subject[key].as_u64().unwrap();
        (host["address"].as_str().unwrap().to_owned(), number("refused"), number("allowed"))
    };
    let mut subjects: Vec<_> = guard.subjects().iter().map(one).collect();
    subjects.sort_unstable();
    let [v4, v6] = [0, 1].map(|family| {
        let length = [32, 128][family];
        [(format!("{}/{length}", hosts[1][family]), 0, 1), (format!("{}/{length}", hosts[2][family]), 1, 0)]
    });
    assert_eq!(subjects, [v4, v6].concat());
}

#[track_caller]
fn assert_told(guard: &Guard, count: usize, source: &str, expected: Told<'_>) {
    let attempt = attempts(guard, count).pop().unwrap();
    let told = ["verdict", "reason", "interface", "mac", "vlan"].map(|key| attempt[key].as_str().unwrap_or("-"));
    assert_eq!(told, expected, "{attempt:#}");
    let from: SocketAddr = attempt["source"].as_str().unwrap().parse().unwrap();
    assert_eq!(from.ip().to_string(), source, "{attempt:#}");
}

#[test]
fn the_hosts_behind_an_8021q_device_are_guarded() {
    let scene = Gateway::new("dot1q");
    if !tag(&scene, "the_hosts_behind_an_8021q_device_are_guarded") {
        return;
    }
    let rule = format!("[[gateway.allow]]\nname = \"mail\"\nfrom = {:?}\nmac = \"{SERVER_MAC}\"\n", VLAN[1]);
    let guard = Guard::start(&scene.lab, &format!("[gateway]\nlan = [\"lan0.10\"]\n{rule}"));
    assert!(guard.means("lan").contains("lan0.10"), "{}", guard.means("lan"));
    // Its frames have no tag any more.
    let server = ["allow", "rule", "lan0.10", SERVER_MAC, "-"];
    assert_guards(&scene, &guard, VLAN, server, ["deny", "no-rule", "lan0.10", BOT_MAC, "-"]);
}

#[test]
fn the_hosts_behind_a_trunk_are_guarded_by_their_vlan() {
    let scene = Gateway::new("trunk");
    if !tag(&scene, "the_hosts_behind_a_trunk_are_guarded_by_their_vlan") {
        return;
    }
    let policy = |vlan: u16| {
        format!(
            "[gateway]\nlan = [\"lan0\"]\n[[gateway.allow]]\nname = \"mail\"\nfrom = {:?}\nmac = \"{SERVER_MAC}\"\nvlan = {vlan}\n",
            VLAN[1]
        )
    };
    let guard = Guard::start(&scene.lab, &policy(10));
    let server = ["allow", "rule", "lan0", SERVER_MAC, "10"];
    assert_guards(&scene, &guard, VLAN, server, ["deny", "no-rule", "lan0", BOT_MAC, "10"]);
    // A rule for another VLAN is none for this one.
    guard.write_policy(&policy(20));
    guard.reload();
    for family in [0, 1] {
        assert_refused_at_once(&connect(&scene.server, exchanger_at(family, 25)), "the server");
        let told = ["deny", "other-vlan", "lan0", SERVER_MAC, "10"];
        assert_told(&guard, 5 + family, VLAN[1][family], told);
    }
}

/// A host's WireGuard device with a key made for it; returns the public one.
fn wireguard(scene: &Gateway, host: &Host, name: &str, addresses: [&str; 2]) -> String {
    let key = scene.lab.dir().join(format!("{name}.key"));
    std::fs::write(&key, host.run("wg", &["genkey"])).unwrap();
    let key = key.display().to_string();
    host.run("wg", &["set", "wg0", "private-key", &key, "listen-port", "51820"]);
    address(host, "wg0", addresses);
    host.run("wg", &["show", "wg0", "public-key"]).trim().to_owned()
}

#[test]
fn the_hosts_behind_wireguard_are_guarded() {
    const TEST: &str = "the_hosts_behind_wireguard_are_guarded";
    let scene = Gateway::new("wireguard");
    if !has(&scene.gateway, TEST, "wg0 type wireguard") {
        return;
    }
    if Command::new("wg").arg("--version").output().is_err() {
        return lab::skip(TEST, "there is no wg (wireguard-tools)");
    }
    let gateway = wireguard(&scene, &scene.gateway, "gateway", TUNNEL[0]);
    for (host, name, [v4, v6]) in [(&scene.server, "server", TUNNEL[1]), (&scene.bot, "bot", TUNNEL[2])] {
        host.ip("link add wg0 type wireguard");
        let key = wireguard(&scene, host, name, [v4, v6]);
        scene.gateway.run("wg", &["set", "wg0", "peer", &key, "allowed-ips", &format!("{v4}/32,{v6}/128")]);
        let endpoint = format!("{}:51820", lab::gateway::address::GATEWAY[0]);
        host.run("wg", &["set", "wg0", "peer", &gateway, "endpoint", &endpoint, "allowed-ips", "0.0.0.0/0,::/0"]);
        host.ip("route replace default dev wg0");
        // The route by which it was, through the LAN, is another to the kernel.
        host.ip("-6 route del default");
        host.ip("-6 route add default dev wg0");
        for family in [0, 1] {
            until("packets in the tunnel", DEADLINE, || connect(host, exchanger_at(family, 25)).greeted());
        }
    }
    let rule = format!("[[gateway.allow]]\nname = \"vpn\"\nfrom = {:?}\nmac = \"any\"\n", TUNNEL[1]);
    let guard = Guard::start(&scene.lab, &format!("[gateway]\nlan = [\"wg*\"]\n{rule}"));
    assert!(guard.means("lan").contains("wg0"), "{}", guard.means("lan"));
    let server = ["allow", "rule", "wg0", "-", "-"];
    assert_guards(&scene, &guard, TUNNEL, server, ["deny", "no-rule", "wg0", "-", "-"]);
}
