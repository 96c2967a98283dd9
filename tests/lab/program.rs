//! Programs, run in a host, a cgroup, a root and as a user.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::cgroup::enter_file;
use crate::{Cgroup, Host};

/// A program about to run.
#[derive(Debug)]
pub struct Program {
    command: Command,
    host: Option<RawFd>,
    cgroup: Option<File>,
    user: Option<(u32, u32)>,
    root: Option<PathBuf>,
    input: Option<String>,
}

/// What a program that has ended did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its exit code, or 128 + the signal that ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Outcome {
    /// Fails the test unless the program succeeded.
    #[track_caller]
    pub fn must_succeed(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }
}

/// A program that runs until the value is dropped.
#[derive(Debug)]
pub struct Running(Child);

impl Program {
    pub(crate) fn new(path: PathBuf) -> Self {
        // The tests' own environment has what the guard calls a taint (cargo sets LD_LIBRARY_PATH).
        let mut command = Command::new(path);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        Self { command, host: None, cgroup: None, user: None, root: None, input: None }
    }

    /// Arguments.
    #[must_use]
    pub fn args<S: AsRef<std::ffi::OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// A variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Another argv\[0\].
    #[must_use]
    pub fn arg0(mut self, name: &str) -> Self {
        self.command.arg0(name);
        self
    }

    /// The host whose network it sees. The host must outlive the call that starts the program.
    #[must_use]
    pub fn in_host(mut self, host: &Host) -> Self {
        self.host = Some(host.netns().fd().as_raw_fd());
        self
    }

    /// The network namespace it is in; the descriptor must outlive the call that starts the program.
    pub(crate) fn in_netns(mut self, netns: &impl AsRawFd) -> Self {
        self.host = Some(netns.as_raw_fd());
        self
    }

    /// The cgroup it starts in.
    #[track_caller]
    #[must_use]
    pub fn in_cgroup(mut self, cgroup: &Cgroup) -> Self {
        self.cgroup = Some(enter_file(cgroup.path()));
        self
    }

    /// The user and group it runs as, without supplementary groups.
    #[must_use]
    pub fn as_user(mut self, uid: u32, gid: u32) -> Self {
        self.user = Some((uid, gid));
        self
    }

    /// The directory it takes for `/`; its path is looked up there.
    #[must_use]
    pub fn in_root(mut self, root: &Path) -> Self {
        self.root = Some(root.to_owned());
        self
    }

    /// What it reads on standard input.
    #[must_use]
    pub fn input(mut self, text: &str) -> Self {
        self.input = Some(text.to_owned());
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(mut self) -> Outcome {
        let input = self.input.take();
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.start();
        if let (Some(text), Some(mut pipe)) = (input, child.stdin.take()) {
            pipe.write_all(text.as_bytes()).unwrap();
        }
        let output = child.wait_with_output().unwrap();
        use std::os::unix::process::ExitStatusExt as _;
        Outcome {
            code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts it; its output goes to the file at `log`.
    #[track_caller]
    pub fn spawn(mut self, log: &Path) -> Running {
        let log = File::create(log).unwrap();
        self.command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Running(self.start())
    }

    #[track_caller]
    fn start(&mut self) -> Child {
        let (host, cgroup, user) = (self.host, self.cgroup.as_ref().map(AsRawFd::as_raw_fd), self.user);
        let root = self.root.as_ref().map(|root| std::ffi::CString::new(root.as_os_str().as_encoded_bytes()).unwrap());
        // SAFETY: only async-signal-safe system calls between fork and exec, on values prepared beforehand.
        unsafe {
            self.command.pre_exec(move || {
                let check =
                    |result: libc::c_long| if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) };
                if let Some(fd) = cgroup {
                    check(libc::write(fd, c"0".as_ptr().cast(), 1) as libc::c_long)?;
                }
                if let Some(fd) = host {
                    check(libc::setns(fd, libc::CLONE_NEWNET).into())?;
                }
                if let Some(root) = &root {
                    check(libc::chroot(root.as_ptr()).into())?;
                    check(libc::chdir(c"/".as_ptr()).into())?;
                }
                if let Some((uid, gid)) = user {
                    check(libc::setgroups(0, std::ptr::null()).into())?;
                    check(libc::setresgid(gid, gid, gid).into())?;
                    check(libc::setresuid(uid, uid, uid).into())?;
                }
                Ok(())
            });
        }
        self.command.spawn().unwrap_or_else(|error| panic!("start {:?}: {error}", self.command))
    }
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal and waits for the end.
    pub fn end(&mut self, signal: nix::sys::signal::Signal) {
        if matches!(self.0.try_wait(), Ok(None)) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0.id() as i32), signal).unwrap();
            self.0.wait().unwrap();
        }
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> i32 {
        self.0.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(nix::sys::signal::Signal::SIGKILL);
    }
}
