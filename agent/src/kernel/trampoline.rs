//! Programs that hang on a function of the kernel itself (BPF trampolines). Each adds something: where the kernel does
//! not offer it, the guard is as tight without, and `status` says what is missing.

use std::collections::BTreeMap;

use aya::Ebpf;
use aya::programs::{FExit, Lsm};
use portreeve_abi::{PROGRAM_BPF, PROGRAM_LSM, PROGRAM_REACH};

use super::guard::program_mut;
use super::{KernelError, btf};

/// Where a program hangs.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// A hook of the BPF security module.
    Security(&'static str),
    /// The end of a function.
    End(&'static str),
}

/// The name of the security module's hook.
pub(super) const SECOND_LOCK: &str = "lsm";

/// The name of the hook that sees who may write into a process.
pub(super) const REACH: &str = "reach";

/// Hook, program and place.
const ALL: [(&str, &str, Place); 3] = [
    (SECOND_LOCK, PROGRAM_LSM, Place::Security("socket_setsockopt")),
    (REACH, PROGRAM_REACH, Place::End("security_ptrace_access_check")),
    ("bpf", PROGRAM_BPF, Place::End("__sys_bpf")),
];

/// The active security modules.
const MODULES: &str = "/sys/kernel/security/lsm";

/// Hook and program of each.
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    ALL.into_iter().map(|(hook, program, _)| (hook, program))
}

/// Loads those that the kernel takes, and says of the others why it does not.
pub(super) fn load(ebpf: &mut Ebpf) -> BTreeMap<&'static str, String> {
    let types = aya::Btf::from_sys_fs();
    let mut absent = BTreeMap::new();
    for (hook, program, place) in ALL {
        let loaded = match (&types, place) {
            (Err(error), _) => Err(format!("{}: {error}", btf::VMLINUX)),
            (Ok(types), Place::End(function)) => end(ebpf, program, function, types).map_err(|e| e.to_string()),
            (Ok(types), Place::Security(hook)) => {
                security_module().and_then(|()| security(ebpf, program, hook, types).map_err(|error| error.to_string()))
            }
        };
        if let Err(why) = loaded {
            tracing::debug!("no {hook} program: {why}");
            // Without the verifier's log, which would fill a page of `status`.
            let why = why.split(" Verifier output").next().unwrap_or_default().lines().next().unwrap_or_default();
            absent.insert(hook, why.to_owned());
        }
    }
    absent
}

fn end(ebpf: &mut Ebpf, name: &'static str, function: &str, types: &aya::Btf) -> Result<(), KernelError> {
    let program: &mut FExit = program_mut(ebpf, name)?;
    program.load(function, types).map_err(|source| KernelError::program(name, source))
}

fn security(ebpf: &mut Ebpf, name: &'static str, hook: &str, types: &aya::Btf) -> Result<(), KernelError> {
    let program: &mut Lsm = program_mut(ebpf, name)?;
    program.load(hook, types).map_err(|source| KernelError::program(name, source))
}

/// Whether it is known that the kernel asks BPF programs as a security module.
pub(super) fn security_module_is_known() -> bool {
    security_module().is_ok() && std::fs::exists(MODULES).unwrap_or(false)
}

/// Whether the kernel asks BPF programs as a security module. It loads them also where it never asks.
fn security_module() -> Result<(), String> {
    match std::fs::read_to_string(MODULES) {
        Ok(active) if !active.trim().split(',').any(|module| module == "bpf") => {
            Err(format!("bpf is not among the active security modules ({})", active.trim()))
        }
        // Where securityfs is not mounted nobody can tell, and an unasked program does no harm.
        Ok(_) | Err(_) => Ok(()),
    }
}
