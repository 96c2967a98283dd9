//! The ways to a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;

use crate::raw::{self, IPPROTO_MPTCP};
use crate::report::{Attempt, payload, print};
use crate::{Args, ring};

const PLAIN: i32 = 0;

/// Takes the path that the arguments name and prints the report.
pub(crate) fn run(args: &Args) {
    let to = SocketAddr::new(args.to, args.port);
    let path = args.path.as_str();
    let timeout = Duration::from_millis(args.timeout_ms.into());
    if path == "leaderless" {
        without_leader(to, timeout);
    }
    let start = Instant::now();
    let attempt = attempt(args, path, to, timeout);
    print(path, start, attempt.unwrap_or_else(Attempt::Refused));
}

fn attempt(args: &Args, path: &str, to: SocketAddr, timeout: Duration) -> Result<Attempt, Errno> {
    let mapped = || match to.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), to.port()),
        IpAddr::V6(_) => panic!("a mapped address is made from an IPv4 one"),
    };
    let blocking = |to, protocol| open(to, protocol, timeout);
    match path {
        "plain" => connect(blocking(to, PLAIN)?, to, path),
        "mapped" => connect(blocking(mapped(), PLAIN)?, mapped(), path),
        "mptcp" => connect(blocking(to, IPPROTO_MPTCP)?, to, path),
        "tfo_sendto" => fast_open(blocking(to, PLAIN)?, to, path),
        "mapped_tfo" => fast_open(blocking(mapped(), PLAIN)?, mapped(), path),
        "mptcp_tfo" => fast_open(blocking(to, IPPROTO_MPTCP)?, to, path),
        "tfo_connect" => fast_open_connect(blocking(to, PLAIN)?, to, path),
        "mptcp_tfo_connect" => fast_open_connect(blocking(to, IPPROTO_MPTCP)?, to, path),
        "nonblocking" => nonblocking(raw::stream(to, PLAIN)?, to, path, timeout),
        "io_uring" => ring::connect(blocking(to, PLAIN)?, to, path, ring::Mode::Plain),
        "io_uring_async" => ring::connect(blocking(to, PLAIN)?, to, path, ring::Mode::Async),
        "io_uring_sqpoll" => ring::connect(blocking(to, PLAIN)?, to, path, ring::Mode::SqPoll),
        "io_uring_tfo" => ring::fast_open(blocking(to, PLAIN)?, to, path),
        "reconnect" => reconnect(blocking(to, PLAIN)?, to, path),
        "bind_first" => {
            let socket = blocking(to, PLAIN)?;
            raw::set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
            let any = match to.ip() {
                IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            raw::bind(&socket, SocketAddr::new(any, args.source_port))?;
            connect(socket, to, path)
        }
        "udp" => {
            let socket = raw::socket(to, libc::SOCK_DGRAM, 0)?;
            raw::connect(&socket, to)?;
            raw::send_to(&socket, &payload(path), 0, to)?;
            Ok(Attempt::Sent)
        }
        "setuid" => {
            become_user(args)?;
            connect(blocking(to, PLAIN)?, to, path)
        }
        unknown => panic!("no such path: {unknown}"),
    }
}

/// A socket whose calls give up after a while.
fn open(to: SocketAddr, protocol: i32, timeout: Duration) -> Result<OwnedFd, Errno> {
    let socket = raw::stream(to, protocol)?;
    let limits = SockRef::from(&socket);
    let both = limits.set_write_timeout(Some(timeout)).and_then(|()| limits.set_read_timeout(Some(timeout)));
    both.map_err(errno)?;
    Ok(socket)
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

fn connect(socket: OwnedFd, to: SocketAddr, path: &str) -> Result<Attempt, Errno> {
    raw::connect(&socket, to)?;
    send(socket, path)
}

/// The bytes go out on a connected socket.
fn send(socket: OwnedFd, path: &str) -> Result<Attempt, Errno> {
    nix::sys::socket::send(socket.as_raw_fd(), &payload(path), nix::sys::socket::MsgFlags::MSG_NOSIGNAL)?;
    Ok(Attempt::Connected(socket))
}

/// The bytes and the wish to connect in one call: the SYN carries them.
fn fast_open(socket: OwnedFd, to: SocketAddr, path: &str) -> Result<Attempt, Errno> {
    match raw::send_to(&socket, &payload(path), libc::MSG_FASTOPEN, to) {
        Ok(_) => Ok(Attempt::Connected(socket)),
        Err(errno @ Errno::EOPNOTSUPP) => Ok(Attempt::Unsupported(errno)),
        Err(errno) => Err(errno),
    }
}

/// connect() only notes the address; the first write sends the SYN, with the bytes.
fn fast_open_connect(socket: OwnedFd, to: SocketAddr, path: &str) -> Result<Attempt, Errno> {
    if let Err(errno) = raw::set(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1) {
        return Ok(Attempt::Unsupported(errno));
    }
    connect(socket, to, path)
}

fn nonblocking(socket: OwnedFd, to: SocketAddr, path: &str, timeout: Duration) -> Result<Attempt, Errno> {
    SockRef::from(&socket).set_nonblocking(true).map_err(errno)?;
    match raw::connect(&socket, to) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(errno) => return Err(errno),
    }
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    let limit = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    if poll(&mut fds, limit)? == 0 {
        return Err(Errno::ETIMEDOUT);
    }
    raw::pending_error(&socket)?;
    SockRef::from(&socket)
        .set_nonblocking(false)
        .and_then(|()| SockRef::from(&socket).set_read_timeout(Some(timeout)))
        .map_err(errno)?;
    send(socket, path)
}

/// A socket that was connected to an unguarded place, dissolved, and connected anew.
fn reconnect(socket: OwnedFd, to: SocketAddr, path: &str) -> Result<Attempt, Errno> {
    // A listener of our own on loopback is the unguarded place.
    let own = std::net::TcpListener::bind(if to.is_ipv4() {
        SocketAddr::from(([127, 0, 0, 1], 0))
    } else {
        SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0))
    });
    let first = own.and_then(|own| own.local_addr().map(|at| (own, at))).map_err(errno)?;
    raw::connect(&socket, first.1)?;
    raw::dissolve(&socket)?;
    connect(socket, to, path)
}

fn become_user(args: &Args) -> Result<(), Errno> {
    const KEEP: u32 = u32::MAX; // setresuid(2): -1 leaves an id as it is
    let all = |id| if args.effective_only { KEEP } else { id };
    // SAFETY: a null pointer with the length 0 is an empty list.
    Errno::result(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::setresgid(all(args.gid), args.gid, all(args.gid)) })?;
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::setresuid(all(args.uid), args.uid, all(args.uid)) })?;
    Ok(())
}

/// Connects from a thread whose process has lost its leader: /proc/PID/exe is gone, the address space is not.
fn without_leader(to: SocketAddr, timeout: Duration) -> ! {
    std::thread::spawn(move || {
        let leader = format!("/proc/self/task/{}/stat", std::process::id());
        // "pid (comm) Z …"; the name has no parenthesis in it.
        while !std::fs::read_to_string(&leader).is_ok_and(|stat| stat.contains(") Z ")) {
            std::thread::yield_now();
        }
        let start = Instant::now();
        let attempt = open(to, PLAIN, timeout).and_then(|socket| connect(socket, to, "leaderless"));
        print("leaderless", start, attempt.unwrap_or_else(Attempt::Refused));
        std::process::exit(0);
    });
    loop {
        // SAFETY: no pointers. Ends this thread only, and it holds no locks.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}
