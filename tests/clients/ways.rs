//! The ways to open a TCP connection.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};
use nix::errno::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::mapped;

/// What came of it.
pub(crate) type Outcome = Result<(), Errno>;

/// A way: its name, and what it does.
type Way = (&'static str, fn(SocketAddr) -> Outcome);

/// How long a way waits for the far end.
const LIMIT: Duration = Duration::from_secs(5);

/// Every way.
pub(crate) const WAYS: [Way; 21] = [
    ("plain", |to| connect(&stream(&to, 0)?, to)),
    ("nonblocking", |to| nonblocking(&stream(&to, 0)?, to)),
    ("bound", |to| bound(to)),
    ("tfo_sendto", |to| tfo_sendto(&stream(&to, 0)?, to)),
    ("tfo_connect", |to| tfo_connect(&stream(&to, 0)?, to)),
    ("mapped", |to| connect(&stream(&mapped(to), 0)?, mapped(to))),
    ("mapped_tfo_sendto", |to| tfo_sendto(&stream(&mapped(to), 0)?, mapped(to))),
    ("mapped_tfo_connect", |to| tfo_connect(&stream(&mapped(to), 0)?, mapped(to))),
    ("mptcp", |to| connect(&stream(&to, libc::IPPROTO_MPTCP)?, to)),
    ("mptcp_nonblocking", |to| nonblocking(&stream(&to, libc::IPPROTO_MPTCP)?, to)),
    ("mptcp_tfo_sendto", |to| tfo_sendto(&stream(&to, libc::IPPROTO_MPTCP)?, to)),
    ("mptcp_mapped", |to| connect(&stream(&mapped(to), libc::IPPROTO_MPTCP)?, mapped(to))),
    ("io_uring", |to| ring(to, false, squeue::Flags::empty())),
    ("io_uring_async", |to| ring(to, false, squeue::Flags::ASYNC)),
    ("io_uring_sqpoll", |to| ring(to, true, squeue::Flags::empty())),
    ("io_uring_mapped", |to| ring(mapped(to), false, squeue::Flags::empty())),
    ("reconnect", reconnect),
    ("thread_after_leader", thread_after_leader),
    ("new_netns", |to| new_netns(to)),
    ("udp", udp),
    ("disguised", crate::disguise::disguised),
];

/// The errno of an error; those that have none are a test's mistake.
pub(crate) fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

fn os<T>(result: io::Result<T>) -> Result<T, Errno> {
    result.map_err(|error| errno(&error))
}

/// A stream socket of the destination's family.
pub(crate) fn stream(to: &SocketAddr, protocol: i32) -> Result<Socket, Errno> {
    os(Socket::new(Domain::for_address(*to), Type::STREAM, Some(Protocol::from(protocol))))
}

pub(crate) fn connect(socket: &Socket, to: SocketAddr) -> Outcome {
    os(socket.connect_timeout(&to.into(), LIMIT)).map_err(|error| {
        // `connect_timeout` says this without an errno.
        if error == Errno::UnknownErrno { Errno::ETIMEDOUT } else { error }
    })
}

fn nonblocking(socket: &Socket, to: SocketAddr) -> Outcome {
    os(socket.set_nonblocking(true))?;
    match socket.connect(&to.into()) {
        Ok(()) => Ok(()),
        Err(error) if errno(&error) == Errno::EINPROGRESS => established(socket, LIMIT),
        Err(error) => Err(errno(&error)),
    }
}

/// Waits until the handshake is over, and says how it ended.
pub(crate) fn established(socket: &Socket, limit: Duration) -> Outcome {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one structure, as the count says.
    if unsafe { libc::poll(&raw mut poll, 1, limit.as_millis() as i32) } != 1 {
        return Err(Errno::ETIMEDOUT);
    }
    os(socket.take_error())?.map_or(Ok(()), |error| Err(errno(&error)))
}

/// From a port that was chosen beforehand.
fn bound(to: SocketAddr) -> Outcome {
    let socket = stream(&to, 0)?;
    let any = match to.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    os(socket.bind(&SocketAddr::new(any, 0).into()))?;
    connect(&socket, to)
}

/// Data with the SYN, by sendto(): no connect() at all.
fn tfo_sendto(socket: &Socket, to: SocketAddr) -> Outcome {
    let address = SockAddr::from(to);
    let data = b"EHLO bot\r\n";
    // SAFETY: buffer and address with their lengths.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            data.as_ptr().cast(),
            data.len(),
            libc::MSG_FASTOPEN,
            address.as_ptr().cast(),
            address.len(),
        )
    };
    if sent < 0 { Err(Errno::last()) } else { established(socket, LIMIT) }
}

