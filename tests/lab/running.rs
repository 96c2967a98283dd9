//! A program that runs, as a guard.

use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::{Outcome, until};

/// A running program. Its process group is killed when this is dropped.
///
/// Its output goes to files, so it never waits for a reader and can be looked at while it runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    command: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    pub(crate) fn new(child: Child, command: String, stdout: PathBuf, stderr: PathBuf) -> Self {
        Self { child, command, stdout, stderr }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stdout).unwrap()).into_owned()
    }

    /// Standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap()).into_owned()
    }

    /// Whether it still runs.
    #[track_caller]
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until either output contains `text`.
    ///
    /// # Panics
    /// When the program ends first or the deadline passes.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str, deadline: Duration) {
        let start = Instant::now();
        until(&format!("{text:?} from {}", self.command), deadline, || {
            // Asked before the output is read: what it said with its last breath counts.
            let ended = self.child.try_wait().unwrap();
            let (stdout, stderr) = (self.stdout(), self.stderr());
            if stdout.contains(text) || stderr.contains(text) {
                return Ok(());
            }
            if let Some(status) = ended {
                panic!(
                    "{} ended ({status}) after {:?} without {text:?}:\n{stdout}\n{stderr}",
                    self.command,
                    start.elapsed()
                );
            }
            Err((stdout, stderr))
        });
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal)
            .unwrap_or_else(|errno| panic!("send {signal} to {}: {errno}", self.command));
    }

    /// Lets a `lab-client` that was started with `--hold` go on.
    #[track_caller]
    pub fn release(&self) {
        self.signal(Signal::SIGUSR1);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When the deadline passes; the program is killed then.
    #[track_caller]
    #[must_use]
    pub fn wait(mut self, deadline: Duration) -> Outcome {
        let command = self.command.clone();
        let status = until(&format!("the end of {command}"), deadline, || {
            self.child.try_wait().unwrap().ok_or_else(|| (self.stdout(), self.stderr()))
        });
        Outcome { command, pid: self.pid(), status, stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Also when the leader has ended: what it left in its group goes too.
        killpg(Pid::from_raw(self.pid()), Signal::SIGKILL).unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}
