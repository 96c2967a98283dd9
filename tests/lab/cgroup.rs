//! Control groups that mimic a host's slices and units.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The mount point of the cgroup2 hierarchy.
///
/// Found by the file system's type alone: the mount point and the device's name differ from host to host.
///
/// # Panics
/// When no cgroup2 is mounted.
#[track_caller]
#[must_use]
pub fn cgroup2_root() -> PathBuf {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mountinfo
        .lines()
        .find_map(|line| {
            // proc_pid_mountinfo(5): a lone "-" ends the optional fields, and the type follows it.
            let (mount, filesystem) = line.split_once(" - ")?;
            filesystem.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4))?
        })
        .map(PathBuf::from)
        .unwrap_or_else(|| panic!("no cgroup2 file system is mounted here:\n{mountinfo}"))
}

/// A cgroup that kills its members and removes itself, with all below it, on drop.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Creates the cgroup at `path`, with its parents.
    #[track_caller]
    pub(crate) fn create(path: PathBuf) -> Self {
        let cgroup = Self { path };
        std::fs::create_dir_all(&cgroup.path)
            .unwrap_or_else(|error| panic!("create cgroup {}: {error}", cgroup.path.display()));
        cgroup
    }

    /// The directory in the cgroup2 file system.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path as /proc/PID/cgroup and unit names have it: from the hierarchy's root, with a leading slash.
    #[must_use]
    pub fn name(&self) -> String {
        let below = self.path.strip_prefix(cgroup2_root()).unwrap();
        format!("/{}", below.display())
    }

    /// The id that the kernel's programs see: on 64-bit machines kernfs's inode number.
    #[must_use]
    pub fn id(&self) -> u64 {
        std::fs::metadata(&self.path)
            .unwrap_or_else(|error| panic!("stat cgroup {}: {error}", self.path.display()))
            .ino()
    }

    /// The processes in it, not in its children.
    #[must_use]
    pub fn procs(&self) -> Vec<i32> {
        procs(&self.path)
    }

    /// Moves a running process in.
    #[track_caller]
    pub fn admit(&self, pid: i32) {
        enter_file(&self.path)
            .write_all(pid.to_string().as_bytes())
            .unwrap_or_else(|error| panic!("move {pid} to {}: {error}", self.path.display()));
    }

    /// Kills every member, here and below, and waits until they are gone; the cgroup stays.
    pub fn kill(&self) {
        kill(&self.path);
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// An open `cgroup.procs`: a child writes "0" to it between fork and exec.
#[track_caller]
pub(crate) fn enter_file(path: &Path) -> File {
    File::options()
        .write(true)
        .open(path.join("cgroup.procs"))
        .unwrap_or_else(|error| panic!("open cgroup.procs of {}: {error}", path.display()))
}

fn procs(path: &Path) -> Vec<i32> {
    std::fs::read_to_string(path.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect()
}

/// Kills every process here and below, and waits until they are gone.
pub(crate) fn kill(path: &Path) {
    let start = Instant::now();
    let populated =
        || std::fs::read_to_string(path.join("cgroup.events")).is_ok_and(|events| events.contains("populated 1"));
    while populated() && start.elapsed() < Duration::from_secs(10) {
        std::fs::write(path.join("cgroup.kill"), "1").unwrap_or_default();
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Kills and removes a whole tree of cgroups.
pub(crate) fn remove(path: &Path) {
    kill(path);
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let start = Instant::now();
    // A zombie's cgroup is busy for a moment after cgroup.events says that it is empty.
    while std::fs::remove_dir(path).is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
        && start.elapsed() < Duration::from_secs(5)
    {
        std::thread::sleep(Duration::from_millis(1));
    }
}
