//! The packet guard: a segment to a guarded port leaves only from a socket that has a verdict.
//!
//! cgroup_skb/egress sees every packet of a socket, tc egress every frame on its way to a device. These programs let go
//! what is nothing of the guard's, and what has a verdict; the rest they leave to the programs of `refusal`, which they
//! end in by a tail call. The two do not fit into one program's stack.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_sk_fullsock, bpf_skb_load_bytes};
use portreeve_abi::{FlowKey, PASS_LAN, Pass, PassKey};
use portreeve_decide::packet::{
    Bytes, IpHeader, NOWHERE, Packet, Quick, TCP_ACK, TCP_SYN, Tcp, ip_header, quick_ip, spares, walk_from,
};

use super::first::{self, First};
use super::plain::Plain;
use crate::maps::{self, PR_FLOWS, PR_PASSES};
use crate::read;
use crate::socket::{self, NONE, PASSES, Socket, standing};
use crate::task::Task;

/// `AF_INET`, `AF_INET6` and `AF_PACKET`, include/linux/socket.h.
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const AF_PACKET: u32 = 17;
/// How long ago an allowed segment may have left its socket that comes to a device, in nanoseconds. One that takes longer
/// is sent again (RFC 6298 §2.1: after a second).
const PASS_AGE: u64 = 2_000_000_000;
/// `TCP_TIME_WAIT` and `TCP_NEW_SYN_RECV`, include/net/tcp_states.h.
const TIME_WAIT: u32 = 6;
const NEW_SYN_RECV: u32 = 12;

/// The part of a packet that the program may read in place.
pub(super) struct Direct {
    data: usize,
    end: usize,
}

impl Direct {
    #[inline(always)]
    pub(super) fn of(skb: *mut __sk_buff) -> Self {
        // SAFETY: the kernel hands the program a valid context; the verifier turns both into pointers.
        unsafe { Self { data: (*skb).data as usize, end: (*skb).data_end as usize } }
    }
}

