//! One test's own copy of a mail server's root.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::{Package, config, debs};
use crate::Program;
use crate::mount::Mount;

/// A root directory with a mail server in it: an overlay over the unpacked packages, unmounted on drop.
#[derive(Debug)]
pub(super) struct MtaRoot {
    package: Package,
    path: PathBuf,
    // In the order of the unmounting.
    _proc: Mount,
    _overlay: Mount,
}

impl MtaRoot {
    #[track_caller]
    pub(super) fn new(package: Package, base: &Path) -> Self {
        let lower = debs::base_root(package.name());
        for dir in ["upper", "work"] {
            std::fs::create_dir_all(base.join(dir)).unwrap();
        }
        let (root, shown) = (base.join("root"), base.display());
        let options = format!("lowerdir={},upperdir={shown}/upper,workdir={shown}/work", lower.display());
        let overlay = Mount::new("overlay", "overlay", &root, &options);
        let proc = Mount::bind(Path::new("/proc"), &root.join("proc"));
        let made = Self { package, path: root, _proc: proc, _overlay: overlay };
        devices(&made.path.join("dev"));
        config::users(&made);
        config::prepare(&made);
        made
    }

    /// Which server it holds.
    #[must_use]
    pub(super) fn package(&self) -> Package {
        self.package
    }

    /// The root directory, by the path that the host has for it.
    #[must_use]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path that the host has for one inside.
    #[must_use]
    pub(super) fn inside(&self, path: &str) -> PathBuf {
        self.path.join(path.trim_start_matches('/'))
    }

    /// A program inside, with this as its root; it has no host and no cgroup yet.
    #[must_use]
    pub(super) fn program(&self, path: &str) -> Program {
        Program::new(path.into()).in_root(&self.path).env("LANG", "C")
    }

    /// Writes a file inside, with the directories above it.
    #[track_caller]
    pub(super) fn write(&self, path: &str, text: &str) {
        let target = self.inside(path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(&target, text).unwrap_or_else(|error| panic!("write {}: {error}", target.display()));
    }
}

/// The devices that every program expects (Documentation/admin-guide/devices.txt), and where the standard streams are.
#[track_caller]
pub(crate) fn devices(dev: &Path) {
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
