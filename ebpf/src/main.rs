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
mod socket;
#[cfg(target_arch = "bpf")]
mod task;

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::cty::c_void;
    use aya_ebpf::macros::{
        cgroup_skb, cgroup_sock_addr, cgroup_sockopt, classifier, fexit, lsm, raw_tracepoint, sock_ops, socket_filter,
    };
    use aya_ebpf::programs::{
        FExitContext, LsmContext, RawTracePointContext, SkBuffContext, SockAddrContext, SockOpsContext, SockoptContext,
        TcContext,
    };

    use portreeve_abi::Hook;

    use crate::count;
    use crate::hooks::lan::{self, Fate};
    use crate::hooks::{connect, exec, existing, learn, packet, refusal, relay, setsockopt, witness};
    use crate::maps::{PR_NEXT_FRAME, PR_NEXT_LAN, PR_NEXT_PACKET};

    /// `TCX_NEXT` and `TC_ACT_UNSPEC`: the next program's turn. `TC_ACT_SHOT`: dropped (include/uapi/linux/{bpf,pkt_cls}.h).
    const NEXT: i32 = -1;
    const SHOT: i32 = 2;
    /// `TC_ACT_REDIRECT`: to where `bpf_redirect()` has said.
    const REDIRECT: i32 = 7;
    /// What is where in `PR_NEXT_LAN`, and the first of them in `PR_NEXT_FRAME` too.
    const LOOK: u32 = 0;
    const JUDGE: u32 = 1;
    const COUNT: u32 = 2;
    const REFUSE: u32 = 3;
    /// In `PR_NEXT_FRAME`.
    const REFUSAL: u32 = 1;

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

    /// A `getpeername()` of an IPv4 socket. Since Linux 5.8.
    #[cgroup_sock_addr(getpeername4)]
    pub(crate) fn pr_peername4(ctx: SockAddrContext) -> i32 {
        relay::peername(&ctx, Hook::Connect4);
        1
    }

    /// A `getpeername()` of an IPv6 socket.
    #[cgroup_sock_addr(getpeername6)]
    pub(crate) fn pr_peername6(ctx: SockAddrContext) -> i32 {
        relay::peername(&ctx, Hook::Connect6);
        1
    }

    /// What happens to a TCP socket. Since Linux 4.13.
    #[sock_ops]
    pub(crate) fn pr_sockops(ctx: SockOpsContext) -> u32 {
        relay::announce(ctx.ops);
        1
    }

    /// Every packet of a socket. Since Linux 4.10.
    #[cgroup_skb(egress)]
    pub(crate) fn pr_packet(ctx: SkBuffContext) -> i32 {
        if packet::packet(ctx.skb.skb) {
            return 1;
        }
        // Does not come back. Were the program missing, the packet is dropped.
        // SAFETY: a program of the same kind, with the same context.
        unsafe { PR_NEXT_PACKET.tail_call(&ctx, 0) };
        count::unfollowed();
        0
    }

    /// What `pr_packet` does not let go; run by it alone.
    #[cgroup_skb(egress)]
    pub(crate) fn pr_packet_no(ctx: SkBuffContext) -> i32 {
        i32::from(refusal::refusal(ctx.skb.skb, Hook::Packet))
    }

    /// Every frame to a device with Ethernet headers. Since Linux 4.5, as tcx since 6.6.
    #[classifier]
    pub(crate) fn pr_frame(ctx: TcContext) -> i32 {
        if packet::first_frame(ctx.skb.skb, true, false) {
            return NEXT;
        }
        // SAFETY: a program of the same kind, with the same context.
        unsafe { PR_NEXT_FRAME.tail_call(&ctx, LOOK) };
        count::unfollowed();
        SHOT
    }

    /// What the first look at a frame does not let go; run by the programs of the devices alone.
    #[classifier]
    pub(crate) fn pr_frame_look(ctx: TcContext) -> i32 {
        if packet::frame(ctx.skb.skb) {
            return NEXT;
        }
        // SAFETY: a program of the same kind, with the same context.
        unsafe { PR_NEXT_FRAME.tail_call(&ctx, REFUSAL) };
        count::unfollowed();
        SHOT
    }

    /// What `pr_frame_look` does not let go; run by it alone.
    #[classifier]
    pub(crate) fn pr_frame_no(ctx: TcContext) -> i32 {
        if refusal::refusal(ctx.skb.skb, Hook::Frame) { NEXT } else { SHOT }
    }

    /// Every frame to a device that leads inwards.
    #[classifier]
    pub(crate) fn pr_frame_in(ctx: TcContext) -> i32 {
        if packet::first_frame(ctx.skb.skb, true, true) {
            return NEXT;
        }
        // SAFETY: a program of the same kind, with the same context.
        unsafe { PR_NEXT_FRAME.tail_call(&ctx, LOOK) };
        count::unfollowed();
        SHOT
    }

    /// Every frame to a device whose frames begin with the IP header.
    #[classifier]
    pub(crate) fn pr_frame_ip(ctx: TcContext) -> i32 {
        if packet::first_frame(ctx.skb.skb, false, false) {
            return NEXT;
        }
        // SAFETY: a program of the same kind, with the same context.
        unsafe { PR_NEXT_FRAME.tail_call(&ctx, LOOK) };
        count::unfollowed();
        SHOT
    }

    /// The same for those that lead inwards.
    #[classifier]
    pub(crate) fn pr_frame_ip_in(ctx: TcContext) -> i32 {
        if packet::first_frame(ctx.skb.skb, false, true) {
            return NEXT;
        }
        // SAFETY: a program of the same kind, with the same context.
        unsafe { PR_NEXT_FRAME.tail_call(&ctx, LOOK) };
        count::unfollowed();
        SHOT
    }

    /// Every frame that comes in by a LAN interface with Ethernet headers.
    #[classifier]
    pub(crate) fn pr_lan(ctx: TcContext) -> i32 {
        if lan::first(ctx.skb.skb, true) {
            return NEXT;
        }
        // SAFETY: a program of the same kind, with the same context.
        unsafe { PR_NEXT_LAN.tail_call(&ctx, LOOK) };
        count::unfollowed();
        SHOT
    }

    /// Every frame that comes in by a LAN interface whose frames begin with the IP header.
    #[classifier]
    pub(crate) fn pr_lan_ip(ctx: TcContext) -> i32 {
        if lan::first(ctx.skb.skb, false) {
            return NEXT;
        }
        // SAFETY: a program of the same kind, with the same context.
        unsafe { PR_NEXT_LAN.tail_call(&ctx, LOOK) };
        count::unfollowed();
        SHOT
    }

    /// What these do not let go; run by them alone.
    #[classifier]
    pub(crate) fn pr_lan_look(ctx: TcContext) -> i32 {
        if lan::look(ctx.skb.skb) {
            return NEXT;
        }
        // SAFETY: a program of the same kind, with the same context.
        unsafe { PR_NEXT_LAN.tail_call(&ctx, JUDGE) };
        count::unfollowed();
        SHOT
    }

    /// What is a segment to a guarded port, or might be; run by `pr_lan_look` alone.
    #[classifier]
    pub(crate) fn pr_lan_judge(ctx: TcContext) -> i32 {
        match lan::judge(ctx.skb.skb) {
            Fate::Passes => return NEXT,
            Fate::Drops => return SHOT,
            Fate::Lost | Fate::Refused => {}
            // SAFETY: a program of the same kind, with the same context.
            Fate::Counts => unsafe { PR_NEXT_LAN.tail_call(&ctx, COUNT) },
        }
        count::unfollowed();
        SHOT
    }

    /// What is decided; run by `pr_lan_judge` alone.
    #[classifier]
    pub(crate) fn pr_lan_count(ctx: TcContext) -> i32 {
        match lan::count(ctx.skb.skb) {
            Fate::Passes => return NEXT,
            Fate::Drops | Fate::Counts => {}
            Fate::Lost => count::unfollowed(),
            // SAFETY: a program of the same kind, with the same context. Were it missing, the sender hears nothing.
            Fate::Refused => unsafe { PR_NEXT_LAN.tail_call(&ctx, REFUSE) },
        }
        SHOT
    }

    /// What is refused; run by `pr_lan_count` alone.
    #[classifier]
    pub(crate) fn pr_lan_refuse(ctx: TcContext) -> i32 {
        if lan::refuse(ctx.skb.skb) { REDIRECT } else { SHOT }
    }

    /// A `setsockopt()`. Since Linux 5.3.
    #[cgroup_sockopt(setsockopt)]
    pub(crate) fn pr_setsockopt(ctx: SockoptContext) -> i32 {
        i32::from(setsockopt::setsockopt(ctx.sockopt))
    }

    /// The same once more, by the BPF security module where it is active. Since Linux 5.7.
    #[lsm(hook = "socket_setsockopt")]
    pub(crate) fn pr_lsm(ctx: LsmContext) -> i32 {
        if setsockopt::security(&ctx) { 0 } else { setsockopt::EPERM }
    }

    /// At the end of `security_ptrace_access_check`. Such programs since Linux 5.5.
    #[fexit(function = "security_ptrace_access_check")]
    pub(crate) fn pr_reach(ctx: FExitContext) -> i32 {
        witness::reach(&ctx)
    }

    /// At the end of `__sys_bpf`.
    #[fexit(function = "__sys_bpf")]
    pub(crate) fn pr_bpf(ctx: FExitContext) -> i32 {
        witness::bpf(&ctx)
    }

    /// Run by the agent alone, through BPF_ITER_CREATE. The iterator since Linux 5.8, what it uses since 5.11.
    #[unsafe(link_section = "iter/task_file")]
    #[unsafe(no_mangle)]
    extern "C" fn pr_existing(ctx: *mut c_void) -> i32 {
        existing::existing(ctx);
        0
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
