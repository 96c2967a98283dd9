//! A gateway: a LAN behind it, the Internet before it, and address translation in between.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::until::{DEADLINE, until};
use crate::{Host, Lab, Probe, Sink};

/// Names and numbers of the LAN (RFC 1918, RFC 4193) and of what stands for the Internet (RFC 5737, RFC 3849).
pub mod address {
    /// The gateway's device to the LAN.
    pub const LAN: &str = "lan0";
    /// The gateway's device to the Internet.
    pub const WAN: &str = "wan0";
    /// The gateway's addresses in the LAN.
    pub const GATEWAY: [&str; 2] = ["10.9.0.1", "fd09::1"];
    /// The mail server's.
    pub const SERVER: [&str; 2] = ["10.9.0.25", "fd09::25"];
    /// Those of a workstation with a bot on it.
    pub const BOT: [&str; 2] = ["10.9.0.66", "fd09::66"];
    /// The gateway's addresses in the Internet.
    pub const OUTSIDE: [&str; 2] = ["203.0.113.1", "2001:db8:9::1"];
    /// The mail exchanger's.
    pub const EXCHANGER: [&str; 2] = ["203.0.113.5", "2001:db8:9::5"];
    /// The MAC address of the gateway's device to the LAN.
    pub const GATEWAY_MAC: &str = "02:00:00:00:00:01";
    /// The mail server's.
    pub const SERVER_MAC: &str = "02:00:00:00:00:25";
    /// The workstation's.
    pub const BOT_MAC: &str = "02:00:00:00:00:66";
}
use address::{BOT, BOT_MAC, EXCHANGER, GATEWAY, GATEWAY_MAC, LAN, OUTSIDE, SERVER, SERVER_MAC, WAN};

/// The network, without a guard.
#[derive(Debug)]
pub struct Gateway {
    /// The lab it is in; an agent of it runs on the gateway.
    pub lab: Lab,
    /// The router that the agent guards.
    pub gateway: Host,
    /// The switch that the LAN's hosts are plugged into.
    pub switch: Host,
    /// A mail server of the LAN's.
    pub server: Host,
    /// A workstation of the LAN's.
    pub bot: Host,
    /// The Internet, a single host.
    pub internet: Host,
    /// What listens on port 25 of it.
    pub exchanger: Sink,
}

impl Gateway {
    /// Builds it; returns when packets pass from both LAN hosts to the Internet and back. `name` is the test's.
    #[track_caller]
    #[must_use]
    pub fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        // The first, because an agent of the lab runs there.
        let gateway = lab.host("gateway");
        let [switch, server, bot, internet] = ["switch", "server", "bot", "internet"].map(|name| lab.host(name));
        switch.ip("link add br0 type bridge");
        switch.ip("link set br0 up");
        plug(&switch, "to-gateway", &gateway, LAN, GATEWAY_MAC);
        plug(&switch, "to-server", &server, "eth0", SERVER_MAC);
        plug(&switch, "to-bot", &bot, "eth0", BOT_MAC);
        gateway.ip(&format!("link add {WAN} index 201 type veth peer name eth0 index 202"));
        gateway.ip(&format!("link set eth0 netns {}", internet.path().display()));
        for (host, device, addresses) in [
            (&gateway, LAN, GATEWAY),
            (&gateway, WAN, OUTSIDE),
            (&server, "eth0", SERVER),
            (&bot, "eth0", BOT),
            (&internet, "eth0", EXCHANGER),
        ] {
            set_up(host, device, addresses);
        }
        for host in [&server, &bot] {
            host.ip(&format!("route add default via {}", GATEWAY[0]));
            host.ip(&format!("-6 route add default via {}", GATEWAY[1]));
        }
        gateway.enter(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        });
        translate(&gateway);
        let exchanger = Sink::listen(&internet, 25);
        let built = Self { lab, gateway, switch, server, bot, internet, exchanger };
        for (host, number) in [(&built.server, 0), (&built.server, 1), (&built.bot, 0), (&built.bot, 1)] {
            let to = exchanger_at(number, 9);
            until("packets through the gateway", DEADLINE, || {
                // A port that nobody listens on: the reset proves both directions.
                connect(host, to).refused()
            });
        }
        built
    }

    /// Watches what comes into the Internet for TCP to a port.
    #[track_caller]
    #[must_use]
    pub fn watch(&self, port: u16) -> Probe {
        Probe::listen(&self.internet, port)
    }

    /// Plugs another host into the switch. It has its own addresses, the last part of which is `last`.
    #[track_caller]
    #[must_use]
    pub fn join(&self, name: &str, mac: &str, last: u8) -> Host {
        let host = self.lab.host(name);
        plug(&self.switch, &format!("to-{name}"), &host, "eth0", mac);
        set_up(&host, "eth0", [&format!("10.9.0.{last}"), &format!("fd09::{last}")]);
        host.ip(&format!("route add default via {}", GATEWAY[0]));
        host.ip(&format!("-6 route add default via {}", GATEWAY[1]));
        host
    }
}

