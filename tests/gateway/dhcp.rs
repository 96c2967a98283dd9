//! A DHCP server and resolver on the gateway, and hosts that it names.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use lab::gateway::address::{BOT, EXCHANGER, GATEWAY, LAN};
use lab::gateway::{Tried, connect, exchanger_at};
use lab::{DEADLINE, Gateway, Guard, Running, until};
use serde_json::Value;

use crate::names::called;

/// dnsmasq on the gateway: leases from 10.9.0.100 on, and one name for an address.
struct Server {
    leases: PathBuf,
    log: PathBuf,
    _runs: Running,
}

impl Server {
    fn start(scene: &Gateway) -> Self {
        let dir = scene.lab.scratch("dnsmasq");
        std::fs::create_dir_all(&dir).unwrap();
        let (leases, log) = (dir.join("leases"), dir.join("log"));
        let arguments = [
            "--keep-in-foreground".to_owned(),
            "--conf-file=/dev/null".to_owned(),
            "--no-resolv".to_owned(),
            "--no-hosts".to_owned(),
            "--no-ping".to_owned(),
            "--bogus-priv".to_owned(),
            "--user=root".to_owned(),
            "--pid-file=".to_owned(),
            "--log-facility=-".to_owned(),
            "--log-queries".to_owned(),
            "--bind-interfaces".to_owned(),
            format!("--interface={LAN}"),
            "--dhcp-range=10.9.0.100,10.9.0.150,255.255.255.0,1h".to_owned(),
            format!("--dhcp-leasefile={}", leases.display()),
            // The second label is one that somebody means harm with.
            format!("--ptr-record={},desk.<b>lan", reversed(BOT[0])),
        ];
        let runs = scene.lab.program("/usr/sbin/dnsmasq").args(arguments).in_host(&scene.gateway).spawn(&log);
        let server = Self { leases, log, _runs: runs };
        until("the DHCP server", DEADLINE, || {
            let log = server.log();
            if log.contains("DHCP, IP range") && log.contains("started") { Ok(()) } else { Err(log) }
        });
        server
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// How often it was asked for the name of an address.
    fn asked(&self, address: &str) -> usize {
        let question = format!("query[PTR] {} ", reversed(address));
        self.log().lines().filter(|line| line.contains(&question)).count()
    }
}

/// The name that an address is asked for by (RFC 1035 §3.5).
fn reversed(address: &str) -> String {
    let parts: Vec<&str> = address.rsplit('.').collect();
    format!("{}.in-addr.arpa", parts.join("."))
}

#[test]
fn a_host_is_named_by_the_lease_that_a_real_server_has_given_it() {
    let scene = Gateway::new("dhcp");
    let server = Server::start(&scene);
    let policy = format!("[gateway]\nlan = [\"{LAN}\"]\nleases = [\"{}\"]\n", server.leases.display());
    let guard = Guard::start(&scene.lab, &policy);
    let desk = scene.join("desk", "02:00:00:00:00:70", 70);
    desk.ip("addr flush dev eth0");
    let script = scene.lab.scratch("udhcpc");
    std::fs::write(&script, "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip addr add $ip/24 dev $interface\nip route add default via $router\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = script.display().to_string();
    desk.run("udhcpc", &["-i", "eth0", "-f", "-q", "-n", "-x", "hostname:front-desk", "-s", &script]);
    let attempt = called(&guard, &desk, "lease");
    assert_eq!(attempt["host"]["name"], "front-desk", "{attempt:#}");
    let source = attempt["source"].as_str().unwrap();
    assert!(source.starts_with("10.9.0.1"), "an address of the range: {source}");
    assert_eq!(attempt["mac"], "02:00:00:00:00:70", "{attempt:#}");
}

#[test]
fn a_resolver_is_asked_only_where_the_policy_says_so_and_once() {
    let scene = Gateway::new("reverse");
    let server = Server::start(&scene);
    let policy = |more: &str| format!("[gateway]\nlan = [\"{LAN}\"]\n{more}");
    let guard = Guard::start(&scene.lab, &policy(""));
    assert!(matches!(connect(&scene.bot, exchanger_at(0, 25)), Tried::Refused(_)));
    until("the record", DEADLINE, || if guard.attempts().is_empty() { Err(()) } else { Ok(()) });
    assert_eq!((server.asked(BOT[0]), &guard.attempts()[0]["host"]), (0, &Value::Null));
    guard.write_policy(&policy(&format!("reverse_dns = [\"{}\"]\n", GATEWAY[0])));
    guard.reload();
    let attempt = called(&guard, &scene.bot, "reverse-dns");
    assert_eq!(attempt["host"]["name"], "desk.blan", "{attempt:#}");
    let explained = guard.command(["explain", "--from", BOT[0], "--to", EXCHANGER[0]]);
    assert!(explained.stdout.contains("host desk.blan (reverse DNS) 10.9.0.66"), "{explained:#?}");
    // Neither a name nor its absence is asked for again.
    for _ in 0..5 {
        for host in [&scene.bot, &scene.server] {
            assert!(matches!(connect(host, exchanger_at(0, 25)), Tried::Refused(_)));
        }
    }
    // Questions are asked in their order: when that for another host is there, all before it were.
    let last = scene.join("last", "02:00:00:00:00:71", 71);
    assert!(matches!(connect(&last, exchanger_at(0, 25)), Tried::Refused(_)));
    until("the question for the last host", DEADLINE, || match server.asked("10.9.0.71") {
        0 => Err(server.log()),
        _ => Ok(()),
    });
    assert_eq!((server.asked(BOT[0]), server.asked("10.9.0.25")), (1, 1), "{}", server.log());
    // The policy's own name is before.
    let named =
        format!("reverse_dns = [\"{}\"]\n[[gateway.host]]\nname = \"pc\"\naddress = \"{}\"\n", GATEWAY[0], BOT[0]);
    guard.write_policy(&policy(&named));
    guard.reload();
    assert_eq!(called(&guard, &scene.bot, "policy")["host"]["name"], "pc");
}
