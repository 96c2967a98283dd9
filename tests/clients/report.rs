//! The line of JSON that a client prints.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use serde_json::json;
use socket2::SockRef;

use crate::raw;

/// What a client sends, so that a sink's first bytes name the path.
pub(crate) fn payload(path: &str) -> Vec<u8> {
    format!("lab-client {path}\r\n").into_bytes()
}

/// What became of an attempt.
pub(crate) enum Attempt {
    /// Connected, and all bytes went out; the socket awaits the other end's close.
    Connected(OwnedFd),
    /// Sent without a connection.
    Sent,
    /// The call that connects failed.
    Refused(Errno),
    /// The path itself could not be taken: a socket option or call that this kernel lacks.
    Unsupported(Errno),
}

/// Prints the report of one attempt that began at `start`.
pub(crate) fn print(path: &str, start: Instant, attempt: Attempt) {
    let ns = start.elapsed().as_nanos() as u64;
    // Asked while the connection stands: after the close the socket knows less.
    let (mut local, mut peer, mut syn_data, mut multipath) = (None, None, false, false);
    let (result, errno) = match attempt {
        Attempt::Sent => ("sent", None),
        Attempt::Refused(errno @ (Errno::ETIMEDOUT | Errno::EINPROGRESS | Errno::ETIME)) => ("timeout", Some(errno)),
        Attempt::Refused(errno) => ("refused", Some(errno)),
        Attempt::Unsupported(errno) => ("unsupported", Some(errno)),
        Attempt::Connected(socket) => {
            let reference = SockRef::from(&socket);
            local = reference.local_addr().ok().and_then(|at| at.as_socket());
            peer = reference.peer_addr().ok().and_then(|at| at.as_socket());
            multipath = raw::multipath(&socket);
            let finished = finish(&socket);
            syn_data = raw::syn_data(&socket);
            match finished {
                Ok(()) => ("connected", None),
                Err(errno) => ("broken", Some(errno)),
            }
        }
    };
    let text = |address: Option<SocketAddr>| address.map(|address| address.to_string());
    println!(
        "{}",
        json!({
            "path": path,
            "result": result,
            "errno": errno.map(|errno| format!("{errno:?}")),
            "ns": ns,
            "pid": std::process::id(),
            "local": text(local),
            "peer": text(peer),
            "syn_data": syn_data,
            "multipath": multipath,
        })
    );
}

/// Half-closes and reads until the other end has closed too.
fn finish(socket: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) })?;
    let mut buffer = [0u8; 4096];
    loop {
        // SAFETY: pointer and length are of one live buffer.
        let got = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        match Errno::result(got) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(errno) => return Err(errno),
        }
    }
}
