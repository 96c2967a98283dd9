//! Portreeve's kernel programs: entry points only, the work is in `hooks/`.
//!
//! No program calls a function of its own: everything is inlined. A program of several functions makes the verifier of
//! Linux 6.1 track every number exactly, so that it gives up on the loops.
//!
//! Every program that judges ends in a refusal unless it has reached an allow: see `hooks/connect.rs`.

#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod count;
#[cfg(target_arch = "bpf")]
mod hooks;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod offsets;
#[cfg(target_arch = "bpf")]
mod read;
#[cfg(target_arch = "bpf")]
mod report;
#[cfg(target_arch = "bpf")]
mod task;

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::macros::{cgroup_sock_addr, raw_tracepoint, socket_filter};
    use aya_ebpf::programs::{RawTracePointContext, SkBuffContext, SockAddrContext};

    use crate::hooks::{connect, exec, learn};

    /// A `connect()` of an IPv4 socket. Since Linux 4.17.
    #[cgroup_sock_addr(connect4)]
    pub(crate) fn pr_connect4(ctx: SockAddrContext) -> i32 {
        connect::connect4(&ctx)
    }

    /// A `connect()` of an IPv6 socket, to an IPv4-mapped address too. Since Linux 4.17.
    #[cgroup_sock_addr(connect6)]
    pub(crate) fn pr_connect6(ctx: SockAddrContext) -> i32 {
        connect::connect6(&ctx)
    }

    /// After a successful `execve`. Raw tracepoints since Linux 4.17.
    #[raw_tracepoint(tracepoint = "sched_process_exec")]
    pub(crate) fn pr_exec(ctx: RawTracePointContext) -> i32 {
        exec::exec(&ctx)
    }

    /// A new task.
    #[raw_tracepoint(tracepoint = "sched_process_fork")]
    pub(crate) fn pr_fork(ctx: RawTracePointContext) -> i32 {
        exec::fork(&ctx)
    }

    /// A task ends.
    #[raw_tracepoint(tracepoint = "sched_process_exit")]
    pub(crate) fn pr_exit(ctx: RawTracePointContext) -> i32 {
        exec::exit(&ctx)
    }

    /// Run by the agent alone, through BPF_PROG_TEST_RUN. Since Linux 4.12.
    #[socket_filter]
    pub(crate) fn pr_learn(ctx: SkBuffContext) -> i64 {
        learn::learn(&ctx)
    }

    /// The verifier refuses a program that could get here.
    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    /// Several helpers are for GPL-compatible programs only.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

/// The programs exist for the BPF target only; this stub lets `cargo clippy --workspace` see the crate.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
