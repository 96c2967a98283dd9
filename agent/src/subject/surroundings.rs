//! What the live host adds to an attempt: where the executable and its script lie and who may have put them there, the
//! login session, the mail server that might have been used.
//!
//! The event path asks here and does not wait for disk or network: what lies on a file system that may not answer is looked
//! at on a thread, and the path waits for it no longer than [`PATIENCE`], and only where that thread has nothing else to do.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use portreeve_abi::{PARENTS, TICK};
use procfs::process::Process;

use super::package::{Owner, Packages};
use super::tree::forebear_executables;
use super::writable::{file_below, only_root_writes, temporary, world_writable};
use super::{LocalMta, session};

/// How long the event path waits for what is to be known of an executable that is new to it.
const PATIENCE: Duration = Duration::from_millis(2);
/// How long what is known of a process or an executable is believed: sessions end, folders change.
const FRESH: Duration = Duration::from_secs(60);
/// How many processes and how many executables are remembered.
const MOST: usize = 2048;
/// How many executables wait to be looked at.
const QUEUE: usize = 64;

/// Whose surroundings are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// The process.
    pub pid: u32,
    /// When it started: CLOCK_BOOTTIME in nanoseconds.
    pub start: u64,
    /// The executable's path, as the process's mount namespace has it.
    pub exe: Option<&'a str>,
    /// The executable's device and inode number, as the kernel numbers them.
    pub exe_id: (u32, u64),
    /// The script, as the process's mount namespace has it, where it is to be looked at.
    pub script: Option<&'a str>,
    /// The number of the login session whose cgroup the process is in.
    pub session: Option<&'a str>,
    /// The user that logged in.
    pub login_uid: Option<u32>,
    /// The inode number of its network namespace.
    pub netns: u32,
}

/// What the host adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The package that owns the executable. Not known for one that is not this host's: of a container, deleted, replaced.
    pub package: Owner,
    /// Whether everybody may write to a folder on the way to the executable.
    pub exe_world_writable: Option<bool>,
    /// Whether the executable lies in a temporary folder.
    pub exe_temporary: bool,
    /// Whether the script that was asked about is root's, and nobody else may write to it or to a folder on the way. Known
    /// only where it and the executable are files of this host's own, not a container's.
    pub script_of_root: Option<bool>,
    /// Whether the login session that the process was started in is over.
    pub session_gone: Option<bool>,
    /// Whether a mail server listens on the loopback of the process's network namespace; known for the agent's own.
    pub mta_listens: Option<bool>,
    /// The executables of the process's forebears, with their numbers, its parent first.
    pub forebears: Vec<(u32, Option<String>)>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            package: Owner::Unknown,
            exe_world_writable: None,
            exe_temporary: false,
            script_of_root: None,
            session_gone: None,
            mta_listens: None,
            forebears: Vec::new(),
        }
    }
}

/// An executable: as the kernel numbers it, by which path, and with which script.
type ExeKey = (u32, u64, String, Option<String>);

/// What is known of an executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ExeFacts {
    /// The path leads to the same file on this host's root file system.
    of_host: bool,
    world_writable: Option<bool>,
    script_of_root: Option<bool>,
}

/// What is known of a process.
#[derive(Debug)]
struct Known {
    when: Instant,
    /// What it ran then: it may have executed another program since, or another script.
    exe_id: (u32, u64),
    script: Option<String>,
    facts: Facts,
}

impl Known {
    /// Whether it is still to be believed of the process that is asked about.
    fn holds(&self, about: &About<'_>) -> bool {
        self.when.elapsed() < FRESH && self.exe_id == about.exe_id && self.script.as_deref() == about.script
    }
}

struct Question {
    key: ExeKey,
    pid: u32,
    start: u64,
}

/// `None` where the process ended before it was looked at.
type Answer = (ExeKey, Option<ExeFacts>);

/// Knows the surroundings of processes.
#[derive(Debug)]
pub struct Surroundings {
    root: PathBuf,
    packages: Packages,
    local_mta: LocalMta,
    netns: Option<u32>,
    processes: HashMap<(u32, u64), Known>,
    exes: HashMap<ExeKey, (Instant, ExeFacts)>,
    asked: BTreeSet<ExeKey>,
    thread: Option<(SyncSender<Question>, Receiver<Answer>)>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self::new(Path::new("/"))
    }
}

