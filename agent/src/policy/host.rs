//! What a policy asks of the host it is for.

mod system;

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use portreeve_abi::ExeId;

use super::model::CgroupPath;

pub use system::{Learn, SystemHost};

/// A host that can be asked about executables, users, groups, units and cgroups.
pub trait Host {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// The executable at a path, below `root` if there is one.
    ///
    /// # Errors
    ///
    /// Why it is no executable that a rule could name.
    fn exe(&mut self, root: Option<&Path>, path: &Path) -> Result<ExeFile, ExeProblem>;

    /// The SHA-256 of a file.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    fn sha256(&mut self, path: &Path) -> io::Result<[u8; 32]>;

    /// A text file of settings; none where it cannot be read, or is no such file.
    fn text(&mut self, path: &Path) -> Option<String>;

    /// The number of a user, from the user database of `root` if there is one.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    fn user(&mut self, root: Option<&Path>, name: &str) -> io::Result<Option<u32>>;

    /// The number of a group, likewise.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    fn group(&mut self, root: Option<&Path>, name: &str) -> io::Result<Option<u32>>;

    /// Where a unit's processes are.
    fn unit(&mut self, unit: &str) -> UnitPlace;

    /// Whether a cgroup exists, as far as that can be told. The path counts from the hierarchy's root.
    fn cgroup_exists(&mut self, path: &CgroupPath) -> Option<bool>;
}

/// An executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExeFile {
    /// Its path, links followed.
    pub path: PathBuf,
    /// How the kernel names it; none where the kernel cannot be asked.
    pub id: Option<ExeId>,
    /// The user it becomes when it is executed, where it is set-user-ID.
    pub set_user: Option<u32>,
    /// Who besides root could put something else in its place.
    pub weaknesses: Vec<Weakness>,
}

/// Somebody besides root who can write to an executable or to a folder on the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// Everybody.
    Everybody(PathBuf),
    /// A group.
    Group(PathBuf, u32),
    /// Its owner.
    Owner(PathBuf, u32),
}

/// Why a path is no executable that a rule could name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExeProblem {
    /// Nothing is there.
    #[error("does not exist")]
    Missing,
    /// It cannot be looked at.
    #[error("cannot be looked at: {0}")]
    Unreadable(String),
    /// It is a folder, a device or the like.
    #[error("is no regular file")]
    NotRegular,
    /// Nobody may execute it.
    #[error("is not executable")]
    NotExecutable,
    /// It is a script.
    #[error("is a script: what the kernel runs, and sees, is its interpreter {0}")]
    Script(String),
    /// The kernel could not be asked how it names the file.
    #[error("cannot be named the way the kernel does: {0}")]
    Unlearned(String),
}

/// Where a unit's processes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitPlace {
    /// The cgroup's path.
    pub path: String,
    /// Whether systemd knows the unit; none where it does not run.
    pub known: Option<bool>,
}
