//! What the agent may do, and lets go of once it guards.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use caps::{CapSet, Capability, CapsHashSet};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::FsFlags;
use procfs::process::{MountOptFields, Process};
use serde::{Deserialize, Serialize};

use crate::kernel::sys::set_read_only;

/// What the agent goes on needing: programs and maps, their attachment, the kernel's memory through them (BPF, PERFMON,
/// NET_ADMIN); network namespaces other than its own (SYS_ADMIN, setns(2)); executables, descriptors and namespaces of
/// other users' processes (SYS_PTRACE, DAC_READ_SEARCH).
const NEEDED: [Capability; 6] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
];

/// What is kept out of effect until it is needed. Signals to other users' processes (KILL): a policy that is read later may
/// ask for a response to alerts, and what has been let go of cannot be had back.
const RESERVED: [Capability; 1] = [Capability::CAP_KILL];

/// This process has a view of the file system of its own, in which it has made files read-only.
static OWN_VIEW: AtomicBool = AtomicBool::new(false);

/// What a process holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// Its effective capabilities.
    pub capabilities: Vec<String>,
    /// It and its children gain none by executing a program.
    pub no_new_privileges: bool,
    /// System calls are filtered.
    pub seccomp: bool,
    /// It can write no files but its own.
    #[serde(default)]
    pub files_read_only: bool,
}

/// Makes all files read-only to this process but those below some folders, in a view of the file system of its own.
///
/// Only where what is mounted later on the host comes to that view as well, as under systemd: an agent that does not see
/// the host's file systems cannot tell its executables. Landlock would do it too, and would keep the agent from looking at
/// processes.
///
/// # Errors
///
/// Why not; the agent works without.
pub fn read_only_but(folders: &[&Path]) -> io::Result<()> {
    if !root_is_shared()? {
        return Err(io::Error::other("what is mounted later would not be seen (mount --make-rshared / lets it)"));
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    // What is done here stays here.
    mount::<str, str, str, str>(None, "/", None, MsFlags::MS_REC | MsFlags::MS_SLAVE, None)?;
    for folder in folders {
        // A mount of its own, unless it is one.
        mount::<Path, Path, str, str>(Some(folder), folder, None, MsFlags::MS_BIND, None)?;
    }
    OWN_VIEW.store(true, Ordering::Relaxed);
    set_read_only(Path::new("/"), true, true)?;
    folders.iter().try_for_each(|folder| set_read_only(folder, false, false))
}

/// Whether mounts on the host's root spread to other views of it (mount_namespaces(7)).
fn root_is_shared() -> io::Result<bool> {
    let mounts = Process::myself().and_then(|me| me.mountinfo()).map_err(io::Error::other)?;
    // Of several, the topmost.
    let root = mounts.into_iter().rfind(|mount| mount.mount_point == Path::new("/"));
    Ok(root.is_some_and(|root| root.opt_fields.iter().any(|field| matches!(field, MountOptFields::Shared(_)))))
}

/// Lets go of every capability but those that are needed, for good.
///
/// # Errors
///
/// Why one could not be let go of; the agent works with it as well.
pub fn drop_unneeded() -> Result<(), String> {
    let fail = |error: caps::errors::CapsError| error.to_string();
    let needed: CapsHashSet = NEEDED.into_iter().collect();
    let permitted: CapsHashSet = NEEDED.into_iter().chain(RESERVED).collect();
    // Without CAP_SETPCAP the bounding set stays; whoever took that away has bounded it.
    for capability in caps::all().difference(&permitted) {
        if let Err(error) = caps::drop(None, CapSet::Bounding, *capability) {
            tracing::trace!("{capability} stays in the bounding set: {error}");
        }
    }
    let held = caps::read(None, CapSet::Permitted).map_err(fail)?;
    let of = |wanted: &CapsHashSet| held.intersection(wanted).copied().collect::<CapsHashSet>();
    caps::clear(None, CapSet::Inheritable).map_err(fail)?;
    caps::set(None, CapSet::Effective, &of(&needed)).map_err(fail)?;
    caps::set(None, CapSet::Permitted, &of(&permitted)).map_err(fail)?;
    nix::sys::prctl::set_no_new_privs().map_err(|error| error.to_string())
}

/// Does something that sends signals, with the right to signal other users' processes in effect for that time.
///
/// Where the right is not there, `work` goes on without it, and finds out from the kernel.
pub fn while_signalling<T>(work: impl FnOnce() -> T) -> T {
    let in_effect = caps::has_cap(None, CapSet::Effective, Capability::CAP_KILL).unwrap_or_default();
    let raised = !in_effect && caps::raise(None, CapSet::Effective, Capability::CAP_KILL).is_ok();
    let done = work();
    if raised && let Err(error) = caps::drop(None, CapSet::Effective, Capability::CAP_KILL) {
        tracing::error!("the right to signal other users' processes stays in effect: {error}");
    }
    done
}

/// Does something that writes below a mount which [`read_only_but`] has made read-only, with the mount writable for that
/// time. It stays writable on the host all the time; this is about the agent's own view.
///
/// # Errors
///
/// Those of `work`, or why the mount could not be made writable.
pub fn while_writable<T>(mount: &Path, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let first = work();
    let read_only = first.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem);
    // In a view that others share, it is not for us to change.
    if !read_only || !OWN_VIEW.load(Ordering::Relaxed) {
        return first;
    }
    set_read_only(mount, false, false)?;
    let second = work();
    if let Err(error) = set_read_only(mount, false, true) {
        tracing::error!("{} stays writable to the agent: {error}", mount.display());
    }
    second
}

