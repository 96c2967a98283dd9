//! What the live host adds to an attempt: where the executable lies and who has put it there, the login session, the mail
//! server that might have been used.
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
use super::writable::{temporary, world_writable};
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
            session_gone: None,
            mta_listens: None,
            forebears: Vec::new(),
        }
    }
}

/// An executable: as the kernel numbers it, and by which path.
type ExeKey = (u32, u64, String);

/// What is known of an executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ExeFacts {
    /// The path leads to the same file on this host's root file system.
    of_host: bool,
    world_writable: Option<bool>,
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
    processes: HashMap<(u32, u64), (Instant, Facts)>,
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
        let known = self.processes.get(&key).filter(|(when, _)| when.elapsed() < FRESH).map(|(_, facts)| facts.clone());
        let (is_new, mut facts) = known.map_or_else(|| (true, self.begin(about)), |facts| (false, facts));
        let before = (facts.package.clone(), facts.exe_world_writable);
        if facts.package == Owner::Unknown || facts.exe_world_writable.is_none() {
            self.executable(about, &mut facts);
        }
        if is_new || before != (facts.package.clone(), facts.exe_world_writable) {
            if self.processes.len() >= MOST {
                self.processes.clear();
            }
            let when = self.processes.get(&key).filter(|_| !is_new).map_or_else(Instant::now, |(when, _)| *when);
            self.processes.insert(key, (when, facts.clone()));
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
        let key = (about.exe_id.0, about.exe_id.1, path.to_owned());
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

/// Looks at the executable of a process; `None` when that has ended.
fn look(root: &Path, question: &Question) -> Option<ExeFacts> {
    let (pid, path) = (question.pid, &question.key.2);
    let process = PathBuf::from(format!("/proc/{pid}"));
    let file = fs::metadata(process.join("exe")).ok()?;
    let host = fs::symlink_metadata(root.join(path.trim_start_matches('/'))).ok();
    let of_host = host.is_some_and(|host| (host.dev(), host.ino()) == (file.dev(), file.ino()));
    let world_writable = world_writable(&process.join("root"), path);
    // Last: had the number changed hands before, the start would be another.
    let stat = Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
    (stat.starttime == question.start / TICK).then_some(ExeFacts { of_host, world_writable })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Child, Command};

    use super::*;

    /// A process and what an event would tell of it.
    struct Run {
        child: Child,
        exe: String,
        start: u64,
        id: (u32, u64),
    }

    impl Run {
        fn new(exe: &Path) -> Self {
            let child = Command::new(exe).arg("60").spawn().unwrap();
            let exe = fs::canonicalize(exe).unwrap();
            let meta = fs::metadata(&exe).unwrap();
            let start = Process::new(child.id() as i32).unwrap().stat().unwrap().starttime * TICK;
            let exe = exe.to_str().unwrap().to_owned();
            Self { child, exe, start, id: (meta.dev() as u32, meta.ino()) }
        }

        fn about(&self) -> About<'_> {
            let netns = fs::metadata("/proc/self/ns/net").unwrap().ino() as u32;
            let (pid, start, exe) = (self.child.id(), self.start, Some(self.exe.as_str()));
            About { pid, start, exe, exe_id: self.id, session: None, login_uid: None, netns }
        }
    }

    impl Drop for Run {
        fn drop(&mut self) {
            self.child.kill().unwrap_or_default();
            self.child.wait().map(drop).unwrap_or_default();
        }
    }

    /// The surroundings, once the package is known or two seconds have gone by.
    fn settled(surroundings: &mut Surroundings, about: &About<'_>) -> Facts {
        let begun = Instant::now();
        loop {
            let facts = surroundings.of(about);
            if facts.package != Owner::Unknown || begun.elapsed() > Duration::from_secs(2) {
                return facts;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn bot(folder: &Path) -> PathBuf {
        let bot = folder.join("bot");
        fs::copy(fs::canonicalize("/bin/sleep").unwrap(), &bot).unwrap();
        bot
    }

    #[test]
    fn a_packaged_program_and_one_in_a_temporary_folder_are_told_apart() {
        if !Path::new("/var/lib/dpkg/info/coreutils.list").exists() {
            return;
        }
        let mut surroundings = Surroundings::default();
        let sleep = Run::new(Path::new("/bin/sleep"));
        let facts = settled(&mut surroundings, &sleep.about());
        assert_eq!(facts.package, Owner::Package("coreutils".to_owned()));
        assert_eq!((facts.exe_world_writable, facts.exe_temporary), (Some(false), false));
        assert_eq!(facts.forebears[0].0, std::process::id());
        assert!(facts.mta_listens.is_some());

        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let bot = Run::new(&bot(folder.path()));
        let facts = surroundings.of(&bot.about());
        assert_eq!(facts.package, Owner::NoPackage);
        assert_eq!((facts.exe_world_writable, facts.exe_temporary), (Some(true), true));
    }

    #[test]
    fn a_file_that_is_not_the_hosts_has_no_owner_here() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = bot(root.path());
        let lists = root.path().join("var/lib/dpkg/info");
        fs::create_dir_all(&lists).unwrap();
        fs::write(root.path().join("var/lib/dpkg/status"), "").unwrap();
        fs::write(lists.join("mailer.list"), format!("{}\n", program.display())).unwrap();
        // The database knows the path, and the file there is not the one that runs: a container's.
        let there = root.path().join(program.strip_prefix("/").unwrap());
        fs::create_dir_all(there.parent().unwrap()).unwrap();
        fs::write(&there, "other").unwrap();
        let mut surroundings = Surroundings::new(root.path());
        let run = Run::new(&program);
        assert_eq!(settled(&mut surroundings, &run.about()).package, Owner::Unknown);
        // Now it is the same file.
        fs::remove_file(&there).unwrap();
        fs::hard_link(&program, &there).unwrap();
        let mut surroundings = Surroundings::new(root.path());
        assert_eq!(settled(&mut surroundings, &run.about()).package, Owner::Package("mailer".to_owned()));
        let elsewhere = About { netns: 1, ..run.about() };
        assert_eq!(Surroundings::new(root.path()).of(&elsewhere).mta_listens, None);
    }

    #[test]
    fn another_process_with_the_number_tells_nothing() {
        let run = Run::new(Path::new("/bin/sleep"));
        let mut surroundings = Surroundings::default();
        let reused = About { start: run.start + TICK, ..run.about() };
        thread::sleep(Duration::from_millis(5));
        let facts = surroundings.of(&reused);
        assert_eq!((facts.exe_world_writable, facts.forebears.len()), (None, 0));
        assert_eq!(surroundings.of(&About { pid: 0, ..run.about() }), Facts::default());
    }

    #[test]
    fn a_flood_costs_little_and_memory_is_bounded() {
        let run = Run::new(Path::new("/bin/sleep"));
        let mut surroundings = Surroundings::default();
        settled(&mut surroundings, &run.about());
        let begun = Instant::now();
        for _ in 0..10_000 {
            surroundings.of(&run.about());
        }
        println!("{:?} each, of one process", begun.elapsed() / 10_000);
        // Ever new processes of one executable: each is asked about once.
        let begun = Instant::now();
        let most = 3 * MOST as u64;
        for number in 0..most {
            surroundings.processes.remove(&(run.child.id(), run.start));
            surroundings.of(&run.about());
            let facts = Facts::default();
            surroundings.processes.insert((1, number), (Instant::now(), facts));
        }
        let each = begun.elapsed() / most as u32;
        println!("{each:?} each, of a new process");
        assert!(surroundings.processes.len() <= MOST + 1);
        // A debug build beside other tests; a release build takes a fifth of that.
        assert!(each < Duration::from_millis(1), "{each:?}");
    }
}
