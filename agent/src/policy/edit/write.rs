//! Another text in the place of a file's: all of it or nothing.

use std::fs::{self, File, Metadata};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use thiserror::Error;

/// How long somebody else may take over a write.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the file is as it was.
#[derive(Debug, Error)]
pub enum WriteError {
    /// It is not what it was when it was read.
    #[error("{} has been changed by somebody since it was read, and was left alone; run this again", .file.display())]
    Changed {
        /// The file.
        file: PathBuf,
    },
    /// Somebody else is writing.
    #[error("somebody else is writing {} (lock on {}); run this again", .file.display(), .lock.display())]
    Busy {
        /// The file.
        file: PathBuf,
        /// The file that is locked.
        lock: PathBuf,
    },
    /// A step failed.
    #[error("cannot {step} {}: {source}; the policy was left as it was", .path.display())]
    Step {
        /// What could not be done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl WriteError {
    /// Whether it is for want of a right.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Step { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Self::Changed { .. } | Self::Busy { .. } => false,
        }
    }
}

/// Puts `to` in the place of a file whose text is `from`.
///
/// The new text is written beside it, under a hidden name that no `include` matches, and renamed over it: whoever reads
/// sees the one or the other. That file is also the lock. It is made so that only its owner can open it, hence nobody
/// else can hold the lock; and as it goes away with the rename, none is left behind.
pub(super) fn replace(file: &Path, from: &str, to: &str) -> Result<(), WriteError> {
    let step = |step, path: &Path| {
        let path = path.to_owned();
        move |source| WriteError::Step { step, path, source }
    };
    let beside = beside(file);
    let meta = fs::metadata(file).map_err(step("look at", file))?;
    let mut new = lock(file, &beside)?;
    let written = fill(&mut new, to, &meta).map_err(step("write", &beside)).and_then(|()| {
        if fs::read(file).map_err(step("read", file))? != from.as_bytes() {
            return Err(WriteError::Changed { file: file.to_owned() });
        }
        fs::rename(&beside, file).map_err(step("replace", file))
    });
    if written.is_err() {
        // It is still ours: the lock is held.
        if let Err(error) = fs::remove_file(&beside) {
            tracing::warn!("cannot remove {}: {error}", beside.display());
        }
        return written;
    }
    let folder = file.parent().unwrap_or(Path::new("/"));
    if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
        tracing::warn!("{} is written, and may be lost in a power failure: {error}", file.display());
    }
    Ok(())
}

/// The hidden name beside a file.
fn beside(file: &Path) -> PathBuf {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    file.with_file_name(format!(".{name}.new"))
}

