//! Stopping and killing the processes of a subject, and letting the stopped go on.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use procfs::process::Process;

use super::known::{Known, members, parent};
use super::{Action, DEEDS, Deed, Judge, Outcome, Responder, Suspect, Target, UndoError, add, deed, make_room};
use crate::interpreter::takes_script;
use crate::kernel::sys::{pidfd_open, pidfd_send_signal};
use crate::subject::script;

/// How often the processes are gone through for those that were forked meanwhile. A process with a signal waiting forks no
/// more (copy_process() of kernel/fork.c), so that each round leaves fewer.
const ROUNDS: usize = 50;
/// How many processes of a cgroup are looked at in a round.
const LOOKED_AT: usize = 32_768;
/// How many generations a process's line is followed up.
const GENERATIONS: usize = 64;
/// How far two readings of one start may lie apart: that of an attempt has been to the wall clock and back, which takes two
/// readings of two clocks.
const SAME_START: u64 = 1;

/// One response: the rounds through a subject's processes.
pub(super) struct Sweep<'a, J> {
    responder: &'a Responder,
    action: Action,
    suspect: &'a Suspect,
    judge: &'a mut J,
    /// Whether files of these numbers (as stat(2) tells them) are the suspect's executable.
    same_file: HashMap<(u64, u64), bool>,
    /// Who belongs to the subject, by number and start.
    subject: BTreeSet<(u32, u64)>,
    /// Of these, who was sent a signal.
    signalled: Vec<(u32, u64)>,
    /// The process group of the attempt's process, while that lives.
    group: Option<i32>,
}

impl<'a, J: Judge> Sweep<'a, J> {
    pub(super) fn new(responder: &'a Responder, action: Action, suspect: &'a Suspect, judge: &'a mut J) -> Self {
        let (same_file, subject) = (HashMap::new(), BTreeSet::new());
        Self { responder, action, suspect, judge, same_file, subject, signalled: Vec::new(), group: None }
    }

