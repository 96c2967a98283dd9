//! What the agent does about the subject of an alert, where the policy asks for it: stop, kill or freeze, and the way back.
//!
//! A process is reached through a descriptor of it (pidfd_open(2)) that is opened before anything about it is read. Should
//! the process end and another take its number in between, the descriptor still means the one that has ended, and the
//! signal reaches nobody.

mod freeze;
mod known;
mod processes;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use jiff::Timestamp;
use nix::unistd::Pid;
use portreeve_abi::TICK;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::attempt::Attempt;
use crate::clock::Clock;
use crate::kernel::mounts;
use crate::rights::while_signalling;

/// How many deeds an alert keeps, and so how many processes of one subject are held stopped at the same time.
pub const DEEDS: usize = 1000;

/// What is done about a subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Nothing but to refuse its attempts.
    #[default]
    None,
    /// Its processes are stopped (SIGSTOP), and can go on where they were.
    Stop,
    /// Its processes are killed (SIGKILL).
    Kill,
    /// Its cgroup is frozen, with everything in it.
    Freeze,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Stop, Self::Kill, Self::Freeze];

    /// Its name, as in the policy and in the JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Freeze => "freeze",
        }
    }

    /// What was done, for a history: `stopped`.
    #[must_use]
    pub fn done(self) -> &'static str {
        match self {
            Self::None => "left alone",
            Self::Stop => "stopped",
            Self::Kill => "killed",
            Self::Freeze => "frozen",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something that was done about a subject, or was to be done and was not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    /// When.
    pub time: Timestamp,
    /// What.
    pub action: Action,
    /// To whom.
    pub target: Target,
    /// What came of it.
    pub outcome: Outcome,
    /// It was undone later.
    pub undone: bool,
}

/// To whom something was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// A process, which these together tell from every other one.
    Process {
        /// Its number.
        pid: u32,
        /// When it started, in clock ticks (hundredths of a second) since boot: field 22 of proc_pid_stat(5).
        start: u64,
        /// Its executable's path, as its mount namespace has it.
        exe: Option<String>,
        /// The executable's device, as stat(2) tells it.
        device: u64,
        /// The executable's inode number.
        inode: u64,
    },
    /// A cgroup.
    Cgroup {
        /// Its path below the mount point.
        path: String,
        /// Its id: the folder's inode number.
        id: u64,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, exe: Some(exe), .. } => write!(f, "{exe}[{pid}]"),
            Self::Process { pid, exe: None, .. } => write!(f, "process {pid}"),
            Self::Cgroup { path, .. } => write!(f, "cgroup {path}"),
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was so already, and not by the agent: an undo leaves it.
    Already,
    /// It was not done, and why: as a sentence without its end.
    Refused(String),
    /// The kernel would not have it, and why.
    Failed(String),
}

impl fmt::Display for Deed {
    /// One line for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (target, action) = (&self.target, self.action);
        match &self.outcome {
            Outcome::Done if self.undone => write!(f, "{target}: {}, undone since", action.done()),
            Outcome::Done => write!(f, "{target}: {}", action.done()),
            Outcome::Already => write!(f, "{target}: was {} already", action.done()),
            Outcome::Refused(why) => write!(f, "{target}: no {action}: {why}"),
            Outcome::Failed(why) => write!(f, "{target}: {action} failed: {why}"),
        }
    }
}

/// Why a deed could not be undone.
#[derive(Debug, Error)]
pub enum UndoError {
    /// SIGKILL has no opposite.
    #[error("{target} was killed, which cannot be undone; start it again")]
    Killed {
        /// Who.
        target: Target,
    },
    /// Nothing is left.
    #[error("{target} has ended since; there is nothing to undo")]
    Gone {
        /// Who.
        target: Target,
    },
    /// The kernel would not have it.
    #[error("{target} cannot be undone: {source}; {remedy}")]
    Failed {
        /// Who.
        target: Target,
        /// What to do by hand.
        remedy: String,
        /// Why.
        source: io::Error,
    },
}

/// Whom an attempt accuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspect {
    /// The process; 0 when nobody is known to be behind the attempt.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start: u64,
    /// The executable's device and inode number, as the kernel numbers them.
    pub exe: (u32, u64),
    /// The effective user.
    pub euid: u32,
    /// The script behind an interpreter.
    pub script: Option<String>,
    /// The cgroup's path.
    pub cgroup: String,
    /// The cgroup's id.
    pub cgroup_id: u64,
}

impl Suspect {
    /// The one behind an attempt. The attempt must be of now: its time of start is the wall clock's, and whoever sets that
    /// clock makes the process unknown (never another one known).
    #[must_use]
    pub fn of(attempt: &Attempt, clock: &Clock) -> Self {
        Self {
            pid: attempt.pid,
            start: attempt.started.map_or(0, |started| clock.boot_at(started) / TICK),
            exe: (attempt.exe_device, attempt.exe_inode),
            euid: attempt.euid,
            script: attempt.script.clone(),
            cgroup: attempt.cgroup.clone(),
            cgroup_id: attempt.cgroup_id,
        }
    }
}

