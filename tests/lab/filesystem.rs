//! File systems to run programs from.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::mount::Mount;

/// Which file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ext4 on a loop device.
    Ext4,
    /// XFS on a loop device.
    Xfs,
    /// btrfs on a loop device.
    Btrfs,
    /// tmpfs.
    Tmpfs,
    /// overlayfs whose layers are on one file system.
    Overlay,
    /// overlayfs whose lower layer is on another file system than its upper.
    OverlayAcross,
}

/// A mounted file system of its own.
#[derive(Debug)]
pub struct Filesystem {
    // Undone in this order: what is mounted last goes first.
    mounts: Vec<Mount>,
    top: PathBuf,
    lower: Option<PathBuf>,
}

impl Filesystem {
    #[track_caller]
    pub(crate) fn mount(kind: Kind, at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let top = at.join("top");
        match kind {
            Kind::Ext4 => Self::image(at, &top, 64, &["mkfs.ext4", "-q", "-F"]),
            // The smallest XFS there is: 300 MiB (mkfs.xfs(8)).
            Kind::Xfs => Self::image(at, &top, 320, &["mkfs.xfs", "-q", "-f"]),
            Kind::Btrfs => Self::image(at, &top, 256, &["mkfs.btrfs", "-q", "-f"]),
            Kind::Tmpfs => Self { mounts: vec![Mount::new("tmpfs", "tmpfs", &top, "mode=0755")], top, lower: None },
            Kind::Overlay | Kind::OverlayAcross => Self::overlay(at, &top, kind),
        }
    }

    #[track_caller]
    fn image(at: &Path, top: &Path, mib: u64, mkfs: &[&str]) -> Self {
        let image = at.join("image");
        std::fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        run(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image));
        std::fs::create_dir_all(top).unwrap();
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(top));
        Self { mounts: vec![Mount::adopt(top)], top: top.to_owned(), lower: None }
    }

    #[track_caller]
    fn overlay(at: &Path, top: &Path, kind: Kind) -> Self {
        let base = at.join("layers");
        let layers = Mount::new("tmpfs", "tmpfs", &base, "mode=0755");
        let mut mounts = vec![layers];
        let lower = base.join("lower");
        if kind == Kind::OverlayAcross {
            mounts.insert(0, Mount::new("tmpfs", "tmpfs", &lower, "mode=0755"));
        }
        for name in ["lower", "upper", "work"] {
            std::fs::create_dir_all(base.join(name)).unwrap();
        }
        // Mounted by `seal`, once the lower layer has what it shall have.
        std::fs::create_dir_all(top).unwrap();
        Self { mounts, top: top.to_owned(), lower: Some(lower) }
    }

    /// Where to put files: the lower layer of an overlay that is not mounted yet, else the file system itself.
    #[must_use]
    pub fn fill(&self) -> &Path {
        self.lower.as_deref().unwrap_or(&self.top)
    }

    /// Mounts an overlay over what is in its lower layer; nothing to do for the others.
    #[track_caller]
    pub fn seal(&mut self) -> &Path {
        if let Some(lower) = self.lower.take() {
            let base = lower.parent().unwrap();
            let options = format!(
                "lowerdir={},upperdir={},workdir={}",
                lower.display(),
                base.join("upper").display(),
                base.join("work").display()
            );
            self.mounts.insert(0, Mount::new("overlay", "overlay", &self.top, &options));
        }
        &self.top
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
