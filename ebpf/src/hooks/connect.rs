//! The verdict for a `connect()`.
//!
//! Order: guarded port, then the verdict (whose first step is the loopback exemption), then counters, then, last and
//! best-effort, the event. Nothing that can fill up stands before the verdict, and it is a value by the time anything
//! is reported.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_set_retval};
use aya_ebpf::programs::SockAddrContext;
use portreeve_abi::{Hook, RULE_NONE, Reason, Standing, Verdict};
use portreeve_decide::{Decision, Flow, judge, mapped};

use super::relay;
use crate::count;
use crate::maps::{self, MapTables};
use crate::read;
use crate::report::{self, Seen};
use crate::socket;
use crate::task::{NOBODY, Task};

/// Return value: the call goes on.
const PASS: i32 = 1;
/// Return value: the call fails with EPERM or what `bpf_set_retval` said.
const REFUSE: i32 = 0;
/// `SOCK_STREAM`, include/linux/net.h.
const SOCK_STREAM: u32 = 1;
/// `IPPROTO_SCTP`, include/uapi/linux/in.h: a stream too, but not TCP.
const IPPROTO_SCTP: u32 = 132;
/// `MAX_ERRNO`, include/linux/err.h.
const MAX_ERRNO: u32 = 4095;

/// Reads a field of the context, whole and once, as the verifier wants it.
macro_rules! field {
    ($ctx:expr, $($field:tt)+) => {{
        let ctx: *mut bpf_sock_addr = $ctx.sock_addr;
        // SAFETY: the kernel hands the program a valid context.
        unsafe { core::ptr::read_volatile(&raw const (*ctx).$($field)+) }
    }};
}

pub(super) use field;

/// cgroup/connect4.
#[inline(always)]
pub(crate) fn connect4(ctx: &SockAddrContext) -> i32 {
    let (generation, port) = match guarded(ctx) {
        Asked::Guarded(generation, port) => (generation, port),
        Asked::Other => return PASS,
        Asked::NoMemory => return REFUSE,
    };
    let address = mapped(field!(ctx, user_ip4).to_ne_bytes());
    judge_connect(ctx, generation, &Flow { address, port }, Hook::Connect4)
}

/// cgroup/connect6.
#[inline(always)]
pub(crate) fn connect6(ctx: &SockAddrContext) -> i32 {
    let (generation, port) = match guarded(ctx) {
        Asked::Guarded(generation, port) => (generation, port),
        Asked::Other => return PASS,
        Asked::NoMemory => return REFUSE,
    };
    let mut address = [0; 16];
    address[0..4].copy_from_slice(&field!(ctx, user_ip6[0]).to_ne_bytes());
    address[4..8].copy_from_slice(&field!(ctx, user_ip6[1]).to_ne_bytes());
    address[8..12].copy_from_slice(&field!(ctx, user_ip6[2]).to_ne_bytes());
    address[12..16].copy_from_slice(&field!(ctx, user_ip6[3]).to_ne_bytes());
    judge_connect(ctx, generation, &Flow { address, port }, Hook::Connect6)
}

/// What a call is to the guard.
enum Asked {
    /// TCP to a guarded port: the policy's generation, and the port.
    Guarded(u32, u16),
    /// Anything else.
    Other,
    /// A socket that has been something else before, and no memory to keep that apart.
    NoMemory,
}

/// Every stream socket counts as TCP: MPTCP, and whatever the kernel builds on TCP under another protocol number.
#[inline(always)]
fn guarded(ctx: &SockAddrContext) -> Asked {
    if field!(ctx, type_) != SOCK_STREAM || field!(ctx, protocol) == IPPROTO_SCTP {
        return Asked::Other;
    }
    let sock = field!(ctx, __bindgen_anon_1.sk);
    if !sock.is_null() {
        // The agent has vouched for it, and the relay makes no others.
        if socket::is_relays_own(sock) {
            return Asked::Other;
        }
        // To any port: packet filters may change it on the way out.
        if !socket::forget_past(sock) {
            return Asked::NoMemory;
        }
    }
    let port = u16::from_be(field!(ctx, user_port) as u16);
    let generation = maps::active_generation();
    if maps::guarded(generation, port) { Asked::Guarded(generation, port) } else { Asked::Other }
}