/// A port of the exchanger, by IPv4 (0) or IPv6 (1).
#[must_use]
pub fn exchanger_at(family: usize, port: u16) -> SocketAddr {
    SocketAddr::new(EXCHANGER[family].parse::<IpAddr>().unwrap(), port)
}

/// A veth device of a host, whose other end is a port of the switch.
fn plug(switch: &Host, port: &str, host: &Host, device: &str, mac: &str) {
    // Unlike indices: with like ones in both namespaces the kernel's link watch takes a second longer.
    let index = 300 + u32::from_str_radix(&mac[15..], 16).unwrap();
    switch.ip(&format!("link add {port} index {index} type veth peer name {device} netns {}", host.path().display()));
    switch.ip(&format!("link set {port} master br0 up"));
    host.ip(&format!("link set {device} address {mac}"));
}

fn set_up(host: &Host, device: &str, addresses: [&str; 2]) {
    host.ip(&format!("link set {device} up"));
    host.ip(&format!("addr add {}/24 dev {device}", addresses[0]));
    // Without duplicate address detection the address is usable at once.
    host.ip(&format!("-6 addr add {}/64 dev {device} nodad", addresses[1]));
}

/// Hides the LAN behind the gateway's outside addresses, and hands what comes in for port 25 to the mail server.
fn translate(gateway: &Host) {
    let rules = format!(
        "add table inet nat; \
         add chain inet nat leaves {{ type nat hook postrouting priority 100; }}; \
         add rule inet nat leaves oifname {WAN} masquerade; \
         add chain inet nat comes {{ type nat hook prerouting priority -100; }}; \
         add rule inet nat comes iifname {WAN} meta nfproto ipv4 tcp dport 25 dnat ip to {}; \
         add rule inet nat comes iifname {WAN} meta nfproto ipv6 tcp dport 25 dnat ip6 to {}",
        SERVER[0], SERVER[1]
    );
    gateway.run("nft", &[&rules]);
}

/// What came of a connect().
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// A connection, and a greeting by it.
    Greeted,
    /// ECONNREFUSED, and after how long.
    Refused(Duration),
    /// EHOSTUNREACH or EACCES, which the ICMP errors of a prohibition come to, and after how long.
    Prohibited(Duration),
    /// Nothing at all, for as long as was waited.
    Silence,
    /// Something else.
    Other(String),
}

impl Tried {
    /// For `until`: a greeting is what was waited for.
    ///
    /// # Errors
    /// When it is something else.
    pub fn greeted(self) -> Result<(), Self> {
        if self == Self::Greeted { Ok(()) } else { Err(self) }
    }

    /// For `until`: a refusal is what was waited for.
    ///
    /// # Errors
    /// When it is something else.
    pub fn refused(self) -> Result<(), Self> {
        if matches!(self, Self::Refused(_)) { Ok(()) } else { Err(self) }
    }
}

/// Connects from a host with a kernel's socket, and waits up to two seconds.
#[must_use]
pub fn connect(host: &Host, to: SocketAddr) -> Tried {
    connect_from(host, None, to)
}

/// The same from one of several addresses.
#[must_use]
pub fn connect_from(host: &Host, from: Option<IpAddr>, to: SocketAddr) -> Tried {
    let start = Instant::now();
    let connected = host.enter(|| {
        let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        socket.connect_timeout(&to.into(), Duration::from_secs(2))?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.read_exact(&mut [0; 4])
    });
    let passed = start.elapsed();
    let Err(error) = connected else { return Tried::Greeted };
    match (error.raw_os_error(), error.kind()) {
        (Some(libc::ECONNREFUSED), _) => Tried::Refused(passed),
        (Some(libc::EHOSTUNREACH | libc::EACCES), _) => Tried::Prohibited(passed),
        (_, std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock) => Tried::Silence,
        _ => Tried::Other(error.to_string()),
    }
}
