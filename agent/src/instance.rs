//! The folders of an instance. Several agents run side by side when each has a name of its own.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// The name of the instance that nobody named.
pub const DEFAULT: &str = "default";

/// Where an instance keeps what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Runtime files: the control socket and the lock.
    pub runtime: PathBuf,
    /// What outlives a boot: attempts, the last good policy.
    pub state: PathBuf,
}

impl Instance {
    /// The folders of an instance; `state` in place of the usual one if given.
    ///
    /// # Errors
    ///
    /// When the name is none: letters, digits, `-` and `_`, as the BPF file system takes them.
    pub fn new(name: &str, state: Option<PathBuf>) -> Result<Self, String> {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
            return Err(format!("\"{name}\" is no instance name; use up to 64 letters, digits, - and _"));
        }
        Ok(Self {
            name: name.to_owned(),
            runtime: Path::new("/run/portreeve").join(name),
            state: state.unwrap_or_else(|| Path::new("/var/lib/portreeve").join(name)),
        })
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("control.sock")
    }

    /// Makes the folders. One for state that cannot be made is no reason not to guard.
    ///
    /// # Errors
    ///
    /// When the runtime folder cannot be made.
    pub fn make_folders(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.runtime)?;
        if let Err(error) = fs::DirBuilder::new().recursive(true).mode(0o750).create(&self.state) {
            tracing::warn!("cannot make {}: {error}; nothing is kept over a restart", self.state.display());
        }
        Ok(())
    }

    /// Locks the instance for one agent.
    ///
    /// # Errors
    ///
    /// When another agent has it.
    pub fn lock(&self) -> io::Result<Flock<fs::File>> {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(self.runtime.join("lock"))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
    }

    /// The copy of the last policy that was in force, where there is one.
    ///
    /// Between the two renames that replace it, it has another name for a moment.
    #[must_use]
    pub fn last_good(&self) -> Option<PathBuf> {
        let copies = ["last-good", "last-good.new", "last-good.old"];
        copies.into_iter().map(|copy| self.state.join(copy).join("portreeve.toml")).find(|path| path.exists())
    }

    /// Copies the policy's files, so that a boot with a policy that does not check still has one. Those it includes
    /// keep their place relative to it.
    ///
    /// # Errors
    ///
    /// When they cannot be copied; the copy before stays.
    pub fn keep_last_good(&self, policy: &Path, files: &[PathBuf]) -> io::Result<()> {
        let new = self.state.join("last-good.new");
        match fs::remove_dir_all(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir_all(&new)?;
        fs::copy(policy, new.join("portreeve.toml"))?;
        let base = policy.parent().unwrap_or(Path::new("/"));
        for file in files.iter().filter(|file| *file != policy) {
            // An include elsewhere is read where it is.
            if let Ok(relative) = file.strip_prefix(base) {
                let to = new.join(relative);
                fs::create_dir_all(to.parent().unwrap_or(&new))?;
                fs::copy(file, to)?;
            }
        }
        let (kept, old) = (self.state.join("last-good"), self.state.join("last-good.old"));
        match fs::remove_dir_all(&old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match fs::rename(&kept, &old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(&new, &kept)
    }
}
