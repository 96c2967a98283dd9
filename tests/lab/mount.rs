//! One mount as a guard.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A mount that is undone on drop.
#[derive(Debug)]
pub(crate) struct Mount {
    target: PathBuf,
}

impl Mount {
    /// Mounts a file system of `kind`.
    #[track_caller]
    pub(crate) fn new(kind: &str, source: &str, target: &Path, options: &str) -> Self {
        std::fs::create_dir_all(target).unwrap();
        mount(Some(source), target, Some(kind), MsFlags::empty(), Some(options))
            .unwrap_or_else(|errno| panic!("mount {kind} ({options}) at {}: {errno}", target.display()));
        Self { target: target.into() }
    }

    /// Makes `source` visible at `target` as well.
    #[track_caller]
    pub(crate) fn bind(source: &Path, target: &Path) -> Self {
        std::fs::create_dir_all(target).unwrap();
        mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .unwrap_or_else(|errno| panic!("bind {} at {}: {errno}", source.display(), target.display()));
        Self { target: target.into() }
    }

    /// Takes responsibility for what somebody else mounted at `target` (`mount -o loop`).
    pub(crate) fn adopt(target: &Path) -> Self {
        Self { target: target.into() }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        unmount(&self.target);
    }
}

/// Unmounts, patiently; lazily when something will not let go.
pub(crate) fn unmount(target: &Path) {
    let start = Instant::now();
    // A process that was just killed may still hold the mount for a moment.
    while umount2(target, MntFlags::UMOUNT_NOFOLLOW) == Err(nix::errno::Errno::EBUSY) {
        if start.elapsed() > Duration::from_secs(5) {
            umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).unwrap_or_default();
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The mount points at or below `below`, deepest first.
pub(crate) fn mounts_below(below: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|target| target.starts_with(below))
        .collect();
    found.reverse();
    found
}
