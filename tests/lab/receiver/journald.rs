//! systemd's journald without the rest of systemd.

use std::path::PathBuf;

use serde_json::Value;

use crate::until::{DEADLINE, until};
use crate::{Lab, Program, Running};

/// In a mount namespace of its own, where `/run` and the logs are empty: the machine's journal is not touched. Without
/// the kernel's messages, and without turning the kernel's audit on, which is the machine's own.
const START: &str = "
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
mkdir -p /run/systemd/journal /run/systemd/journald.conf.d
printf '[Journal]\\nStorage=volatile\\nAudit=no\\nReadKMsg=no\\nForwardToSyslog=no\\n' > /run/systemd/journald.conf.d/lab.conf
exec /lib/systemd/systemd-journald
";

/// A running journald.
#[derive(Debug)]
pub struct Journald {
    daemon: Running,
    log: PathBuf,
}

impl Journald {
    /// Starts it, and returns when it listens.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    #[must_use]
    pub fn start(lab: &Lab) -> Self {
        let log = lab.scratch("journald-log");
        // unshare execs the shell and that the daemon, so all three have one process id.
        let program = Program::new("/usr/bin/unshare".into()).args(["--mount", "--", "/bin/sh", "-c", START]);
        let journald = Self { daemon: program.spawn(&log), log };
        until("journald to listen", DEADLINE, || {
            let said = std::fs::read_to_string(&journald.log);
            // Not the machine's own socket, which is there until the namespace has its /run.
            let own = std::fs::read_link(format!("/proc/{}/exe", journald.daemon.pid()));
            let own = own.is_ok_and(|exe| exe.ends_with("systemd-journald"));
            if own && journald.socket().exists() { Ok(()) } else { Err(said) }
        });
        journald
    }

    /// Its socket, as the machine sees it.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        format!("/proc/{}/root/run/systemd/journal/socket", self.daemon.pid()).into()
    }

    /// The entries that match, as journalctl shows them.
    #[track_caller]
    #[must_use]
    pub fn entries(&self, field: &str) -> Vec<Value> {
        let target = self.daemon.pid().to_string();
        let arguments = ["--mount", "--target", &target, "journalctl", "--no-pager", "--output=json", field];
        let shown = Program::new("/usr/bin/nsenter".into()).args(arguments).run();
        shown.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}
