//! The packet guard: a segment to a guarded port leaves only from a socket that has a verdict.
//!
//! cgroup_skb/egress sees every packet of a socket, tc egress every frame on its way to a device. These programs let go
//! what is nothing of the guard's, and what has a verdict; the rest they leave to the programs of `refusal`, which they
//! end in by a tail call. The two do not fit into one program's stack.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_sk_fullsock, bpf_skb_load_bytes};
use portreeve_abi::{FlowKey, Pass, PassKey, Standing};
use portreeve_decide::packet::{
    Bytes, Packet, Quick, TCP_ACK, TCP_SYN, Tcp, classify, classify_frame, quick_frame, quick_ip,
};

use crate::maps::{self, PR_FLOWS, PR_PASSES};
use crate::read;
use crate::socket::{self, Socket};
use crate::task::Task;

/// `TCP_TIME_WAIT` and `TCP_NEW_SYN_RECV`, include/net/tcp_states.h.
const TIME_WAIT: u32 = 6;
const NEW_SYN_RECV: u32 = 12;

/// The part of a packet that the program may read in place.
struct Direct {
    data: usize,
    end: usize,
}

impl Direct {
    #[inline(always)]
    fn of(skb: *mut __sk_buff) -> Self {
        // SAFETY: the kernel hands the program a valid context; the verifier turns both into pointers.
        unsafe { Self { data: (*skb).data as usize, end: (*skb).data_end as usize } }
    }
}

impl Bytes for Direct {
    #[inline(always)]
    fn get<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        let from = self.data + at as usize;
        if from + N > self.end {
            return None;
        }
        // SAFETY: inside the packet, as just compared; the verifier checks it again.
        Some(unsafe { (from as *const [u8; N]).read_unaligned() })
    }
}

/// The whole packet, wherever the kernel keeps its parts.
pub(super) struct Loaded(pub(super) *mut __sk_buff);

impl Bytes for Loaded {
    #[inline(always)]
    fn get<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        let mut bytes = core::mem::MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: a valid context, and a destination as large as the size says.
        let failed = unsafe { bpf_skb_load_bytes(self.0.cast(), at, bytes.as_mut_ptr().cast(), N as u32) };
        // SAFETY: the helper has filled it, with zeros if it failed.
        (failed == 0).then_some(unsafe { bytes.assume_init() })
    }
}

/// A packet of a socket; true lets it go, false leaves it to `refusal`.
#[inline(always)]
pub(crate) fn packet(skb: *mut __sk_buff) -> bool {
    let Some(generation) = concerned(quick_ip(&Direct::of(skb), 0)) else { return true };
    let Some(found) = look(skb, false, generation) else { return true };
    let found = read::forget(&found).unwrap_or(Found::UNCLEAR);
    found.hand_over(skb);
    // SAFETY: a valid context.
    let sock = unsafe { (*skb).__bindgen_anon_2.sk };
    if sock.is_null() {
        return false;
    }
    // SAFETY: not null.
    let sock = unsafe { bpf_sk_fullsock(sock) };
    if sock.is_null() {
        return false;
    }
    if vouched(sock) {
        note(skb, sock, &found);
        return true;
    }
    Socket::of(sock).answers()
}

/// A frame with an Ethernet header (`ethernet`), or one that begins with its IP header; true lets it
/// go, false leaves it to `refusal`.
#[inline(always)]
pub(crate) fn frame(skb: *mut __sk_buff, ethernet: bool) -> bool {
    let direct = Direct::of(skb);
    let quick = if ethernet { quick_frame(&direct) } else { quick_ip(&direct, 0) };
    let Some(generation) = concerned(quick) else { return true };
    let Some(found) = look(skb, ethernet, generation) else { return true };
    let found = read::forget(&found).unwrap_or(Found::UNCLEAR);
    found.hand_over(skb);
    // SAFETY: a valid context.
    let sock = unsafe { (*skb).__bindgen_anon_2.sk };
    if sock.is_null() {
        return kernels_last_word(skb, &found) || forwarded(skb, &found);
    }
    // SAFETY: not null.
    let state = unsafe { (*sock).state };
    // What answers a SYN, or speaks for a connection that is over: neither can be had by a program.
    if state == NEW_SYN_RECV || state == TIME_WAIT {
        return true;
    }
    // SAFETY: not null.
    let sock = unsafe { bpf_sk_fullsock(sock) };
    if sock.is_null() {
        return false;
    }
    let socket = Socket::of(sock);
    if vouched(sock) || socket.answers() {
        return true;
    }
    // Whose it is: of whoever made the socket, or of whoever uses it.
    let theirs = Task::nobody(socket.cgroup()).is_guarded();
    let uses = socket.is_current() && Task::current().is_guarded();
    !(theirs || uses || marked(sock))
}

/// The generation in force, unless the first look has settled that the packet is nothing of the guard's.
#[inline(always)]
fn concerned(quick: Quick) -> Option<u32> {
    if let Quick::Other = quick {
        return None;
    }
    let generation = maps::active_generation();
    match quick {
        Quick::Port(port) if !maps::guarded(generation, port) => None,
        Quick::Port(_) | Quick::Look | Quick::Other => Some(generation),
    }
}

/// A segment to a guarded port, or what might be one.
///
/// Always whole: of an option without its value the compiler copies registers that hold nothing, which the verifier does
/// not have.
#[derive(Clone, Copy)]
pub(super) struct Found {
    /// It is one.
    pub(super) clear: bool,
    /// Where it is; zeros where that is not clear.
    pub(super) tcp: Tcp,
}

