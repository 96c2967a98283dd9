//! Real processes in real cgroups.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use procfs::process::Process;

use super::*;

/// A cgroup of the test's own, whose members are killed at the end.
struct Lab {
    folder: PathBuf,
    path: String,
    files: tempfile::TempDir,
    children: Vec<Child>,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Lab {
    fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test makes cgroups and signals processes: run it as root");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = format!("/portreeve-respond-{}-{number}", std::process::id());
        let folder = mounts::cgroup2().unwrap().join(&path[1..]);
        fs::create_dir(&folder).unwrap();
        Self { folder, path, files: tempfile::tempdir().unwrap(), children: Vec::new() }
    }

    /// A copy of a program under another name.
    fn program(&self, of: &str, name: &str) -> PathBuf {
        let copy = self.files.path().join(name);
        if !copy.exists() {
            fs::copy(fs::canonicalize(of).unwrap(), &copy).unwrap();
        }
        copy
    }

    /// Runs a program in the cgroup, or outside, in a process group of its own.
    fn run(&mut self, cgroup: Option<&Path>, program: &Path, arguments: &[&str]) -> u32 {
        let mut command = Command::new("sh");
        if let Some(cgroup) = cgroup {
            command.args(["-c", &format!("echo $$ > {}/cgroup.procs; exec \"$@\"", cgroup.display()), "sh"]);
        } else {
            command.args(["-c", "exec \"$@\"", "sh"]);
        }
        let child = command.arg(program).args(arguments).process_group(0).spawn().unwrap();
        let pid = child.id();
        self.children.push(child);
        let file = fs::metadata(program).unwrap().ino();
        wait(|| fs::metadata(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ino() == file));
        pid
    }

    fn bot(&mut self) -> u32 {
        let (program, folder) = (self.program("/bin/sleep", "bot"), self.folder.clone());
        self.run(Some(&folder), &program, &["600"])
    }

    fn members(&self) -> Vec<u32> {
        known::members(&self.folder, 10_000).unwrap().into_keys().collect()
    }

