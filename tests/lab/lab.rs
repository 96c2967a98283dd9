//! The lab: one test's directory, cgroup sub-tree, hosts and wires.

use std::cell::{Cell, RefCell};
use std::fs::Permissions;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::netns::NetNs;
use crate::sweep::{PREFIX, remove_dir, sweep};
use crate::{Cgroup, Filesystem, Host, Kind, Program, cgroup2_root};

static LABS: AtomicU32 = AtomicU32::new(0);

/// Fails the test in one line unless it runs as root with the right to load BPF programs.
///
/// # Panics
/// When a right is missing.
#[track_caller]
pub fn require_root() {
    const CAP_BPF: u64 = 39; // include/uapi/linux/capability.h
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    assert!(
        nix::unistd::geteuid().is_root() && effective >> CAP_BPF & 1 == 1,
        "the tests make network namespaces, cgroups and BPF programs: run them as root with CAP_BPF (`sudo cargo xtask test`)"
    );
}

/// Everything one test makes. Declare it first: what it holds goes last.
///
/// Not `Send`: a lab and its fixtures belong to the test's own thread.
#[derive(Debug)]
pub struct Lab {
    name: String,
    dir: PathBuf,
    // Dropped before the directory is removed in `drop`'s tail, because programs may run from there.
    root_cgroup: Option<Cgroup>,
    counter: Cell<u32>,
    wires: Cell<u8>,
    home: RefCell<Option<OwnedFd>>,
    not_send: PhantomData<*const ()>,
}

impl Lab {
    /// A new lab. `name` is the test's, and shows in the names of what the lab makes.
    ///
    /// # Panics
    /// Without root, or when a directory or cgroup cannot be made.
    #[track_caller]
    #[must_use]
    pub fn new(name: &str) -> Self {
        require_root();
        sweep();
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{name}-{}.{number}", std::process::id());
        let mut lab = Self {
            dir: Path::new("/tmp").join(&name),
            name,
            root_cgroup: None,
            counter: Cell::new(0),
            wires: Cell::new(0),
            home: RefCell::new(None),
            not_send: PhantomData,
        };
        std::fs::create_dir(&lab.dir).unwrap();
        // Other users must reach the programs in it whatever the umask is.
        std::fs::set_permissions(&lab.dir, Permissions::from_mode(0o755)).unwrap();
        lab.root_cgroup = Some(Cgroup::create(cgroup2_root().join(&lab.name)));
        lab
    }

    /// The lab's own directory, which every user may enter.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The name that the directory and the cgroup carry; also good as an agent's `--instance`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The top of the lab's cgroup sub-tree: what a guard attaches to in place of the host's root.
    #[must_use]
    pub fn cgroup_root(&self) -> &Cgroup {
        self.root_cgroup.as_ref().unwrap()
    }

    /// A cgroup below the lab's root, such as `system.slice/postfix.service`, with its parents.
    #[track_caller]
    #[must_use]
    pub fn cgroup(&self, path: &str) -> Cgroup {
        Cgroup::create(self.cgroup_root().path().join(path.trim_start_matches('/')))
    }

    /// A host: a network namespace whose loopback is up.
    #[track_caller]
    #[must_use]
    pub fn host(&self, name: &str) -> Host {
        let host = Host::new(name);
        self.home.borrow_mut().get_or_insert_with(|| host.netns().fd().try_clone().unwrap());
        host
    }

    /// The network namespace that an agent runs in, whose devices it guards: the first host's, or an empty one. Never the
    /// machine's own.
    pub(crate) fn home(&self) -> OwnedFd {
        let mut home = self.home.borrow_mut();
        home.get_or_insert_with(|| NetNs::new().fd().try_clone().unwrap()).try_clone().unwrap()
    }

    /// Joins two hosts by a wire with IPv4 and IPv6 addresses; returns when packets pass both ways.
    #[track_caller]
    pub fn wire(&self, a: &Host, b: &Host) {
        let number = self.wires.get();
        self.wires.set(number + 1);
        Host::wire(number, a, b);
    }

    /// A program to run; refine it with [`Program`]'s methods.
    #[must_use]
    pub fn program(&self, path: impl Into<PathBuf>) -> Program {
        Program::new(path.into())
    }

    /// `lab-client` inside the lab's directory, for every user. An inode of the lab's own: what one test's policy
    /// sanctions is no other test's program.
    #[track_caller]
    #[must_use]
    pub fn client(&self) -> PathBuf {
        let copy = self.dir.join("lab-client");
        if !copy.exists() {
            self.copy_client(&copy);
        }
        copy
    }

    /// Another copy of `lab-client`, for everybody to execute and root alone to change.
    #[track_caller]
    pub fn copy_client(&self, to: &Path) {
        // Beside the tests' own binaries, whatever the profile and the target directory are.
        let tests = std::env::current_exe().unwrap();
        let built = tests.parent().unwrap().parent().unwrap().join("lab-client");
        // By another process: a descriptor open for writing here would be inherited by whatever another thread forks at
        // this moment, and executing the copy would fail with ETXTBSY.
        let done = std::process::Command::new("install").args(["-m", "0755"]).arg(&built).arg(to).status();
        assert!(done.is_ok_and(|status| status.success()), "copy {} to {}", built.display(), to.display());
    }

    /// A new file system, mounted below the lab's directory.
    #[track_caller]
    #[must_use]
    pub fn filesystem(&self, kind: Kind) -> Filesystem {
        Filesystem::mount(kind, &self.scratch("fs"))
    }

    /// A name in the lab's directory that nothing has yet.
    #[must_use]
    pub fn scratch(&self, stem: &str) -> PathBuf {
        let number = self.counter.get();
        self.counter.set(number + 1);
        self.dir.join(format!("{stem}-{number}"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.root_cgroup.take());
        remove_dir(&self.dir);
    }
}