impl Found {
    /// Writes it where the program that follows finds it: in the packet's own control buffer, which nobody else uses
    /// meanwhile (`bpf_skb_cb`, include/linux/filter.h; `qdisc_skb_cb`, include/net/sch_generic.h).
    #[inline(always)]
    fn hand_over(&self, skb: *mut __sk_buff) {
        // SAFETY: a valid context. Each store is of a word.
        unsafe {
            let cb = (&raw mut (*skb).cb).cast::<u32>();
            cb.write_volatile(u32::from(self.clear) | u32::from(self.tcp.v6) << 1);
            cb.add(1).write_volatile(self.tcp.ip);
            cb.add(2).write_volatile(self.tcp.tcp);
            cb.add(3).write_volatile(u32::from(self.tcp.dport));
        }
    }

    /// Reads what [`Self::hand_over`] has written.
    #[inline(always)]
    pub(super) fn handed_over(skb: *mut __sk_buff) -> Self {
        // SAFETY: as above.
        unsafe {
            let cb = (&raw const (*skb).cb).cast::<u32>();
            let flags = cb.read_volatile();
            let (ip, tcp) = (cb.add(1).read_volatile(), cb.add(2).read_volatile());
            let dport = cb.add(3).read_volatile() as u16;
            Self { clear: flags & 1 != 0, tcp: Tcp { ip, v6: flags & 2 != 0, tcp, dport } }
        }
    }

    const UNCLEAR: Self = Self { clear: false, tcp: Tcp { ip: 0, v6: false, tcp: 0, dport: 0 } };
}

/// Follows a packet from header to header; `None` when it is nothing of the guard's.
#[inline(always)]
fn look(skb: *mut __sk_buff, ethernet: bool, generation: u32) -> Option<Found> {
    let packet = if ethernet { classify_frame(&Loaded(skb)) } else { classify(&Loaded(skb), 0) };
    match packet {
        Packet::Other => None,
        Packet::Unclear => Some(Found::UNCLEAR),
        Packet::Tcp(tcp) if !maps::guarded(generation, tcp.dport) => None,
        Packet::Tcp(tcp) => Some(Found { clear: true, tcp }),
    }
}

/// Whether the socket has a verdict that lets it send.
#[inline(always)]
fn vouched(sock: *mut bpf_sock) -> bool {
    let state = socket::state(sock);
    // SAFETY: not null, so the socket's own value.
    !state.is_null() && unsafe { (*state).standing } == Standing::Passes as u32
}

/// Whether the socket has been refused before.
#[inline(always)]
pub(super) fn marked(sock: *mut bpf_sock) -> bool {
    let state = socket::state(sock);
    // SAFETY: not null, so the socket's own value.
    !state.is_null() && unsafe { (*state).standing } == Standing::Refused as u32
}

/// Notes the first segments of an allowed connection: a device of another network namespace that sees them again sees no
/// socket behind them (`skb_scrub_packet`, net/core/skbuff.c), and perhaps other addresses.
#[inline(always)]
fn note(skb: *mut __sk_buff, sock: *mut bpf_sock, found: &Found) {
    if !found.clear {
        return;
    }
    let tcp = &found.tcp;
    let state = socket::state(sock);
    if state.is_null() {
        return;
    }
    // SAFETY: not null, so the socket's own value; a store of a word.
    let noted = unsafe { (*state).noted };
    let flags = tcp.flags(&Loaded(skb));
    if noted != 0 && flags & TCP_SYN == 0 {
        return;
    }
    // SAFETY: likewise.
    unsafe { (&raw mut (*state).noted).write_volatile(1) };
    // Were there no room, the segment would be refused at that device, and sent again.
    let _full = PR_PASSES.insert(pass_key(skb, tcp), now(), 0);
}

/// Whether a frame without a socket is the kernel's own: before Linux 6.13 it acknowledges and resets by IPv6 in the name
/// of connections that are over without saying whose frames they are (`tcp_v6_send_response`, net/ipv6/tcp_ipv6.c).
///
/// Such a frame came in by no device. So do some that programs had sent in another namespace (`skb_scrub_packet`,
/// net/core/skbuff.c), and therefore nothing passes here that opens a connection or carries data.
#[inline(always)]
fn kernels_last_word(skb: *mut __sk_buff, found: &Found) -> bool {
    // SAFETY: a valid context.
    let (from, length) = unsafe { ((*skb).ingress_ifindex, (*skb).len) };
    let packet = &Loaded(skb);
    from == 0 && found.clear && found.tcp.flags(packet) & TCP_SYN == 0 && found.tcp.is_empty(packet, length)
}

/// Whether a frame without a socket belongs to a connection of this host's that was allowed.
#[inline(always)]
fn forwarded(skb: *mut __sk_buff, found: &Found) -> bool {
    if !found.clear {
        return false;
    }
    let tcp = &found.tcp;
    let packet = &Loaded(skb);
    let flow = FlowKey {
        saddr: tcp.source(packet),
        daddr: tcp.destination(packet),
        sport: tcp.sport(packet),
        dport: tcp.dport,
    };
    let opens = tcp.flags(packet) & (TCP_SYN | TCP_ACK) == TCP_SYN;
    // A new connection may have the ports of an old one, and be somebody else's.
    if !opens && PR_FLOWS.get_ptr(flow).is_some() {
        return true;
    }
    if PR_PASSES.get_ptr(pass_key(skb, tcp)).is_none() {
        return false;
    }
    PR_FLOWS.insert(flow, now(), 0).is_ok()
}

#[inline(always)]
fn pass_key(skb: *mut __sk_buff, tcp: &Tcp) -> PassKey {
    let packet = &Loaded(skb);
    PassKey { daddr: tcp.destination(packet), seq: tcp.seq(packet), dport: tcp.dport, _pad: 0 }
}

#[inline(always)]
fn now() -> Pass {
    // SAFETY: the helper has no precondition.
    Pass { time: unsafe { bpf_ktime_get_boot_ns() } }
}
