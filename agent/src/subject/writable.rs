//! Who may put programs where one lies.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path};

/// Folders for what does not last (Filesystem Hierarchy Standard 3.0 §3.18, §5.15; systemd's file-hierarchy(7)).
const TEMPORARY: [&str; 5] = ["/tmp", "/var/tmp", "/dev/shm", "/run/user", "/run/shm"];
/// How many symbolic links a path may lead through; the kernel follows 40 (`MAXSYMLINKS`, include/linux/namei.h).
const LINKS: u32 = 8;
/// The user that owns what only the administrator may change.
const ROOT: u32 = 0;

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

/// Whether a file belongs to root and nobody else may write to it, nor to any folder or link on the way to it. The path is
/// absolute and taken below `root`, links as well: none leads out of there. A group's right to write counts as somebody
/// else's, and with it whatever an access control list grants, whose mask is shown in its place (acl(5)). `None` where
/// something on the way cannot be looked at, leads up (`..` in the path itself), or is no ordinary file in the end.
#[must_use]
pub fn only_root_writes(root: &Path, path: &str) -> Option<bool> {
    only_one_writes(ROOT, root, path)
}

/// The device and inode number of the file that an absolute path leads to below `root`; `None` as with
/// [`only_root_writes`].
#[must_use]
pub fn file_below(root: &Path, path: &str) -> Option<(u64, u64)> {
    walk(root, path, |_| {}).map(|file| (file.dev(), file.ino()))
}

fn only_one_writes(user: u32, root: &Path, path: &str) -> Option<bool> {
    let mut only = true;
    walk(root, path, |part| {
        // The mode of a link says nothing: who may change it is who may write to its folder.
        let shut = part.is_symlink() || part.mode() & 0o022 == 0;
        only &= part.uid() == user && shut;
    })?;
    Some(only)
}

/// Goes to a file below a root, one name at a time, and shows each folder and link on the way, and the file last.
fn walk(root: &Path, path: &str, mut show: impl FnMut(&Metadata)) -> Option<Metadata> {
    let mut left = names(Path::new(path), false)?;
    let (mut here, mut links) = (root.to_owned(), 0);
    // The root may be a link, as /proc/PID/root is.
    let mut meta = fs::metadata(root).ok()?;
    // How many names `here` is below the root.
    let mut depth = 0_u32;
    while let Some(name) = left.pop_front() {
        if !meta.is_dir() {
            return None;
        }
        show(&meta);
        if name == ".." {
            // The folder above the root is the root.
            if depth > 0 {
                here.pop();
                depth -= 1;
            }
            meta = look_at(&here, depth)?;
            continue;
        }
        let next = here.join(&name);
        let found = fs::symlink_metadata(&next).ok()?;
        if !found.is_symlink() {
            (here, meta, depth) = (next, found, depth + 1);
            continue;
        }
        show(&found);
        links += 1;
        let target = fs::read_link(&next).ok().filter(|_| links <= LINKS)?;
        if target.is_absolute() {
            (here, depth) = (root.to_owned(), 0);
        }
        let mut onward = names(&target, true)?;
        onward.append(&mut left);
        left = onward;
        meta = look_at(&here, depth)?;
    }
    show(&meta);
    meta.is_file().then_some(meta)
}

/// A folder that was reached without links; only the root itself may be one.
fn look_at(folder: &Path, depth: u32) -> Option<Metadata> {
    if depth == 0 { fs::metadata(folder) } else { fs::symlink_metadata(folder) }.ok()
}