impl Direct {
    /// Where so many bytes at an offset are, if the packet is that long.
    #[inline(always)]
    pub(super) fn part(&self, at: usize, length: usize) -> Option<usize> {
        let from = self.data + at;
        (from + length <= self.end).then_some(from)
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

    #[inline(always)]
    fn plain(&self, number: u32) -> u32 {
        // Behind every packet's end.
        read::forget(&number).unwrap_or(u32::MAX)
    }
}

/// A packet of a socket; true lets it go, false leaves it to `refusal`.
#[inline(always)]
pub(crate) fn packet(skb: *mut __sk_buff) -> bool {
    let generation = maps::active_generation();
    let guarded = |port| maps::guarded(generation, port);
    if !concerned(quick_ip(&Direct::of(skb), 0), guarded) {
        return true;
    }
    let Some(found) = look(skb, false, NOWHERE, guarded) else { return true };
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
    match standing(sock) {
        PASSES => {
            note(skb, sock, &found);
            true
        }
        NONE => Socket::of(sock).answers(found.flags(skb)),
        _ => false,
    }
}

/// A first look at a frame with an Ethernet header (`ethernet`), or one that begins with its IP header; true lets it go,
/// false leaves it to `frame`. On a device that leads inwards (`inside`) only those of this host's sockets are of interest.
#[inline(always)]
pub(crate) fn first_frame(skb: *mut __sk_buff, ethernet: bool, inside: bool) -> bool {
    // SAFETY: a valid context.
    let foreign = Sender::of(unsafe { (*skb).__bindgen_anon_2.sk }) == Sender::Other;
    if foreign && inside {
        return true;
    }
    let guarded = |port| maps::guarded(maps::active_generation(), port);
    let goes_on = |plain: &Plain| foreign && PR_FLOWS.get_ptr(plain.flow).is_some();
    first::look(skb, ethernet, guarded, goes_on)
}

/// A frame that the first look has not let go; true lets it go, false leaves it to `refusal`.
#[inline(always)]
pub(crate) fn frame(skb: *mut __sk_buff) -> bool {
    let generation = maps::active_generation();
    let first = First::handed_over(skb);
    let guarded = |port| maps::guarded(generation, port);
    let Some(found) = look(skb, first.ethernet, first.checksum, guarded) else { return true };
    let found = read::forget(&found).unwrap_or(Found::UNCLEAR);
    found.hand_over(skb);
    // SAFETY: a valid context.
    let sock = unsafe { (*skb).__bindgen_anon_2.sk };
    if sock.is_null() || Sender::of(sock) == Sender::Other {
        // SAFETY: a valid context.
        let came_by = unsafe { (*skb).ingress_ifindex };
        let let_alone = if found.clear {
            maps::lan_lets_alone(generation, found.tcp.dport, came_by)
        } else {
            maps::lan_observes(generation, came_by)
        };
        return let_alone || kernels_last_word(skb, &found) || forwarded(skb, &found, came_by);
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
    let standing = standing(sock);
    if standing == PASSES || (standing == NONE && socket.answers(found.flags(skb))) {
        return true;
    }
    // Whose it is: of whoever made the socket, or of whoever uses it.
    let theirs = Task::nobody(socket.cgroup()).is_guarded();
    let uses = socket.is_current() && Task::current().is_guarded();
    !(theirs || uses || standing != NONE)
}

/// What kind of socket a frame has behind it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// One of this host's IPv4 or IPv6, which has written all of the packet.
    Internet,
    /// A packet socket.
    Packet,
    /// None, or one that only brought the frame in, as those of TUN and TAP devices do (drivers/net/tun.c).
    Other,
}

impl Sender {
    #[inline(always)]
    pub(super) fn of(sock: *mut bpf_sock) -> Self {
        if sock.is_null() {
            return Self::Other;
        }
        // SAFETY: not null.
        match unsafe { (*sock).family } {
            AF_INET | AF_INET6 => Self::Internet,
            AF_PACKET => Self::Packet,
            _ => Self::Other,
        }
    }
}

/// Whether the first look has left open that the packet is the guard's.
#[inline(always)]
fn concerned(quick: Quick, guarded: impl Fn(u16) -> bool) -> bool {
    match quick {
        Quick::Other => false,
        Quick::Port(port) => guarded(port),
        Quick::Look => true,
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
    /// Its checksum is still to be written, in its own place.
    pub(super) partial: bool,
    /// Where it is; zeros where that is not clear.
    pub(super) tcp: Tcp,
}

impl Found {
    /// The flags of the segment, 0 where that is not clear.
    #[inline(always)]
    fn flags(&self, skb: *mut __sk_buff) -> u8 {
        if self.clear { self.tcp.flags(&Loaded(skb)) } else { 0 }
    }

    /// Writes it where the program that follows finds it: in the packet's own control buffer, which nobody else uses
    /// meanwhile (`bpf_skb_cb`, include/linux/filter.h; `qdisc_skb_cb`, include/net/sch_generic.h).
    #[inline(always)]
    pub(super) fn hand_over(&self, skb: *mut __sk_buff) {
        // SAFETY: a valid context. Each store is of a word.
        unsafe {
            let cb = (&raw mut (*skb).cb).cast::<u32>();
            let flags = u32::from(self.clear) | u32::from(self.tcp.v6) << 1 | u32::from(self.partial) << 2;
            cb.write_volatile(flags);
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
            let tcp = Tcp { ip, v6: flags & 2 != 0, tcp, dport };
            Self { clear: flags & 1 != 0, partial: flags & 4 != 0, tcp }
        }
    }

    pub(super) const UNCLEAR: Self =
        Self { clear: false, partial: false, tcp: Tcp { ip: 0, v6: false, tcp: 0, dport: 0 } };
}

/// Follows a packet from header to header; `None` when it is nothing of the guard's.
#[inline(always)]
pub(super) fn look(skb: *mut __sk_buff, ethernet: bool, checksum: u32, guarded: impl Fn(u16) -> bool) -> Option<Found> {
    let packet = &Loaded(skb);
    let mut ip = if ethernet { ip_header(packet) } else { IpHeader::At(0) };
    // Of wherever it is: one walk to the verifier, and not one for each number of tags.
    if let IpHeader::At(at) = &mut ip {
        *at = read::forget(at).unwrap_or(0);
    }
    let (packet, end) = walk_from(packet, ip);
    let mut walked = Walked { kind: UNCLEAR, end, tcp: Found::UNCLEAR.tcp };
    match packet {
        Packet::Unclear => {}
        Packet::Other => walked.kind = OTHER,
        Packet::Tcp(tcp) => {
            walked.kind = TCP;
            walked.tcp = tcp;
        }
    }
    read::forget_all(&mut walked);
    match walked.kind {
        OTHER if spares(checksum, walked.end) => None,
        TCP if walked.tcp.is_finished_by(checksum) => {
            let partial = checksum != NOWHERE;
            guarded(walked.tcp.dport).then_some(Found { clear: true, partial, tcp: walked.tcp })
        }
        _ => Some(Found::UNCLEAR),
    }
}

/// What a walk has found, whole for the same reason as [`Found`], so that the verifier can be made to forget it: what is
/// compared has to be exact to it on all the ways that lead here, which are many.
#[derive(Clone, Copy)]
struct Walked {
    /// [`UNCLEAR`], [`OTHER`] or [`TCP`].
    kind: u32,
    end: u32,
    tcp: Tcp,
}

/// Zero, for what cannot be forgotten is zeros.
const UNCLEAR: u32 = 0;
const OTHER: u32 = 1;
const TCP: u32 = 2;

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

/// Whether a frame without a socket belongs to a connection of this host's, or of a LAN host's, that was allowed.
#[inline(always)]
fn forwarded(skb: *mut __sk_buff, found: &Found, came_by: u32) -> bool {
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
    // One key on the stack, which has no room for two.
    let mut key = pass_key(skb, tcp);
    if !has_pass(&key) {
        if !maps::is_lan(came_by) {
            return false;
        }
        key = PassKey { daddr: [0; 16], dport: 0, of: PASS_LAN, ..key };
        if !has_pass(&key) {
            return false;
        }
    }
    PR_FLOWS.insert(flow, now(), 0).is_ok()
}

/// Whether a segment was let go a moment ago. An old pass may be somebody's repetition.
#[inline(always)]
fn has_pass(key: &PassKey) -> bool {
    let Some(pass) = PR_PASSES.get_ptr(key) else { return false };
    // SAFETY: a live map value; a load of a word.
    now().time.wrapping_sub(unsafe { (*pass).time }) <= PASS_AGE
}

#[inline(always)]
pub(super) fn pass_key(skb: *mut __sk_buff, tcp: &Tcp) -> PassKey {
    let packet = &Loaded(skb);
    PassKey { daddr: tcp.destination(packet), seq: tcp.seq(packet), dport: tcp.dport, of: 0 }
}

#[inline(always)]
pub(super) fn now() -> Pass {
    // SAFETY: the helper has no precondition.
    Pass { time: unsafe { bpf_ktime_get_boot_ns() } }
}
