//! Debian's rsyslogd, in a root of its own.

use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::until::{DEADLINE, until};
use crate::{Host, Lab, Root, Running};

/// Inputs by all ways, and one line for each message with what the daemon understood of it. Two local sockets: one read
/// as the network is, and one as `/dev/log` is.
const CONFIG: &str = r#"
global(workDirectory="/tmp" defaultNetstreamDriver="ptcp")
module(load="imuxsock" SysSock.Use="off")
module(load="imudp")
module(load="imtcp")
input(type="imuxsock" Socket="/run/plain" UseSpecialParser="off" ParseHostname="on")
input(type="imuxsock" Socket="/run/devlog")
input(type="imudp" address="127.0.0.1" port="514")
input(type="imtcp" address="127.0.0.1" port="514")
template(name="lab" type="string" string="%inputname%|%syslogfacility-text%.%syslogseverity-text%|%hostname%|%app-name%|%msgid%|%structured-data%|%msg%\n")
action(type="omfile" file="/tmp/messages" template="lab")
"#;

/// A running rsyslogd that listens on the host's loopback, UDP and TCP 514, and on local sockets.
#[derive(Debug)]
pub struct Rsyslogd<'a> {
    host: &'a Host,
    log: PathBuf,
    daemon: Option<Running>,
    // Last: busy until the daemon is gone.
    root: Root,
}

impl<'a> Rsyslogd<'a> {
    /// Starts it, and returns when it listens.
    ///
    /// # Panics
    /// When it cannot be downloaded or does not come up.
    #[track_caller]
    #[must_use]
    pub fn start(lab: &Lab, host: &'a Host) -> Self {
        let root = Root::new(lab, "rsyslog", &["rsyslog"]);
        for dir in ["run", "tmp"] {
            std::fs::create_dir_all(root.inside(dir)).unwrap();
        }
        root.write("/etc/lab.conf", CONFIG);
        root.write("/etc/hosts", "127.0.0.1 localhost\n");
        let mut daemon = Self { host, log: lab.scratch("rsyslog-log"), daemon: None, root };
        daemon.launch();
        daemon
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.end(Signal::SIGTERM);
        }
        for socket in ["plain", "devlog"] {
            std::fs::remove_file(self.socket(socket)).unwrap_or_default();
        }
    }

    /// Starts it again.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn launch(&mut self) {
        let program = self.root.program("/usr/sbin/rsyslogd").in_host(self.host);
        let program = program.args(["-n", "-f", "/etc/lab.conf", "-i", "/tmp/pid"]);
        self.daemon = Some(program.spawn(&self.log));
        until("rsyslogd to listen", DEADLINE, || {
            if self.socket("devlog").exists() && self.host.enter(listens) { Ok(()) } else { Err(self.said()) }
        });
    }

    /// The path that the host has for a local socket: `plain` or `devlog`.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        self.root.inside("run").join(name)
    }

    /// What it has received, one message a line: `input|facility.severity|host|application|id|data|text`.
    #[must_use]
    pub fn messages(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.root.inside("tmp/messages")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// All that it says of itself.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Rsyslogd<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether port 514 (0202 in hexadecimal digits) is bound in the calling thread's network namespace, UDP and TCP.
fn listens() -> bool {
    ["tcp", "udp"].iter().all(|table| {
        let table = std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
        table.contains("0100007F:0202")
    })
}