/// What only the policy in force and the kernel's programs know.
pub trait Judge {
    /// Whether a rule of the policy in force allows a process's executable and user. A process that cannot be read counts
    /// as allowed: it is not the agent's to touch.
    fn sanctioned(&mut self, pid: u32) -> bool;

    /// Device and inode number of an open file (perhaps opened with `O_PATH`), as the kernel numbers them: stat(2) tells
    /// others on btrfs and overlayfs.
    fn executable(&mut self, file: &File) -> Option<(u32, u64)>;
}

/// Carries out responses.
#[derive(Clone, Debug)]
pub struct Responder {
    /// Where cgroup2 is mounted.
    cgroup2: PathBuf,
    /// The names of the guarded sub-tree's path.
    guarded: Vec<String>,
    /// Who is never touched: PID 1, this process, and those it descends from.
    protected: BTreeSet<u32>,
}

impl Responder {
    /// One for a host of which the sub-tree `guarded` is guarded.
    ///
    /// # Errors
    ///
    /// When the cgroup2 hierarchy is not mounted.
    pub fn new(guarded: &str) -> io::Result<Self> {
        let own = Pid::this().as_raw().unsigned_abs();
        Ok(Self { cgroup2: mounts::cgroup2()?, guarded: names(guarded), protected: known::line(own) })
    }

    /// Does something about a suspect, adds what was done to the deeds of its alert, and returns how many were added.
    /// Nothing is added where nobody of the subject is left, or nothing is left to do.
    ///
    /// Stopping and killing go to the attempt's process, and to all others of the subject: with the same executable,
    /// effective user, and cgroup or one below it; with an interpreter as the executable also the same script, process
    /// group or forebear. At most [`DEEDS`]. It takes some microseconds for each process of the cgroup.
    pub fn respond(&self, action: Action, suspect: &Suspect, deeds: &mut Vec<Deed>, judge: &mut impl Judge) -> usize {
        let before = deeds.len();
        match action {
            Action::None => {}
            Action::Stop | Action::Kill => {
                while_signalling(|| processes::Sweep::new(self, action, suspect, judge).run(deeds));
            }
            Action::Freeze => freeze::freeze(self, suspect, deeds, judge),
        }
        deeds.len().saturating_sub(before)
    }

    /// Does again what was done about the subject before: for an alert that grows, as with a bot that forks. What somebody
    /// has undone is not done again. Returns how many deeds were added.
    pub fn again(&self, suspect: &Suspect, deeds: &mut Vec<Deed>, judge: &mut impl Judge) -> usize {
        let undone = deeds.iter().any(|deed| deed.undone);
        match deeds.last().map(|deed| deed.action) {
            Some(action) if !undone => self.respond(action, suspect, deeds, judge),
            Some(_) | None => 0,
        }
    }

    /// Undoes what is still done, the latest first: what was stopped goes on, what was frozen thaws. Marks each deed that is
    /// undone, and returns an outcome for each that was tried.
    ///
    /// # Errors
    ///
    /// For each deed why it stays done.
    pub fn undo(&self, deeds: &mut [Deed]) -> Vec<Result<Target, UndoError>> {
        let mut outcomes = Vec::new();
        for deed in deeds.iter_mut().rev() {
            if deed.undone || deed.outcome != Outcome::Done {
                continue;
            }
            let undone = self.undo_one(deed);
            deed.undone = undone.is_ok();
            outcomes.push(undone.map(|()| deed.target.clone()));
        }
        outcomes
    }

    fn undo_one(&self, deed: &Deed) -> Result<(), UndoError> {
        // Numbers of processes and times since boot begin anew with every boot.
        if deed.time < Clock::now().at(0) {
            return Err(UndoError::Gone { target: deed.target.clone() });
        }
        match deed.action {
            Action::None => Ok(()),
            Action::Kill => Err(UndoError::Killed { target: deed.target.clone() }),
            Action::Stop => while_signalling(|| processes::carry_on(&deed.target)),
            Action::Freeze => freeze::thaw(self, &deed.target),
        }
    }
}

/// A deed of now.
fn deed(action: Action, target: Target, outcome: Outcome) -> Deed {
    Deed { time: Timestamp::now(), action, target, outcome, undone: false }
}

/// Adds a deed, unless it only says once more what was not done; says whether there was room.
fn add(deeds: &mut Vec<Deed>, new: Deed) -> bool {
    if new.outcome != Outcome::Done && deeds.iter().any(|old| old.target == new.target && old.outcome == new.outcome) {
        return true;
    }
    if !make_room(deeds) {
        return false;
    }
    deeds.push(new);
    true
}

/// Makes room for a deed by forgetting the oldest that no undo needs; false where there is none.
fn make_room(deeds: &mut Vec<Deed>) -> bool {
    if deeds.len() < DEEDS {
        return true;
    }
    let needed = |deed: &Deed| deed.outcome == Outcome::Done && !deed.undone && deed.action != Action::Kill;
    let spare = deeds.iter().position(|deed| !needed(deed));
    spare.map(|oldest| deeds.remove(oldest)).is_some()
}

/// The names of a cgroup's path.
fn names(path: &str) -> Vec<String> {
    path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
