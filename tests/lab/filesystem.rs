//! File systems on which a sanctioned program may lie.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::client;
use crate::mount::Mount;

/// A kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ext4 on a loop device.
    Ext4,
    /// XFS on a loop device.
    Xfs,
    /// btrfs on a loop device.
    Btrfs,
    /// tmpfs.
    Tmpfs,
    /// overlayfs whose lower layer is an ext4 of its own and whose upper layer is a tmpfs: stat() and the kernel
    /// disagree about a file's device there.
    Overlay,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Ext4,
        Self::Xfs,
        Self::Btrfs,
        Self::Tmpfs,
        Self::Overlay,
    ];

    /// The name that mount(8) has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Tmpfs => "tmpfs",
            Self::Overlay => "overlay",
        }
    }
}

/// A mounted file system; unmounted on drop.
#[derive(Debug)]
pub struct Filesystem {
    kind: Kind,
    base: PathBuf,
    // The order is the order of the unmounting: the overlay before its layers.
    top: Option<Mount>,
    layers: Vec<Mount>,
}

impl Filesystem {
    #[track_caller]
    pub(crate) fn mount(kind: Kind, base: &Path) -> Self {
        let mut filesystem = Self {
            kind,
            base: base.into(),
            top: None,
            layers: Vec::new(),
        };
        std::fs::create_dir_all(filesystem.path()).unwrap();
        match kind {
            Kind::Overlay => {
                filesystem.layers.push(image(Kind::Ext4, base, &base.join("lower")));
                let above = base.join("above");
                filesystem.layers.push(Mount::new("tmpfs", "tmpfs", &above, "mode=0755"));
                for dir in ["upper", "work"] {
                    std::fs::create_dir(above.join(dir)).unwrap();
                }
                filesystem.mount_overlay();
            }
            Kind::Tmpfs => {
                filesystem.top = Some(Mount::new("tmpfs", "tmpfs", &filesystem.path(), "mode=0755"));
            }
            Kind::Ext4 | Kind::Xfs | Kind::Btrfs => {
                filesystem.top = Some(image(kind, base, &filesystem.path()));
            }
        }
        filesystem
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.base.join("mnt")
    }

    /// Copies a program in and returns where it is. On an overlay the copy goes to the lower layer, as the files of a
    /// container's image do; copy to [`Self::path`] for one in the upper layer.
    #[track_caller]
    pub fn install_exe(&mut self, program: &Path) -> PathBuf {
        let name = program.file_name().unwrap();
        let target = self.path().join(name);
        if self.kind == Kind::Overlay {
            // What happens to a mounted overlay whose layers change is undefined (Documentation/filesystems/overlayfs.rst).
            drop(self.top.take());
            client::install(program, &self.base.join("lower").join(name));
            self.mount_overlay();
        } else {
            client::install(program, &target);
        }
        target
    }

    /// `lab-client` on this file system.
    #[track_caller]
    pub fn install_client(&mut self) -> PathBuf {
        self.install_exe(client::program())
    }

    #[track_caller]
    fn mount_overlay(&mut self) {
        let base = self.base.display();
        let options = format!(
            "lowerdir={base}/lower,upperdir={base}/above/upper,workdir={base}/above/work"
        );
        self.top = Some(Mount::new("overlay", "overlay", &self.path(), &options));
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        drop(self.top.take());
        self.layers.drain(..).rev().for_each(drop);
    }
}

/// A sparse file with a new file system in it, mounted.
#[track_caller]
fn image(kind: Kind, base: &Path, target: &Path) -> Mount {
    let image = base.join(kind.name()).with_extension("image");
    // mkfs.xfs makes nothing below 300 MB, mkfs.btrfs nothing below 109 MB.
    File::create(&image).unwrap().set_len(320 << 20).unwrap();
    let image = image.to_str().unwrap();
    let quiet = if kind == Kind::Ext4 { "-Fq" } else { "-q" };
    tool(&format!("mkfs.{}", kind.name()), &[quiet, image]);
    std::fs::create_dir_all(target).unwrap();
    let mounted = Mount::adopt(target);
    let target = target.to_str().unwrap();
    // mount(8) sets up a loop device that goes with the mount.
    tool("mount", &["-t", kind.name(), "-o", "loop", image, target]);
    mounted
}

#[track_caller]
fn tool(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| {
        panic!("start {program}: {error}; is e2fsprogs, xfsprogs or btrfs-progs missing?")
    });
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
