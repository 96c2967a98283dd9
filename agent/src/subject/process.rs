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

/// Options of script interpreters that take no value and bring no program of their own, whichever interpreter it is.
const HARMLESS: [&str; 6] = ["-w", "-T", "-wT", "-Tw", "-u", "-x"];

/// Whether a command line names a script, and nothing else that could be what runs: `perl -I /usr/bin/x evil.pl`, `node
/// -r /usr/bin/x evil.js` and `sh -s /usr/bin/x` do not. `cut` says that the end of the command line is missing.
pub(crate) fn names_plainly(exe: &str, arguments: &[String], cwd: Option<&str>, cut: bool, script: &str) -> bool {
    let Some(at) = arguments.iter().skip(1).position(|argument| !argument.starts_with('-')).map(|at| at + 1) else {
        return false;
    };
    let mut options = arguments.iter().take(at).skip(1);
    // The last of a line that is cut may be cut itself. What is escaped, or was no UTF-8, is not the name of the file.
    let broken = cut && at + 1 == arguments.len() || script.contains(['\\', char::REPLACEMENT_CHARACTER]);
    let same = self::script(exe, arguments, cwd).is_some_and(|named| named == script);
    same && !broken && options.all(|option| HARMLESS.contains(&option.as_str()))
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
    fn only_a_plain_command_line_says_what_script_runs() {
        let plain =
            |exe: &str, text: &str, cut, script: &str| names_plainly(exe, &arguments(text), Some("/srv"), cut, script);
        let perl = "/usr/bin/perl";
        assert!(plain(perl, "perl /opt/send.pl", false, "/opt/send.pl"));
        assert!(plain(perl, "perl -wT send.pl to a", true, "/srv/send.pl"));
        // Cut at the script's name; another script than the one that the process began with.
        assert!(!plain(perl, "perl /opt/send.pl", true, "/opt/send.pl"));
        assert!(!plain(perl, "perl /opt/other.pl", false, "/opt/send.pl"));
        for other in ["-I /opt/send.pl evil.pl", "-Mx /opt/send.pl", "- /opt/send.pl", "-e 1 /opt/send.pl", "-w", ""] {
            assert!(!plain(perl, &format!("perl {other}"), false, "/opt/send.pl"), "{other}");
        }
        assert!(!plain("/bin/sh", "sh -s /opt/send.sh", false, "/opt/send.sh"));
        assert!(!plain("/usr/sbin/exim4", "exim4 /opt/send.pl", false, "/opt/send.pl"));
        assert!(!plain(perl, "perl /opt/a\\u{1b}.pl", false, "/opt/a\\u{1b}.pl"));
    }

    #[test]
    fn another_process_with_the_number_is_not_taken_for_it() {
        assert_eq!(read(std::process::id(), 1), None);
    }
}
