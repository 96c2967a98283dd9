//! Connections by io_uring.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{IoUring, opcode, squeue, types};
use nix::errno::Errno;
use socket2::SockAddr;

use crate::report::{Attempt, payload};

/// Who does the connecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The task, in its own system call.
    Plain,
    /// A worker thread of the kernel's.
    Async,
    /// The kernel's polling thread.
    SqPoll,
}

/// IORING_OP_CONNECT, then IORING_OP_SEND.
pub(crate) fn connect(socket: OwnedFd, to: SocketAddr, path: &str, mode: Mode) -> Result<Attempt, Errno> {
    let ring = if mode == Mode::SqPoll { IoUring::builder().setup_sqpoll(1000).build(8) } else { IoUring::new(8) };
    let mut ring = match ring {
        Ok(ring) => ring,
        Err(error) => return Ok(unsupported(&error)),
    };
    let fd = types::Fd(socket.as_raw_fd());
    let to = SockAddr::from(to);
    let flags = if mode == Mode::Async { squeue::Flags::ASYNC } else { squeue::Flags::empty() };
    let entry = opcode::Connect::new(fd, to.as_ptr().cast(), to.len()).build();
    // SAFETY: the address lives until `submit` has seen the completion.
    unsafe { submit(&mut ring, &entry.flags(flags)) }?;
    let bytes = payload(path);
    let entry = opcode::Send::new(fd, bytes.as_ptr(), bytes.len() as u32).build();
    // SAFETY: the bytes live until `submit` has seen the completion.
    unsafe { submit(&mut ring, &entry.flags(flags)) }?;
    Ok(Attempt::Connected(socket))
}

/// IORING_OP_SENDMSG with MSG_FASTOPEN: no connect at all.
pub(crate) fn fast_open(socket: OwnedFd, to: SocketAddr, path: &str) -> Result<Attempt, Errno> {
    let mut ring = match IoUring::new(8) {
        Ok(ring) => ring,
        Err(error) => return Ok(unsupported(&error)),
    };
    let to = SockAddr::from(to);
    let bytes = payload(path);
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is plain old data, for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = to.as_ptr().cast_mut().cast();
    message.msg_namelen = to.len();
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    let entry = opcode::SendMsg::new(types::Fd(socket.as_raw_fd()), &raw const message)
        .flags(libc::MSG_FASTOPEN as u32)
        .build();
    // SAFETY: message, vector, bytes and address live until `submit` has seen the completion.
    unsafe { submit(&mut ring, &entry) }?;
    Ok(Attempt::Connected(socket))
}

fn unsupported(error: &std::io::Error) -> Attempt {
    Attempt::Unsupported(Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

/// Submits one entry and waits for its completion.
///
/// # Safety
/// What the entry points at must live until this returns.
unsafe fn submit(ring: &mut IoUring, entry: &squeue::Entry) -> Result<i32, Errno> {
    // SAFETY: as the caller has promised.
    let pushed = unsafe { ring.submission().push(entry) };
    pushed.map_err(|_full| Errno::EBUSY)?;
    ring.submit_and_wait(1).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    let completion = ring.completion().next().ok_or(Errno::EIO)?;
    match completion.result() {
        error if error < 0 => Err(Errno::from_raw(-error)),
        result => Ok(result),
    }
}
