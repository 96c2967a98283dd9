//! Debian's real mail servers, each in a root of its own: the packages exclude one another.
//!
//! ```text
//! let cgroup = lab.cgroup("system.slice/postfix.service");
//! let mta = Mta::start(&lab, Package::Postfix, &host, &cgroup, mx.v4());
//! mta.submit("a@host.example", "b@mx.example", "hello");
//! sink.wait_for_messages(1, DEADLINE);
//! ```

mod config;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::until::{DEADLINE, until};
use crate::{Cgroup, Host, Lab, Outcome, Program, Root, Running};

/// A mail server that Debian ships.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// The name that a policy's `mta` has for it.
    #[must_use]
    pub fn mta(self) -> &'static str {
        match self {
            Self::Postfix => "postfix",
            Self::Exim => "exim",
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

    /// The program that connects to the world, by its path inside the root.
    #[must_use]
    pub fn exe(self) -> &'static str {
        match self {
            Self::Postfix => "/usr/lib/postfix/sbin/smtp",
            Self::Exim => "/usr/sbin/exim4",
            Self::OpenSmtpd => "/usr/sbin/smtpd",
        }
    }

    /// The user that program runs as; the id has its name in the root only.
    #[must_use]
    pub fn user(self) -> u32 {
        match self {
            Self::Postfix => config::POSTFIX,
            Self::Exim => config::EXIM,
            Self::OpenSmtpd => config::OPENSMTPD,
        }
    }
}

/// A running mail server that takes mail on the host's loopback and sends all of it to one relay. On drop every
/// process in its cgroup is killed.
#[derive(Debug)]
pub struct Mta<'a> {
    host: &'a Host,
    cgroup: &'a Cgroup,
    log: PathBuf,
    daemon: Option<Running>,
    package: Package,
    // Last: its mounts are busy until the programs in it are gone.
    root: Root,
}

impl<'a> Mta<'a> {
    /// Starts the package in a new root, and returns when it listens on the host's port 25.
    ///
    /// # Panics
    /// When it cannot be downloaded, or does not come up: with all it said.
    #[track_caller]
    #[must_use]
    pub fn start(lab: &Lab, package: Package, host: &'a Host, cgroup: &'a Cgroup, relay: IpAddr) -> Self {
        Self::start_to(lab, package, host, cgroup, SocketAddr::new(relay, 25), "")
    }

    /// As [`Self::start`], with another port of the relay; for Postfix with more lines of main.cf.
    ///
    /// # Panics
    /// When it cannot be downloaded, or does not come up: with all it said.
    #[track_caller]
    #[must_use]
    pub fn start_to(
        lab: &Lab,
        package: Package,
        host: &'a Host,
        cgroup: &'a Cgroup,
        relay: SocketAddr,
        more: &str,
    ) -> Self {
        let root = Root::new(lab, package.name(), &[package.name()]);
        config::users(&root);
        config::prepare(package, &root);
        config::relay_to(package, &root, relay, more);
        let mut mta = Self { host, cgroup, log: lab.scratch("mta-log"), daemon: None, package, root };
        mta.launch();
        mta
    }