    /// Goes through the processes until they stand still and a list that was made after that has none that is new.
    pub(super) fn run(mut self, deeds: &mut Vec<Deed>) {
        let mut seen = BTreeSet::new();
        self.accused(&mut seen, deeds);
        let Some(folder) = self.cgroup() else { return };
        for _ in 0..ROUNDS {
            let all_still = self.signalled.iter().all(|identity| still(*identity));
            let Some(pids) = members(&folder, LOOKED_AT) else {
                tracing::warn!("{}: the processes cannot be listed, or are too many", folder.display());
                return;
            };
            let before = seen.len();
            for pid in pids.into_keys() {
                if seen.len() >= DEEDS {
                    return;
                }
                self.other(pid, &mut seen, deeds);
            }
            // A process that is on its way through a fork may have the signal waiting, and its child shows a moment later.
            if seen.len() == before && all_still {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The folder of the suspect's cgroup, if that is still the same.
    fn cgroup(&self) -> Option<PathBuf> {
        let folder = self.responder.cgroup2.join(self.suspect.cgroup.trim_start_matches('/'));
        folder.metadata().is_ok_and(|meta| meta.ino() == self.suspect.cgroup_id).then_some(folder)
    }

    /// The process that made the attempt, wherever it is now.
    fn accused(&mut self, seen: &mut BTreeSet<(u32, u64)>, deeds: &mut Vec<Deed>) {
        let pid = self.suspect.pid;
        let Some((fd, known)) = (pid != 0).then(|| reach(pid)).flatten() else { return };
        if known.start.abs_diff(self.suspect.start) > SAME_START {
            // Another one that has its number now.
            return;
        }
        self.group = Some(known.group);
        let identity = (pid, known.start);
        seen.insert(identity);
        // Whose executable cannot be looked at may still be one that is never touched, and that is the better reason.
        let never = known.kernel_thread || self.responder.protected.contains(&pid);
        if !never && !self.same_executable(&known) {
            let why = match known.exe.as_ref().and_then(|exe| exe.path.as_ref()) {
                Some(path) => format!("it runs {path} now"),
                None => "its executable cannot be looked at".to_owned(),
            };
            add(deeds, deed(self.action, known.target(), Outcome::Refused(why)));
            return;
        }
        self.subject.insert(identity);
        self.act(&fd, &known, deeds);
    }

    /// A process of the cgroup, if it is one of the subject.
    fn other(&mut self, pid: u32, seen: &mut BTreeSet<(u32, u64)>, deeds: &mut Vec<Deed>) {
        let Some((fd, known)) = reach(pid) else { return };
        let identity = (pid, known.start);
        // The cheapest first: most processes fail it.
        if seen.contains(&identity) || !self.same_executable(&known) {
            return;
        }
        if known.euid() != Some(self.suspect.euid) || !self.same_program(&known) {
            return;
        }
        seen.insert(identity);
        self.subject.insert(identity);
        self.act(&fd, &known, deeds);
    }

    fn same_executable(&mut self, known: &Known) -> bool {
        let Some(exe) = &known.exe else { return false };
        if let Some(same) = self.same_file.get(&exe.id) {
            return *same;
        }
        let same = self.judge.executable(&exe.file) == Some(self.suspect.exe);
        self.same_file.insert(exe.id, same);
        same
    }

    /// Behind one interpreter there are many programs: one is the subject's if it runs the same script, is in the process
    /// group of the attempt's process, or descends from a process of the subject.
    fn same_program(&self, known: &Known) -> bool {
        let path = known.exe.as_ref().and_then(|exe| exe.path.as_deref()).unwrap_or_default();
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        if !takes_script(Path::new(path)) || self.group == Some(known.group) {
            return true;
        }
        let cwd = std::fs::read_link(format!("/proc/{}/cwd", known.pid)).ok().map(|path| path.display().to_string());
        let runs = script(path, &known.arguments(), cwd.as_deref());
        if runs.is_some() && runs == self.suspect.script {
            return true;
        }
        let mut forebear = Some(known.parent);
        for _ in 0..GENERATIONS {
            let Some(pid) = forebear else { return false };
            // The start of the forebear is not asked: a child's parent is alive, or is another process already.
            if self.subject.range((pid, 0)..=(pid, u64::MAX)).next().is_some() {
                return true;
            }
            forebear = parent(pid);
        }
        false
    }

    /// Signals a process, unless there is a reason not to.
    fn act(&mut self, fd: &OwnedFd, known: &Known, deeds: &mut Vec<Deed>) {
        let target = known.target();
        if let Some(why) = self.untouchable(known) {
            add(deeds, deed(self.action, target, Outcome::Refused(why)));
            return;
        }
        let before = deeds.iter().any(|deed| {
            deed.action == self.action && deed.outcome == Outcome::Done && !deed.undone && known.is(&deed.target)
        });
        let stop = self.action == Action::Stop;
        if stop && known.stopped {
            if !before {
                add(deeds, deed(self.action, target, Outcome::Already));
            }
            return;
        }
        // What cannot be kept on record cannot be undone, and is not done.
        if stop && !before && !make_room(deeds) {
            return;
        }
        let signal = if stop { Signal::SIGSTOP } else { Signal::SIGKILL };
        let sent = pidfd_send_signal(fd.as_fd(), signal as i32);
        if sent.is_ok() {
            self.signalled.push((known.pid, known.start));
        }
        match sent {
            // Somebody has let it go on; it is stopped again, which is one deed.
            Ok(()) if before => {}
            Ok(()) => {
                add(deeds, deed(self.action, target, Outcome::Done));
            }
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => {
                add(deeds, deed(self.action, target, Outcome::Failed(not_permitted(&error))));
            }
        }
    }

    fn untouchable(&mut self, known: &Known) -> Option<String> {
        let why = if known.pid == 1 {
            "it is PID 1"
        } else if self.responder.protected.contains(&known.pid) {
            "it is the agent, or one that the agent descends from"
        } else if known.kernel_thread {
            "it is a thread of the kernel"
        } else if self.judge.sanctioned(known.pid) {
            "a rule of the policy allows it"
        } else {
            return None;
        };
        Some(why.to_owned())
    }
}

/// Lets a stopped process go on, if it is still the same.
pub(super) fn carry_on(target: &Target) -> Result<(), UndoError> {
    let gone = || UndoError::Gone { target: target.clone() };
    let Target::Process { pid, .. } = target else { return Err(gone()) };
    let (fd, known) = reach(*pid).ok_or_else(gone)?;
    if !known.is(target) {
        return Err(gone());
    }
    pidfd_send_signal(fd.as_fd(), Signal::SIGCONT as i32).map_err(|source| {
        let remedy = format!("try kill -CONT {pid} as root");
        UndoError::Failed { target: target.clone(), remedy, source }
    })
}

/// Whether a process runs no more: stopped, or ended.
fn still((pid, start): (u32, u64)) -> bool {
    let process = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok());
    let stat = process.and_then(|process| process.stat().ok());
    stat.is_none_or(|stat| stat.starttime != start || matches!(stat.state, 'T' | 't' | 'Z' | 'X'))
}

/// A process by its number: first a descriptor, then what it is. `None` when it has ended.
fn reach(pid: u32) -> Option<(OwnedFd, Known)> {
    let fd = pidfd_open(pid).ok()?;
    Some((fd, Known::read(pid)?))
}

fn not_permitted(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return "the agent has no CAP_KILL; add it to CapabilityBoundingSet of its unit".to_owned();
    }
    error.to_string()
}