/// The verdict, then the counters, then the event.
#[inline(always)]
fn judge_connect(ctx: &SockAddrContext, generation: u32, flow: &Flow, hook: Hook) -> i32 {
    let mut seen = Seen {
        // SAFETY: the helper has no precondition.
        now: unsafe { bpf_ktime_get_boot_ns() },
        hook,
        task: Task::current(),
        who: NOBODY,
        cgroup: 0,
        flow: *flow,
        decision: Decision { verdict: Verdict::Deny, reason: Reason::NoPolicy, rule: RULE_NONE, generation, errno: 0 },
        protocol: field!(ctx, protocol) as u16,
        // SAFETY: the context is this program's own.
        cookie: unsafe { bpf_get_socket_cookie(ctx.as_ptr()) },
        source: [0; 16],
        source_port: 0,
        interface: 0,
        tcp_flags: 0,
    };
    decide(&mut seen);
    relay::bring(ctx, &mut seen, hook);
    keep(ctx, &mut seen);
    source(ctx, &mut seen);
    read::forget_all(&mut seen);
    count::attempt(&seen);
    report::report(&seen);

    if seen.decision.passes() {
        return PASS;
    }
    let errno = seen.decision.errno;
    if errno != 0 && errno <= MAX_ERRNO {
        // SAFETY: an errno in range. Whether it takes or not, the return value refuses.
        let _refused_with_eperm_instead = unsafe { bpf_set_retval(-(errno as i32)) };
    }
    REFUSE
}

/// Finds out who asks, and judges.
#[inline(always)]
fn decide(seen: &mut Seen) {
    let found = seen.task.identify(&mut seen.who);
    seen.cgroup = seen.task.cgroup_id();
    let tables = MapTables::new(seen.decision.generation);
    seen.decision = judge(&tables, found.map(|()| &seen.who), &seen.task, &seen.flow, seen.now);
}

/// Keeps the verdict in the socket, for the packet programs. A connection whose verdict cannot be kept could not send,
/// so it is refused here, where its program hears of it.
#[inline(always)]
fn keep(ctx: &SockAddrContext, seen: &mut Seen) {
    let sock = field!(ctx, __bindgen_anon_1.sk);
    if sock.is_null() {
        return;
    }
    match seen.decision.verdict {
        // Not to a guarded port.
        Verdict::Allow if matches!(seen.decision.reason, Reason::Relayed) => return,
        Verdict::Allow => {}
        // A rule on trial.
        Verdict::Observe if matches!(seen.decision.reason, Reason::AuditRule) => {}
        // Mail for the loopback is known by its address.
        Verdict::Local => return,
        // In observe mode its packets pass, and it has been counted. Without memory for the mark they are counted too.
        Verdict::Observe => {
            let _unmarked = socket::keep(sock, Standing::Refused);
            return;
        }
        Verdict::Deny => return,
    }
    if !socket::keep(sock, Standing::Passes) {
        seen.decision.verdict = Verdict::Deny;
        seen.decision.reason = Reason::NoMemory;
    }
}

/// Writes down the address and port the socket is bound to, if it is.
#[inline(always)]
fn source(ctx: &SockAddrContext, seen: &mut Seen) {
    let sock = field!(ctx, __bindgen_anon_1.sk);
    if sock.is_null() {
        return;
    }
    // SAFETY: the verifier knows the context's socket and its readable fields.
    unsafe {
        seen.source_port = core::ptr::read_volatile(&raw const (*sock).src_port) as u16;
        match seen.hook {
            Hook::Connect4 => {
                let address = core::ptr::read_volatile(&raw const (*sock).src_ip4);
                if address != 0 {
                    seen.source = mapped(address.to_ne_bytes());
                }
            }
            Hook::Connect6 | Hook::Packet | Hook::Frame | Hook::Setsockopt | Hook::Existing | Hook::Lan => {
                let words = &raw const (*sock).src_ip6;
                seen.source[0..4].copy_from_slice(&core::ptr::read_volatile(&raw const (*words)[0]).to_ne_bytes());
                seen.source[4..8].copy_from_slice(&core::ptr::read_volatile(&raw const (*words)[1]).to_ne_bytes());
                seen.source[8..12].copy_from_slice(&core::ptr::read_volatile(&raw const (*words)[2]).to_ne_bytes());
                seen.source[12..16].copy_from_slice(&core::ptr::read_volatile(&raw const (*words)[3]).to_ne_bytes());
            }
        }
    }
}
