//! What procfs adds to an event, while the process lives.

use std::collections::HashMap;
use std::path::Path;

use portreeve_abi::TICK;
use procfs::process::Process;

use crate::interpreter::takes_script;

/// How many processes are remembered.
const MOST: usize = 2048;

/// What is known of a process beyond its event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Its working directory.
    pub cwd: Option<String>,
    /// The user that logged in, whatever users came after (`/proc/PID/loginuid`).
    pub login_uid: Option<u32>,
    /// The script behind an interpreter.
    pub script: Option<String>,
}

/// Details by process, so that a flood from one process asks procfs once.
#[derive(Debug, Default)]
pub struct Processes {
    known: HashMap<(u32, u64), Details>,
}

impl Processes {
    /// The beginning of a process's command line, for events that the kernel wrote in another process.
    pub fn arguments(pid: u32, start: u64, most: usize) -> Vec<String> {
        let process = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok());
        let process = process.filter(|process| process.stat().is_ok_and(|stat| stat.starttime == start / TICK));
        let mut left = most;
        let arguments = process.and_then(|process| process.cmdline().ok()).unwrap_or_default().into_iter();
        arguments
            .take_while(|argument| {
                left = left.saturating_sub(argument.len() + 1);
                left > 0
            })
            .collect()
    }

    /// The details of a process that started at `start` (CLOCK_BOOTTIME nanoseconds); of one that is gone, or whose
    /// number another process has now, only what the arguments tell.
    pub fn details(&mut self, pid: u32, start: u64, exe: &str, arguments: &[String]) -> Details {
        if let Some(details) = self.known.get(&(pid, start)) {
            return details.clone();
        }
        let mut details = read(pid, start).unwrap_or_default();
        details.script = script(exe, arguments, details.cwd.as_deref());
        if self.known.len() >= MOST {
            self.known.clear();
        }
        self.known.insert((pid, start), details.clone());
        details
    }
}

fn read(pid: u32, start: u64) -> Option<Details> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    if process.stat().ok()?.starttime != start / TICK {
        return None;
    }
    // (uid_t)-1: nobody logged in.
    let login_uid = process.loginuid().ok().filter(|uid| *uid != u32::MAX);
    Some(Details { cwd: process.cwd().ok().map(|path| path.display().to_string()), login_uid, script: None })
}

/// The script that an interpreter was told to run.
pub(crate) fn script(exe: &str, arguments: &[String], cwd: Option<&str>) -> Option<String> {
    if !takes_script(Path::new(exe)) {
        return None;
    }
    let first = arguments.iter().skip(1).find(|argument| !argument.starts_with('-'))?;
    // With -c or -e the text of the program follows, not its file.
    let inline = arguments.iter().skip(1).take_while(|argument| *argument != first);
    if inline.into_iter().any(|option| matches!(option.as_str(), "-c" | "-e" | "-r" | "-ne" | "-pe" | "-lc")) {
        return None;
    }
    if first.starts_with('/') {
        return Some(first.clone());
    }
    Some(cwd.map_or_else(|| first.clone(), |cwd| format!("{}/{first}", cwd.trim_end_matches('/'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_script_behind_an_interpreter_is_named() {
        let found = |exe, text, cwd| script(exe, &arguments(text), cwd);
        assert_eq!(found("/usr/bin/python3.11", "python3 -u bot.py x", Some("/srv")).as_deref(), Some("/srv/bot.py"));
        assert_eq!(found("/usr/bin/perl", "perl /opt/send.pl", None).as_deref(), Some("/opt/send.pl"));
        assert_eq!(found("/bin/bash", "bash -c echo", Some("/")), None);
        assert_eq!(found("/usr/sbin/exim4", "exim4 x", Some("/")), None);
    }

    #[test]
    fn another_process_with_the_number_is_not_taken_for_it() {
        assert_eq!(read(std::process::id(), 1), None);
    }
}
