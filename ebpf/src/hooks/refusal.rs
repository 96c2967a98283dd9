//! What becomes of a packet that nothing vouches for: the verdict, then counters, then the event.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_sk_fullsock};
use portreeve_abi::{Hook, RULE_NONE, Reason, Standing, Total, Verdict};
use portreeve_decide::{Decision, Flow, Sender, judge_packet};

use super::packet::{Found, Loaded, marked};
use crate::count;
use crate::maps::{self, MapTables};
use crate::read;
use crate::report::{self, Seen};
use crate::socket::{self, Socket};
use crate::task::{NOBODY, Task};

/// `IPPROTO_TCP`, include/uapi/linux/in.h.
const IPPROTO_TCP: u16 = 6;

/// The verdict for what nothing vouches for, its counters and its event; true lets it go.
#[inline(always)]
pub(crate) fn refusal(skb: *mut __sk_buff, hook: Hook) -> bool {
    let generation = maps::active_generation();
    let found = Found::handed_over(skb);
    let sock = full_socket(skb);
    let sender = if sock.is_null() { Sender::Nobody } else { Sender::Socket };
    // SAFETY: a valid context, and a helper without a precondition.
    let (interface, cookie, now) =
        unsafe { ((*skb).ifindex, bpf_get_socket_cookie(skb.cast()), bpf_ktime_get_boot_ns()) };
    let mut seen = Seen {
        now,
        hook,
        task: Task::nobody(0),
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
        protocol: IPPROTO_TCP,
        cookie,
        source: [0; 16],
        source_port: 0,
        interface,
        tcp_flags: 0,
    };
    if found.clear {
        let tcp = &found.tcp;
        let packet = &Loaded(skb);
        seen.flow.address = tcp.destination(packet);
        seen.flow.port = tcp.dport;
        seen.source = tcp.source(packet);
        seen.source_port = tcp.sport(packet);
        seen.tcp_flags = tcp.flags(packet);
    }
    read::forget_all(&mut seen);
    seen.decision = judge_packet(&MapTables::new(generation), sender, found.clear, &seen.flow.address);
    // Exempt: the loopback, and what the policy lets be forwarded. Neither is this guard's to count.
    if matches!(seen.decision.verdict, Verdict::Local | Verdict::Allow) {
        return true;
    }
    let passes = seen.decision.passes();
    if !passes {
        count::total(Total::Dropped);
    }
    let socket = Socket::of(sock);
    // One connection is one attempt, however often it sends.
    if !sock.is_null() && socket.is_stream() {
        if marked(sock) {
            return passes;
        }
        // Without memory for the mark the next segment is counted too: rather twice than not at all.
        let _unmarked = socket::keep(sock, Standing::Refused);
    }
    if !sock.is_null() {
        who(&mut seen, &socket);
    }
    read::forget_all(&mut seen);
    count::attempt(&seen);
    report::report(&seen);
    // Asked again of what the verifier has forgotten: it would walk all of the above once for either answer.
    seen.decision.passes()
}

/// Whose packet it is: the current task's when it is the one that sends, else that of somebody in the socket's cgroup.
#[inline(always)]
fn who(seen: &mut Seen, socket: &Socket) {
    if socket.is_current() {
        seen.task = Task::current();
        // A kernel thread that sends for a program has no executable; what it has is on record.
        let _unknown = seen.task.identify(&mut seen.who);
    } else {
        seen.task = Task::nobody(socket.cgroup());
    }
    seen.cgroup = seen.task.cgroup_id();
}

/// The packet's socket; null when it has none.
#[inline(always)]
fn full_socket(skb: *mut __sk_buff) -> *mut bpf_sock {
    // SAFETY: a valid context.
    let sock = unsafe { (*skb).__bindgen_anon_2.sk };
    if sock.is_null() {
        return core::ptr::null_mut();
    }
    // SAFETY: not null.
    unsafe { bpf_sk_fullsock(sock) }
}
