//! A process with its forebears and descendants, as they are at one moment.

use std::collections::{BTreeMap, VecDeque};
use std::fs;

use portreeve_abi::TICK;
use procfs::process::{Process, all_processes};
use serde::{Deserialize, Serialize};

use crate::attempt::text;

/// How many forebears are shown.
const FOREBEARS: usize = 16;
/// How many descendants are shown.
const DESCENDANTS: usize = 32;
/// How many bytes of a command line are shown.
const COMMAND_LINE: usize = 512;

/// What a process is to the one that the tree is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kinship {
    /// It descends from this one.
    Forebear,
    /// It is this one.
    Itself,
    /// This one descends from it.
    Descendant,
}

/// A process of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What it is to the one that the tree is about.
    pub kinship: Kinship,
    /// How many generations it is away from that one.
    pub generations: u32,
    /// Its process id.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// When it started, in clock ticks (hundredths of a second) since boot.
    pub start: u64,
    /// Its effective user.
    pub uid: u32,
    /// Its name, which it chooses itself.
    pub comm: String,
    /// Its executable's path.
    pub exe: Option<String>,
    /// The beginning of its command line.
    pub cmdline: Vec<String>,
}

/// The tree around a process that started at `start` (CLOCK_BOOTTIME nanoseconds): the eldest forebear first, then the
/// process, then its descendants, each after its parent's generation. Empty when the process is gone or another has its
/// number.
///
/// It goes through all processes of the host once, some ten microseconds each, and reads what other users' processes hold
/// in memory (their command lines): not for a thread that must not wait.
#[must_use]
pub fn tree(pid: u32, start: u64) -> Vec<Member> {
    let itself = member(pid, Kinship::Itself, 0).filter(|itself| itself.start == start / TICK);
    let Some(itself) = itself else { return Vec::new() };
    let mut members = forebears(&itself);
    members.reverse();
    let descendants = descendants(&itself);
    members.push(itself);
    members.extend(descendants);
    members
}

/// The paths of the executables of a process's forebears, its parent first, where they can be read.
pub(super) fn forebear_executables(pid: u32, start: u64, most: usize) -> Vec<(u32, Option<String>)> {
    let mut line = Vec::new();
    let read = |pid: u32| Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok();
    let mut next = read(pid).filter(|stat| stat.starttime == start / TICK).map(|stat| stat.ppid.unsigned_abs());
    while let Some(pid) = next.filter(|pid| *pid != 0 && line.len() < most) {
        line.push((pid, executable(pid)));
        next = if line.len() < most { read(pid).map(|stat| stat.ppid.unsigned_abs()) } else { None };
    }
    line
}

fn forebears(of: &Member) -> Vec<Member> {
    let mut line: Vec<Member> = Vec::new();
    let (mut next, mut younger) = (of.parent, of.start);
    for generations in 1..=FOREBEARS as u32 {
        // A parent is older than its child; what has the number and is younger is another process.
        let parent = member(next, Kinship::Forebear, generations).filter(|parent| parent.start <= younger);
        let Some(parent) = parent else { break };
        (next, younger) = (parent.parent, parent.start);
        line.push(parent);
    }
    line
}

/// Breadth first, so that of many the nearest are shown.
fn descendants(of: &Member) -> Vec<Member> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for stat in all_processes().into_iter().flatten().filter_map(|process| process.ok()?.stat().ok()) {
        children.entry(stat.ppid.unsigned_abs()).or_default().push(stat.pid.unsigned_abs());
    }
    let mut found = Vec::new();
    let mut waiting = VecDeque::from([(of.pid, 0)]);
    while let Some((parent, generations)) = waiting.pop_front() {
        for child in children.remove(&parent).unwrap_or_default() {
            if found.len() >= DESCENDANTS {
                return found;
            }
            let child = member(child, Kinship::Descendant, generations + 1);
            // One that has lost its parent meanwhile, and has another now, is no descendant any more.
            let Some(child) = child.filter(|child| child.parent == parent) else { continue };
            waiting.push_back((child.pid, generations + 1));
            found.push(child);
        }
    }
    found
}

fn member(pid: u32, kinship: Kinship, generations: u32) -> Option<Member> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let stat = process.stat().ok()?;
    Some(Member {
        kinship,
        generations,
        pid,
        parent: stat.ppid.unsigned_abs(),
        start: stat.starttime,
        uid: process.status().ok()?.euid,
        comm: text(stat.comm.as_bytes()),
        exe: executable(pid),
        cmdline: shortened(process.cmdline().unwrap_or_default()),
    })
}

/// The path of a process's executable.
fn executable(pid: u32) -> Option<String> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(text(path.as_os_str().as_encoded_bytes()))
}

/// The beginning of a command line, the last argument perhaps cut.
fn shortened(arguments: Vec<String>) -> Vec<String> {
    let mut left = COMMAND_LINE;
    let mut kept = Vec::new();
    for argument in arguments {
        if left == 0 {
            break;
        }
        let argument: String = text(argument.as_bytes()).chars().take(left).collect();
        left = left.saturating_sub(argument.len() + 1);
        kept.push(argument);
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    fn start(pid: u32) -> u64 {
        Process::new(pid as i32).unwrap().stat().unwrap().starttime * TICK
    }

    #[test]
    fn a_tree_has_the_forebears_the_process_and_its_descendants() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 60 & sh -c 'sleep 61 & echo ready; wait' & wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let tree = tree(shell.id(), start(shell.id()));
        for child in tree.iter().filter(|member| member.kinship == Kinship::Descendant) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.pid as i32), nix::sys::signal::Signal::SIGKILL)
                .unwrap();
        }
        shell.wait().unwrap();

        let of = |kinship| tree.iter().filter(move |member| member.kinship == kinship);
        assert_eq!(tree[0].pid, 1, "the eldest first: {tree:#?}");
        assert_eq!(of(Kinship::Forebear).next_back().unwrap().pid, std::process::id());
        let itself = of(Kinship::Itself).next().unwrap();
        assert_eq!((itself.pid, itself.cmdline[0].as_str()), (shell.id(), "sh"));
        assert!(itself.exe.as_ref().unwrap().starts_with('/'));
        let lines: Vec<(u32, String)> =
            of(Kinship::Descendant).map(|member| (member.generations, member.cmdline.join(" "))).collect();
        assert!(
            lines.contains(&(1, "sleep 60".to_owned())) && lines.contains(&(2, "sleep 61".to_owned())),
            "{lines:?}"
        );
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn another_process_with_the_number_has_no_tree_here() {
        assert_eq!(tree(std::process::id(), start(std::process::id()) + TICK), []);
        assert_eq!(forebear_executables(std::process::id(), 0, 4), []);
        let line = forebear_executables(std::process::id(), start(std::process::id()), 4);
        assert_eq!(line[0].0, std::os::unix::process::parent_id());
        assert!(line[0].1.is_some());
    }

    #[test]
    fn a_command_line_is_cut_and_its_control_characters_are_escaped() {
        let long = shortened(vec!["a\x1b[31m".to_owned(), "x".repeat(1000), "never".to_owned()]);
        assert_eq!((long.len(), long[0].as_str()), (2, "a\\u{1b}[31m"));
        assert!(long.concat().len() < COMMAND_LINE);
    }
}
