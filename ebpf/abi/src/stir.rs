//! What may have moved a program out of its place.

use crate::COMM_LEN;

/// A `bpf(2)` call that attaches, detaches or replaces programs, whoever's they are.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stir {
    /// `enum bpf_cmd`, include/uapi/linux/bpf.h.
    pub command: u32,
    /// Who called: the process, as the host numbers it.
    pub pid: u32,
    /// Its effective user.
    pub euid: u32,
    /// Zero.
    pub _pad: u32,
    /// The thread's name.
    pub comm: [u8; COMM_LEN],
}

const _: () = assert!(size_of::<Stir>() == 32 && align_of::<Stir>() == 4);

crate::pod!(Stir);
