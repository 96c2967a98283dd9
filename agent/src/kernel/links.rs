//! What keeps programs attached: links, pinned so that they outlive the agent, and held open so that a pin which is taken
//! away takes no program along. The tables of programs that others end in are kept the same way.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::sys::{self, LinkInfo};
use super::{KernelError, mounts};

/// The beginning of the names of tables, which are no links.
pub(super) const TABLES: &str = "next_";
/// The end of the name that a pin has until it takes another's place.
const HALF: &str = "-new";

/// The links of an instance, by name.
#[derive(Debug)]
pub(super) struct Links {
    folder: PathBuf,
    held: BTreeMap<String, OwnedFd>,
}

impl Links {
    /// Takes hold of all that is pinned in a folder.
    pub(super) fn open(folder: PathBuf) -> Self {
        let mut held = BTreeMap::new();
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Ok(object) = sys::open_pinned(&entry.path()) {
                held.insert(name, object);
            }
        }
        let mut links = Self { folder, held };
        links.settle_halves();
        links
    }

    /// What an agent has left that was killed between a pin and its renaming: it is the whole of a pair, or its newer half.
    fn settle_halves(&mut self) {
        let halves: Vec<String> = self.held.keys().filter(|name| name.ends_with(HALF)).cloned().collect();
        for half in halves {
            let name = half.trim_end_matches(HALF).to_owned();
            if self.held.contains_key(&name) {
                self.release(&half);
            } else if let Err(error) = self.rename(&half, &name) {
                tracing::warn!("{error}");
            }
        }
    }

    /// A link that is held, and what the kernel says of it.
    pub(super) fn held(&self, name: &str) -> Option<(BorrowedFd<'_>, LinkInfo)> {
        let link = self.held.get(name)?.as_fd();
        Some((link, sys::link_info(link).ok()?))
    }

    /// The names of the links that are held and of which something is true.
    pub(super) fn names(&self, is: impl Fn(&str, &LinkInfo) -> bool) -> Vec<String> {
        let links = self.held.iter().filter(|(name, _)| !name.starts_with(TABLES));
        let known = links.filter(|(name, link)| sys::link_info(link.as_fd()).is_ok_and(|info| is(name, &info)));
        known.map(|(name, _)| name.clone()).collect()
    }

    /// Whether the pin of a link that is held is in its place.
    pub(super) fn is_pinned(&self, name: &str) -> bool {
        let Some((_, held)) = self.held(name) else { return false };
        let pinned = sys::open_pinned(&self.path(name)).and_then(|link| sys::link_info(link.as_fd()));
        pinned.is_ok_and(|pinned| pinned.id == held.id)
    }

    /// Pins an object under a name, in the place of what has it, and holds it.
    pub(super) fn keep(&mut self, name: &str, object: OwnedFd) -> Result<(), KernelError> {
        // Held first: a program whose pin fails is attached for as long as this agent lives.
        let path = self.path(name);
        let replaced = self.held.insert(name.to_owned(), object);
        let Some(object) = self.held.get(name) else { return Ok(()) };
        let first = pin_over(object.as_fd(), &path);
        // Only now may the one before go: nothing is without a program in between.
        drop(replaced);
        if first.is_ok() {
            return Ok(());
        }
        // Somebody may have taken the folder away, or the file system it was on.
        mounts::ensure_bpffs().map_err(KernelError::Bpffs)?;
        fs::create_dir_all(&self.folder).map_err(|source| KernelError::Pin { path: self.folder.clone(), source })?;
        pin_over(object.as_fd(), &path)
    }

    /// Pins again what is held and not pinned any more.
    pub(super) fn pin_again(&mut self, name: &str) -> Result<(), KernelError> {
        if self.is_pinned(name) {
            return Ok(());
        }
        match self.held.remove(name) {
            Some(object) => self.keep(name, object),
            None => Ok(()),
        }
    }

    /// Gives a link another name.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> Result<(), KernelError> {
        let Some(link) = self.held.remove(from) else { return Ok(()) };
        self.keep(to, link)?;
        self.unpin(from);
        Ok(())
    }

    /// Lets a link go, and with it what it keeps in place.
    pub(super) fn release(&mut self, name: &str) {
        self.held.remove(name);
        self.unpin(name);
    }

    /// The same, and waits until the kernel has let go of it, which it does a little later.
    pub(super) fn release_for_good(&mut self, name: &str) {
        let program = self.held(name).map(|(_, info)| info.program);
        self.release(name);
        if let Some(program) = program {
            wait_for_end(&[program]);
        }
    }

    /// The ids of the programs behind all links.
    pub(super) fn programs(&self) -> Vec<u32> {
        let links = self.held.keys().filter(|name| !name.starts_with(TABLES));
        links.filter_map(|name| Some(self.held(name)?.1.program)).collect()
    }

    /// The tables that are pinned or held.
    pub(super) fn tables(&self) -> Vec<String> {
        self.held.keys().filter(|name| name.starts_with(TABLES)).cloned().collect()
    }

    /// Whether a table's pin is in its place.
    pub(super) fn table_is_pinned(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Pins a table again.
    pub(super) fn pin_table_again(&mut self, name: &str) -> Result<(), KernelError> {
        match self.held.remove(name) {
            Some(table) => self.keep(name, table),
            None => Ok(()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn unpin(&self, name: &str) {
        if let Err(error) = fs::remove_file(self.path(name))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!("{}: {error}", self.path(name).display());
        }
    }
}

/// Pins an object in the place of another, without a moment in which neither is pinned.
pub(super) fn pin_over(object: BorrowedFd<'_>, path: &Path) -> Result<(), KernelError> {
    let fail = |source| KernelError::Pin { path: path.to_owned(), source };
    // The BPF file system takes no name with a dot in it.
    let mut new = path.as_os_str().to_owned();
    new.push(HALF);
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    sys::pin(object, &new).map_err(fail)?;
    fs::rename(&new, path).map_err(fail)
}

/// Waits until programs are no more, for two seconds at the most: the kernel takes them from their places behind the back of
/// who lets go of the links (`bpf_link_put_deferred`, kernel/bpf/syscall.c).
pub(super) fn wait_for_end(programs: &[u32]) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while programs.iter().any(|id| sys::program_exists(*id)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}
