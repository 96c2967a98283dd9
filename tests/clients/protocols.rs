//! Other protocols' sockets that speak TCP underneath.

use std::net::SocketAddr;
use std::os::fd::FromRawFd as _;
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Said, Way};

/// The ways.
pub(crate) const WAYS: &[Way] = &[("smc", |to, _| smc(to)), ("smc_inet", |to, _| smc_inet(to))];

/// Shared Memory Communications (RFC 7609) as a family of its own, include/linux/socket.h. Its protocol says over
/// which family.
const AF_SMC: i32 = 43;
const SMCPROTO_SMC: i32 = 0;
const SMCPROTO_SMC6: i32 = 1;

/// The same as a protocol of the Internet families, include/uapi/linux/in.h.
const IPPROTO_SMC: i32 = 256;

fn smc(to: SocketAddr) -> Said {
    let protocol = if to.is_ipv4() { SMCPROTO_SMC } else { SMCPROTO_SMC6 };
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(AF_SMC, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, protocol) };
    let fd = crate::step("socket", fd)?;
    // SAFETY: the descriptor is new and nobody else's.
    connect(&unsafe { Socket::from_raw_fd(fd) }, to)
}

fn smc_inet(to: SocketAddr) -> Said {
    let made = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::from(IPPROTO_SMC)));
    connect(&crate::os("socket", made)?, to)
}

fn connect(socket: &Socket, to: SocketAddr) -> Said {
    match socket.connect_timeout(&to.into(), Duration::from_secs(5)) {
        Ok(()) => Ok("connected"),
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Err(Errno::ETIMEDOUT),
        Err(error) => Err(crate::ways::errno(&error)),
    }
}