/// The names that a path consists of. A link's may lead up, for its own folder is one without links by then.
fn names(path: &Path, of_link: bool) -> Option<VecDeque<OsString>> {
    if !of_link && !path.is_absolute() {
        return None;
    }
    let mut names = VecDeque::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push_back(name.to_owned()),
            Component::ParentDir if of_link => names.push_back("..".into()),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(names)
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

    /// A root folder with a script in /usr/local/bin, and the user that all of it belongs to.
    fn with_script() -> (tempfile::TempDir, u32) {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("usr/local/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("report.pl"), "exit").unwrap();
        for (part, mode) in [("", 0o755), ("usr", 0o755), ("usr/local", 0o755), ("usr/local/bin", 0o755)] {
            set(root.path(), part, mode);
        }
        set(root.path(), "usr/local/bin/report.pl", 0o644);
        let user = fs::metadata(root.path()).unwrap().uid();
        (root, user)
    }

    fn set(root: &Path, part: &str, mode: u32) {
        fs::set_permissions(root.join(part), Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_script_is_its_owners_alone_while_nobody_else_may_write_on_the_way() {
        let (root, user) = with_script();
        let alone = |user: u32| only_one_writes(user, root.path(), "/usr/local/bin/report.pl");
        assert_eq!(alone(user), Some(true));
        assert_eq!(alone(user + 1), Some(false), "of another user");
        assert_eq!(only_root_writes(root.path(), "/usr/local/bin/report.pl"), Some(user == 0));
        for (part, usual, wrong) in [
            ("", 0o755, 0o777),
            ("usr/local", 0o755, 0o775),
            ("usr/local/bin", 0o755, 0o1777),
            ("usr/local/bin/report.pl", 0o644, 0o664),
            ("usr/local/bin/report.pl", 0o644, 0o646),
        ] {
            set(root.path(), part, wrong);
            assert_eq!(alone(user), Some(false), "{part} {wrong:o}");
            set(root.path(), part, usual);
            assert_eq!(alone(user), Some(true), "{part}");
        }
    }

    #[test]
    fn a_folder_or_file_of_another_user_is_not_roots() {
        let (root, user) = with_script();
        if user != 0 {
            return;
        }
        for part in ["usr/local", "usr/local/bin/report.pl"] {
            let part = root.path().join(part);
            std::os::unix::fs::chown(&part, Some(65_534), None).unwrap();
            assert_eq!(only_root_writes(root.path(), "/usr/local/bin/report.pl"), Some(false), "{}", part.display());
            std::os::unix::fs::chown(&part, Some(0), None).unwrap();
        }
        assert_eq!(only_root_writes(root.path(), "/usr/local/bin/report.pl"), Some(true));
    }

    #[test]
    fn links_are_followed_below_the_root_and_what_they_lead_through_counts() {
        let (root, user) = with_script();
        let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, root.path().join(at)).unwrap();
        link("usr/local/bin", "bin");
        link("/usr/local/bin/report.pl", "usr/report");
        link("../../../../../usr/local/./bin", "usr/up");
        link("loop", "loop");
        link("/etc/hostname", "out");
        let alone = |path: &str| only_one_writes(user, root.path(), path);
        let file = file_below(root.path(), "/usr/local/bin/report.pl");
        for path in ["/bin/report.pl", "/usr/report", "/usr/up/report.pl", "/usr/./local//bin/report.pl"] {
            assert_eq!((alone(path), file_below(root.path(), path)), (Some(true), file), "{path}");
        }
        // A link to a file that exists only outside of the root, one to itself, a folder, a name that leads up.
        for path in
            ["/out", "/loop/x", "/bin", "/usr/../bin/report.pl", "usr/report", "/usr/report/x", "/none", "", "/"]
        {
            assert_eq!((alone(path), file_below(root.path(), path)), (None, None), "{path}");
        }
        // The folder that the link leads to, and the one that it lies in.
        set(root.path(), "usr/local/bin", 0o775);
        assert_eq!(alone("/bin/report.pl"), Some(false));
        set(root.path(), "usr/local/bin", 0o755);
        fs::create_dir(root.path().join("open")).unwrap();
        link("/usr/local/bin/report.pl", "open/report");
        set(root.path(), "open", 0o777);
        assert_eq!(alone("/open/report"), Some(false));
        set(root.path(), "open", 0o755);
        assert_eq!(alone("/open/report"), Some(true));
    }

    #[test]
    fn temporary_folders_are_known_by_their_names() {
        assert!(temporary("/tmp/x") && temporary("/dev/shm/.a/b") && temporary("/run/user/1000/x"));
        assert!(
            !temporary("/tmpx/x") && !temporary("/usr/tmp/x") && !temporary("/home/a/tmp/x") && !temporary("/run/x")
        );
    }
}
