//! Where a child goes between fork and exec.
//!
//! The test process has many threads, so the child may only make system calls until it execs: every descriptor is
//! opened and every string made beforehand.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The steps of one child, in the order in which they are taken.
#[derive(Debug, Default)]
pub(crate) struct Placement {
    pub(crate) cgroup: Option<File>,
    pub(crate) netns: Option<OwnedFd>,
    pub(crate) new_mount_namespace: bool,
    pub(crate) root: Option<CString>,
    pub(crate) cwd: Option<CString>,
    pub(crate) user: Option<(u32, u32, Vec<u32>)>,
    /// The uid and gid maps of a new user namespace.
    pub(crate) user_namespace: Option<(CString, CString)>,
}

impl Placement {
    /// Takes every step in the calling process. Names the failing one on standard error, because the caller only
    /// gets the errno.
    pub(crate) fn enter(&self) -> io::Result<()> {
        // In its own process group, so that what it starts dies with it.
        // SAFETY: no pointers.
        step("setpgid", unsafe { libc::setpgid(0, 0) })?;
        if let Some(procs) = &self.cgroup {
            write(procs.as_raw_fd(), b"0", "enter cgroup")?;
        }
        if let Some(netns) = &self.netns {
            // SAFETY: no pointers.
            step("setns", unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) })?;
        }
        if self.new_mount_namespace {
            // SAFETY: no pointers.
            step("unshare mounts", unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
            // SAFETY: the one path is a NUL-terminated literal; the other pointers may be null for a flag change.
            step("make mounts private", unsafe {
                libc::mount(
                    std::ptr::null(),
                    c"/".as_ptr(),
                    std::ptr::null(),
                    libc::MS_REC | libc::MS_PRIVATE,
                    std::ptr::null(),
                )
            })?;
        }
        if let Some(root) = &self.root {
            // SAFETY: a NUL-terminated string that lives through the call.
            step("chroot", unsafe { libc::chroot(root.as_ptr()) })?;
        }
        if let Some(cwd) = self.cwd.as_deref().or(self.root.as_ref().map(|_| c"/")) {
            // SAFETY: a NUL-terminated string that lives through the call.
            step("chdir", unsafe { libc::chdir(cwd.as_ptr()) })?;
        }
        if let Some((uid, gid, groups)) = &self.user {
            // SAFETY: the pointer and the length are of one live vector.
            step("setgroups", unsafe { libc::setgroups(groups.len(), groups.as_ptr()) })?;
            // SAFETY: no pointers.
            step("setresgid", unsafe { libc::setresgid(*gid, *gid, *gid) })?;
            // SAFETY: no pointers.
            step("setresuid", unsafe { libc::setresuid(*uid, *uid, *uid) })?;
        }
        if let Some((uid_map, gid_map)) = &self.user_namespace {
            // A change of user clears the dumpable flag, and then /proc/self belongs to root.
            // SAFETY: no pointers.
            step("prctl", unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) })?;
            // SAFETY: no pointers.
            step("unshare user", unsafe { libc::unshare(libc::CLONE_NEWUSER) })?;
            write_file(c"/proc/self/setgroups", b"deny")?;
            write_file(c"/proc/self/uid_map", uid_map.to_bytes())?;
            write_file(c"/proc/self/gid_map", gid_map.to_bytes())?;
        }
        Ok(())
    }
}

fn write_file(path: &std::ffi::CStr, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: a NUL-terminated string that lives through the call.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    step("open a file of /proc/self", fd)?;
    write(fd, bytes, "write a user namespace map")
}

fn write(fd: RawFd, bytes: &[u8], what: &str) -> io::Result<()> {
    // SAFETY: pointer and length are of one live slice.
    let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    step(what, if written < 0 { -1 } else { 0 })
}

fn step(what: &str, result: i32) -> io::Result<()> {
    if result >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    for part in ["lab: a program's placement failed at: ", what, "\n"] {
        // SAFETY: pointer and length are of one live string. The result does not matter: `error` is what counts.
        unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
    }
    Err(error)
}