impl Surroundings {
    /// Those of a host with this root folder. Threads are started at the first question.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let netns = fs::metadata("/proc/self/ns/net").ok().and_then(|netns| u32::try_from(netns.ino()).ok());
        Self {
            root: root.to_owned(),
            packages: Packages::new(root),
            local_mta: LocalMta::default(),
            netns,
            processes: HashMap::new(),
            exes: HashMap::new(),
            asked: BTreeSet::new(),
            thread: None,
        }
    }

    /// The surroundings of a process, remembered for a while. What is not known yet may be so at its next attempt.
    pub fn of(&mut self, about: &About<'_>) -> Facts {
        if about.pid == 0 {
            return Facts::default();
        }
        let key = (about.pid, about.start);
        let known = self.processes.get(&key).filter(|known| known.holds(about));
        let (when, before) = (known.map(|known| known.when), known.map(|known| known.facts.clone()));
        let mut facts = before.clone().unwrap_or_else(|| self.begin(about));
        let of_script = about.script.is_some() && facts.script_of_root.is_none();
        if facts.package == Owner::Unknown || facts.exe_world_writable.is_none() || of_script {
            self.executable(about, &mut facts);
        }
        if before.as_ref() != Some(&facts) {
            if self.processes.len() >= MOST {
                self.processes.clear();
            }
            let (when, script) = (when.unwrap_or_else(Instant::now), about.script.map(str::to_owned));
            self.processes.insert(key, Known { when, exe_id: about.exe_id, script, facts: facts.clone() });
        }
        facts
    }

    /// What procfs and systemd tell of a process that is new.
    fn begin(&mut self, about: &About<'_>) -> Facts {
        let own = self.netns == Some(about.netns);
        Facts {
            exe_temporary: about.exe.is_some_and(temporary),
            session_gone: session::gone(&self.root, about.pid, about.session, about.login_uid),
            mta_listens: if own { self.local_mta.listens() } else { None },
            forebears: forebear_executables(about.pid, about.start, PARENTS),
            ..Facts::default()
        }
    }

    /// What is known of the executable, as far as it is by now.
    fn executable(&mut self, about: &About<'_>, facts: &mut Facts) {
        let Some(path) = about.exe.filter(|path| path.starts_with('/')) else { return };
        let key = (about.exe_id.0, about.exe_id.1, path.to_owned(), about.script.map(str::to_owned));
        self.take();
        let fresh = |exes: &HashMap<ExeKey, (Instant, ExeFacts)>| {
            exes.get(&key).filter(|(when, _)| when.elapsed() < FRESH).map(|(_, exe)| *exe)
        };
        let exe = fresh(&self.exes).or_else(|| {
            self.ask(Question { key: key.clone(), pid: about.pid, start: about.start });
            fresh(&self.exes)
        });
        let Some(exe) = exe else { return };
        facts.exe_world_writable = exe.world_writable;
        if exe.of_host {
            facts.package = self.packages.owner(path);
            facts.script_of_root = exe.script_of_root;
        }
    }

    /// Has an executable looked at, and waits a little where that can be soon.
    fn ask(&mut self, question: Question) {
        if self.asked.contains(&question.key) {
            return;
        }
        if self.thread.is_none() {
            self.thread = start(self.root.clone());
        }
        let Some((questions, answers)) = &self.thread else { return };
        let (idle, key) = (self.asked.is_empty(), question.key.clone());
        if questions.try_send(question).is_err() {
            return;
        }
        self.asked.insert(key);
        if idle && let Ok(answer) = answers.recv_timeout(PATIENCE) {
            self.learn(answer);
        }
    }

    /// Takes what has been found out meanwhile.
    fn take(&mut self) {
        let answers: Vec<Answer> = self.thread.iter().flat_map(|(_, answers)| answers.try_iter()).collect();
        answers.into_iter().for_each(|answer| self.learn(answer));
    }

    fn learn(&mut self, (key, facts): Answer) {
        self.asked.remove(&key);
        let Some(facts) = facts else { return };
        if self.exes.len() >= MOST {
            self.exes.clear();
        }
        self.exes.insert(key, (Instant::now(), facts));
    }
}

/// A thread that looks at executables, until nobody asks any more.
fn start(root: PathBuf) -> Option<(SyncSender<Question>, Receiver<Answer>)> {
    let (questions, to_answer) = sync_channel::<Question>(QUEUE);
    let (answered, answers) = sync_channel(QUEUE);
    let thread = thread::Builder::new().name("portreeve-exes".to_owned()).spawn(move || {
        for question in to_answer {
            let facts = look(&root, &question);
            if answered.send((question.key, facts)).is_err() {
                return;
            }
        }
    });
    match thread {
        Ok(_runs_by_itself) => Some((questions, answers)),
        Err(error) => {
            tracing::warn!("cannot start a thread to look at executables: {error}");
            None
        }
    }
}

/// Looks at the executable of a process, and at its script; `None` when the process has ended.
fn look(root: &Path, question: &Question) -> Option<ExeFacts> {
    let (pid, path) = (question.pid, &question.key.2);
    let process = PathBuf::from(format!("/proc/{pid}"));
    let file = fs::metadata(process.join("exe")).ok()?;
    let host = fs::symlink_metadata(root.join(path.trim_start_matches('/'))).ok();
    let of_host = host.is_some_and(|host| (host.dev(), host.ino()) == (file.dev(), file.ino()));
    let world_writable = world_writable(&process.join("root"), path);
    let script_of_root = question.key.3.as_deref().and_then(|script| of_root(root, &process.join("root"), script));
    // Last: had the number changed hands before, the start would be another.
    let stat = Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
    (stat.starttime == question.start / TICK).then_some(ExeFacts { of_host, world_writable, script_of_root })
}

/// Whether a script is root's alone; `None` where the process, whose root is `its_root`, does not see this host's file under
/// that name.
fn of_root(root: &Path, its_root: &Path, script: &str) -> Option<bool> {
    let its_file = file_below(its_root, script)?;
    (file_below(root, script)? == its_file).then(|| only_root_writes(root, script)).flatten()
}

#[cfg(test)]
mod tests;
