//! Whether the login session that a process was started in is over.

use std::fs;
use std::path::Path;

use procfs::process::Process;

/// The size of a record of utmp(5) on Linux, its `ut_type` for a session, and where its process id is.
const RECORD: usize = 384;
const USER_PROCESS: i16 = 7;

/// Whether the session is over; `None` for a process that belongs to none, or where nobody keeps account of sessions.
///
/// `session` is the number of the session whose cgroup (`session-N.scope`) the process is in: systemd-logind keeps that as
/// long as a process is left in it, and the session's file as long as the user is logged in (systemd 252,
/// src/login/logind-session.c). Without systemd, a process counts that somebody started after logging in (`login_uid`),
/// that was given to PID 1, and of whose user utmp(5) has no session any more. With systemd a login uid alone says nothing:
/// cron's jobs have one as well.
#[must_use]
pub fn gone(root: &Path, pid: u32, session: Option<&str>, login_uid: Option<u32>) -> Option<bool> {
    let run = root.join("run/systemd");
    let sessions = run.join("sessions");
    if let Some(session) = session {
        if !sessions.is_dir() || !session.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        return match fs::read_to_string(sessions.join(session)) {
            Ok(text) => Some(text.lines().any(|line| line == "STATE=closing")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(true),
            Err(_) => None,
        };
    }
    let login_uid = login_uid.filter(|_| !run.is_dir())?;
    let records = fs::read(root.join("run/utmp")).or_else(|_| fs::read(root.join("var/run/utmp"))).ok()?;
    let stat = Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
    let logged_in = records.chunks_exact(RECORD).any(|record| of_user(record, login_uid));
    Some(stat.ppid == 1 && !logged_in)
}

/// Whether a record of utmp is that of a session of a user whose first process lives.
fn of_user(record: &[u8], uid: u32) -> bool {
    let Some(([kind_0, kind_1, _, _, pid @ ..], _)) = record.split_first_chunk::<8>() else { return false };
    if i16::from_ne_bytes([*kind_0, *kind_1]) != USER_PROCESS {
        return false;
    }
    let process = Process::new(i32::from_ne_bytes(*pid)).ok();
    process.and_then(|process| process.loginuid().ok()) == Some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(systemd: bool) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(if systemd { "run/systemd/sessions" } else { "run" })).unwrap();
        root
    }

    #[test]
    fn a_session_that_is_closing_or_has_no_file_is_over() {
        let root = host(true);
        let file = |number: &str, text: &str| fs::write(root.path().join("run/systemd/sessions").join(number), text);
        file("1", "UID=1000\nACTIVE=1\nSTATE=active\n").unwrap();
        file("2", "UID=1000\nSTATE=online\n").unwrap();
        file("c3", "UID=1000\nSTATE=closing\n").unwrap();
        let found = |session| gone(root.path(), std::process::id(), Some(session), Some(1000));
        assert_eq!(
            (found("1"), found("2"), found("c3"), found("4")),
            (Some(false), Some(false), Some(true), Some(true))
        );
        assert_eq!(found("../../run"), None);
        // A job of cron's: it has a login uid, and no session.
        assert_eq!(gone(root.path(), std::process::id(), None, Some(1000)), None);
    }

    #[test]
    fn without_anybody_who_keeps_account_nothing_is_known() {
        let root = host(false);
        assert_eq!(gone(root.path(), std::process::id(), Some("1"), Some(1000)), None);
        assert_eq!(gone(root.path(), std::process::id(), None, Some(1000)), None);
        assert_eq!(gone(root.path(), std::process::id(), None, None), None);
    }

    #[test]
    fn without_systemd_utmp_tells_of_an_orphan() {
        let root = host(false);
        fs::write(root.path().join("run/utmp"), vec![0; RECORD]).unwrap();
        // This process has a parent; PID 1's is 0, and only a child of 1 is an orphan.
        assert_eq!(gone(root.path(), std::process::id(), None, Some(4_000_000)), Some(false));
        let shell =
            std::process::Command::new("sh").args(["-c", "(sleep 30 >/dev/null 2>&1 & echo $!) "]).output().unwrap();
        let orphan: u32 = String::from_utf8(shell.stdout).unwrap().trim().parse().unwrap();
        let found = gone(root.path(), orphan, None, Some(4_000_000));
        let parent = Process::new(orphan as i32).unwrap().stat().unwrap().ppid;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(orphan as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
        // Under a subreaper it is given to that.
        assert_eq!(found, Some(parent == 1));
    }

    #[test]
    fn a_record_of_utmp_counts_while_its_process_lives() {
        let own = fs::read_to_string("/proc/self/loginuid").unwrap_or_default().trim().parse().unwrap_or(u32::MAX);
        let mut record = vec![0; RECORD];
        record[..2].copy_from_slice(&USER_PROCESS.to_ne_bytes());
        record[4..8].copy_from_slice(&std::process::id().to_ne_bytes());
        if Path::new("/proc/self/loginuid").exists() {
            assert!(of_user(&record, own));
        }
        assert!(!of_user(&record, own.wrapping_sub(7)));
        record[0] = 8;
        assert!(!of_user(&record, own) && !of_user(&[], own));
    }
}