/// Fast Open by connect(): the SYN leaves with the first write.
fn tfo_connect(socket: &Socket, to: SocketAddr) -> Outcome {
    let on: libc::c_int = 1;
    // SAFETY: an option of the size named.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, (&raw const on).cast(), 4)
    };
    if set != 0 {
        return Err(Errno::last());
    }
    os(socket.connect(&to.into()))?;
    os(socket.send(b"EHLO bot\r\n"))?;
    established(socket, LIMIT)
}

fn ring(to: SocketAddr, sqpoll: bool, flags: squeue::Flags) -> Outcome {
    let mut builder = IoUring::builder();
    if sqpoll {
        builder.setup_sqpoll(50);
    }
    let mut ring = os(builder.build(4))?;
    let socket = stream(&to, 0)?;
    let address = SockAddr::from(to);
    let entry = opcode::Connect::new(types::Fd(socket.as_raw_fd()), address.as_ptr().cast(), address.len());
    // SAFETY: socket and address live until the completion has been taken.
    unsafe { ring.submission().push(&entry.build().flags(flags)) }.map_err(|_full| Errno::ENOSPC)?;
    os(ring.submit_and_wait(1))?;
    let completed: Option<io_uring::cqueue::Entry> = ring.completion().next();
    let result = completed.map_or(-libc::EIO, |completion| completion.result());
    if result < 0 { Err(Errno::from_raw(-result)) } else { Ok(()) }
}

/// Once somewhere that is allowed, then dissolved (AF_UNSPEC), then to the destination.
fn reconnect(to: SocketAddr) -> Outcome {
    let listener = os(std::net::TcpListener::bind(match to.ip() {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
    }))?;
    let socket = stream(&to, 0)?;
    os(socket.connect(&os(listener.local_addr())?.into()))?;
    let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as u16, sa_data: [0; 14] };
    // SAFETY: an address of the size named.
    let dissolved = unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, size_of_val(&nowhere) as u32) };
    if dissolved != 0 {
        return Err(Errno::last());
    }
    connect(&socket, to)
}

/// By a thread whose process has lost its first thread.
fn thread_after_leader(to: SocketAddr) -> Outcome {
    let thread = std::thread::spawn(move || {
        let leader = std::process::id();
        // The first thread is a zombie once it has ended.
        for _ in 0..2000 {
            let stat = std::fs::read_to_string(format!("/proc/self/task/{leader}/stat")).unwrap_or_default();
            if stat.contains(") Z") {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let outcome = stream(&to, 0).and_then(|socket| connect(&socket, to));
        let text = match outcome {
            Ok(()) => "connected\n".to_owned(),
            Err(errno) => format!("{errno:?}\n"),
        };
        // SAFETY: a buffer with its length; then the whole process ends.
        unsafe {
            libc::write(1, text.as_ptr().cast(), text.len());
            libc::_exit(0)
        }
    });
    let _running = thread;
    // SAFETY: ends this thread alone; nothing on its stack is waited for by the other.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    Ok(())
}

/// From a network namespace of its own, by a socket that was made outside: the wire is outside.
fn new_netns(to: SocketAddr) -> Outcome {
    let socket = stream(&to, 0)?;
    // SAFETY: no pointers.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(Errno::last());
    }
    connect(&socket, to)
}

/// A datagram to the same port: never the guard's business.
fn udp(to: SocketAddr) -> Outcome {
    let socket = os(Socket::new(Domain::for_address(to), Type::DGRAM, None))?;
    os(socket.connect(&to.into()))?;
    os(socket.send(b"?")).map(drop)
}
