//! What the guard would otherwise notice late, or never: programs at the ends of kernel functions (BPF trampolines).
//! They see and judge nothing; without them the guard is as tight, and knows less.

use aya_ebpf::programs::FExitContext;
use portreeve_abi::{COMM_LEN, Stir, Taint};

use crate::maps::{PR_EXECS, PR_STIRS};
use crate::offsets::{guarded_cgroup, offset};
use crate::read::{self, Address};
use crate::task::Task;

/// `PTRACE_MODE_ATTACH`, include/linux/ptrace.h: to write, not only to look.
const MODE_ATTACH: u32 = 2;

/// `enum bpf_cmd`, include/uapi/linux/bpf.h: PROG_ATTACH, PROG_DETACH, LINK_CREATE, LINK_UPDATE, LINK_DETACH.
const STIRS: [u32; 5] = [8, 9, 28, 29, 34];

/// security_ptrace_access_check(child, mode): the last word of `__ptrace_may_access` (kernel/ptrace.c), by which one
/// process may attach to another as a debugger, write to its memory (/proc/PID/mem, process_vm_writev(2)) or take its
/// descriptors (pidfd_getfd(2)). Whoever could do that once has had the process.
#[inline(always)]
pub(crate) fn reach(ctx: &FExitContext) -> i32 {
    let (child, mode, refused) = (ctx.arg::<usize>(0), ctx.arg::<u32>(1), ctx.arg::<i32>(2));
    if refused != 0 || mode & MODE_ATTACH == 0 || Task::current().tgid() == guarded_cgroup().agent {
        return 0;
    }
    let child = Task::at(read::forget(&child).unwrap_or(0));
    if let Some(record) = PR_EXECS.get_ptr_mut(child.tgid()) {
        // SAFETY: a live map value, aligned. The only other writer is an exec, which makes a new process of it.
        unsafe {
            let taint = &raw mut (*record).taint;
            taint.write_volatile(taint.read_volatile() | Taint::TRACED);
        }
    }
    0
}

/// __sys_bpf(cmd, attr, size): tells the agent to look after its programs now.
#[inline(always)]
pub(crate) fn bpf(ctx: &FExitContext) -> i32 {
    let (command, result) = (ctx.arg::<u32>(0), ctx.arg::<i32>(3));
    if result < 0 || !STIRS.contains(&command) {
        return 0;
    }
    let task = Task::current();
    let euid = task.cred().and_then(|cred| read::kernel(cred + offset!(cred_euid))).unwrap_or(u32::MAX);
    let mut stir = Stir { command, pid: task.tgid(), euid, _pad: 0, comm: [0; COMM_LEN] };
    let name: Address = task.field(offset!(task_comm));
    // SAFETY: the array is as long as the size says.
    unsafe { read::kernel_bytes(stir.comm.as_mut_ptr(), COMM_LEN as u32, name) };
    // Full: the agent has been woken already, and looks at everything.
    let _full = PR_STIRS.output::<Stir>(&stir, 0);
    0
}
