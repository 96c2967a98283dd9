//! Debian's real mail servers, each in a root of its own: the packages exclude one another.
//!
//! ```ignore
//! let mta = lab.mta(Package::Postfix, &host, &lab.cgroup("system.slice/postfix.service"), sink.v4());
//! mta.submit("a@host.example", "b@mx.example", "hello");
//! sink.wait_for_messages(1, DEADLINE);
//! ```

mod config;
mod debs;
mod root;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub use root::MtaRoot;

use crate::netns::NetNs;
use crate::{Cgroup, DEADLINE, Host, Lab, Outcome, Program, Running, until};

/// A mail server that Debian ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Package {
    /// `postfix`
    Postfix,
    /// `exim4-daemon-light`
    Exim,
    /// `opensmtpd`
    OpenSmtpd,
}

impl Package {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Postfix, Self::Exim, Self::OpenSmtpd];

    /// The name of the Debian package.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Postfix => "postfix",
            Self::Exim => "exim4-daemon-light",
            Self::OpenSmtpd => "opensmtpd",
        }
    }

    /// The unit that Debian runs it in.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Postfix => "postfix@-.service",
            Self::Exim => "exim4.service",
            Self::OpenSmtpd => "opensmtpd.service",
        }
    }

    /// The program that connects to the world, inside the root.
    #[must_use]
    pub fn exe(self) -> &'static str {
        match self {
            Self::Postfix => "/usr/lib/postfix/sbin/smtp",
            Self::Exim => "/usr/sbin/exim4",
            Self::OpenSmtpd => "/usr/sbin/smtpd",
        }
    }

    /// The user that program runs as; the id holds in the root only, on the host it has no name.
    #[must_use]
    pub fn user_id(self) -> u32 {
        match self {
            Self::Postfix => config::POSTFIX,
            Self::Exim => config::EXIM,
            Self::OpenSmtpd => config::OPENSMTPD,
        }
    }
}

impl Lab {
    /// A root with the package in it, configured for nothing yet.
    #[track_caller]
    #[must_use]
    pub fn mta_root(&self, package: Package) -> Rc<MtaRoot> {
        Rc::new(MtaRoot::new(package, &self.scratch("mta")))
    }

    /// A mail server that takes mail on the host's loopback and sends all of it to `relay`.
    #[track_caller]
    #[must_use]
    pub fn mta(&self, package: Package, host: &Host, cgroup: &Cgroup, relay: SocketAddr) -> Mta {
        Mta::start(&self.mta_root(package), host, cgroup, relay)
    }
}

/// A running mail server. On drop every process in its cgroup is killed.
#[derive(Debug)]
pub struct Mta {
    root: Rc<MtaRoot>,
    netns: Rc<NetNs>,
    cgroup: PathBuf,
    daemon: Running,
}

impl Mta {
    /// Starts the server of `root` in this host and cgroup, and returns when it listens on the host's port 25.
    /// The same root may be started again after the first server was dropped; its queue is kept.
    ///
    /// # Panics
    /// When it does not come up, with all it said.
    #[track_caller]
    #[must_use]
    pub fn start(root: &Rc<MtaRoot>, host: &Host, cgroup: &Cgroup, relay: SocketAddr) -> Self {
        root.configure(relay);
        let netns = host.shared_netns();
        let command: &[&str] = match root.package() {
            Package::Postfix => &["/usr/sbin/postfix", "start-fg"],
            Package::Exim => &["/usr/sbin/exim4", "-bdf", "-q1h"],
            Package::OpenSmtpd => &["/usr/sbin/smtpd", "-F"],
        };
        let program = root.program(command[0]).args(&command[1..]);
        let daemon = program
            .in_netns(&netns)
            .in_cgroup_at(cgroup.path())
            .spawn();
        let mut mta = Self {
            root: Rc::clone(root),
            netns,
            cgroup: cgroup.path().into(),
            daemon,
        };
        let name = root.package().name();
        until(&format!("{name} to listen"), DEADLINE, || {
            assert!(mta.daemon.runs(), "{name} ended:\n{}", mta.log());
            if mta.netns.enter(|| listens(25)) {
                Ok(())
            } else {
                Err(mta.log())
            }
        });
        mta
    }

