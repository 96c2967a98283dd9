//! Sockets that were something else before.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::errno::Errno;
use socket2::Socket;

use crate::ways::stream;
use crate::{Said, Way};

/// The ways.
pub(crate) const WAYS: &[Way] = &[("child_reused", child_reused), ("allowed_reused", allowed_reused)];

/// `child_reused ADDRESS PORT`: a listener's child, by a connection to ourselves, is taken apart and connected to where
/// it is meant to go. Its segments look like answers.
fn child_reused(to: SocketAddr, _rest: &[String]) -> Said {
    let (any, own) = match to.ip() {
        IpAddr::V4(_) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(_) => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::LOCALHOST)),
    };
    let listener = stream(&to, 0)?;
    crate::os("bind", listener.bind(&SocketAddr::new(any, 0).into()))?;
    crate::os("listen", listener.listen(1))?;
    let port = crate::os("getsockname", listener.local_addr())?.as_socket().map_or(0, |address| address.port());
    let peer = stream(&to, 0)?;
    crate::os("connect", peer.connect(&SocketAddr::new(own, port).into()))?;
    let (child, _) = crate::os("accept", listener.accept())?;
    anew(&child, to)
}

/// `allowed_reused ADDRESS PORT FIRST-PORT`: connects to a port where it may, and then to another.
fn allowed_reused(to: SocketAddr, rest: &[String]) -> Said {
    let first = rest.first().and_then(|port| port.parse().ok()).ok_or(Errno::EINVAL)?;
    let socket = stream(&to, 0)?;
    let wait = Duration::from_secs(3);
    crate::os("connect", socket.connect_timeout(&SocketAddr::new(to.ip(), first).into(), wait))?;
    crate::announce("connected");
    anew(&socket, to)
}

/// Takes a connection apart (connect(2), `AF_UNSPEC`) and makes another of the socket.
fn anew(socket: &Socket, to: SocketAddr) -> Said {
    // SAFETY: integers alone, for which all zeroes is a value: AF_UNSPEC is 0.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    // SAFETY: an address with its length.
    let apart = unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, size_of_val(&nowhere) as u32) };
    crate::step("disconnect", apart)?;
    match socket.connect_timeout(&to.into(), Duration::from_secs(2)) {
        Ok(()) => Ok("connected"),
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Ok("stopped"),
        Err(error) => Err(crate::ways::errno(&error)),
    }
}
