//! What becomes of a packet that nothing vouches for: the verdict, then counters, then the event.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_sk_fullsock};
use portreeve_abi::{Hook, RULE_NONE, Reason, Standing, Total, Verdict};
use portreeve_decide::{Decision, Flow, judge_packet};

use super::packet::{Found, Loaded, Sender};
use crate::count;
use crate::maps::{self, MapTables};
use crate::read;
use crate::report::{self, IPPROTO_TCP, Seen};
use crate::socket::{self, REFUSED, Socket, standing};
use crate::task::{NOBODY, Task};

/// `LOOPBACK_IFINDEX`, include/net/flow.h: in every network namespace.
const LOOPBACK: u32 = 1;
/// Where the IP header of a frame with Ethernet's is, if nothing is between them.
const ETHERNET: u32 = 14;

/// The verdict for what nothing vouches for, its counters and its event; true lets it go.
#[inline(always)]
pub(crate) fn refusal(skb: *mut __sk_buff, hook: Hook) -> bool {
    let generation = maps::active_generation();
    let found = Found::handed_over(skb);
    let (sock, kind) = full_socket(skb);
    let sender = if sock.is_null() { portreeve_decide::Sender::Nobody } else { portreeve_decide::Sender::Socket };
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
    // Mail for the loopback goes by the loopback, in no other packet.
    let outermost = found.tcp.ip == if let Hook::Frame = hook { ETHERNET } else { 0 };
    let on_loopback = interface == LOOPBACK && outermost;
    seen.decision = judge_packet(&MapTables::new(generation), sender, found.clear, on_loopback, &seen.flow.address);
    // Exempt: the loopback, and what the policy lets be forwarded. Neither is this guard's to count.
    if matches!(seen.decision.verdict, Verdict::Local | Verdict::Allow) {
        return true;
    }
    let passes = seen.decision.passes();
    if !passes {
        count::total(Total::Dropped);
    }
    let socket = Socket::of(sock);
    // What the packet program has judged and counted comes by once more as a frame, in observe mode.
    if let (Hook::Frame, true, Sender::Internet) = (hook, passes, kind)
        && Task::nobody(socket.cgroup()).is_guarded()
    {
        return true;
    }
    // One connection is one attempt, however often it sends.
    if !sock.is_null() && socket.is_stream() {
        if standing(sock) == REFUSED {
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

/// The packet's socket, and of what kind it is; null when nobody of this host has written the packet.
#[inline(always)]
fn full_socket(skb: *mut __sk_buff) -> (*mut bpf_sock, Sender) {
    // SAFETY: a valid context.
    let sock = unsafe { (*skb).__bindgen_anon_2.sk };
    let kind = Sender::of(sock);
    if sock.is_null() || kind == Sender::Other {
        return (core::ptr::null_mut(), Sender::Other);
    }
    // SAFETY: not null.
    (unsafe { bpf_sk_fullsock(sock) }, kind)
}
