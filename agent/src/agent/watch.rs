//! What can change under a policy: its files, and the executables it names.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::Agent;
use crate::kernel::Guard;
use crate::policy::{Loaded, Policy, Resolved};

/// What `stat()` says of a file, as far as it moves when the file does.
pub(super) type Signature = Option<(u64, u64, i64, i64)>;

/// How many superseded executables are kept for processes that still run them.
const SUPERSEDED: usize = 64;

/// The state of everything that is looked at.
#[derive(Debug, Default)]
pub(super) struct Watched {
    files: HashMap<PathBuf, Signature>,
    executables: HashMap<PathBuf, Signature>,
    /// The executables that rules have resolved to, held open, so that they can still be asked about once a package
    /// upgrade has put another file in their place.
    open: HashMap<PathBuf, Held>,
    /// Those whose place has been taken, with the path they had.
    superseded: Vec<(PathBuf, Held)>,
}

/// An executable held open.
#[derive(Debug)]
struct Held {
    file: File,
    ino: u64,
    dev: u64,
    size: u64,
    mtime: (i64, i64),
}

impl Watched {
    /// Looks at the files of a policy from now on, and at the folders in which a new file would belong to it.
    pub(super) fn files(&mut self, loaded: &Loaded) {
        self.only_files(loaded.files.iter().chain(&loaded.folders));
    }

    /// Looks at these files from now on.
    pub(super) fn only_files<'p>(&mut self, files: impl IntoIterator<Item = &'p PathBuf>) {
        self.files = files.into_iter().map(|path| (path.clone(), signature(path))).collect();
    }

    /// Looks at every path that a rule could resolve to from now on, there or not: a change is what differs from `seen`.
    pub(super) fn executables(&mut self, seen: HashMap<PathBuf, Signature>, resolved: &Resolved) {
        self.executables = seen;
        // What no rule names any more is let go: an open file keeps its file system from being unmounted.
        let named: Vec<&Path> = resolved.executables().map(|(path, _)| path).collect();
        let seen = &self.executables;
        self.open.retain(|path, _| seen.contains_key(path) || named.contains(&path.as_path()));
        self.superseded.retain(|(path, _)| seen.contains_key(path) || named.contains(&path.as_path()));
        for (path, _) in resolved.executables() {
            let Some(held) = Held::open(path) else { continue };
            if let Some(before) = self.open.get(path)
                && (before.ino, before.dev) == (held.ino, held.dev)
            {
                continue;
            }
            if let Some(before) = self.open.insert(path.to_owned(), held) {
                self.superseded.push((path.to_owned(), before));
            }
        }
        if self.superseded.len() > SUPERSEDED {
            self.superseded.drain(..self.superseded.len() - SUPERSEDED);
        }
    }

    /// Lets a rule's executable that a package upgrade has replaced go on while a process runs it: the mail server
    /// itself is only restarted some time later. The file must be the one it was: same inode, size and
    /// modification time; that it was unlinked moved its change time.
    pub(super) fn superseded(&mut self, resolved: &mut Resolved, guard: &mut Guard) {
        // What resolves now may be what replaces an open one; take notice of that before keys are made.
        for (path, _) in resolved.executables().map(|(path, exe)| (path.to_owned(), exe)).collect::<Vec<_>>() {
            let Some(held) = Held::open(&path) else { continue };
            let replaced = self.open.get(&path).is_some_and(|before| (before.ino, before.dev) != (held.ino, held.dev));
            if replaced && let Some(before) = self.open.insert(path.clone(), held) {
                self.superseded.push((path, before));
            }
        }
        if self.superseded.is_empty() {
            return;
        }
        let running = running();
        self.superseded.retain(|(_, held)| held.unchanged() && running.contains(&(held.dev, held.ino)));
        for (path, held) in &self.superseded {
            if let Ok(exe) = guard.learn(&held.file) {
                resolved.add_executable(path, exe);
            }
        }
    }
}

impl Held {
    fn open(path: &Path) -> Option<Self> {
        let file = File::options().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path).ok()?;
        let meta = file.metadata().ok()?;
        Some(Self {
            file,
            ino: meta.ino(),
            dev: meta.dev(),
            size: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
        })
    }

    fn unchanged(&self) -> bool {
        self.file
            .metadata()
            .is_ok_and(|meta| meta.size() == self.size && (meta.mtime(), meta.mtime_nsec()) == self.mtime)
    }
}

/// How every path that a rule could resolve to stands.
pub(super) fn signatures(policy: &Policy) -> HashMap<PathBuf, Signature> {
    policy.executable_paths().into_iter().map(|path| (path.clone(), signature(&path))).collect()
}

/// Device and inode of every executable that runs.
fn running() -> std::collections::HashSet<(u64, u64)> {
    let processes = procfs::process::all_processes().into_iter().flatten().flatten();
    processes
        .filter_map(|process| std::fs::metadata(format!("/proc/{}/exe", process.pid)).ok())
        .map(|meta| (meta.dev(), meta.ino()))
        .collect()
}

fn signature(path: &Path) -> Signature {
    // Through links: what counts is the file that would be executed.
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec()))
}

impl Agent {
    /// Looks whether anything has moved, and puts it in force. Called several times a second, so that a package
    /// upgrade is recognised well within one; a look is a `stat()` a path.
    pub(super) fn look(&mut self) {
        if self.watched.files.iter().any(|(path, before)| signature(path) != *before) {
            tracing::info!("the policy's files have changed");
            // The outcome is logged, and shown by `status`.
            if self.reload().is_err() {
                tracing::debug!("not reloaded");
            }
        }
        let moved = self.watched.executables.iter().find(|(path, before)| signature(path) != **before);
        let ended = self.in_force.compiled.next_expiry.is_some_and(|time| time <= jiff::Timestamp::now());
        if let Some((path, _)) = moved {
            if self.not_renewed.is_none() {
                tracing::info!("{} has changed", path.display());
            }
        } else if !ended {
            return;
        }
        // Tried again at the next look, and said again only if it is something else then.
        let failure = self.renew().err();
        if let Some(error) = &failure
            && self.not_renewed.as_ref() != Some(error)
        {
            tracing::error!("cannot renew the policy in force: {error}");
        }
        self.not_renewed = failure;
    }
}
