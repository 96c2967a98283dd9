//! Constants that the agent sets before it loads the programs.

use core::ptr::{addr_of, read_volatile};

use portreeve_abi::{GuardedCgroup, Offsets};

/// Where the fields are; all zero in the object, which the agent never loads as it is.
#[unsafe(no_mangle)]
static PR_OFFSETS: Offsets = const {
    // SAFETY: a structure of integers.
    unsafe { core::mem::zeroed() }
};

/// 1 when the exec, fork and exit programs are attached, so that a missing record means something.
#[unsafe(no_mangle)]
static PR_EXEC_WATCH: u32 = 0;

/// 1 when the kernel shows a program the structure behind its context: see `read::kern_ctx`.
#[unsafe(no_mangle)]
static PR_KERN_CTX: u32 = 0;

/// The guarded cgroup.
#[unsafe(no_mangle)]
static PR_GUARDED: GuardedCgroup = GuardedCgroup { id: 0, level: 0, agent: 0 };

/// Reads one offset; a constant to the verifier, because the section is frozen before the programs load.
macro_rules! offset {
    ($field:ident) => {
        $crate::offsets::read(core::mem::offset_of!(portreeve_abi::Offsets, $field))
    };
}
pub(crate) use offset;

/// See [`offset!`].
#[inline(always)]
pub(crate) fn read(place: usize) -> usize {
    // SAFETY: `place` is the place of one of the static's integers. Volatile, or the compiler would take the zeros for
    // the values.
    unsafe { read_volatile(addr_of!(PR_OFFSETS).byte_add(place).cast::<u32>()) as usize }
}

/// Which cgroup is guarded.
#[inline(always)]
pub(crate) fn guarded_cgroup() -> GuardedCgroup {
    // SAFETY: a static. Volatile for the same reason.
    unsafe { read_volatile(addr_of!(PR_GUARDED)) }
}

/// Whether execs are watched.
#[inline(always)]
pub(crate) fn exec_watch() -> bool {
    // SAFETY: a static. Volatile for the same reason.
    unsafe { read_volatile(addr_of!(PR_EXEC_WATCH)) == 1 }
}

/// Whether `read::kern_ctx` may be called.
#[inline(always)]
pub(crate) fn has_kern_ctx() -> bool {
    // SAFETY: a static. Volatile for the same reason.
    unsafe { read_volatile(addr_of!(PR_KERN_CTX)) == 1 }
}
