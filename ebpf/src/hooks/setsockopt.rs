//! Two ways of sending pass every packet hook, and are refused where they are asked for: packet sockets that pass by the
//! queueing discipline (`packet_direct_xmit`, net/packet/af_packet.c), and the transmit rings of AF_XDP
//! (`xsk_generic_xmit`, net/xdp/xsk.c).

use aya_ebpf::bindings::bpf_sockopt;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::programs::LsmContext;
use portreeve_abi::Hook;
use portreeve_decide::{Flow, judge_raw_sender};

use crate::count;
use crate::maps::{self, MapTables};
use crate::offsets::offset;
use crate::read;
use crate::report::{self, Seen};
use crate::socket::Socket;
use crate::task::{NOBODY, Task};

/// `SOL_PACKET` and `SOL_XDP`, include/linux/socket.h.
const SOL_PACKET: i32 = 263;
const SOL_XDP: i32 = 283;
/// include/uapi/linux/if_packet.h
const PACKET_QDISC_BYPASS: i32 = 20;
/// include/uapi/linux/if_xdp.h
const XDP_TX_RING: i32 = 3;
/// What a refused call gets: `-EPERM`, include/uapi/asm-generic/errno-base.h.
pub(crate) const EPERM: i32 = -1;
/// The kernel copies no more of an option than this for a program, and refuses an option of which the program seems to
/// have seen the whole (Documentation/bpf/prog_cgroup_sockopt.rst).
const PAGE: i32 = 4096;

/// True lets the call go on.
#[inline(always)]
pub(crate) fn setsockopt(ctx: *mut bpf_sockopt) -> bool {
    // SAFETY: the kernel hands the program a valid context.
    let (level, name) = unsafe { ((*ctx).level, (*ctx).optname) };
    match (level, name) {
        (SOL_PACKET, PACKET_QDISC_BYPASS) => turns_off(ctx) || judge(&socket(ctx), SOL_PACKET, true),
        (SOL_XDP, XDP_TX_RING) => judge(&socket(ctx), SOL_XDP, true),
        _ => {
            // SAFETY: as above.
            unsafe {
                if (*ctx).optlen > PAGE {
                    (*ctx).optlen = 0;
                }
            }
            true
        }
    }
}

/// lsm/socket_setsockopt(sock, level, optname), which the kernel asks before the cgroup's programs
/// (`do_sock_setsockopt`, net/socket.c): the second lock, and the only one on a socket that was made outside the guarded
/// part and is used inside it. True lets the call go on.
///
/// The cgroup's programs are not asked at all for calls by the entry of 32-bit programs. It does not see the option's value:
/// turning the bypass off, where nobody has one on, is refused as well.
#[inline(always)]
pub(crate) fn security(ctx: &LsmContext) -> bool {
    let (socket, level, name) = (ctx.arg::<usize>(0), ctx.arg::<i32>(1), ctx.arg::<i32>(2));
    if !matches!((level, name), (SOL_PACKET, PACKET_QDISC_BYPASS) | (SOL_XDP, XDP_TX_RING)) {
        return true;
    }
    let socket = read::forget(&socket).unwrap_or(0);
    let socket = Socket::at(read::pointer(socket + offset!(socket_sk)).unwrap_or(0));
    let made_inside = Task::nobody(socket.cgroup()).is_guarded();
    if !(made_inside || Task::current().is_guarded()) {
        return true;
    }
    // What passes here is counted by the cgroup's program, which is asked next of a socket that was made inside. Of the few
    // that it is not asked about, allowed raw senders of 32 bits, there is no record.
    judge(&socket, level, !made_inside)
}

/// The context's socket.
#[inline(always)]
fn socket(ctx: *mut bpf_sockopt) -> Socket {
    // SAFETY: the kernel hands the program a valid context.
    Socket::of(unsafe { (*ctx).__bindgen_anon_1.sk })
}

/// Whether the option's value is zero.
#[inline(always)]
fn turns_off(ctx: *mut bpf_sockopt) -> bool {
    // SAFETY: as above; the verifier turns both into pointers.
    let (value, end) =
        unsafe { ((*ctx).__bindgen_anon_2.optval as usize, (*ctx).__bindgen_anon_3.optval_end as usize) };
    if value + 4 > end {
        return false;
    }
    // SAFETY: inside the value, as just compared.
    unsafe { (value as *const [u8; 4]).read_unaligned() == [0; 4] }
}

/// Judges the current task; counts and reports what it refuses, and what passes if it is told to.
#[inline(always)]
fn judge(socket: &Socket, level: i32, count_passes: bool) -> bool {
    let generation = maps::active_generation();
    // SAFETY: a helper without a precondition.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let task = Task::current();
    let mut who = NOBODY;
    let found = task.identify(&mut who);
    let decision = judge_raw_sender(&MapTables::new(generation), found.map(|()| &who), &task, now);
    let mut seen = Seen {
        now,
        hook: Hook::Setsockopt,
        task,
        who,
        cgroup: task.cgroup_id(),
        flow: Flow { address: [0; 16], port: 0 },
        decision,
        // What was asked for, by its level.
        protocol: level as u16,
        cookie: read::kernel(socket.field(offset!(sock_cookie))).unwrap_or(0),
        source: [0; 16],
        source_port: 0,
        interface: 0,
        tcp_flags: 0,
    };
    read::forget_all(&mut seen);
    if count_passes || !seen.decision.passes() {
        count::attempt(&seen);
        report::report(&seen);
    }
    seen.decision.passes()
}
