//! The system calls, with errno as the error.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use socket2::SockAddr;

/// Multipath TCP (include/uapi/linux/in.h).
pub(crate) const IPPROTO_MPTCP: i32 = 262;

/// A new stream socket for an address of this family.
pub(crate) fn stream(to: SocketAddr, protocol: i32) -> Result<OwnedFd, Errno> {
    socket(to, libc::SOCK_STREAM, protocol)
}

/// A new socket for an address of this family.
pub(crate) fn socket(to: SocketAddr, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    let domain = if to.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: no pointers.
    let fd = Errno::result(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// connect(2).
pub(crate) fn connect(socket: &OwnedFd, to: SocketAddr) -> Result<(), Errno> {
    let to = SockAddr::from(to);
    // SAFETY: pointer and length are of one live address.
    let result = unsafe { libc::connect(socket.as_raw_fd(), to.as_ptr().cast(), to.len()) };
    Errno::result(result).map(drop)
}

/// connect(2) to AF_UNSPEC, which dissolves the association.
pub(crate) fn dissolve(socket: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: sockaddr is plain old data, for which all zeroes is a value: AF_UNSPEC.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    let size = size_of_val(&nowhere) as libc::socklen_t;
    // SAFETY: pointer and length are of one live address.
    let result = unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, size) };
    Errno::result(result).map(drop)
}

/// bind(2).
pub(crate) fn bind(socket: &OwnedFd, at: SocketAddr) -> Result<(), Errno> {
    let at = SockAddr::from(at);
    // SAFETY: pointer and length are of one live address.
    let result = unsafe { libc::bind(socket.as_raw_fd(), at.as_ptr().cast(), at.len()) };
    Errno::result(result).map(drop)
}

/// sendto(2).
pub(crate) fn send_to(socket: &OwnedFd, bytes: &[u8], flags: i32, to: SocketAddr) -> Result<usize, Errno> {
    let to = SockAddr::from(to);
    // SAFETY: each pointer goes with the length of what it points at.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            flags | libc::MSG_NOSIGNAL,
            to.as_ptr().cast(),
            to.len(),
        )
    };
    Errno::result(sent).map(isize::cast_unsigned)
}

/// setsockopt(2) of an integer.
pub(crate) fn set(socket: &OwnedFd, level: i32, name: i32, value: i32) -> Result<(), Errno> {
    let size = size_of_val(&value) as libc::socklen_t;
    // SAFETY: pointer and length are of one live integer.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size) };
    Errno::result(result).map(drop)
}

/// SO_ERROR: how a connect that did not wait has ended.
pub(crate) fn pending_error(socket: &OwnedFd) -> Result<(), Errno> {
    match nix::sys::socket::getsockopt(socket, nix::sys::socket::sockopt::SocketError)? {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno)),
    }
}

/// Whether the other end took the data that this socket's SYN carried.
pub(crate) fn syn_data(socket: &OwnedFd) -> bool {
    const TCPI_OPT_SYN_DATA: u8 = 32; // include/uapi/linux/tcp.h
    // struct tcp_info: state, ca_state, retransmits, probes, backoff, options, …
    let mut info = [0u8; 8];
    let mut size = size_of_val(&info) as libc::socklen_t;
    // SAFETY: each pointer goes with the length of what it points at.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut size)
    };
    result == 0 && info[5] & TCPI_OPT_SYN_DATA != 0
}

/// Whether the connection speaks Multipath TCP and has not fallen back to plain TCP.
pub(crate) fn multipath(socket: &OwnedFd) -> bool {
    const SOL_MPTCP: i32 = 284; // include/linux/socket.h
    const MPTCP_INFO: i32 = 1; // include/uapi/linux/mptcp.h
    const FALLBACK: u32 = 1; // MPTCP_INFO_FLAG_FALLBACK
    // struct mptcp_info: six counters of a byte, two bytes of padding, the flags, …
    let mut info = [0u32; 3];
    let mut size = size_of_val(&info) as libc::socklen_t;
    // SAFETY: each pointer goes with the length of what it points at.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), SOL_MPTCP, MPTCP_INFO, info.as_mut_ptr().cast(), &raw mut size) };
    result == 0 && info[2] & FALLBACK == 0
}
