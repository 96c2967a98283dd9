//! Who may put programs where one lies.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path};

/// Folders for what does not last (Filesystem Hierarchy Standard 3.0 §3.18, §5.15; systemd's file-hierarchy(7)).
const TEMPORARY: [&str; 5] = ["/tmp", "/var/tmp", "/dev/shm", "/run/user", "/run/shm"];

/// Whether an executable's path lies in a temporary folder.
#[must_use]
pub fn temporary(path: &str) -> bool {
    TEMPORARY.iter().any(|folder| Path::new(path).starts_with(folder))
}

/// Whether everybody may write to a folder that an absolute path leads through, or may have: a sticky folder counts, for
/// everybody may put a program of their own there. The path is taken below `root`, and has no links in it. `None` where a
/// folder cannot be looked at.
#[must_use]
pub fn world_writable(root: &Path, path: &str) -> Option<bool> {
    let folders = Path::new(path).parent()?;
    let mut here = root.to_owned();
    let mut found = open_to_all(&here, true)?;
    for part in folders.components() {
        match part {
            Component::RootDir => continue,
            Component::Normal(name) => here.push(name),
            Component::CurDir | Component::ParentDir | Component::Prefix(_) => return None,
        }
        found |= open_to_all(&here, false)?;
    }
    Some(found)
}

/// Whether everybody may write to a folder. The root may be a link, as /proc/PID/root is.
fn open_to_all(folder: &Path, follow: bool) -> Option<bool> {
    let meta = if follow { fs::metadata(folder) } else { fs::symlink_metadata(folder) }.ok()?;
    meta.is_dir().then(|| meta.mode() & 0o002 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn one_folder_on_the_way_is_enough_and_sticky_is_no_help() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("srv/upload/bin");
        fs::create_dir_all(&deep).unwrap();
        let set = |folder: &str, mode| fs::set_permissions(root.path().join(folder), Permissions::from_mode(mode));
        for folder in ["", "srv", "srv/upload", "srv/upload/bin"] {
            set(folder, 0o755).unwrap();
        }
        // As a process's root is in procfs.
        let links = tempfile::tempdir().unwrap();
        let link = links.path().join("root");
        std::os::unix::fs::symlink(root.path(), &link).unwrap();
        let found = || world_writable(&link, "/srv/upload/bin/x");
        assert_eq!(found(), Some(false));
        set("srv/upload", 0o777).unwrap();
        assert_eq!(found(), Some(true));
        set("srv/upload", 0o1777).unwrap();
        assert_eq!(found(), Some(true));
        set("srv/upload", 0o775).unwrap();
        assert_eq!(found(), Some(false));
        set("srv/upload/bin", 0o702).unwrap();
        assert_eq!(found(), Some(true));
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_known() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", root.path().join("link")).unwrap();
        for path in ["/missing/x", "/link/x", "/../x", "", "/"] {
            assert_eq!(world_writable(root.path(), path), None, "{path}");
        }
    }

    #[test]
    fn temporary_folders_are_known_by_their_names() {
        assert!(temporary("/tmp/x") && temporary("/dev/shm/.a/b") && temporary("/run/user/1000/x"));
        assert!(
            !temporary("/tmpx/x") && !temporary("/usr/tmp/x") && !temporary("/home/a/tmp/x") && !temporary("/run/x")
        );
    }
}
