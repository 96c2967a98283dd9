//! Hosts: network namespaces, joined by wires.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::netns::NetNs;
use crate::until::{DEADLINE, until};

/// A network namespace whose loopback is up, with Fast Open on for clients and servers.
#[derive(Debug)]
pub struct Host {
    name: String,
    netns: NetNs,
    addresses: std::sync::Mutex<Vec<IpAddr>>,
}

impl Host {
    #[track_caller]
    pub(crate) fn new(name: &str) -> Self {
        let host = Self { name: name.to_owned(), netns: NetNs::new(), addresses: std::sync::Mutex::default() };
        host.ip("link set lo up");
        host.netns.enter(|| {
            std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "3").unwrap();
        });
        host
    }

    /// Runs one `ip` command in the host.
    #[track_caller]
    pub fn ip(&self, arguments: &str) {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.netns.path().display()))
            .arg("ip")
            .args(arguments.split_whitespace())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}: ip {arguments}: {}", self.name, String::from_utf8_lossy(&output.stderr));
    }

    /// Runs a program in the host, which must succeed, and returns what it printed.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.netns.path().display()))
            .arg(program)
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {program} {arguments:?}: {said}", self.name);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Does something inside, on a thread of its own; threads that it starts stay inside.
    #[track_caller]
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.enter(work)
    }

    /// Joins two hosts and gives both addresses: 198.51.100.0/24 and 2001:db8::/32 (RFC 5737, RFC 3849).
    #[track_caller]
    pub(crate) fn wire(number: u8, a: &Self, b: &Self) {
        let (at_a, at_b) = (format!("w{number}a"), format!("w{number}b"));
        // Unlike indices: with like ones in both namespaces the kernel's link watch takes a second longer.
        let (index_a, index_b) = (100 + u32::from(number) * 2, 101 + u32::from(number) * 2);
        a.ip(&format!("link add {at_a} index {index_a} type veth peer name {at_b} index {index_b}"));
        a.ip(&format!("link set {at_b} netns {}", b.netns.path().display()));
        for (host, device, last) in [(a, at_a, 1), (b, at_b, 2)] {
            let v4 = Ipv4Addr::new(198, 51, 100, number * 4 + last);
            let v6 = Ipv6Addr::new(0x2001, 0xdb8, number.into(), 0, 0, 0, 0, last.into());
            host.ip(&format!("addr add {v4}/30 dev {device}"));
            // Without duplicate address detection the address is usable at once.
            host.ip(&format!("addr add {v6}/64 dev {device} nodad"));
            host.ip(&format!("link set {device} up"));
            host.addresses.lock().unwrap().extend([IpAddr::V4(v4), IpAddr::V6(v6)]);
        }
        // The addresses of this wire, not of one that `b` had before.
        let targets: Vec<IpAddr> = b.addresses.lock().unwrap().iter().rev().take(2).copied().collect();
        until("packets over the wire", DEADLINE, || {
            // A port that nobody listens on: the answer is a reset, and proves both directions.
            let answers = a.netns.enter(|| {
                targets
                    .iter()
                    .map(|to| {
                        TcpStream::connect_timeout(&(*to, 9).into(), Duration::from_secs(1)).map_err(|e| e.kind())
                    })
                    .collect::<Vec<_>>()
            });
            let reset = |answer: &Result<_, _>| matches!(answer, Err(ErrorKind::ConnectionRefused));
            if answers.iter().all(reset) { Ok(()) } else { Err(answers) }
        });
    }

    /// The host's first IPv4 address.
    #[must_use]
    pub fn v4(&self) -> IpAddr {
        *self.addresses.lock().unwrap().iter().find(|address| address.is_ipv4()).unwrap()
    }

    /// The host's first IPv6 address.
    #[must_use]
    pub fn v6(&self) -> IpAddr {
        *self.addresses.lock().unwrap().iter().find(|address| address.is_ipv6()).unwrap()
    }

    /// Where other programs find the namespace, for `nsenter --net=`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.netns.path()
    }

    /// The inode number by which the kernel's events name the namespace.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.netns.inode()
    }

    pub(crate) fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// TCP segments that have come in, over IPv4 and IPv6 (`Tcp: InSegs`, RFC 4022).
    #[must_use]
    pub fn segments_in(&self) -> u64 {
        let snmp = self.netns.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
        let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let place = names.split(' ').position(|name| name == "InSegs").unwrap();
        values.split(' ').nth(place).unwrap().parse().unwrap()
    }

    /// A line to look around in the host by hand.
    #[must_use]
    pub fn enter_line(&self) -> String {
        let mut line = String::new();
        write!(line, "nsenter --net={}", self.path().display()).unwrap();
        line
    }
}