/// Lets this process have as many files open as it may: each network namespace and each device takes one.
pub fn many_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
}

/// What this process holds.
#[must_use]
pub fn held() -> Rights {
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let names: BTreeSet<String> = effective.iter().map(ToString::to_string).collect();
    Rights {
        capabilities: names.into_iter().collect(),
        no_new_privileges: number("NoNewPrivs:") == Some("1"),
        seccomp: number("Seccomp:").is_some_and(|mode| mode != "0"),
        files_read_only: nix::sys::statvfs::statvfs("/").is_ok_and(|root| root.flags().contains(FsFlags::ST_RDONLY)),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_right_to_signal_is_in_effect_only_while_it_is_needed() {
        // Capabilities are a thread's own.
        let thread = thread::spawn(|| {
            let has = |set| caps::has_cap(None, set, Capability::CAP_KILL).unwrap();
            if !has(CapSet::Permitted) {
                panic!("this test needs CAP_KILL: run it as root");
            }
            assert!(while_signalling(|| has(CapSet::Effective)));
            assert!(has(CapSet::Effective), "what was in effect before stays so");
            caps::drop(None, CapSet::Effective, Capability::CAP_KILL).unwrap();
            assert!(while_signalling(|| has(CapSet::Effective)));
            assert!(!has(CapSet::Effective));
            // Where it is gone for good, the work is done all the same.
            caps::drop(None, CapSet::Permitted, Capability::CAP_KILL).unwrap();
            assert!(!while_signalling(|| has(CapSet::Effective)));
        });
        thread.join().unwrap();
    }

    #[test]
    fn what_is_reserved_survives_the_letting_go_and_is_not_in_effect() {
        let thread = thread::spawn(|| {
            drop_unneeded().unwrap();
            let set = |set| caps::read(None, set).unwrap();
            assert!(set(CapSet::Permitted).contains(&Capability::CAP_KILL));
            assert!(!set(CapSet::Effective).contains(&Capability::CAP_KILL));
            assert!(!set(CapSet::Permitted).contains(&Capability::CAP_DAC_OVERRIDE));
            assert!(while_signalling(|| set(CapSet::Effective).contains(&Capability::CAP_KILL)));
        });
        thread.join().unwrap();
    }

    #[test]
    fn a_file_system_that_is_read_only_to_this_view_is_written_to_for_a_moment() {
        // The view is a thread's own as well; the flag is the process's, and no other test asks it.
        let thread = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount::<str, str, str, str>(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path();
            mount::<str, Path, str, str>(Some("t"), path, Some("tmpfs"), MsFlags::empty(), None).unwrap();
            set_read_only(path, false, true).unwrap();
            let file = path.join("x");
            let write = || std::fs::write(&file, "x");
            let refused = while_writable(path, write).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem, "not in a view of others");
            OWN_VIEW.store(true, Ordering::Relaxed);
            while_writable(path, write).unwrap();
            assert_eq!(write().unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
            nix::mount::umount(path).unwrap();
        });
        thread.join().unwrap();
    }
}