    /// The root it runs in.
    #[must_use]
    pub fn root(&self) -> &Rc<MtaRoot> {
        &self.root
    }

    /// The main process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.daemon.pid()
    }

    /// The program that connects to the world, by the path that the host has for it.
    #[must_use]
    pub fn exe(&self) -> PathBuf {
        self.root.inside(self.root.package().exe())
    }

    /// The user that program runs as.
    #[must_use]
    pub fn user_id(&self) -> u32 {
        self.root.package().user_id()
    }

    /// Hands a message to the server by its `sendmail`, in the server's cgroup (Exim's `sendmail` delivers by itself).
    ///
    /// # Panics
    /// When the server does not take it.
    #[track_caller]
    pub fn submit(&self, from: &str, to: &str, subject: &str) {
        let message = format!("From: {from}\nTo: {to}\nSubject: {subject}\n\nA test.\n");
        self.command("/usr/sbin/sendmail")
            .args(["-i", "-f", from, "--", to])
            .stdin(message)
            .run()
            .must_succeed();
    }

    /// How many messages wait in the queue.
    #[track_caller]
    #[must_use]
    pub fn queue_len(&self) -> usize {
        let lines = |outcome: Outcome| outcome.must_succeed().stdout.lines().count();
        match self.root.package() {
            Package::Postfix => lines(self.command("/usr/sbin/postqueue").arg("-j").run()),
            Package::Exim => {
                let count = self.command("/usr/sbin/exim4").arg("-bpc").run();
                count.must_succeed().stdout.trim().parse().unwrap()
            }
            Package::OpenSmtpd => {
                lines(self.command("/usr/sbin/smtpctl").args(["show", "queue"]).run())
            }
        }
    }

    /// Tries every queued message again, now.
    #[track_caller]
    pub fn flush(&self) {
        let command = match self.root.package() {
            Package::Postfix => self.command("/usr/sbin/postqueue").arg("-f"),
            Package::Exim => self.command("/usr/sbin/exim4").arg("-qff"),
            Package::OpenSmtpd => self.command("/usr/sbin/smtpctl").args(["schedule", "all"]),
        };
        command.run().must_succeed();
    }

    /// Any program of the server's root, where the server runs.
    pub fn command(&self, path: &str) -> Program {
        let program = self.root.program(path);
        program.in_netns(&self.netns).in_cgroup_at(&self.cgroup)
    }

    /// All that the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        let file = |name: &str| std::fs::read_to_string(self.root.inside(name)).unwrap_or_default();
        format!(
            "{}{}{}{}",
            self.daemon.stdout(),
            self.daemon.stderr(),
            file("/var/log/exim4/mainlog"),
            file("/var/log/exim4/paniclog"),
        )
    }
}

impl Drop for Mta {
    fn drop(&mut self) {
        // Its daemons have sessions of their own, so the process group is not all of it.
        crate::cgroup::kill(&self.cgroup);
    }
}

/// Whether somebody listens on this port in the calling thread's network namespace. Asked of /proc, because a
/// connection would be an attempt that a guard counts.
fn listens(port: u16) -> bool {
    const LISTEN: &str = "0A"; // TCP_LISTEN, include/net/tcp_states.h
    let suffix = format!(":{port:04X}");
    ["tcp", "tcp6"].iter().any(|table| {
        let table = Path::new("/proc/thread-self/net").join(table);
        let table = std::fs::read_to_string(table).unwrap_or_default();
        table.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().take(4).collect();
            matches!(fields[..], [_, local, _, state] if local.ends_with(&suffix) && state == LISTEN)
        })
    })
}
