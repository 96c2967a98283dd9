//! rpm's database is none to be read by others: rpm is asked.

use std::collections::{BTreeSet, HashMap};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::Owner;

/// Where the program is looked for; not in PATH, which is whoever's that started the agent.
const PROGRAMS: [&str; 2] = ["usr/bin/rpm", "bin/rpm"];
/// Where the database is: today's sqlite, ndb, and the Berkeley DB of before, in both folders (rpm(8), _dbpath).
const DATABASES: [&str; 5] = [
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "var/lib/rpm/rpmdb.sqlite",
    "usr/lib/sysimage/rpm/Packages.db",
    "var/lib/rpm/Packages.db",
    "var/lib/rpm/Packages",
];
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many answers are remembered.
const MOST: usize = 4096;
/// How many questions wait.
const QUEUE: usize = 64;

type Answer = (String, Owner);

/// Asks rpm.
#[derive(Debug)]
pub(super) struct Rpm {
    program: Option<PathBuf>,
    database: Option<PathBuf>,
    /// When the database was changed that the answers are of.
    of: Option<SystemTime>,
    answers: HashMap<String, Owner>,
    asked: BTreeSet<String>,
    thread: Option<(SyncSender<String>, Receiver<Answer>)>,
}

impl Rpm {
    pub(super) fn new(root: &Path) -> Self {
        let find = |paths: &[&str]| paths.iter().map(|path| root.join(path)).find(|path| path.is_file());
        let (program, database) = (find(&PROGRAMS), find(&DATABASES));
        Self { program, database, of: None, answers: HashMap::new(), asked: BTreeSet::new(), thread: None }
    }

    /// Whether there are both the program and its database.
    pub(super) fn present(&self) -> bool {
        self.program.is_some() && self.database.is_some()
    }

    /// What rpm has answered; a question that is new is asked for the next time.
    pub(super) fn owner(&mut self, path: &str) -> Owner {
        let (Some(program), Some(database)) = (&self.program, &self.database) else { return Owner::Unknown };
        let changed = database.metadata().and_then(|meta| meta.modified()).ok();
        if changed != self.of || self.answers.len() >= MOST {
            // Whatever is on its way may be of the database as it was.
            (self.of, self.thread) = (changed, None);
            self.answers.clear();
            self.asked.clear();
        }
        if self.thread.is_none() {
            self.thread = start(program.clone());
        }
        let Some((questions, answers)) = &self.thread else { return Owner::Unknown };
        for (path, owner) in answers.try_iter() {
            self.asked.remove(&path);
            self.answers.insert(path, owner);
        }
        if let Some(owner) = self.answers.get(path) {
            return owner.clone();
        }
        if !self.asked.contains(path) && questions.try_send(path.to_owned()).is_ok() {
            self.asked.insert(path.to_owned());
        }
        Owner::Unknown
    }
}

/// A thread that puts questions to rpm, until nobody asks any more.
fn start(program: PathBuf) -> Option<(SyncSender<String>, Receiver<Answer>)> {
    let (questions, to_ask) = sync_channel::<String>(QUEUE);
    let (answered, answers) = sync_channel(QUEUE);
    let thread = thread::Builder::new().name("portreeve-rpm".to_owned()).spawn(move || {
        for path in to_ask {
            let owner = ask(&program, &path);
            if answered.send((path, owner)).is_err() {
                return;
            }
        }
    });
    if let Err(error) = thread {
        tracing::warn!("cannot start a thread to ask rpm: {error}");
        return None;
    }
    Some((questions, answers))
}

/// One question: rpm prints the package's name, or that nobody owns the file and ends with 1.
fn ask(program: &Path, path: &str) -> Owner {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.args(["-qf", "--qf", "%{NAME}\\n", "--", path]).spawn() else {
        return Owner::Unknown;
    };
    let begun = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begun.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(5)),
            Ok(None) | Err(_) => {
                // It is our own child, and cannot be another process before it is waited for.
                if child.kill().and_then(|()| child.wait()).is_err() {
                    tracing::trace!("rpm cannot be ended");
                }
                return Owner::Unknown;
            }
        }
    };
    let mut text = String::new();
    let read = child.stdout.take().map(|out| out.take(4096).read_to_string(&mut text));
    let first = text.lines().next().unwrap_or_default();
    match (read, status.code()) {
        (Some(Ok(_)), Some(0)) if !first.is_empty() => Owner::Package(first.to_owned()),
        (Some(Ok(_)), Some(1)) if text.contains("is not owned by any package") => Owner::NoPackage,
        _ => Owner::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A host whose rpm is a script.
    fn host(script: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in ["usr/bin", "var/lib/rpm"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("var/lib/rpm/rpmdb.sqlite"), "").unwrap();
        let rpm = root.path().join("usr/bin/rpm");
        fs::write(&rpm, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&rpm, fs::Permissions::from_mode(0o755)).unwrap();
        root
    }

    fn answer(rpm: &mut Rpm, path: &str) -> Owner {
        let begun = Instant::now();
        loop {
            let owner = rpm.owner(path);
            if owner != Owner::Unknown || begun.elapsed() > Duration::from_secs(3) {
                return owner;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn rpm_is_asked_once_for_each_file_and_again_when_its_database_has_changed() {
        let root = host(
            "echo asked >> \"$(dirname \"$0\")/log\"\ncase $5 in\n/usr/sbin/exim) echo exim; echo exim;;\n*) echo \"file $5 is not owned by any package\"; exit 1;;\nesac",
        );
        let mut rpm = Rpm::new(root.path());
        assert!(rpm.present());
        assert_eq!(rpm.owner("/usr/sbin/exim"), Owner::Unknown);
        assert_eq!(answer(&mut rpm, "/usr/sbin/exim"), Owner::Package("exim".to_owned()));
        assert_eq!(answer(&mut rpm, "/tmp/bot"), Owner::NoPackage);
        assert_eq!(rpm.owner("/tmp/bot"), Owner::NoPackage);
        let log = || fs::read_to_string(root.path().join("usr/bin/log")).unwrap().lines().count();
        assert_eq!(log(), 2);
        let database = fs::File::open(root.path().join("var/lib/rpm/rpmdb.sqlite")).unwrap();
        database.set_modified(SystemTime::now() + Duration::from_secs(9)).unwrap();
        assert_eq!(rpm.owner("/tmp/bot"), Owner::Unknown);
        assert_eq!(answer(&mut rpm, "/tmp/bot"), Owner::NoPackage);
        assert_eq!(log(), 3);
    }

    #[test]
    fn an_rpm_that_fails_says_nothing() {
        let root = host("echo error: cannot open Packages database; exit 1");
        assert_eq!(ask(&root.path().join("usr/bin/rpm"), "/x"), Owner::Unknown);
        let root = host("kill -9 $$");
        assert_eq!(ask(&root.path().join("usr/bin/rpm"), "/x"), Owner::Unknown);
        assert_eq!(ask(Path::new("/nonexistent"), "/x"), Owner::Unknown);
        assert!(!Rpm::new(tempfile::tempdir().unwrap().path()).present());
    }

    #[test]
    fn an_rpm_that_hangs_is_ended() {
        let root = host("exec sleep 60");
        let begun = Instant::now();
        assert_eq!(ask(&root.path().join("usr/bin/rpm"), "/x"), Owner::Unknown);
        assert!(begun.elapsed() < PATIENCE * 2);
    }
}
