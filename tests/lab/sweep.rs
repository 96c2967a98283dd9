//! Clearing away what a killed test left: cgroups, mounts and directories that carry the id of a dead process.

use std::path::{Path, PathBuf};

use crate::cgroup::{self, cgroup2_root};
use crate::mount::{mounts_below, unmount};

/// What the names of everything outside a lab's own directory begin with.
pub(crate) const PREFIX: &str = "portreeve-test-";

/// Removes what labs of processes that no longer live have left.
pub(crate) fn sweep() {
    for cgroup in leftovers(&cgroup2_root()) {
        cgroup::remove(&cgroup);
    }
    for dir in leftovers(Path::new("/tmp")) {
        remove_dir(&dir);
    }
}

/// Unmounts all below `dir` and removes it.
pub(crate) fn remove_dir(dir: &Path) {
    for target in mounts_below(dir) {
        unmount(&target);
    }
    // Never through a mount that would not go: that would delete somebody else's files.
    if mounts_below(dir).is_empty() {
        std::fs::remove_dir_all(dir).unwrap_or_default();
    }
}

fn leftovers(parent: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| owner(path).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()))
        .collect()
}

/// The process id in `portreeve-test-<name>-<pid>.<n>`.
fn owner(path: &Path) -> Option<i32> {
    let name = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    let (_, pid) = name.rsplit_once('-')?;
    pid.split('.').next()?.parse().ok()
}
