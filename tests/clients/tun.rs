//! Packets from a device of our own (Documentation/networking/tuntap.rst), or by the loopback device: to the host they
//! come from outside, and it forwards them. In a namespace of the lab only, whose forwarding they switch on.

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::errno::Errno;

use crate::frame;
use crate::link::{Link, Mac, ip};
use crate::packet::{self, Flow};
use crate::{Said, Way};

/// The ways.
pub(crate) const WAYS: &[Way] = &[
    ("tun", |to, _| inject(to, "bottun", libc::IFF_TUN, |flow| packet::plain(flow, &packet::syn(flow)))),
    ("tap", |to, _| inject(to, "bottap", libc::IFF_TAP, |flow| frame_to(flow, DEVICE))),
    ("packet_loopback", |to, _| loopback(to)),
];

/// The tap device's address, and that of the made-up neighbour who sends.
const DEVICE: Mac = [2, 0, 0, 0, 0, 1];
const NEIGHBOUR: Mac = [2, 0, 0, 0, 0, 2];

/// ioctl TUNSETIFF (include/uapi/linux/if_tun.h): `_IOW('T', 202, int)`.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;

/// The device's subnet (RFC 5737, RFC 3849) and its made-up neighbour in it.
const SUBNETS: [&str; 2] = ["203.0.113.1/24", "2001:db8:2525::1/64"];
const OTHER_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const OTHER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x2525, 0, 0, 0, 0, 2);

fn inject(to: SocketAddr, name: &str, kind: i32, make: fn(&Flow) -> Vec<u8>) -> Said {
    let mut device = open(name, kind)?;
    if kind == libc::IFF_TAP {
        ip(&["link", "set", name, "address", "02:00:00:00:00:01"])?;
    }
    for subnet in SUBNETS {
        let mut arguments = vec!["addr", "add", subnet, "dev", name];
        // Without duplicate address detection the address is usable at once.
        arguments.extend(subnet.contains(':').then_some("nodad"));
        ip(&arguments)?;
    }
    ip(&["link", "set", name, "up"])?;
    forward()?;
    crate::os("write", device.write_all(&make(&foreign(to))))?;
    // The device goes with the descriptor, and a packet that waits for a neighbour's address would be lost.
    std::thread::sleep(Duration::from_millis(300));
    Ok("sent")
}

/// A new device, which carries bare packets or frames and goes when the descriptor is closed.
fn open(name: &str, kind: i32) -> Result<File, Errno> {
    let device = crate::os("/dev/net/tun", File::options().read(true).write(true).open("/dev/net/tun"))?;
    // SAFETY: integers and a union of them, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (kind | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request that the command takes.
    crate::step("TUNSETIFF", unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, &raw const request) })?;
    Ok(device)
}

/// Makes a router of the namespace.
fn forward() -> Result<(), Errno> {
    ["ipv4/ip_forward", "ipv6/conf/all/forwarding"]
        .into_iter()
        .try_for_each(|switch| crate::os(switch, std::fs::write(format!("/proc/sys/net/{switch}"), "1")))
}

/// From the neighbour that does not exist.
fn foreign(to: SocketAddr) -> Flow {
    let from: IpAddr = if to.is_ipv4() { OTHER_V4.into() } else { OTHER_V6.into() };
    Flow::between(from, to)
}

fn frame_to(flow: &Flow, device: Mac) -> Vec<u8> {
    let mut frame = [device, NEIGHBOUR].concat();
    frame.extend(frame::ethertype(flow).to_be_bytes());
    frame.extend(packet::plain(flow, &packet::syn(flow)));
    frame
}

/// What leaves by the loopback device comes in by it, as if from outside.
fn loopback(to: SocketAddr) -> Said {
    forward()?;
    let flow = foreign(to);
    // The first device of every namespace, with an address of zeroes.
    let lo = Link { index: 1, own: NEIGHBOUR, peer: [0; 6] };
    let socket = frame::socket(libc::SOCK_RAW)?;
    frame::send(&socket, &frame_to(&flow, lo.peer), &frame::address(&lo, frame::ethertype(&flow)))?;
    Ok("sent")
}
