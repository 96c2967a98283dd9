//! Connections that are older than the guard, judged by the policy like any other.
//!
//! An iterator over every open file of every process (`bpf_iter__task_file`, kernel/bpf/task_iter.c), run by the agent.
//! A socket that any of its holders may have is left alone. What it refuses it writes to the agent, which ends those
//! connections.

use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_seq_write, bpf_sock_from_file};
use portreeve_abi::{Connection, Hook, RULE_NONE, Reason, Standing, Verdict};
use portreeve_decide::{Decision, Flow, judge, mapped};

use crate::count;
use crate::maps::{self, MapTables};
use crate::offsets::{guarded_cgroup, offset};
use crate::read::{self, Address};
use crate::report::{self, Seen};
use crate::socket::{self, Socket};
use crate::task::{NOBODY, Task};

/// `struct bpf_iter__task_file`, kernel/bpf/task_iter.c: four members in eight bytes each.
#[repr(C)]
struct Context {
    meta: *mut Meta,
    task: *mut c_void,
    fd: u64,
    file: *mut c_void,
}

/// The beginning of `struct bpf_iter_meta`, include/linux/bpf.h.
#[repr(C)]
struct Meta {
    seq: *mut c_void,
}

/// `AF_INET` and `AF_INET6`, include/linux/socket.h.
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// `TCP_CLOSE` and `TCP_LISTEN`, include/net/tcp_states.h: no connection.
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;
/// `IPPROTO_SCTP`.
const IPPROTO_SCTP: u16 = 132;

/// One open file of one process.
#[inline(always)]
pub(crate) fn existing(ctx: *mut c_void) {
    let ctx = ctx.cast::<Context>();
    // SAFETY: the kernel hands the program a valid context; each load is one the verifier knows.
    let (meta, task, file) = unsafe {
        (
            (&raw const (*ctx).meta).read_volatile(),
            (&raw const (*ctx).task).read_volatile(),
            (&raw const (*ctx).file).read_volatile(),
        )
    };
    if task.is_null() || file.is_null() {
        return;
    }
    let task = Task::at(read::forget(&task).map_or(0, |task| task as Address));
    // SAFETY: not null.
    let owner = unsafe { bpf_sock_from_file(file.cast()) };
    if owner.is_null() {
        return;
    }
    // SAFETY: not null; the offset is a constant to the verifier, and the member the pointer it takes it for.
    let sock = unsafe { owner.cast::<u8>().add(offset!(socket_sk)).cast::<*mut c_void>().read_volatile() };
    if sock.is_null() {
        return;
    }
    let socket = Socket::of(sock);
    let mut seen = Seen {
        // SAFETY: the helper has no precondition.
        now: unsafe { bpf_ktime_get_boot_ns() },
        hook: Hook::Existing,
        task,
        who: NOBODY,
        cgroup: 0,
        flow: Flow { address: [0; 16], port: 0 },
        decision: Decision {
            verdict: Verdict::Deny,
            reason: Reason::NoPolicy,
            rule: RULE_NONE,
            generation: 0,
            errno: 0,
        },
        protocol: socket.protocol(),
        cookie: 0,
        source: [0; 16],
        source_port: 0,
        interface: 0,
        tcp_flags: 0,
    };
    let generation = maps::coming_generation();
    let Some(family) = connection(&socket, &mut seen, generation) else { return };
    // Of either family, and of whatever state: one thing to the verifier from here on.
    read::forget_all(&mut seen);
    if !task.is_guarded() || (socket.is_child() && socket::standing(sock) == 0) {
        return;
    }
    // The relay's own, which the agent has vouched for.
    if task.tgid() == guarded_cgroup().agent && socket::standing(sock) == socket::PASSES {
        return;
    }
    let new = judge_socket(&mut seen, sock, generation);
    // Also one that observe mode let go on until now.
    if !seen.decision.passes() {
        // SAFETY: the iterator's context.
        unsafe { tell(meta, &seen, &socket, family) };
    }
    if !new {
        return;
    }
    read::forget_all(&mut seen);
    count::attempt(&seen);
    report::report(&seen);
}

/// Finds out where a connection goes that a generation guards, and returns its family; `None` for everything else.
#[inline(always)]
fn connection(socket: &Socket, seen: &mut Seen, generation: u32) -> Option<u16> {
    let family = read::kernel::<u16>(socket.field(offset!(sock_family)))?;
    if (family != AF_INET && family != AF_INET6) || !socket.is_stream() || seen.protocol == IPPROTO_SCTP {
        return None;
    }
    if matches!(socket.state(), TCP_CLOSE | TCP_LISTEN) {
        return None;
    }
    let port = u16::from_be(read::kernel(socket.field(offset!(sock_dport)))?);
    if port == 0 || !maps::guarded(generation, port) {
        return None;
    }
    seen.flow.port = port;
    seen.source_port = read::kernel(socket.field(offset!(sock_num)))?;
    if family == AF_INET {
        seen.flow.address = mapped(read::kernel(socket.field(offset!(sock_daddr)))?);
        seen.source = mapped(read::kernel(socket.field(offset!(sock_saddr)))?);
    } else {
        seen.flow.address = read::kernel(socket.field(offset!(sock_daddr6)))?;
        seen.source = read::kernel(socket.field(offset!(sock_saddr6)))?;
    }
    Some(family)
}

/// Judges, and keeps the verdict in the socket; true when it is a new refusal. What has a verdict that lets it send keeps
/// it.
#[inline(always)]
fn judge_socket(seen: &mut Seen, sock: *mut c_void, generation: u32) -> bool {
    let before = socket::standing(sock);
    if before == Standing::Passes as u32 {
        seen.decision.verdict = Verdict::Allow;
        return false;
    }
    let found = seen.task.identify(&mut seen.who);
    seen.cgroup = seen.task.cgroup_id();
    seen.decision = judge(&MapTables::new(generation), found.map(|()| &seen.who), &seen.task, &seen.flow, seen.now);
    let stays = match seen.decision.verdict {
        Verdict::Allow | Verdict::Local => true,
        // A rule on trial, or observe mode: the latter ends with the mode.
        Verdict::Observe => matches!(seen.decision.reason, Reason::AuditRule),
        Verdict::Deny => false,
    };
    let kept = socket::keep(sock, if stays { Standing::Passes } else { Standing::Refused });
    // An older connection that may stay is no attempt; one that was refused before has been counted.
    !(stays && kept) && before != Standing::Refused as u32
}

/// Writes a refused connection to the agent, as `portreeve_abi::Existing`: piece by piece, because the stack has no room for the
/// whole.
#[inline(always)]
unsafe fn tell(meta: *mut Meta, seen: &Seen, socket: &Socket, family: u16) {
    let netns = read::pointer(socket.field(offset!(sock_net))).and_then(|net| read::kernel(net + offset!(net_inum)));
    let rest = Connection {
        netns: netns.unwrap_or(0),
        pid: seen.task.tgid(),
        sport: seen.source_port,
        dport: seen.flow.port,
        family,
        protocol: seen.protocol,
    };
    // SAFETY: the iterator's own file, and pieces of the sizes named.
    unsafe {
        let seq = (&raw const (*meta).seq).read_volatile().cast();
        bpf_seq_write(seq, (&raw const seen.source).cast(), size_of_val(&seen.source) as u32);
        bpf_seq_write(seq, (&raw const seen.flow.address).cast(), size_of_val(&seen.flow.address) as u32);
        bpf_seq_write(seq, (&raw const rest).cast(), size_of::<Connection>() as u32);
    }
}
