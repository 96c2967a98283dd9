//! Hosts and the wires between them.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use crate::netns::NetNs;
use crate::sink::SinkBuilder;
use crate::{DEADLINE, until};

/// A host: a network namespace. It ends with this value, its devices with it.
#[derive(Debug)]
pub struct Host {
    name: String,
    netns: Rc<NetNs>,
    links: RefCell<Vec<Link>>,
}

/// One end of a wire, as its host sees it.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    device: String,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    /// The namespace at the other end.
    pub(crate) peer: Rc<NetNs>,
}

/// What [`crate::Lab::wire`] made: the two ends' addresses.
#[derive(Debug, Clone, Copy)]
pub struct Wire {
    /// The first host's IPv4 address.
    pub a_v4: Ipv4Addr,
    /// The first host's IPv6 address.
    pub a_v6: Ipv6Addr,
    /// The second host's IPv4 address.
    pub b_v4: Ipv4Addr,
    /// The second host's IPv6 address.
    pub b_v6: Ipv6Addr,
}

impl Host {
    #[track_caller]
    pub(crate) fn new(name: &str) -> Self {
        let host = Self {
            name: name.into(),
            netns: Rc::new(NetNs::new()),
            links: RefCell::default(),
        };
        host.ip(&["link", "set", "lo", "up"]);
        // Fast Open for clients and servers with no cookie first: the very first SYN carries data, which is the
        // packet that a guard must not let out.
        host.sysctl("net/ipv4/tcp_fastopen", "519");
        host.sysctl("net/ipv6/conf/default/accept_dad", "0");
        host
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where other programs find the network namespace while this process lives.
    #[must_use]
    pub fn netns_path(&self) -> PathBuf {
        self.netns.path()
    }

    /// The inode number by which events name the network namespace.
    #[must_use]
    pub fn netns_inode(&self) -> u64 {
        self.netns.inode()
    }

    /// The line that puts a person's shell into the host, while the test is held by a debugger.
    #[must_use]
    pub fn debug_line(&self) -> String {
        format!("nsenter --net={} bash # {}", self.netns.path().display(), self.name)
    }

    pub(crate) fn netns(&self) -> &NetNs {
        &self.netns
    }

    pub(crate) fn shared_netns(&self) -> Rc<NetNs> {
        Rc::clone(&self.netns)
    }

    pub(crate) fn links(&self) -> Vec<Link> {
        self.links.borrow().clone()
    }

    /// Its IPv4 address on its first wire.
    ///
    /// # Panics
    /// Without a wire.
    #[track_caller]
    #[must_use]
    pub fn v4(&self) -> IpAddr {
        self.first_link().v4.into()
    }

    /// Its IPv6 address on its first wire.
    ///
    /// # Panics
    /// Without a wire.
    #[track_caller]
    #[must_use]
    pub fn v6(&self) -> IpAddr {
        self.first_link().v6.into()
    }

    /// The device of its first wire, as it is called inside.
    ///
    /// # Panics
    /// Without a wire.
    #[track_caller]
    #[must_use]
    pub fn device(&self) -> String {
        self.first_link().device
    }

    #[track_caller]
    fn first_link(&self) -> Link {
        let links = self.links.borrow();
        let first = links.first().cloned();
        first.unwrap_or_else(|| panic!("the host {} has no wire", self.name))
    }

    /// Runs `ip` with these arguments inside.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn ip(&self, args: &[&str]) {
        self.tool("ip", args);
    }

    /// Runs a tool of the host's administration (`ip`, `nft`, `tc`) inside, outside any of the lab's cgroups, and
    /// returns its standard output.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn tool(&self, program: &str, args: &[&str]) -> String {
        let netns = self.netns.fd().try_clone().unwrap();
        let mut command = Command::new(program);
        command.args(args);
        // SAFETY: setns is one system call on a descriptor that the closure owns.
        unsafe {
            command.pre_exec(move || {
                nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET)?;
                Ok(())
            })
        };
        let output = command.output();
        let output = output.unwrap_or_else(|error| panic!("start {program} {args:?}: {error}"));
        assert!(
            output.status.success(),
            "{program} {args:?} in host {}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Writes a network sysctl of the host, such as `net/ipv4/ip_forward`.
    ///
    /// # Panics
    /// When it cannot be written.
    #[track_caller]
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/{name}");
        let written = self.netns.enter(|| std::fs::write(&path, value));
        written.unwrap_or_else(|error| panic!("write {value} to {path} of {}: {error}", self.name));
    }

    /// Runs `work` on a thread inside.
    #[track_caller]
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.enter(work)
    }

    /// A TCP sink to be started on this port.
    pub fn sink(&self, port: u16) -> SinkBuilder<'_> {
        SinkBuilder::new(self, port)
    }
}

impl Wire {
    #[track_caller]
    pub(crate) fn between(number: u8, a: &Host, b: &Host) -> Self {
        // RFC 5737 §3: TEST-NET-1, four addresses a wire. RFC 3849: the documentation prefix, a /64 a wire.
        let low = number
            .checked_mul(4)
            .expect("at most 64 wires in one lab");
        let v6 = |last| Ipv6Addr::new(0x2001, 0xdb8, u16::from(number), 0, 0, 0, 0, last);
        let wire = Self {
            a_v4: Ipv4Addr::new(192, 0, 2, low + 1),
            a_v6: v6(1),
            b_v4: Ipv4Addr::new(192, 0, 2, low + 2),
            b_v6: v6(2),
        };
        let (a_device, b_device) = (format!("wire{number}a"), format!("wire{number}b"));
        let peer = b.netns.path().display().to_string();
        a.ip(&[
            "link", "add", "name", &a_device, "type", "veth", "peer", "name", &b_device, "netns", &peer,
        ]);
        a.plug(&a_device, wire.a_v4, wire.a_v6, b);
        b.plug(&b_device, wire.b_v4, wire.b_v6, a);
        for address in [IpAddr::from(wire.b_v4), wire.b_v6.into()] {
            a.wait_for_route_to(address);
        }
        wire
    }
}

impl Host {
    #[track_caller]
    fn plug(&self, device: &str, v4: Ipv4Addr, v6: Ipv6Addr, peer: &Self) {
        self.ip(&["address", "add", &format!("{v4}/30"), "dev", device]);
        self.ip(&["address", "add", &format!("{v6}/64"), "dev", device, "nodad"]);
        self.ip(&["link", "set", device, "up"]);
        self.links.borrow_mut().push(Link {
            device: device.into(),
            v4,
            v6,
            peer: Rc::clone(&peer.netns),
        });
    }

    /// A refusal from the other end proves the way there and back.
    #[track_caller]
    fn wait_for_route_to(&self, address: IpAddr) {
        const DISCARD: u16 = 9; // RFC 863; nobody serves it in a lab
        let to = SocketAddr::new(address, DISCARD);
        until(&format!("a way from {} to {address}", self.name), DEADLINE, || {
            let tried = self.netns.enter(|| TcpStream::connect_timeout(&to, Duration::from_millis(200)));
            match tried {
                Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => Ok(()),
                other => Err(other),
            }
        });
    }
}