    fn suspect(&self, pid: u32) -> Suspect {
        // Not even root may look at PID 1's in some sandboxes.
        let exe = fs::metadata(format!("/proc/{pid}/exe")).map_or((0, 0), |exe| (exe.dev() as u32, exe.ino()));
        Suspect {
            pid,
            start: start(pid),
            exe,
            euid: 0,
            script: None,
            cgroup: self.path.clone(),
            cgroup_id: fs::metadata(&self.folder).unwrap().ino(),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let begun = Instant::now();
        let write = |name: &str, text: &str| fs::write(self.folder.join(name), text).is_ok();
        write("cgroup.freeze", "0");
        for child in &mut self.children {
            child.kill().unwrap_or_default();
        }
        while !known::members(&self.folder, 10_000).unwrap_or_default().is_empty()
            && begun.elapsed() < Duration::from_secs(5)
        {
            fs::write(self.folder.join("cgroup.kill"), "1").unwrap_or_default();
            self.children.retain_mut(|child| !child.try_wait().is_ok_and(|done| done.is_some()));
            std::thread::sleep(Duration::from_millis(2));
        }
        for child in &mut self.children {
            child.wait().map(drop).unwrap_or_default();
        }
        for below in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            fs::remove_dir(below.path()).unwrap_or_default();
        }
        while fs::remove_dir(&self.folder).is_err() && begun.elapsed() < Duration::from_secs(8) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Knows files by stat(2), and allows the processes it is told.
#[derive(Default)]
struct TestJudge {
    allowed: BTreeSet<u32>,
}

impl Judge for TestJudge {
    fn sanctioned(&mut self, pid: u32) -> bool {
        self.allowed.contains(&pid)
    }

    fn executable(&mut self, file: &File) -> Option<(u32, u64)> {
        file.metadata().ok().map(|meta| (meta.dev() as u32, meta.ino()))
    }
}

fn responder() -> Responder {
    Responder::new("/").unwrap()
}

fn start(pid: u32) -> u64 {
    Process::new(pid as i32).unwrap().stat().unwrap().starttime
}

fn state(pid: u32) -> char {
    Process::new(pid as i32).and_then(|process| process.stat()).map_or('X', |stat| stat.state)
}

/// Whether a process lives and is not stopped.
fn runs(pid: u32) -> bool {
    matches!(state(pid), 'R' | 'S' | 'D')
}

fn wait(mut until: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !until() {
        assert!(begun.elapsed() < Duration::from_secs(10), "waited for ten seconds");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn respond(action: Action, suspect: &Suspect, deeds: &mut Vec<Deed>) -> usize {
    responder().respond(action, suspect, deeds, &mut TestJudge::default())
}

#[test]
fn a_stopped_process_stands_still_and_goes_on_after_an_undo() {
    let mut lab = Lab::new();
    let pid = lab.bot();
    let mut deeds = Vec::new();
    assert_eq!(respond(Action::Stop, &lab.suspect(pid), &mut deeds), 1);
    wait(|| state(pid) == 'T');
    assert_eq!((deeds[0].action, &deeds[0].outcome, deeds[0].undone), (Action::Stop, &Outcome::Done, false));
    assert!(matches!(&deeds[0].target, Target::Process { pid: target, exe: Some(exe), .. }
        if *target == pid && exe.ends_with("/bot")));

    let undone = responder().undo(&mut deeds);
    assert!(undone.len() == 1 && undone[0].is_ok() && deeds[0].undone, "{undone:?}");
    wait(|| runs(pid));
    assert!(responder().undo(&mut deeds).is_empty());
    // Somebody has decided; an alert that grows does not change that.
    assert_eq!(responder().again(&lab.suspect(pid), &mut deeds, &mut TestJudge::default()), 0);
    assert!(runs(pid));
}

#[test]
fn all_of_the_subject_are_stopped_and_nobody_else() {
    let mut lab = Lab::new();
    let (first, second) = (lab.bot(), lab.bot());
    let below = lab.folder.join("below");
    fs::create_dir(&below).unwrap();
    let program = lab.program("/bin/sleep", "bot");
    let deeper = lab.run(Some(&below), &program, &["600"]);
    let outside = lab.run(None, &program, &["600"]);
    let (other, folder) = (lab.program("/bin/sleep", "other"), lab.folder.clone());
    let other = lab.run(Some(&folder), &other, &["600"]);
    let suspect = lab.suspect(first);
    let user = Command::new(&program).arg("600").uid(65_534).spawn();
    let user = user.map(|child| {
        fs::write(folder.join("cgroup.procs"), child.id().to_string()).unwrap();
        let pid = child.id();
        lab.children.push(child);
        pid
    });

    let mut deeds = Vec::new();
    assert_eq!(respond(Action::Stop, &suspect, &mut deeds), 3, "{deeds:#?}");
    for pid in [first, second, deeper] {
        wait(|| state(pid) == 'T');
    }
    std::thread::sleep(Duration::from_millis(20));
    assert!(runs(outside) && runs(other));
    if let Ok(user) = user {
        assert!(runs(user));
    }
    // Those that come later are stopped again, and those that are stopped are no news.
    let later = lab.bot();
    assert_eq!(responder().again(&suspect, &mut deeds, &mut TestJudge::default()), 1);
    wait(|| state(later) == 'T');
    // One that somebody lets go on is stopped again, which is no further deed.
    nix::sys::signal::kill(Pid::from_raw(second as i32), nix::sys::signal::Signal::SIGCONT).unwrap();
    wait(|| runs(second));
    assert_eq!(responder().again(&suspect, &mut deeds, &mut TestJudge::default()), 0);
    wait(|| state(second) == 'T');
    assert!(responder().undo(&mut deeds).iter().all(Result::is_ok));
    wait(|| [first, second, deeper, later].iter().all(|pid| runs(*pid)));
}

#[test]
fn what_was_stopped_by_somebody_else_is_left_so_by_an_undo() {
    let mut lab = Lab::new();
    let pid = lab.bot();
    nix::sys::signal::kill(Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGSTOP).unwrap();
    wait(|| state(pid) == 'T');
    let mut deeds = Vec::new();
    respond(Action::Stop, &lab.suspect(pid), &mut deeds);
    assert_eq!(deeds.iter().map(|deed| &deed.outcome).collect::<Vec<_>>(), [&Outcome::Already]);
    assert!(responder().undo(&mut deeds).is_empty());
    assert_eq!(state(pid), 'T');
}

#[test]
fn a_killed_process_is_gone_and_an_undo_says_so() {
    let mut lab = Lab::new();
    let pid = lab.bot();
    let mut deeds = Vec::new();
    respond(Action::Kill, &lab.suspect(pid), &mut deeds);
    wait(|| matches!(state(pid), 'Z' | 'X'));
    let undone = responder().undo(&mut deeds);
    assert!(matches!(undone.as_slice(), [Err(UndoError::Killed { .. })]), "{undone:?}");
    assert!(!deeds[0].undone);
}

#[test]
fn a_number_that_another_process_has_now_is_never_signalled() {
    let mut lab = Lab::new();
    // Outside of the suspect's cgroup, so that only the number leads to it.
    let program = lab.program("/bin/sleep", "bot");
    let pid = lab.run(None, &program, &["600"]);
    let known = lab.suspect(pid);
    let mut deeds = Vec::new();
    for start in [known.start - 2, known.start + 2, 0] {
        let reused = Suspect { start, ..known.clone() };
        assert_eq!(respond(Action::Kill, &reused, &mut deeds), 0);
    }
    // The number and the start are right, and it runs something else.
    let exchanged = Suspect { exe: (known.exe.0, known.exe.1 + 1), ..known.clone() };
    assert_eq!(respond(Action::Kill, &exchanged, &mut deeds), 1);
    assert!(matches!(&deeds[0].outcome, Outcome::Refused(why) if why.starts_with("it runs /")), "{deeds:?}");
    std::thread::sleep(Duration::from_millis(20));
    assert!(runs(pid));

    // The way back asks the same.
    respond(Action::Stop, &known, &mut deeds);
    wait(|| state(pid) == 'T');
    let mut reused = vec![deeds.pop().unwrap()];
    if let Target::Process { start, .. } = &mut reused[0].target {
        *start += 1;
    }
    let mut earlier_boot = reused.clone();
    assert!(matches!(responder().undo(&mut reused).as_slice(), [Err(UndoError::Gone { .. })]));
    if let Target::Process { start, inode, .. } = &mut reused[0].target {
        *start -= 1;
        *inode += 1;
    }
    assert!(matches!(responder().undo(&mut reused).as_slice(), [Err(UndoError::Gone { .. })]));
    if let Target::Process { start, .. } = &mut earlier_boot[0].target {
        *start -= 1;
    }
    earlier_boot[0].time = Timestamp::UNIX_EPOCH;
    assert!(matches!(responder().undo(&mut earlier_boot).as_slice(), [Err(UndoError::Gone { .. })]));
    assert_eq!(state(pid), 'T');
    earlier_boot[0].time = Timestamp::now();
    assert!(responder().undo(&mut earlier_boot)[0].is_ok());
}

#[test]
fn pid_1_the_agent_its_forebears_kernel_threads_and_the_sanctioned_are_refused() {
    let mut lab = Lab::new();
    let why = |pid: u32, suspect: Suspect, judge: &mut TestJudge| {
        let mut deeds = Vec::new();
        responder().respond(Action::Stop, &suspect, &mut deeds, judge);
        assert_eq!(deeds.len(), 1, "{pid}: {deeds:?}");
        let Outcome::Refused(why) = &deeds[0].outcome else { panic!("{pid}: {deeds:?}") };
        why.clone()
    };
    let judge = &mut TestJudge::default();
    let by_number = |lab: &Lab, pid: u32| Suspect { cgroup_id: 0, ..lab.suspect(pid) };
    assert_eq!(why(1, by_number(&lab, 1), judge), "it is PID 1");
    let own = std::process::id();
    let agent = "it is the agent, or one that the agent descends from";
    assert_eq!(why(own, by_number(&lab, own), judge), agent);
    let parent = std::os::unix::process::parent_id();
    assert_eq!(why(parent, by_number(&lab, parent), judge), agent);
    // kthreadd, except in a PID namespace.
    if fs::read_link("/proc/2/exe").is_err() && Path::new("/proc/2").exists() {
        let suspect = Suspect { pid: 2, start: start(2), ..Suspect::default() };
        assert_eq!(why(2, suspect, judge), "it is a thread of the kernel");
    }
    let mta = lab.bot();
    judge.allowed.insert(mta);
    assert_eq!(why(mta, lab.suspect(mta), judge), "a rule of the policy allows it");
    std::thread::sleep(Duration::from_millis(20));
    assert!(runs(mta));
}

/// A shell under another name, so that its sub-shells are processes of one executable.
fn forker(lab: &mut Lab, script: &str) -> u32 {
    let fifo = lab.files.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (program, folder) = (lab.program("/bin/sh", "forker"), lab.folder.clone());
    lab.run(Some(&folder), &program, &["-c", &script.replace("FIFO", fifo.to_str().unwrap())])
}

#[test]
fn a_tree_of_fifty_is_stopped_wholly() {
    let mut lab = Lab::new();
    // Seven children with six children each.
    let inner = "j=0; while [ $j -lt 6 ]; do (read x < FIFO) & j=$((j+1)); done; read x < FIFO";
    let pid = forker(&mut lab, &format!("i=0; while [ $i -lt 7 ]; do ({inner}) & i=$((i+1)); done; read x < FIFO"));
    wait(|| lab.members().len() == 50);
    let mut deeds = Vec::new();
    assert_eq!(respond(Action::Stop, &lab.suspect(pid), &mut deeds), 50);
    wait(|| lab.members().iter().all(|pid| state(*pid) == 'T'));
    assert!(responder().undo(&mut deeds).iter().all(Result::is_ok));
    wait(|| lab.members().iter().all(|pid| state(*pid) != 'T'));
    let mut deeds = Vec::new();
    assert_eq!(respond(Action::Kill, &lab.suspect(pid), &mut deeds), 50);
    lab.children.pop().unwrap().wait().unwrap();
    wait(|| lab.members().is_empty());
}

#[test]
fn a_bot_that_goes_on_forking_is_stopped_in_the_act() {
    let mut lab = Lab::new();
    // Not the one that made the attempt, which is stopped first.
    let pid = forker(&mut lab, "(while :; do (read x < FIFO) & done) & read x < FIFO");
    wait(|| lab.members().len() > 20);
    let mut deeds = Vec::new();
    respond(Action::Stop, &lab.suspect(pid), &mut deeds);
    wait(|| lab.members().iter().all(|pid| state(*pid) == 'T'));
    let members = lab.members().len();
    assert_eq!(deeds.len(), members);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(lab.members().len(), members);
}

#[test]
fn of_an_interpreter_only_the_script_of_the_subject_is_stopped() {
    let mut lab = Lab::new();
    let fifo = lab.files.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let scripts = ["bot.sh", "honest.sh"].map(|name| lab.files.path().join(name).display().to_string());
    for script in &scripts {
        fs::write(script, format!("(read x < {0}) &\nread x < {0}\n", fifo.display())).unwrap();
    }
    let (shell, folder) = (lab.program("/bin/sh", "sh"), lab.folder.clone());
    let [accused, twin, honest] =
        [&scripts[0], &scripts[0], &scripts[1]].map(|script| lab.run(Some(&folder), &shell, &[script]));
    wait(|| lab.members().len() == 6);
    let suspect = Suspect { script: Some(scripts[0].clone()), ..lab.suspect(accused) };
    let mut deeds = Vec::new();
    assert_eq!(respond(Action::Stop, &suspect, &mut deeds), 4, "{deeds:#?}");
    wait(|| state(accused) == 'T' && state(twin) == 'T');
    std::thread::sleep(Duration::from_millis(20));
    assert!(runs(honest));
    assert_eq!(lab.members().iter().filter(|pid| state(**pid) == 'T').count(), 4);
}

#[test]
fn a_frozen_cgroup_stands_still_and_thaws_after_an_undo() {
    let mut lab = Lab::new();
    let pid = lab.bot();
    let events = lab.folder.join("cgroup.events");
    let frozen = || fs::read_to_string(&events).unwrap().contains("frozen 1");
    let mut deeds = Vec::new();
    assert_eq!(respond(Action::Freeze, &lab.suspect(pid), &mut deeds), 1);
    assert!(deeds[0].outcome == Outcome::Done && frozen(), "{deeds:?}");
    assert_eq!(respond(Action::Freeze, &lab.suspect(pid), &mut deeds), 0);
    // Somebody thaws it: it is frozen again, which is no further deed.
    fs::write(lab.folder.join("cgroup.freeze"), "0").unwrap();
    wait(|| !frozen());
    assert_eq!(responder().again(&lab.suspect(pid), &mut deeds, &mut TestJudge::default()), 0);
    assert!(frozen());
    let undone = responder().undo(&mut deeds);
    assert!(undone.len() == 1 && undone[0].is_ok() && !frozen(), "{undone:?}");
    assert!(deeds[0].undone);
}

#[test]
fn a_cgroup_that_holds_somebody_else_is_not_frozen() {
    let mut lab = Lab::new();
    let pid = lab.bot();
    let known = lab.suspect(pid);
    let frozen = || fs::read_to_string(lab.folder.join("cgroup.freeze")).unwrap().trim() == "1";
    let why = |responder: &Responder, suspect: &Suspect, judge: &mut TestJudge| {
        let mut deeds = Vec::new();
        responder.respond(Action::Freeze, suspect, &mut deeds, judge);
        match deeds.pop().map(|deed| deed.outcome) {
            Some(Outcome::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let all = responder();
    let mut judge = TestJudge { allowed: BTreeSet::from([pid]) };
    assert!(why(&all, &known, &mut judge).contains("is allowed by a rule"));
    let root = fs::metadata(&all.cgroup2).unwrap().ino();
    let of_all = Suspect { cgroup: "/".to_owned(), cgroup_id: root, ..known.clone() };
    assert!(why(&all, &of_all, &mut TestJudge::default()).starts_with("it is the root"));
    let beside = Responder::new("/elsewhere.slice").unwrap();
    assert!(why(&beside, &known, &mut TestJudge::default()).starts_with("it is not below the guarded"));
    let itself = Responder::new(&lab.path).unwrap();
    assert!(why(&itself, &known, &mut TestJudge::default()).starts_with("it is not below the guarded"));
    // Whoever the agent descends from; here the agent itself is made out to descend from the bot.
    let mut child = responder();
    child.protected.insert(pid);
    assert!(why(&child, &known, &mut TestJudge::default()).contains("is the agent"));
    std::os::unix::fs::chown(lab.folder.join("cgroup.freeze"), Some(1000), None).unwrap();
    assert!(why(&all, &known, &mut TestJudge::default()).starts_with("user 1000 owns it"));
    std::os::unix::fs::chown(lab.folder.join("cgroup.freeze"), Some(0), None).unwrap();
    assert!(!frozen());
    // Another cgroup of that name is nobody's.
    let other = Suspect { cgroup_id: known.cgroup_id + 1, ..known.clone() };
    assert_eq!(respond(Action::Freeze, &other, &mut Vec::new()), 0);
    assert!(!frozen());
    let mut elsewhere =
        vec![deed(Action::Freeze, Target::Cgroup { path: lab.path.clone(), id: known.cgroup_id + 1 }, Outcome::Done)];
    assert!(matches!(all.undo(&mut elsewhere).as_slice(), [Err(UndoError::Gone { .. })]));
}

#[test]
fn deeds_are_bounded_and_what_an_undo_needs_is_not_forgotten() {
    let target = |pid| Target::Process { pid, start: 1, exe: None, device: 1, inode: 1 };
    let mut deeds: Vec<Deed> = Vec::new();
    for pid in 0..DEEDS as u32 {
        let action = if pid % 2 == 0 { Action::Stop } else { Action::Kill };
        assert!(add(&mut deeds, deed(action, target(pid), Outcome::Done)));
    }
    for pid in 0..DEEDS as u32 / 2 {
        assert!(add(&mut deeds, deed(Action::Stop, target(10_000 + pid), Outcome::Done)));
    }
    assert!(deeds.len() == DEEDS && deeds.iter().all(|deed| deed.action == Action::Stop));
    assert!(!add(&mut deeds, deed(Action::Stop, target(99_999), Outcome::Done)));
    // The same refusal is said once.
    deeds.truncate(1);
    for _ in 0..3 {
        assert!(add(&mut deeds, deed(Action::Stop, target(5), Outcome::Refused("it is PID 1".to_owned()))));
    }
    assert_eq!(deeds.len(), 2);
    let text = serde_json::to_string(&deeds).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Deed>>(&text).unwrap(), deeds);
    assert_eq!(deeds[1].to_string(), "process 5: no stop: it is PID 1");
}
