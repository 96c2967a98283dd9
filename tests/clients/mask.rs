//! Names and files that are not the program's own.

use std::ffi::{CStr, CString};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{execv, execveat};

use crate::ways::{connect, stream};
use crate::{Said, Way};

/// The ways.
pub(crate) const WAYS: &[Way] =
    &[("exec_memfd", |to, _| exec_memfd(to)), ("argv0", |to, _| argv0(to)), ("comm", |to, _| comm(to))];

/// Whom a bot would like to be taken for.
const SENDER: &CStr = c"/usr/lib/postfix/sbin/smtp";

fn plainly(to: SocketAddr) -> Result<[CString; 4], Errno> {
    let text = |text: String| CString::new(text).map_err(|_nul| Errno::EINVAL);
    Ok([SENDER.to_owned(), c"plain".to_owned(), text(to.ip().to_string())?, text(to.port().to_string())?])
}

/// The same program again, from a file that has no name.
fn exec_memfd(to: SocketAddr) -> Said {
    let file = memfd_create(c"smtp", MFdFlags::MFD_CLOEXEC)?;
    let mut file = std::fs::File::from(file);
    let mut own = crate::os("open", std::fs::File::open("/proc/self/exe"))?;
    crate::os("copy", std::io::copy(&mut own, &mut file))?;
    // It cannot be executed while it is open for writing.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let readable = crate::os("open", std::fs::File::open(path))?;
    drop(file);
    match execveat(&readable, c"", &plainly(to)?, &[] as &[CString], nix::fcntl::AtFlags::AT_EMPTY_PATH)? {}
}

/// The same program again, under the name of a mail server's.
fn argv0(to: SocketAddr) -> Said {
    match execv(c"/proc/self/exe", &plainly(to)?)? {}
}

/// The name that ps shows.
fn comm(to: SocketAddr) -> Said {
    // SAFETY: a name that ends with NUL.
    crate::step("PR_SET_NAME", unsafe { libc::prctl(libc::PR_SET_NAME, c"smtp".as_ptr()) })?;
    connect(&stream(&to, 0)?, to)?;
    Ok("connected")
}
