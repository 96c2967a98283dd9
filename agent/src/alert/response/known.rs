//! A process as procfs shows it, to be told from every other one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use procfs::process::{Process, StatFlags};

use super::Target;

/// How many cgroups one below the other are walked through.
const DEEPEST: usize = 64;

/// A process.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) group: i32,
    /// Clock ticks since boot.
    pub(super) start: u64,
    pub(super) stopped: bool,
    pub(super) kernel_thread: bool,
    /// The executable, opened to be looked at; none in a kernel thread and in a process that has ended.
    pub(super) exe: Option<Exe>,
}

/// A process's executable.
#[derive(Debug)]
pub(super) struct Exe {
    pub(super) file: File,
    pub(super) path: Option<String>,
    /// Device and inode number, as stat(2) tells them.
    pub(super) id: (u64, u64),
}

impl Known {
    /// Reads a process. `None` when it is gone.
    pub(super) fn read(pid: u32) -> Option<Self> {
        let process = Process::new(i32::try_from(pid).ok()?).ok()?;
        let stat = process.stat().ok()?;
        let kernel_thread = StatFlags::from_bits_truncate(stat.flags).contains(StatFlags::PF_KTHREAD);
        Some(Self {
            pid,
            parent: stat.ppid.unsigned_abs(),
            group: stat.pgrp,
            start: stat.starttime,
            stopped: stat.state == 'T',
            kernel_thread,
            exe: exe(pid),
        })
    }

    /// Whether it is the process of a deed.
    pub(super) fn is(&self, target: &Target) -> bool {
        let file = self.exe.as_ref().map_or((0, 0), |exe| exe.id);
        match target {
            Target::Process { pid, start, device, inode, .. } => {
                (self.pid, self.start, file) == (*pid, *start, (*device, *inode))
            }
            Target::Cgroup { .. } => false,
        }
    }

    /// The effective user.
    pub(super) fn euid(&self) -> Option<u32> {
        Some(self.process()?.status().ok()?.euid)
    }

    pub(super) fn arguments(&self) -> Vec<String> {
        self.process().and_then(|process| process.cmdline().ok()).unwrap_or_default()
    }

    fn process(&self) -> Option<Process> {
        Process::new(i32::try_from(self.pid).ok()?).ok()
    }

    pub(super) fn target(&self) -> Target {
        let (device, inode) = self.exe.as_ref().map_or((0, 0), |exe| exe.id);
        let exe = self.exe.as_ref().and_then(|exe| exe.path.clone());
        Target::Process { pid: self.pid, start: self.start, exe, device, inode }
    }
}

/// The executable of a process. A program may end its first thread and go on in the others; then that one has no
/// executable any more, and the others have.
fn exe(pid: u32) -> Option<Exe> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    open(&process).or_else(|| {
        let threads = fs::read_dir(process.join("task")).ok()?;
        threads.filter_map(Result::ok).take(64).find_map(|thread| open(&thread.path()))
    })
}

fn open(process: &Path) -> Option<Exe> {
    let link = process.join("exe");
    // With O_PATH nothing is opened on the file's own file system, which might not answer.
    let file = File::options().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(&link).ok()?;
    let id = file.metadata().ok().map(|meta| (meta.dev(), meta.ino()))?;
    let path = fs::read_link(&link).ok().map(|path| crate::attempt::text(path.as_os_str().as_encoded_bytes()));
    Some(Exe { file, path, id })
}

/// A process and those it descends from, with PID 1.
pub(super) fn line(pid: u32) -> BTreeSet<u32> {
    let mut line = BTreeSet::from([1]);
    let mut next = Some(pid);
    while let Some(pid) = next
        && line.insert(pid)
    {
        next = parent(pid);
    }
    line
}

/// The parent of a process.
pub(super) fn parent(pid: u32) -> Option<u32> {
    let stat = Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
    Some(stat.ppid.unsigned_abs()).filter(|parent| *parent != 0)
}

/// The processes in a cgroup and all below it, by the cgroup's folder; `None` when they cannot be listed whole: more than
/// `most`, or a folder that cannot be read. Processes of another PID namespace have no number here and are left out.
pub(super) fn members(folder: &Path, most: usize) -> Option<BTreeMap<u32, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        match fs::read_to_string(folder.join("cgroup.procs")) {
            Ok(text) => {
                let pids = text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0);
                found.extend(pids.map(|pid| (pid, folder.clone())));
            }
            // A cgroup of threads: their processes are listed above it.
            Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) && depth > 0 => {}
            // It has gone while we walked.
            Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) && depth > 0 => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && depth > 0 => {}
            Err(_) => return None,
        }
        if found.len() > most || depth > DEEPEST {
            return None;
        }
        for entry in fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push((entry.path(), depth + 1));
            }
        }
    }
    Some(found)
}
