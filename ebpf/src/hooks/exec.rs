//! What every process was at its last exec.
//!
//! A process can change the file that stands for its executable (`PR_SET_MM_EXE_FILE`, `PR_SET_MM_MAP`), an
//! unprivileged one too inside a user namespace of its own. The record of what was executed is out of its reach.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::bpf_probe_read_user_str;
use aya_ebpf::programs::RawTracePointContext;
use portreeve_abi::{ExeKey, ExecRecord, TICK, Taint, Total};

use crate::count;
use crate::maps::{self, PR_EXECS};
use crate::offsets::offset;
use crate::read::{self, Address};
use crate::task::{Task, exe_id};

/// How many pieces of an environment are looked at; one with more is a taint of its own.
const ENV_PIECES: usize = 128;
/// Bytes of a piece: a whole variable, or part of a long one.
const ENV_PIECE: usize = 128;

/// sched_process_exec(task, old_pid, bprm), include/trace/events/sched.h.
#[inline(always)]
pub(crate) fn exec(ctx: &RawTracePointContext) -> i32 {
    let task = Task::at(ctx.arg::<usize>(0));
    let Some(exe) = task.exe_file().and_then(exe_id) else { return 0 };
    let generation = maps::active_generation();
    // Only the environment of sanctioned executables is of interest, and only theirs is paid for.
    let sanctioned = maps::exe_rules(&ExeKey { exe, generation, _pad: 0 }).is_some();
    let mut taint = if sanctioned { environment_taint(&task) } else { 0 };
    // A debugger that is there from the start may leave code behind when it goes.
    if task.is_traced() {
        taint |= Taint::TRACED;
    }
    record(task.tgid(), &ExecRecord { exe, start: task.start() / TICK, taint, _pad: 0 });
    0
}

/// sched_process_fork(parent, child): the child is what the parent was.
#[inline(always)]
pub(crate) fn fork(ctx: &RawTracePointContext) -> i32 {
    let (parent, child) = (Task::at(ctx.arg::<usize>(0)), Task::at(ctx.arg::<usize>(1)));
    let (parent, child_id, child) = (parent.tgid(), child.tgid(), child);
    if parent == child_id {
        return 0;
    }
    // SAFETY: the parent lives, and with it its entry.
    let Some(inherited) = (unsafe { PR_EXECS.get(parent) }) else { return 0 };
    record(child_id, &ExecRecord { start: child.start() / TICK, ..*inherited });
    0
}

/// sched_process_exit(task): the last thread takes the record with it.
#[inline(always)]
pub(crate) fn exit(ctx: &RawTracePointContext) -> i32 {
    let task = Task::at(ctx.arg::<usize>(0));
    // `do_exit` has counted this thread out before the tracepoint (kernel/exit.c).
    let live =
        read::pointer(task.field(offset!(task_signal))).and_then(|s| read::kernel::<u32>(s + offset!(signal_live)));
    if live == Some(0) {
        let _there_was_none = PR_EXECS.remove(task.tgid());
    }
    0
}

/// Keeps a record, or counts that it could not be kept.
#[inline(always)]
fn record(tgid: u32, record: &ExecRecord) {
    if PR_EXECS.insert(tgid, record, u64::from(BPF_ANY)).is_err() {
        count::total(Total::ExecUnrecorded);
    }
}

/// The taints in the environment of a process that has just been executed and has not run yet.
#[inline(always)]
fn environment_taint(task: &Task) -> u32 {
    let Some(mm) = task.mm() else { return Taint::ENV_UNSEEN };
    let (Some(start), Some(end)) =
        (read::kernel::<Address>(mm + offset!(mm_env_start)), read::kernel::<Address>(mm + offset!(mm_env_end)))
    else {
        return Taint::ENV_UNSEEN;
    };
    let mut taint = 0;
    let mut at = start;
    let mut whole = true;
    for _ in 0..ENV_PIECES {
        if at >= end {
            return taint;
        }
        let mut piece = MaybeUninit::<[u8; ENV_PIECE]>::uninit();
        // A read that fails leaves zeros: nothing of the variable before may stand behind a shorter one.
        // SAFETY: the array is as long as the size says.
        unsafe { read::kernel_bytes(piece.as_mut_ptr().cast(), ENV_PIECE as u32, 0) };
        // SAFETY: likewise.
        let read = unsafe {
            bpf_probe_read_user_str(piece.as_mut_ptr().cast::<c_void>(), ENV_PIECE as u32, at as *const c_void)
        };
        if read <= 0 {
            return taint | Taint::ENV_UNSEEN;
        }
        if whole {
            // SAFETY: the helpers have written all of it.
            taint |= variable_taint(unsafe { &*piece.as_ptr() });
        }
        // A piece that fills the array was cut, its last byte the helper's NUL; the variable goes on from there.
        whole = read < ENV_PIECE as i64;
        at += if whole { read as usize } else { ENV_PIECE - 1 };
    }
    taint | Taint::ENV_UNSEEN
}

/// The taint of one variable: those that make the dynamic loader run code of somebody's choosing (ld.so(8)).
///
/// Compared by words: a branch for each byte is more than the verifier can follow through the loop.
#[inline(always)]
fn variable_taint(piece: &[u8; ENV_PIECE]) -> u32 {
    let word = |at: usize| {
        u64::from_be_bytes([
            piece[at],
            piece[at + 1],
            piece[at + 2],
            piece[at + 3],
            piece[at + 4],
            piece[at + 5],
            piece[at + 6],
            piece[at + 7],
        ])
    };
    const PRELOAD: (u64, u64) = (u64::from_be_bytes(*b"LD_PRELO"), u64::from_be_bytes(*b"AD=\0\0\0\0\0"));
    const LIBRARY: (u64, u64) = (u64::from_be_bytes(*b"LD_LIBRA"), u64::from_be_bytes(*b"RY_PATH="));
    const AUDIT: (u64, u64) = (u64::from_be_bytes(*b"LD_AUDIT"), u64::from_be_bytes(*b"=\0\0\0\0\0\0\0"));
    let (first, second) = (word(0), word(8));
    if first == PRELOAD.0 && second & 0xffff_ff00_0000_0000 == PRELOAD.1 {
        Taint::LD_PRELOAD
    } else if first == LIBRARY.0 && second == LIBRARY.1 {
        Taint::LD_LIBRARY_PATH
    } else if first == AUDIT.0 && second & 0xff00_0000_0000_0000 == AUDIT.1 {
        Taint::LD_AUDIT
    } else {
        0
    }
}
