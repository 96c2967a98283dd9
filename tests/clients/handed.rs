//! Sockets that change hands between their making and their use, or whose maker changes.

use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use socket2::Socket;

use crate::before::speak;
use crate::ways::{connect, stream};
use crate::{Said, Way};

/// The ways. Who uses a socket says `passed` or `stopped` of what it has sent.
pub(crate) const WAYS: &[Way] = &[
    ("hand", hand),
    ("take", take),
    ("hold", hold),
    ("pidfd_getfd", pidfd_getfd),
    ("move_cgroup", move_cgroup),
    ("new_userns", |to, _| new_userns(to)),
];

/// The argument in that place.
fn argument(rest: &[String], place: usize) -> Result<&str, Errno> {
    rest.get(place).map(String::as_str).ok_or(Errno::EINVAL)
}

/// A socket that has been connected if the argument in that place says so.
fn made(to: SocketAddr, rest: &[String], place: usize) -> Result<Socket, Errno> {
    let socket = stream(&to, 0)?;
    if rest.get(place).is_some_and(|word| word == "connected") {
        connect(&socket, to)?;
    }
    Ok(socket)
}

/// Connects a socket that is not connected yet, and sends.
fn using(socket: &Socket, to: SocketAddr) -> Said {
    if socket.peer_addr().is_err() {
        connect(socket, to)?;
    }
    speak(socket)
}

/// `hand ADDRESS PORT PATH [connected]`: gives a socket to whoever comes to the Unix socket at PATH, and says `handed`.
fn hand(to: SocketAddr, rest: &[String]) -> Said {
    let socket = made(to, rest, 1)?;
    // The other one may be another user.
    // SAFETY: no pointers.
    unsafe { libc::umask(0) };
    let listener = crate::os("listen", UnixListener::bind(argument(rest, 0)?))?;
    let (other, _) = crate::os("accept", listener.accept())?;
    let descriptors = [socket.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(other.as_raw_fd(), &[IoSlice::new(b"!")], &rights, MsgFlags::empty(), None)?;
    Ok("handed")
}

/// `take ADDRESS PORT PATH`: uses the socket that the `hand` at PATH gives.
fn take(to: SocketAddr, rest: &[String]) -> Said {
    let other = patiently(argument(rest, 0)?)?;
    let mut byte = [0];
    let mut into = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let message = recvmsg::<()>(other.as_raw_fd(), &mut into, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let handed = message.cmsgs()?.find_map(|control| {
        if let ControlMessageOwned::ScmRights(descriptors) = control { descriptors.first().copied() } else { None }
    });
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { Socket::from_raw_fd(handed.ok_or(Errno::EBADMSG)?) };
    using(&socket, to)
}

/// A connection to the Unix socket at `path` once there is one.
fn patiently(path: &str) -> Result<UnixStream, Errno> {
    for _ in 0..500 {
        if let Ok(stream) = UnixStream::connect(path) {
            return Ok(stream);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    crate::os("connect to the other process", UnixStream::connect(path))
}

/// `hold ADDRESS PORT [connected]`: has a socket for a minute, and says which descriptor it is.
fn hold(to: SocketAddr, rest: &[String]) -> Said {
    let socket = made(to, rest, 0)?;
    crate::announce(&socket.as_raw_fd().to_string());
    std::thread::sleep(Duration::from_secs(60));
    Ok("held")
}

/// `pidfd_getfd ADDRESS PORT PID FD`: uses the socket that another process holds.
fn pidfd_getfd(to: SocketAddr, rest: &[String]) -> Said {
    let number = |place| argument(rest, place)?.parse::<i32>().map_err(|_text| Errno::EINVAL);
    // SAFETY: no pointers.
    let pidfd = crate::step("pidfd_open", unsafe { libc::syscall(libc::SYS_pidfd_open, number(0)?, 0) })?;
    // SAFETY: the descriptor is new and nobody else's.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as i32) };
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number(1)?, 0) };
    let fd = crate::step("pidfd_getfd", fd)?;
    // SAFETY: the descriptor is new and nobody else's.
    using(&unsafe { Socket::from_raw_fd(fd as i32) }, to)
}

/// `move_cgroup ADDRESS PORT CGROUP [connected]`: goes to another cgroup (its directory) and uses the socket there.
fn move_cgroup(to: SocketAddr, rest: &[String]) -> Said {
    let socket = made(to, rest, 1)?;
    let procs = format!("{}/cgroup.procs", argument(rest, 0)?);
    crate::os("cgroup.procs", std::fs::write(procs, "0"))?;
    using(&socket, to)
}

/// From a user namespace of its own, by a socket that was made outside.
fn new_userns(to: SocketAddr) -> Said {
    let socket = stream(&to, 0)?;
    unshare(CloneFlags::CLONE_NEWUSER)?;
    connect(&socket, to)?;
    Ok("connected")
}