    /// Starts the server again, as a package's upgrade does. The queue is kept.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        self.launch();
    }

    #[track_caller]
    fn launch(&mut self) {
        let command: &[&str] = match self.package() {
            Package::Postfix => &["/usr/sbin/postfix", "start-fg"],
            Package::Exim => &["/usr/sbin/exim4", "-bdf", "-q1h"],
            Package::OpenSmtpd => &["/usr/sbin/smtpd", "-d"],
        };
        let daemon = self.daemon.insert(self.program(command[0]).args(&command[1..]).spawn(&self.log));
        let name = self.package.name();
        until(&format!("{name} to listen"), DEADLINE, || {
            if !daemon.runs() {
                panic!("{name} ended:\n{}", read(&self.log));
            }
            if self.host.netns().enter(|| listens(25)) { Ok(()) } else { Err(read(&self.log)) }
        });
    }

    fn stop(&mut self) {
        // Its daemons have sessions of their own, so the main process is not all of it.
        self.cgroup.kill();
        drop(self.daemon.take());
    }

    /// Which server it is.
    #[must_use]
    pub fn package(&self) -> Package {
        self.package
    }

    /// The root it runs in, by the path that the host has for it.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The program that connects to the world, by the path that the host has for it.
    #[must_use]
    pub fn exe(&self) -> PathBuf {
        self.root.inside(self.package().exe())
    }

    /// The user that program runs as.
    #[must_use]
    pub fn user(&self) -> u32 {
        self.package().user()
    }

    /// Hands a message to the server by its `sendmail`, in the server's cgroup: Exim's delivers by itself.
    ///
    /// # Panics
    /// When the server does not take it.
    #[track_caller]
    pub fn submit(&self, from: &str, to: &str, subject: &str) {
        let message = format!("From: {from}\nTo: {to}\nSubject: {subject}\n\nA test.\n");
        let taken = self.program("/usr/sbin/sendmail").args(["-i", "-f", from, "--", to]).input(&message).run();
        assert_eq!(taken.code, 0, "{} does not take a message: {taken:#?}\n{}", self.package().name(), self.log());
    }

    /// Hands a message to the server as other programs of the host do: by SMTP on loopback, as an ordinary user in a
    /// cgroup of their own.
    ///
    /// # Panics
    /// When the server does not take it.
    #[track_caller]
    pub fn submit_by_smtp(&self, cgroup: &Cgroup, from: &str, to: &str, subject: &str) {
        let bot = Program::new("/usr/bin/python3".into()).args(["-c", SUBMIT, from, to, subject]);
        let taken = bot.in_host(self.host).in_cgroup(cgroup).as_user(33, 33).run();
        assert_eq!(taken.code, 0, "{} does not take a message: {taken:#?}\n{}", self.package().name(), self.log());
    }

    /// How many messages wait in the queue.
    #[track_caller]
    #[must_use]
    pub fn queued(&self) -> usize {
        let lines = |outcome: Outcome| outcome.must_succeed().stdout.lines().count();
        match self.package() {
            Package::Postfix => lines(self.program("/usr/sbin/postqueue").args(["-j"]).run()),
            Package::Exim => {
                self.program("/usr/sbin/exim4").args(["-bpc"]).run().must_succeed().stdout.trim().parse().unwrap()
            }
            Package::OpenSmtpd => lines(self.program("/usr/sbin/smtpctl").args(["show", "queue"]).run()),
        }
    }

    /// Tries every queued message again, now.
    #[track_caller]
    pub fn flush(&self) {
        let flush = match self.package() {
            Package::Postfix => self.program("/usr/sbin/postqueue").args(["-f"]),
            Package::Exim => self.program("/usr/sbin/exim4").args(["-qff"]),
            Package::OpenSmtpd => {
                self.resume_routes();
                self.program("/usr/sbin/smtpctl").args(["schedule", "all"])
            }
        };
        flush.run().must_succeed();
    }

    /// Opens the routes that OpenSMTPD has closed for a while after a failure; `schedule` alone leaves them closed.
    #[track_caller]
    fn resume_routes(&self) {
        let control = |arguments: &[&str]| self.program("/usr/sbin/smtpctl").args(arguments).run().must_succeed();
        // smtpctl(8), as in "1. [] <-> 192.0.2.1 (mx.example) ND-- nconn=0 nerror=0": D is for "disabled".
        for route in control(&["show", "routes"]).stdout.lines() {
            if let Some((number, rest)) = route.split_once('.')
                && rest.split_whitespace().any(|word| word.len() == 4 && word.as_bytes()[1] == b'D')
            {
                control(&["resume", "route", number]);
            }
        }
    }

    /// Puts a copy of the sending program, a new inode, in its place by a rename, as dpkg does; returns how long ago
    /// the rename was at most, to be asked again and again.
    ///
    /// # Panics
    /// When it cannot be copied.
    #[track_caller]
    pub fn replace_exe(&self) -> impl Fn() -> Duration + use<> {
        let (exe, new) = (self.exe(), self.root.inside("/usr/sbin/new.dpkg-new"));
        // By cp: a fork on another thread would inherit a descriptor of ours that writes, and the first exec of the
        // copy would fail with ETXTBSY.
        let copied = Program::new("/usr/bin/cp".into()).args([Path::new("-p"), &exe, &new]).run();
        assert_eq!(copied.code, 0, "{copied:#?}");
        let start = std::time::Instant::now();
        std::fs::rename(&new, &exe).unwrap();
        move || start.elapsed()
    }

    /// Any program of the server's root, where the server runs.
    #[must_use]
    pub fn program(&self, path: &str) -> Program {
        self.root.program(path).in_host(self.host).in_cgroup(self.cgroup)
    }

    /// All that the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        let inside = |name: &str| read(&self.root.inside(name));
        format!("{}{}{}", read(&self.log), inside("/var/log/exim4/mainlog"), inside("/var/log/exim4/paniclog"))
    }
}

impl Drop for Mta<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}---", self.package().name(), self.log());
        }
        self.stop();
    }
}

/// One message to whoever listens on loopback.
const SUBMIT: &str = "
import smtplib, sys
sender, rcpt, subject = sys.argv[1:]
with smtplib.SMTP('127.0.0.1', 25, local_hostname='localhost', timeout=10) as server:
    server.sendmail(sender, [rcpt], f'From: {sender}\\r\\nTo: {rcpt}\\r\\nSubject: {subject}\\r\\n\\r\\nA test.\\r\\n')
";

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// Whether somebody listens on this port in the calling thread's network namespace. Asked of /proc, because a
/// connection would be an attempt that a guard counts.
fn listens(port: u16) -> bool {
    const LISTEN: &str = "0A"; // TCP_LISTEN, include/net/tcp_states.h
    let suffix = format!(":{port:04X}");
    ["tcp", "tcp6"].iter().any(|table| {
        let table = read(&Path::new("/proc/thread-self/net").join(table));
        table.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().take(4).collect();
            matches!(fields[..], [_, local, _, state] if local.ends_with(&suffix) && state == LISTEN)
        })
    })
}
