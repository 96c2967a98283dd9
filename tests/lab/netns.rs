//! Network namespaces as file descriptors.
//!
//! No name below /run/netns: a namespace held only by a descriptor ends with the process that holds it, also when
//! that process is killed.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace that lives as long as this value (and whatever runs inside).
#[derive(Debug)]
pub(crate) struct NetNs(OwnedFd);

impl NetNs {
    /// A new namespace with nothing but a loopback device that is down.
    #[track_caller]
    pub(crate) fn new() -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(File::open("/proc/thread-self/ns/net").expect("open the new network namespace"))
        });
        let made: nix::Result<File> = made.join().unwrap();
        Self(made.expect("unshare a network namespace").into())
    }

    /// Where other programs find the namespace, for `nsenter --net=` and `ip link … netns`.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// The descriptor, for `setns` in a child.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// The inode number by which /proc/PID/ns/net and the kernel's events name the namespace.
    pub(crate) fn inode(&self) -> u64 {
        nix::sys::stat::fstat(&self.0).expect("stat a network namespace").st_ino
    }

    /// Runs `work` inside, on a thread of its own: the caller's thread never changes its namespace.
    #[track_caller]
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("enter a network namespace");
                work()
            });
            match inside.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}
