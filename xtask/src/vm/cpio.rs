//! Initramfs images: cpio archives of the kernel's "newc" kind (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Written here rather than by cpio(1), so that everything in them belongs to root whoever builds them, and so that
//! no copy of a whole root has to lie about first.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// File types and permission bits, as in stat(2).
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// An archive that is being written. The kernel takes several, one after the other in one file.
pub(super) struct Archive {
    path: PathBuf,
    out: BufWriter<File>,
    position: u64,
    inode: u32,
}

impl Archive {
    /// Begins an archive in a new file.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path: path.to_owned(), out: BufWriter::new(file), position: 0, inode: 0 })
    }

    /// Takes in an archive that is ready, before anything else.
    pub(super) fn include(&mut self, ready: &Path) -> Result<()> {
        let mut from = File::open(ready).with_context(|| format!("cannot open {}", ready.display()))?;
        self.position += io::copy(&mut from, &mut self.out).with_context(|| self.trouble())?;
        self.pad()
    }

    /// A directory; those above it must be there already.
    pub(super) fn directory(&mut self, name: &str, mode: u32) -> Result<()> {
        self.entry(name.as_bytes(), DIRECTORY | mode, &[])
    }

    /// A file with this content.
    pub(super) fn text(&mut self, name: &str, mode: u32, content: &str) -> Result<()> {
        self.entry(name.as_bytes(), REGULAR | mode, content.as_bytes())
    }

    /// A symbolic link.
    pub(super) fn symlink(&mut self, name: &str, target: &str) -> Result<()> {
        self.entry(name.as_bytes(), SYMLINK | 0o777, target.as_bytes())
    }

    /// A copy of a file.
    pub(super) fn file(&mut self, name: &str, mode: u32, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.entry(name.as_bytes(), REGULAR | mode, &content)
    }

    /// Everything below a directory, under the names it has there.
    pub(super) fn tree(&mut self, root: &Path) -> Result<()> {
        self.below(root, root)
    }

    fn below(&mut self, root: &Path, dir: &Path) -> Result<()> {
        let listed = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = listed.with_context(|| format!("cannot list {}", dir.display()))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let about = entry.metadata().with_context(|| format!("cannot look at {}", path.display()))?;
            let name = path.strip_prefix(root).unwrap_or(&path).as_os_str().as_bytes();
            if about.is_dir() {
                self.entry(name, about.mode(), &[])?;
                self.below(root, &path)?;
            } else if about.is_symlink() {
                let target = fs::read_link(&path).with_context(|| format!("cannot read {}", path.display()))?;
                self.entry(name, about.mode(), target.as_os_str().as_bytes())?;
            } else if about.is_file() {
                let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                self.entry(name, about.mode(), &content)?;
            }
        }
        Ok(())
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> Result<()> {
        self.entry(b"TRAILER!!!", 0, &[])?;
        self.out.flush().with_context(|| self.trouble())
    }

    fn entry(&mut self, name: &[u8], mode: u32, content: &[u8]) -> Result<()> {
        self.inode += 1;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let size = u32::try_from(content.len()).with_context(|| self.trouble())?;
        let length = u32::try_from(name.len() + 1).with_context(|| self.trouble())?;
        // Magic, then inode, mode, user, group, links, time, size, device (2), device of a device (2), name, checksum.
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, length, 0];
        let header: String =
            std::iter::once("070701".to_owned()).chain(fields.map(|field| format!("{field:08X}"))).collect();
        self.write(header.as_bytes())?;
        self.write(name)?;
        self.write(b"\0")?;
        self.pad()?;
        self.write(content)?;
        self.pad()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).with_context(|| self.trouble())?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self) -> Result<()> {
        let gap = self.position.next_multiple_of(4) - self.position;
        self.write(&[0; 3][..usize::try_from(gap).unwrap_or(0)])
    }

    fn trouble(&self) -> String {
        format!("cannot write {}", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::Archive;
    use crate::exec::program;

    #[test]
    fn entries_are_aligned_and_the_trailer_ends_them() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        let mut archive = Archive::create(&first).unwrap();
        archive.text("abc", 0o644, "12345").unwrap();
        archive.finish().unwrap();
        let bytes = fs::read(&first).unwrap();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[..14], b"07070100000001");
        // 110 bytes of header and 4 of name end at 114; the content begins at the next multiple of four.
        assert_eq!(&bytes[116..121], b"12345");

        let mut archive = Archive::create(&second).unwrap();
        archive.include(&first).unwrap();
        archive.directory("dir", 0o755).unwrap();
        archive.finish().unwrap();
        assert!(fs::read(&second).unwrap().starts_with(&bytes));
    }

    #[test]
    fn cpio_reads_what_is_written() {
        if program("cpio").is_none() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (tree, image) = (dir.path().join("tree"), dir.path().join("image"));
        fs::create_dir_all(tree.join("usr/bin")).unwrap();
        fs::write(tree.join("usr/bin/x"), "x").unwrap();
        std::os::unix::fs::symlink("usr/bin", tree.join("bin")).unwrap();
        let mut archive = Archive::create(&image).unwrap();
        archive.tree(&tree).unwrap();
        archive.symlink("init", "usr/bin/x").unwrap();
        archive.finish().unwrap();
        let listed = Command::new("cpio").arg("-t").stdin(fs::File::open(&image).unwrap()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&listed.stdout), "bin\nusr\nusr/bin\nusr/bin/x\ninit\n");
    }
}
