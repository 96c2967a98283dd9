//! Every way of the tests' client to send a segment without connect(), from behind the gateway.

use std::net::{IpAddr, SocketAddr};

use lab::gateway::address::{BOT_MAC, EXCHANGER, GATEWAY_MAC, SERVER, SERVER_MAC};
use lab::gateway::{Tried, connect, exchanger_at};
use lab::{DEADLINE, Gateway, Guard, Tap, until};

use crate::packet::{ACK, Macs, PSH, Segment};
use crate::pass::send_message;
use crate::{assert_refused_at_once, attempts, policy};

/// The ways that get through a router, and the families they are for.
const WAYS: [(&str, &[usize]); 26] = [
    ("packet_raw", &[0, 1]),
    ("packet_dgram", &[0, 1]),
    ("packet_says_arp", &[0, 1]),
    ("packet_fragments", &[0, 1]),
    ("packet_options", &[0, 1]),
    ("packet_v6_chain", &[1]),
    ("packet_vnet_hdr", &[0, 1]),
    ("packet_checksum", &[0, 1]),
    ("packet_bypass", &[0, 1]),
    ("packet_tx_ring", &[0, 1]),
    ("raw_syn", &[0, 1]),
    ("raw_data", &[0, 1]),
    ("raw_ack", &[0, 1]),
    ("raw_tunnel", &[0, 1]),
    ("raw_gre", &[0, 1]),
    ("hdrincl", &[0, 1]),
    ("hdrincl_options", &[0]),
    ("hdrincl_fragments", &[0]),
    ("hdrincl_tiny", &[0]),
    ("v6_destopts", &[1]),
    ("v6_chain", &[1]),
    ("v6_long_chain", &[1]),
    ("v6_routing", &[1]),
    ("v6_atomic_fragment", &[1]),
    ("v6_fragments", &[1]),
    ("v6_tiny", &[1]),
];

#[test]
fn no_hand_made_packet_gets_through_the_gateway() {
    let scene = Gateway::new("handmade");
    // The kernel writes what checksums are left to the device: one of these makes another port by it, unless addresses
    // are translated.
    scene.gateway.run("nft", &["flush ruleset"]);
    scene.gateway.run("ethtool", &["-K", "wan0", "tx", "off"]);
    let probe = scene.watch(25);
    let send = |way: &str, family: usize| {
        let client = scene.lab.program(scene.lab.client()).args([way, EXCHANGER[family], "25"]).in_host(&scene.bot);
        assert_eq!(client.run().must_succeed().stdout.trim(), "sent", "{way} to {}", EXCHANGER[family]);
    };
    let rows = || WAYS.into_iter().flat_map(|(way, families)| families.iter().map(move |family| (way, *family)));
    for (way, family) in rows() {
        let seen = probe.settled();
        send(way, family);
        assert!(probe.settled() > seen, "{way} to {}, unguarded", EXCHANGER[family]);
    }
    let guard = Guard::start(&scene.lab, &policy(""));
    let seen = probe.settled();
    for (way, family) in rows() {
        let before = guard.counters()["refused"];
        send(way, family);
        until("the refusal", DEADLINE, || match guard.counters()["refused"] {
            more if more > before => Ok(()),
            _ => Err((way, family)),
        });
        assert_eq!(probe.settled(), seen, "{way} to {}: {:?}", EXCHANGER[family], probe.segments().last());
    }
}

#[test]
fn a_connection_that_the_policy_allows_no_more_is_reset() {
    let scene = Gateway::new("cut");
    let guard = Guard::start(&scene.lab, &policy(""));
    for family in [0, 1] {
        guard.write_policy(&policy(""));
        guard.reload();
        // Large segments, whose checksums nobody has written, are what a kernel sends over a veth device.
        let cut = |number: usize| {
            if number == 1000 {
                guard.write_policy("[gateway]\nlan = [\"lan0\"]\n");
                guard.reload();
            }
        };
        let error = send_message(&scene.server, exchanger_at(family, 25), 200_000, cut).unwrap_err();
        let reset = [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::BrokenPipe];
        assert!(reset.contains(&error.kind()), "to {}: {error}", EXCHANGER[family]);
        assert_refused_at_once(&connect(&scene.server, exchanger_at(family, 25)), SERVER[family]);
    }
    assert!(scene.exchanger.messages().is_empty());
}

