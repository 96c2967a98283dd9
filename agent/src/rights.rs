//! What the agent may do, and lets go of once it guards.

use std::collections::BTreeSet;

use caps::{CapSet, Capability, CapsHashSet};
use serde::{Deserialize, Serialize};

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
    }
}
