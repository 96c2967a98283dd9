//! Connections that are older than the guard, or are half there when it comes.

use std::io::BufRead as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use socket2::Socket;

use crate::ways::{established, stream};
use crate::{Said, Way};

/// The ways. What they wait for is the file that the last argument names, or else a line on standard input.
pub(crate) const WAYS: &[Way] = &[
    ("connected_before", connected_before),
    ("syn_sent_before", syn_sent_before),
    ("mptcp_join", |to, _| mptcp_join(to)),
];

/// Connects and says `connected`; when told to, sends, and says whether the far end's kernel acknowledged it: `passed`
/// or `stopped`.
fn connected_before(to: SocketAddr, rest: &[String]) -> Said {
    let socket = stream(&to, 0)?;
    crate::os("connect", socket.connect_timeout(&to.into(), Duration::from_secs(5)))?;
    crate::announce("connected");
    told(rest.first());
    speak(&socket)
}

/// Sends a line, and waits until it has been acknowledged.
pub(crate) fn speak(socket: &Socket) -> Said {
    crate::os("send", socket.send(b"EHLO bot\r\n"))?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        if let Some(error) = crate::os("SO_ERROR", socket.take_error())? {
            return Err(crate::ways::errno(&error));
        }
        if unacknowledged(socket)? == 0 {
            return Ok("passed");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok("stopped")
}

/// How many bytes the far end has not acknowledged (SIOCOUTQ, tcp(7)).
fn unacknowledged(socket: &Socket) -> Result<i32, Errno> {
    let mut bytes = 0i32;
    // SAFETY: the integer that the command fills.
    crate::step("SIOCOUTQ", unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(bytes)
}

/// Waits for the word to go on.
pub(crate) fn told(file: Option<&String>) {
    match file {
        Some(path) => {
            while !std::path::Path::new(path).exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        None => drop(std::io::stdin().lock().lines().next()),
    }
}

/// `syn_sent_before ADDRESS PORT OWN-PORT [FILE]`: sends a SYN that nobody answers, and says `connecting`; when told
/// to, waits for the far end to open the connection from its side (RFC 9293 §3.5, figure 7).
fn syn_sent_before(to: SocketAddr, rest: &[String]) -> Said {
    let own: u16 = rest.first().and_then(|text| text.parse().ok()).ok_or(Errno::EINVAL)?;
    let any = match to.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = stream(&to, 0)?;
    // The port may have served before.
    crate::os("SO_REUSEADDR", socket.set_reuse_address(true))?;
    crate::os("bind", socket.bind(&SocketAddr::new(any, own).into()))?;
    crate::os("nonblocking", socket.set_nonblocking(true))?;
    match socket.connect(&to.into()) {
        Ok(()) => return Err(Errno::EISCONN),
        Err(error) if crate::ways::errno(&error) == Errno::EINPROGRESS => {}
        Err(error) => return Err(crate::ways::errno(&error)),
    }
    crate::announce("connecting");
    told(rest.get(1));
    match established(&socket, Duration::from_secs(3)) {
        Ok(()) => Ok("connected"),
        Err(Errno::ETIMEDOUT) => Ok("stopped"),
        Err(errno) => Err(errno),
    }
}

/// Multipath TCP to a port that may well be open; the peer announces another, and the kernel joins by itself
/// (RFC 8684 §3.4.1). Says `connected` and stays for two seconds. Over IPv6 in a namespace of the lab only.
fn mptcp_join(to: SocketAddr) -> Said {
    if to.is_ipv6() {
        // An IPv6 address with a port leaves no room for timestamps among the options of a segment.
        crate::os("tcp_timestamps", std::fs::write("/proc/sys/net/ipv4/tcp_timestamps", "0"))?;
    }
    let socket = stream(&to, libc::IPPROTO_MPTCP)?;
    crate::os("connect", socket.connect_timeout(&to.into(), Duration::from_secs(5)))?;
    // Announcements come once data has gone both ways.
    crate::os("send", socket.send(b"EHLO bot\r\n"))?;
    std::thread::sleep(Duration::from_secs(2));
    Ok("connected")
}