#[test]
fn nobody_rides_on_an_allowed_connection() {
    let scene = Gateway::new("rides");
    // What belongs to no connection that it knows would be dropped by the translation of addresses.
    scene.gateway.run("nft", &["flush ruleset"]);
    let (server, bot) = (Tap::on(&scene.server, "eth0"), Tap::on(&scene.bot, "eth0"));
    // Addresses that nobody has, so that no kernel takes part in the conversation.
    let silent = ["10.9.0.99", "fd09::99"];
    let text = policy("").replace(SERVER[0], silent[0]).replace(SERVER[1], silent[1]);
    let guard = Guard::start(&scene.lab, &text);
    let (probe, mut refused) = (scene.watch(25), 0);
    for family in [0, 1] {
        let syn = Segment::syn(silent[family], EXCHANGER[family], 25);
        let segment = Segment { flags: PSH | ACK, seq: syn.seq + 1, ack: 1, data: b"NOOP\r\n".to_vec(), ..syn.clone() };
        // The server's own pass, the last one by the memory of the first.
        let (seen, own) = (probe.settled(), Macs::new(GATEWAY_MAC, SERVER_MAC));
        for frame in [syn.frame(own), segment.frame(own), segment.frame(own)] {
            server.send(&frame);
        }
        assert_eq!(probe.settled(), seen + 3, "{}", silent[family]);
        let foreign = Macs::new(GATEWAY_MAC, BOT_MAC);
        for frame in [segment.frame(foreign), syn.frame(foreign)] {
            bot.send(&frame);
            refused += 1;
            until("the refusal", DEADLINE, || match guard.counters()["refused"] {
                enough if enough >= refused => Ok(()),
                fewer => Err(fewer),
            });
        }
        assert_eq!(probe.settled(), seen + 3, "{:?}", probe.segments());
    }
}

#[test]
fn a_lan_behind_a_bridge_is_judged_once_by_port_and_bridge() {
    let scene = Gateway::new("twice");
    let gateway = &scene.gateway;
    for command in [
        "link add brlan type bridge",
        "addr flush dev lan0",
        "link set lan0 master brlan",
        "link set brlan address 02:00:00:00:00:01",
        "link set brlan up",
        "addr add 10.9.0.1/24 dev brlan",
        "-6 addr add fd09::1/64 dev brlan nodad",
    ] {
        gateway.ip(command);
    }
    let both = |names: &str| policy("").replace("[\"lan0\"]", names);
    let mut count = 0;
    let guard = Guard::start(&scene.lab, &both("[\"lan0\", \"brlan\"]"));
    for names in ["[\"lan0\", \"brlan\"]", "[\"brlan\"]", "[\"lan0\"]"] {
        guard.write_policy(&both(names));
        guard.reload();
        until("the interfaces", DEADLINE, || {
            let by = guard.means("lan");
            let right = ["lan0", "brlan"].into_iter().all(|name| by.contains(name) == names.contains(name));
            if right { Ok(()) } else { Err(by) }
        });
        for family in [0, 1] {
            let to: SocketAddr = SocketAddr::new(EXCHANGER[family].parse::<IpAddr>().unwrap(), 25);
            assert_eq!(connect(&scene.server, to), Tried::Greeted, "{names}");
            assert_refused_at_once(&connect(&scene.bot, to), names);
            count += 2;
            let last = attempts(&guard, count);
            assert_eq!(last.iter().filter(|attempt| attempt["verdict"] == "deny").count(), count / 2, "{names}");
        }
    }
    let counters = guard.counters();
    assert_eq!((counters["allowed"], counters["refused"]), (6, 6));
}
