//! One test's own copy of a Debian root with some packages in it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::mount::Mount;
use crate::{Lab, Program, debs};

/// A root directory: an overlay over unpacked packages, unmounted on drop. No script of a package has run in it.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    // In the order of the unmounting.
    _proc: Mount,
    _overlay: Mount,
}

impl Root {
    /// A new copy of a root with these packages and what they need; `name` is what the packages are kept as.
    ///
    /// # Panics
    /// When they cannot be downloaded or mounted.
    #[track_caller]
    #[must_use]
    pub fn new(lab: &Lab, name: &str, packages: &[&str]) -> Self {
        let lower = debs::base_root(name, packages);
        let base = lab.scratch(name);
        for dir in ["upper", "work"] {
            std::fs::create_dir_all(base.join(dir)).unwrap();
        }
        let (root, shown) = (base.join("root"), base.display());
        let options = format!("lowerdir={},upperdir={shown}/upper,workdir={shown}/work", lower.display());
        let overlay = Mount::new("overlay", "overlay", &root, &options);
        let proc = Mount::bind(Path::new("/proc"), &root.join("proc"));
        let made = Self { path: root, _proc: proc, _overlay: overlay };
        devices(&made.path.join("dev"));
        made
    }

    /// The root directory, by the path that the host has for it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path that the host has for one inside.
    #[must_use]
    pub fn inside(&self, path: &str) -> PathBuf {
        self.path.join(path.trim_start_matches('/'))
    }

    /// A program inside, with this as its root; it has no host and no cgroup yet.
    #[must_use]
    pub fn program(&self, path: &str) -> Program {
        Program::new(path.into()).in_root(&self.path).env("LANG", "C")
    }

    /// Writes a file inside, with the directories above it.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        let target = self.inside(path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(&target, text).unwrap_or_else(|error| panic!("write {}: {error}", target.display()));
    }
}

/// The devices that every program expects (Documentation/admin-guide/devices.txt), and where the standard streams are.
#[track_caller]
fn devices(dev: &Path) {
    std::fs::create_dir_all(dev).unwrap();
    let mode = Mode::from_bits_truncate(0o666);
    for (name, minor) in [("null", 3), ("zero", 5), ("random", 8), ("urandom", 9)] {
        let path = dev.join(name);
        mknod(&path, SFlag::S_IFCHR, mode, makedev(1, minor)).unwrap();
        // The umask does not apply to what a device is for.
        nix::sys::stat::fchmodat(nix::fcntl::AT_FDCWD, &path, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)
            .unwrap();
    }
    symlink("/proc/self/fd", dev.join("fd")).unwrap();
    for (number, name) in ["stdin", "stdout", "stderr"].iter().enumerate() {
        symlink(format!("/proc/self/fd/{number}"), dev.join(name)).unwrap();
    }
}
