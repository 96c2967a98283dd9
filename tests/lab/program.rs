//! Any program, anywhere: namespace, cgroup, user, root, environment.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::cgroup;
use crate::netns::NetNs;
use crate::running::Running;
use crate::spawn::Placement;
use crate::{Cgroup, DEADLINE, Host, Outcome, Report, client};

/// A program to run. Built by [`crate::Lab::program`]; [`Program::run`] waits for its end, [`Program::spawn`] does not.
#[derive(Debug)]
#[must_use]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    placement: Placement,
    new_user_namespace: bool,
    stdin: Vec<u8>,
    deadline: Duration,
    output: PathBuf,
}

impl Program {
    pub(crate) fn new(path: PathBuf, output: PathBuf) -> Self {
        Self {
            path,
            args: Vec::new(),
            // The tests' own environment leads to toolchains below /root, where other users cannot go.
            env: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
            placement: Placement::default(),
            new_user_namespace: false,
            stdin: Vec::new(),
            deadline: DEADLINE,
            output,
        }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().into());
        self
    }

    /// More arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().into()));
        self
    }

    /// One variable of the environment, which holds nothing but a `PATH` otherwise.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().into(), value.as_ref().into()));
        self
    }

    /// What it reads on standard input.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// In this host's network namespace.
    #[track_caller]
    pub fn in_host(self, host: &Host) -> Self {
        self.in_netns(host.netns())
    }

    #[track_caller]
    pub(crate) fn in_netns(mut self, netns: &NetNs) -> Self {
        self.placement.netns = Some(netns.fd().try_clone().unwrap());
        self
    }

    /// In this cgroup, before it execs.
    #[track_caller]
    pub fn in_cgroup(self, cgroup: &Cgroup) -> Self {
        self.in_cgroup_at(cgroup.path())
    }

    #[track_caller]
    pub(crate) fn in_cgroup_at(mut self, path: &Path) -> Self {
        self.placement.cgroup = Some(cgroup::enter_file(path));
        self
    }

    /// As this user and group, real, effective and saved, with no supplementary groups.
    pub fn as_user(self, uid: u32, gid: u32) -> Self {
        self.as_user_with_groups(uid, gid, &[])
    }

    /// As this user and group with these supplementary groups.
    pub fn as_user_with_groups(mut self, uid: u32, gid: u32, groups: &[u32]) -> Self {
        self.placement.user = Some((uid, gid, groups.to_vec()));
        self
    }

    /// With this directory as its root; the program's path and working directory are then inside it.
    pub fn in_root(mut self, root: &Path) -> Self {
        self.placement.root = Some(CString::new(root.as_os_str().as_bytes()).unwrap());
        self
    }

    /// In this working directory.
    pub fn in_dir(mut self, dir: &Path) -> Self {
        self.placement.cwd = Some(CString::new(dir.as_os_str().as_bytes()).unwrap());
        self
    }

    /// In a new mount namespace that propagates nothing.
    pub fn in_new_mount_namespace(mut self) -> Self {
        self.placement.new_mount_namespace = true;
        self
    }

    /// In a new user namespace where the program is root and the host sees [`Self::as_user`]'s user, as in a rootless
    /// container.
    pub fn in_new_user_namespace(mut self) -> Self {
        self.new_user_namespace = true;
        self
    }

    /// Gives up after this long instead of [`DEADLINE`].
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it cannot be started, or does not end before the deadline.
    #[track_caller]
    #[must_use]
    pub fn run(self) -> Outcome {
        let deadline = self.deadline;
        self.spawn().wait(deadline)
    }

    /// Runs it as a `lab-client` and reads what it reports.
    ///
    /// # Panics
    /// When it reports nothing.
    #[track_caller]
    #[must_use]
    pub fn report(self) -> Report {
        client::report(&self.run())
    }

    /// Starts it. It dies, with its process group, when the guard is dropped.
    ///
    /// # Panics
    /// When it cannot be started; the failing step is on standard error.
    #[track_caller]
    #[must_use]
    pub fn spawn(mut self) -> Running {
        if self.new_user_namespace {
            // SAFETY: getuid and getgid have no arguments and cannot fail.
            let own = unsafe { (libc::getuid(), libc::getgid()) };
            let (uid, gid) = match &self.placement.user {
                Some((uid, gid, _)) => (*uid, *gid),
                None => own,
            };
            let map = |id: u32| CString::new(format!("0 {id} 1")).unwrap();
            self.placement.user_namespace = Some((map(uid), map(gid)));
        }
        let command_line = format!("{} {:?}", self.path.display(), self.args);
        let (stdin, stdout, stderr) = (
            self.output.with_extension("in"),
            self.output.with_extension("out"),
            self.output.with_extension("err"),
        );
        std::fs::write(&stdin, &self.stdin).unwrap();
        let append = |path: &Path| {
            // Appending, so that a daemon's children do not overwrite each other's lines.
            let open = File::options().create(true).append(true).open(path);
            open.unwrap_or_else(|error| panic!("open {}: {error}", path.display()))
        };
        let mut command = Command::new(&self.path);
        command
            .args(&self.args)
            .env_clear()
            .envs(self.env)
            .stdin(Stdio::from(File::open(&stdin).unwrap()))
            .stdout(Stdio::from(append(&stdout)))
            .stderr(Stdio::from(append(&stderr)));
        let placement = self.placement;
        // SAFETY: `Placement::enter` makes system calls only: no allocation, no locks.
        unsafe { command.pre_exec(move || placement.enter()) };
        match command.spawn() {
            Ok(child) => Running::new(child, command_line, stdout, stderr),
            Err(error) => panic!(
                "start {command_line}: {error}\n{}",
                std::fs::read_to_string(&stderr).unwrap_or_default()
            ),
        }
    }
}
