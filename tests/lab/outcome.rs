//! What a program that has ended left.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Exit status and output of a program.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command line, for messages.
    pub command: String,
    /// The process id it had.
    pub pid: i32,
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Outcome {
    /// The exit code; `None` when a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Returns itself if the program ended with 0.
    ///
    /// # Panics
    /// Otherwise, with all the program said.
    #[track_caller]
    pub fn must_succeed(self) -> Self {
        assert!(self.status.success(), "should have succeeded: {self}");
        self
    }

    /// Returns itself if the program ended with anything but 0.
    ///
    /// # Panics
    /// Otherwise, with all the program said.
    #[track_caller]
    pub fn must_fail(self) -> Self {
        assert!(!self.status.success(), "should have failed: {self}");
        self
    }

    /// Whether either output contains `text`.
    #[must_use]
    pub fn says(&self, text: &str) -> bool {
        self.stdout.contains(text) || self.stderr.contains(text)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{} ({})\n--- stdout ---\n{}\n--- stderr ---\n{}",
            self.command,
            self.status,
            self.stdout.trim_end(),
            self.stderr.trim_end()
        )
    }
}
