//! Two ways of sending pass every packet hook, and are refused where they are asked for: packet sockets that pass by the
//! queueing discipline (`packet_direct_xmit`, net/packet/af_packet.c), and the transmit rings of AF_XDP
//! (`xsk_generic_xmit`, net/xdp/xsk.c).

use aya_ebpf::bindings::bpf_sockopt;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use portreeve_abi::Hook;
use portreeve_decide::{Flow, judge_raw_sender};

use crate::count;
use crate::maps::{self, MapTables};
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
/// The kernel copies no more of an option than this for a program, and refuses an option of which the program seems to
/// have seen the whole (Documentation/bpf/prog_cgroup_sockopt.rst).
const PAGE: i32 = 4096;

/// True lets the call go on.
#[inline(always)]
pub(crate) fn setsockopt(ctx: *mut bpf_sockopt) -> bool {
    // SAFETY: the kernel hands the program a valid context.
    let (level, name) = unsafe { ((*ctx).level, (*ctx).optname) };
    match (level, name) {
        (SOL_PACKET, PACKET_QDISC_BYPASS) => turns_off(ctx) || judge(ctx, SOL_PACKET),
        (SOL_XDP, XDP_TX_RING) => judge(ctx, SOL_XDP),
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

#[inline(always)]
fn judge(ctx: *mut bpf_sockopt, level: i32) -> bool {
    let generation = maps::active_generation();
    // SAFETY: the context's socket; a helper without a precondition.
    let (sock, now) = unsafe { ((*ctx).__bindgen_anon_1.sk, bpf_ktime_get_boot_ns()) };
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
        cookie: read::kernel(Socket::of(sock).field(crate::offsets::offset!(sock_cookie))).unwrap_or(0),
        source: [0; 16],
        source_port: 0,
        interface: 0,
        tcp_flags: 0,
    };
    read::forget_all(&mut seen);
    count::attempt(&seen);
    report::report(&seen);
    seen.decision.passes()
}