/// Makes the file beside it and locks it. One that an interrupted write has left is taken over.
fn lock(file: &Path, beside: &Path) -> Result<Flock<File>, WriteError> {
    let fail = |source| WriteError::Step { step: "make", path: beside.to_owned(), source };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let open = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(beside)
            .map_err(fail)?;
        let meta = open.metadata().map_err(fail)?;
        if !meta.is_file() || meta.uid() != geteuid().as_raw() || meta.nlink() > 1 {
            let why = "it is there already and is somebody else's";
            return Err(fail(io::Error::new(io::ErrorKind::AlreadyExists, why)));
        }
        if let Some(locked) = try_lock(open, beside).map_err(fail)? {
            return Ok(locked);
        }
        if Instant::now() >= deadline {
            return Err(WriteError::Busy { file: file.to_owned(), lock: beside.to_owned() });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Locks the file beside, unless somebody else has it, or had it when it was opened: whoever has the lock renames that
/// file or removes it, and it may be the policy by now.
fn try_lock(open: File, beside: &Path) -> io::Result<Option<Flock<File>>> {
    let meta = open.metadata()?;
    match Flock::lock(open, FlockArg::LockExclusiveNonblock) {
        Ok(locked) => Ok(Some(locked).filter(|_| is_at(&meta, beside))),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

fn is_at(meta: &Metadata, path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (meta.dev(), meta.ino()))
}

/// Writes the text through to the disk, and gives the file the owner and the rights of the one it replaces.
fn fill(new: &mut File, text: &str, like: &Metadata) -> io::Result<()> {
    new.set_len(0)?;
    new.rewind()?;
    new.write_all(text.as_bytes())?;
    let own = new.metadata()?;
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        fchown(&*new, Some(like.uid()), Some(like.gid()))?;
    }
    new.set_permissions(fs::Permissions::from_mode(like.mode() & 0o7777))?;
    new.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::super::{NewRule, Proposal};
    use super::*;
    use crate::policy::{Account, SystemHost, load};

    /// A folder with a file in it.
    fn folder(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.toml");
        fs::write(&file, text).unwrap();
        (folder, file)
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_new_file_has_the_rights_and_the_owner_of_the_old_one() {
        let (folder, file) = folder("old");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        if geteuid().is_root() {
            nix::unistd::chown(&file, Some(12.into()), Some(34.into())).unwrap();
        }
        let before = fs::metadata(&file).unwrap();
        replace(&file, "old", "new").unwrap();
        let after = fs::metadata(&file).unwrap();
        let rights = |meta: &Metadata| (meta.mode(), meta.uid(), meta.gid());
        assert_eq!(rights(&after), rights(&before));
        assert_eq!(
            (fs::read_to_string(&file).unwrap().as_str(), names(folder.path())),
            ("new", vec!["p.toml".to_owned()])
        );
    }

    #[test]
    fn a_file_that_somebody_has_changed_is_left_alone() {
        let (folder, file) = folder("old, and changed");
        assert!(matches!(replace(&file, "old", "new"), Err(WriteError::Changed { .. })));
        assert_eq!(fs::read_to_string(&file).unwrap(), "old, and changed");
        assert_eq!(names(folder.path()), ["p.toml"]);
    }

    #[test]
    fn a_link_stays_and_what_it_leads_to_is_replaced() {
        let (folder, file) = folder("[[allow]]\nuser = 1\n");
        let link = folder.path().join("link.toml");
        symlink("p.toml", &link).unwrap();
        let rule = NewRule { user: vec![Account::Id(2)], ..NewRule::default() };
        let proposal = Proposal::add(&link, &rule, &mut SystemHost::new(None)).unwrap();
        proposal.write().unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("p.toml"));
        assert!(fs::read_to_string(&file).unwrap().contains("user = 2"));
        // A link that leads elsewhere by now is another file.
        fs::copy(&file, folder.path().join("other.toml")).unwrap();
        fs::remove_file(&link).unwrap();
        symlink("other.toml", &link).unwrap();
        assert!(matches!(proposal.put_back(), Err(WriteError::Changed { .. })));
    }

    #[test]
    fn what_an_interrupted_write_has_left_is_in_nobodys_way() {
        let (folder, file) = folder("old");
        fs::write(beside(&file), "half of a much longer text").unwrap();
        replace(&file, "old", "new").unwrap();
        assert_eq!(
            (fs::read_to_string(&file).unwrap().as_str(), names(folder.path())),
            ("new", vec!["p.toml".to_owned()])
        );
        // What is no file of ours is not written through.
        symlink("elsewhere", beside(&file)).unwrap();
        assert!(matches!(replace(&file, "new", "x"), Err(WriteError::Step { step: "make", .. })));
        assert_eq!(names(folder.path()), [".p.toml.new", "p.toml"]);
    }

    #[test]
    fn a_lock_on_what_is_the_policy_by_now_is_none() {
        let (_folder, file) = folder("old");
        let open = || File::options().write(true).create(true).truncate(false).open(beside(&file)).unwrap();
        let (first, second, late) = (open(), open(), open());
        let lock = try_lock(first, &beside(&file)).unwrap();
        assert!(lock.is_some() && try_lock(second, &beside(&file)).unwrap().is_none());
        fs::rename(beside(&file), &file).unwrap();
        drop(lock);
        assert!(try_lock(late, &beside(&file)).unwrap().is_none());
    }

    #[test]
    fn of_editors_at_the_same_time_none_loses_a_rule() {
        let (folder, file) = folder("");
        std::thread::scope(|scope| {
            for editor in 0..4_u32 {
                let file = &file;
                scope.spawn(move || {
                    for round in 0..8 {
                        let rule = NewRule { user: vec![Account::Id(editor * 100 + round)], ..NewRule::default() };
                        while let Err(error) = Proposal::add(file, &rule, &mut SystemHost::new(None)).unwrap().write() {
                            assert!(matches!(error, WriteError::Changed { .. }), "{error}");
                        }
                    }
                });
            }
        });
        let mut users: Vec<String> =
            load(&file).policy.unwrap().rules.iter().map(|rule| rule.user[0].value.to_string()).collect();
        users.sort();
        users.dedup();
        assert_eq!((users.len(), names(folder.path())), (32, vec!["p.toml".to_owned()]));
    }

    /// Not a test by itself: what the next one runs where no file may grow.
    #[test]
    fn with_no_room_left() {
        let Some(file) = std::env::var_os("PORTREEVE_TEST_NO_ROOM").map(PathBuf::from) else { return };
        let error = replace(&file, "old", &"new ".repeat(4096)).unwrap_err();
        assert!(error.to_string().starts_with("cannot write "), "{error}");
        assert!(error.to_string().ends_with("; the policy was left as it was"), "{error}");
    }

    #[test]
    fn without_room_the_old_file_stays() {
        let (folder, file) = folder("old");
        // In a process of its own, because the limit counts for the whole process.
        let status = Command::new("/bin/sh")
            .args([
                "-c",
                "trap '' XFSZ; ulimit -f 1; exec \"$0\" --exact policy::edit::write::tests::with_no_room_left",
            ])
            .arg(std::env::current_exe().unwrap())
            .env("PORTREEVE_TEST_NO_ROOM", &file)
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        assert_eq!(
            (fs::read_to_string(&file).unwrap().as_str(), names(folder.path())),
            ("old", vec!["p.toml".to_owned()])
        );
    }
}
