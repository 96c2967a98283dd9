//! A LAN without Ethernet: packets that come by a TUN device, as those of a VPN do.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lab::gateway::address::EXCHANGER;
use lab::{DEADLINE, Gateway, Guard, Tun};

use crate::attempts;
use crate::packet::{ACK, Answer, Packet, RST, SYN, Segment};

/// The gateway's addresses on the device, an allowed client's, and another's.
const GATEWAY: [&str; 2] = ["10.8.0.1", "fd08::1"];
const SERVER: [&str; 2] = ["10.8.0.25", "fd08::25"];
const BOT: [&str; 2] = ["10.8.0.66", "fd08::66"];

/// `ARPHRD_NONE`, as TUN and WireGuard devices have it, and `ARPHRD_TUNNEL`, that of IP in IP.
const NONE: u16 = 0xfffe;
const TUNNEL: u16 = 768;

fn device(scene: &Gateway, kind: u16) -> Tun {
    let tun = Tun::new(&scene.gateway, "tun7").typed(kind);
    scene.gateway.ip("link set tun7 up");
    scene.gateway.ip(&format!("addr add {}/24 dev tun7", GATEWAY[0]));
    scene.gateway.ip(&format!("-6 addr add {}/64 dev tun7 nodad", GATEWAY[1]));
    tun
}

/// The exchanger's answer to a segment: a SYN and ACK, a reset, or an ICMP error.
fn answer(tun: &mut Tun, syn: &Segment) -> Option<(u8, Answer)> {
    tun.wait(DEADLINE, |bytes| {
        let packet = Packet::read(bytes).filter(|packet| (packet.from, packet.to) == (syn.to, syn.from))?;
        assert!(packet.is_whole(), "a wrong checksum: {packet:x?}");
        // Not one that is repeated, to a segment before this.
        let answer = match packet.answer() {
            Some(answer) if answer.ports.1 != syn.sport => return None,
            Some(answer) => answer,
            None => Answer { ports: (0, 0), seq: 0, ack: 0, flags: 0 },
        };
        Some((packet.protocol, answer))
    })
}

#[test]
fn a_host_behind_a_tun_device_is_refused_and_another_allowed() {
    refuses_and_allows("tun", NONE);
}

#[test]
fn a_host_behind_a_tunnel_is_refused_and_another_allowed() {
    refuses_and_allows("tunnel", TUNNEL);
}

fn refuses_and_allows(name: &str, kind: u16) {
    let scene = Gateway::new(name);
    let (mut tun, probe) = (device(&scene, kind), scene.watch(25));
    let syn = |from: [&str; 2], family: usize, sport: u16| Segment {
        sport,
        ..Segment::syn(from[family], EXCHANGER[family], 25)
    };
    for family in [0, 1] {
        let syn = syn(BOT, family, 41_000);
        tun.send(&syn.packet());
        assert_eq!(answer(&mut tun, &syn).map(|(_, answer)| answer.flags), Some(SYN | ACK), "unguarded");
    }
    let policy = format!("[[gateway.allow]]\nname = \"vpn\"\nfrom = {SERVER:?}\nmac = \"any\"\n");
    let guard = Guard::start(&scene.lab, &format!("[gateway]\nlan = [\"tun*\"]\n{policy}"));
    assert!(guard.means("lan").contains("tun7"), "{}; {}", guard.means("lan"), guard.means("frame"));
    let seen = probe.settled();
    for family in [0, 1] {
        let syn = syn(BOT, family, 42_000);
        tun.send(&syn.packet());
        let reset = Answer { ports: (25, syn.sport), seq: 0, ack: syn.seq + 1, flags: RST | ACK };
        assert_eq!(answer(&mut tun, &syn), Some((6, reset)), "{}", syn.from);
        let attempt = attempts(&guard, family + 1).pop().unwrap();
        let told = ["verdict", "reason", "interface"].map(|key| attempt[key].as_str().unwrap_or("-"));
        assert_eq!(told, ["deny", "no-rule", "tun7"], "{attempt:#}");
        assert!(attempt["mac"].is_null() && attempt["vlan"].is_null(), "{attempt:#}");
        let source: SocketAddr = attempt["source"].as_str().unwrap().parse().unwrap();
        assert_eq!((source.ip(), source.port()), (BOT[family].parse::<IpAddr>().unwrap(), 42_000));
    }
    assert_eq!(probe.settled(), seen, "{:?}", probe.segments());
    for family in [0, 1] {
        let syn = syn(SERVER, family, 43_000);
        tun.send(&syn.packet());
        assert_eq!(answer(&mut tun, &syn).map(|(_, answer)| answer.flags), Some(SYN | ACK), "{}", syn.from);
    }
    assert!(probe.settled() > seen);
    // Prohibited by ICMP, and dropped.
    guard.write_policy(&format!("[gateway]\nlan = [\"tun*\"]\nrefuse_with = \"icmp-prohibited\"\n{policy}"));
    guard.reload();
    for (family, protocol) in [(0, 1), (1, 58)] {
        let syn = syn(BOT, family, 44_000);
        tun.send(&syn.packet());
        assert_eq!(answer(&mut tun, &syn).map(|(protocol, _)| protocol), Some(protocol), "{}", syn.from);
    }
    guard.write_policy(&format!("[gateway]\nlan = [\"tun*\"]\nrefuse_with = \"drop\"\n{policy}"));
    guard.reload();
    for family in [0, 1] {
        let syn = syn(BOT, family, 45_000);
        tun.send(&syn.packet());
        let to: IpAddr = BOT[family].parse().unwrap();
        let back = tun.wait(Duration::from_millis(300), |bytes| {
            Packet::read(bytes)
                .filter(|packet| packet.to == to && packet.answer().is_none_or(|answer| answer.ports.1 == 45_000))
        });
        assert_eq!(back, None);
    }
    assert_eq!(guard.counters()["refused"], 6);
}
