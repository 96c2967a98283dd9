//! A connection that is declared instead of opened: TCP_REPAIR, made for moving connections between machines
//! (lwn.net/Articles/495304).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use socket2::Socket;

use crate::packet::DATA;
use crate::ways::stream;
use crate::{Said, Way};

/// The ways.
pub(crate) const WAYS: &[Way] = &[("repair", |to, _| repair(to))];

/// The queues and the end of the repair (include/uapi/linux/tcp.h).
const RECEIVE_QUEUE: i32 = 1;
const SEND_QUEUE: i32 = 2;
const OFF_WITHOUT_PROBE: i32 = -1;

/// `struct tcp_repair_window` (include/uapi/linux/tcp.h).
#[repr(C)]
struct Window {
    /// The sequence number of the last update of the send window, and that window.
    send_update: u32,
    send: u32,
    /// The largest window seen.
    largest: u32,
    /// Our own window, and the sequence number it counts from.
    receive: u32,
    receive_update: u32,
}

/// No handshake: the socket is told that there has been one, and sends.
fn repair(to: SocketAddr) -> Said {
    let socket = stream(&to, 0)?;
    set(&socket, "TCP_REPAIR", libc::TCP_REPAIR, &1)?;
    let any = match to.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    crate::os("bind", socket.bind(&SocketAddr::new(any, 0).into()))?;
    for (queue, next) in [(SEND_QUEUE, 1_000_000), (RECEIVE_QUEUE, 2_000_000)] {
        set(&socket, "TCP_REPAIR_QUEUE", libc::TCP_REPAIR_QUEUE, &queue)?;
        set(&socket, "TCP_QUEUE_SEQ", libc::TCP_QUEUE_SEQ, &next)?;
    }
    crate::os("connect", socket.connect(&to.into()))?;
    let window =
        Window { send_update: 2_000_000, send: 65_535, largest: 65_535, receive: 65_535, receive_update: 2_000_000 };
    set(&socket, "TCP_REPAIR_WINDOW", libc::TCP_REPAIR_WINDOW, &window)?;
    // With the probe of the far window, its reset might come before we have sent.
    set(&socket, "TCP_REPAIR off", libc::TCP_REPAIR, &OFF_WITHOUT_PROBE)?;
    crate::os("send", socket.send(DATA))?;
    // What has been sent leaves at once; closing later would add a segment of its own.
    Ok("sent")
}

fn set<T>(socket: &Socket, name: &str, option: i32, value: &T) -> Result<(), Errno> {
    let (pointer, length) = (std::ptr::from_ref(value).cast(), size_of_val(value) as libc::socklen_t);
    // SAFETY: an option with its length.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, pointer, length) };
    crate::step(name, set).map(drop)
}
