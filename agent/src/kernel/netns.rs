//! Network namespaces: which there are, and doing something in one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

/// The inode number of the agent's own network namespace.
///
/// # Errors
///
/// When /proc cannot be read.
pub fn own() -> io::Result<u64> {
    Ok(fs::metadata("/proc/self/ns/net")?.ino())
}

/// Every network namespace that has a process `counts` says yes to, or a name, by inode number, the agent's own always;
/// and those that are there and cannot be opened, with why.
///
/// # Errors
///
/// When /proc cannot be read.
pub fn all(counts: impl Fn(u32) -> bool) -> io::Result<(BTreeMap<u64, File>, BTreeMap<u64, String>)> {
    let (mut found, mut skipped) = (BTreeMap::new(), BTreeMap::new());
    add(&mut found, &mut skipped, Path::new("/proc/self/ns/net"))?;
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if counts(pid) {
            // A process that has just ended, or a zombie, has none any more.
            if let Err(error) = add(&mut found, &mut skipped, &entry.path().join("ns/net")) {
                tracing::trace!("process {pid}: {error}");
            }
        }
    }
    Ok((found, skipped))
}

/// Adds the namespaces that have a name: those mounted somewhere, as by `ip netns add` (ip-netns(8)) and Docker.
pub fn add_named(found: &mut BTreeMap<u64, File>, skipped: &mut BTreeMap<u64, String>) {
    let mounts = procfs::process::Process::myself().and_then(|me| me.mountinfo());
    for mount in mounts.into_iter().flatten().filter(|mount| mount.fs_type == "nsfs" && mount.root.starts_with("net:"))
    {
        if let Err(error) = add(found, skipped, &mount.mount_point) {
            tracing::debug!("{}: {error}", mount.mount_point.display());
        }
    }
}

/// Adds the namespaces that nobody is in and some process has open.
pub fn add_held(found: &mut BTreeMap<u64, File>, skipped: &mut BTreeMap<u64, String>) {
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        for entry in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let holds = fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("net:["));
            if holds && let Err(error) = add(found, skipped, &entry.path()) {
                tracing::debug!("{}: {error}", entry.path().display());
            }
        }
    }
}

/// Adds the namespaces that only a thread is in which is not its process's first.
pub fn add_threads(found: &mut BTreeMap<u64, File>, skipped: &mut BTreeMap<u64, String>) {
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        for thread in fs::read_dir(process.path().join("task")).into_iter().flatten().flatten() {
            if let Err(error) = add(found, skipped, &thread.path().join("ns/net")) {
                tracing::trace!("{}: {error}", thread.path().display());
            }
        }
    }
}

/// Opens a namespace that is not known yet. The error is about the path: nothing is there any more. One that is there and
/// cannot be opened is skipped.
fn add(found: &mut BTreeMap<u64, File>, skipped: &mut BTreeMap<u64, String>, path: &Path) -> io::Result<()> {
    // Most are one that is known; opening is the dearer call.
    let inode = fs::metadata(path)?.ino();
    if let Entry::Vacant(place) = found.entry(inode) {
        match File::open(path) {
            Ok(file) => {
                place.insert(file);
                skipped.remove(&inode);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
            Err(error) => {
                skipped.insert(inode, error.to_string());
            }
        }
    }
    Ok(())
}

/// Does something in a network namespace, on a thread of its own: the agent's never leaves its own.
///
/// # Errors
///
/// When the namespace cannot be entered.
pub fn within<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        });
        thread.join().unwrap_or_else(|_panicked| Err(io::Error::other("the thread ended early")))
    })
}
