//! Where the cgroup2 hierarchy and the BPF file system are mounted: found, never assumed.

use std::io;
use std::path::{Path, PathBuf};

use procfs::process::Process;

/// The usual place of the BPF file system.
pub const BPFFS: &str = "/sys/fs/bpf";

/// The mount point of the cgroup2 hierarchy's root.
///
/// # Errors
///
/// When it is mounted nowhere or /proc cannot be read.
pub fn cgroup2() -> io::Result<PathBuf> {
    find("cgroup2")?.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "the cgroup2 hierarchy is not mounted; mount it: mount -t cgroup2 none /sys/fs/cgroup",
        )
    })
}

/// The mount point of the BPF file system, the usual one if there are several; `None` when there is none.
///
/// # Errors
///
/// When /proc cannot be read.
pub fn bpffs() -> io::Result<Option<PathBuf>> {
    find("bpf")
}

/// Mounts the BPF file system at the usual place unless it is mounted somewhere, and returns where.
///
/// # Errors
///
/// When it cannot be mounted.
pub fn ensure_bpffs() -> io::Result<PathBuf> {
    if let Some(path) = bpffs()? {
        return Ok(path);
    }
    nix::mount::mount(Some("bpf"), BPFFS, Some("bpf"), nix::mount::MsFlags::empty(), Some("mode=0700"))?;
    Ok(PathBuf::from(BPFFS))
}

/// The first mount of a file system type whose root is the whole of it; the usual path first.
fn find(fs_type: &str) -> io::Result<Option<PathBuf>> {
    let mounts = Process::myself().and_then(|me| me.mountinfo()).map_err(io::Error::other)?;
    let mut found: Vec<PathBuf> = mounts
        .into_iter()
        .filter(|mount| mount.fs_type == fs_type && mount.root == "/")
        .map(|mount| mount.mount_point)
        .collect();
    found.sort_by_key(|path| (path != Path::new(BPFFS), path.as_os_str().len()));
    Ok(found.into_iter().next())
}
