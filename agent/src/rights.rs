//! What the agent may do, and lets go of once it guards.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

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
    // Without CAP_SETPCAP the bounding set stays; whoever took that away has bounded it.
    for capability in caps::all().difference(&needed) {
        if let Err(error) = caps::drop(None, CapSet::Bounding, *capability) {
            tracing::trace!("{capability} stays in the bounding set: {error}");
        }
    }
    let held = caps::read(None, CapSet::Permitted).map_err(fail)?;
    let kept: CapsHashSet = held.intersection(&needed).copied().collect();
    caps::clear(None, CapSet::Inheritable).map_err(fail)?;
    caps::set(None, CapSet::Effective, &kept).map_err(fail)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(fail)?;
    nix::sys::prctl::set_no_new_privs().map_err(|error| error.to_string())
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
