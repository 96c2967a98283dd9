//! What a program that makes its own frames must know of the wire: the device, its address, the next hop's address.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;

/// The address of an Ethernet device.
pub(crate) type Mac = [u8; 6];

/// The way to a destination on the link layer.
#[derive(Debug)]
pub(crate) struct Link {
    /// The device's index.
    pub(crate) index: i32,
    /// The device's address.
    pub(crate) own: Mac,
    /// Who takes the frames.
    pub(crate) peer: Mac,
}

impl Link {
    /// By the kernel's routes and neighbours; `peer` is an address that the caller knows better.
    pub(crate) fn to(to: SocketAddr, peer: Option<&String>) -> Result<Self, Errno> {
        let route = ip(&["-o", "route", "get", &to.ip().to_string()])?;
        let device = after(&route, "dev").ok_or(Errno::ENETUNREACH)?;
        let next_hop = after(&route, "via").map_or_else(|| to.ip().to_string(), str::to_owned);
        let (index, own) = ethernet(device)?;
        let peer = match peer {
            Some(text) => parse(text).ok_or(Errno::EINVAL)?,
            None => neighbour(to, &next_hop, device)?,
        };
        Ok(Self { index, own, peer })
    }
}

/// Index and address of a device.
fn ethernet(device: &str) -> Result<(i32, Mac), Errno> {
    let link = getifaddrs()?
        .filter(|interface| interface.interface_name == device)
        .find_map(|interface| interface.address.and_then(|address| address.as_link_addr().copied()))
        .ok_or(Errno::ENODEV)?;
    Ok((link.ifindex() as i32, link.addr().ok_or(Errno::ENODEV)?))
}

/// The next hop's address. A datagram to a port where nobody is makes the kernel ask for it.
fn neighbour(to: SocketAddr, next_hop: &str, device: &str) -> Result<Mac, Errno> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let asked = UdpSocket::bind(any).and_then(|socket| socket.send_to(b"?", (to.ip(), 9)));
    crate::os("ask for the neighbour", asked)?;
    for _ in 0..100 {
        let known = ip(&["neigh", "show", next_hop, "dev", device])?;
        if let Some(mac) = after(&known, "lladdr").and_then(parse) {
            return Ok(mac);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(Errno::EHOSTUNREACH)
}

/// One command of iproute2, and what it printed.
pub(crate) fn ip(arguments: &[&str]) -> Result<String, Errno> {
    let output = crate::os("ip", Command::new("ip").args(arguments).output())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        crate::remark(&format!("ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)));
        Err(Errno::EINVAL)
    }
}

/// The word after `name` in iproute2's output.
fn after<'text>(text: &'text str, name: &str) -> Option<&'text str> {
    let mut words = text.split_whitespace();
    words.find(|word| *word == name)?;
    words.next()
}

fn parse(text: &str) -> Option<Mac> {
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>().ok()?;
    bytes.try_into().ok()
}
