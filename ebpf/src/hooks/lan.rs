//! The gateway guard: what LAN hosts send to guarded ports, where it comes in (tc ingress).
//!
//! Five programs, each ending in the next by a tail call: `first` lets go what is nothing of the guard's, `look` finds out
//! what a frame is, `judge` decides, `count` counts and reports, `refuse` answers a host that is refused. What passes is told to the devices it will leave by, as a connection
//! of this host's own is: see `packet::frame`.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{
    bpf_jiffies64, bpf_ktime_get_boot_ns, bpf_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use portreeve_abi::{
    FlowKey, LAN_BRIDGED, LAN_DROP, LAN_ON, LAN_PROHIBITED, LanFlow, LanSource, PASS_LAN, PassKey, Total, Verdict,
};
use portreeve_decide::answer::{self, QUOTE_V4, QUOTE_V6, Segment};
use portreeve_decide::packet::{Bytes as _, TCP_ACK, TCP_RST, TCP_SYN};
use portreeve_decide::{LanPacket, LanTables as _, judge_lan, vlan};

use super::first::{self, First};
use super::packet::{self, Direct, Found, Loaded, now, pass_key};
use super::plain::Plain;
use crate::maps::{self, LanMaps, PR_LAN_ANSWER, PR_LAN_DEVICES, PR_LAN_FLOWS, PR_LAN_SEEN, PR_PASSES};
use crate::report::LanSeen;
use crate::{count, read, report};

/// `PACKET_OTHERHOST`, include/uapi/linux/if_packet.h.
const OTHERHOST: u32 = 3;
/// How often a connection is judged again and the devices it leaves by are told of it, in ticks: between a quarter of a
/// second and two and a half, by the kernel's HZ. Ticks cost a load, the time a call.
const JUDGED: u64 = 256;

/// What becomes of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on.
    Passes,
    /// It is dropped.
    Drops,
    /// The same, because something is missing that has to be there: nobody has counted it.
    Lost,
    /// It is dropped, and its sender told so.
    Refused,
    /// It is counted first.
    Counts,
}

/// A first look at a frame; true lets it go, false leaves it to `look`.
#[inline(always)]
pub(crate) fn first(skb: *mut __sk_buff, ethernet: bool) -> bool {
    let guarded = |port| maps::lan_guarded(maps::active_generation(), port);
    first::look(skb, ethernet, guarded, |plain| goes_on(skb, ethernet, plain))
}

/// Looks at a frame that the first look has not let go; true lets it go, false leaves it to `judge`.
#[inline(always)]
pub(crate) fn look(skb: *mut __sk_buff) -> bool {
    let generation = maps::active_generation();
    let first = First::handed_over(skb);
    let guarded = |port| maps::lan_guarded(generation, port);
    let Some(found) = packet::look(skb, first.ethernet, first.checksum, guarded) else { return true };
    let found = read::forget(&found).unwrap_or(Found::UNCLEAR);
    // The word behind says still whether there is an Ethernet header.
    found.hand_over(skb);
    false
}

/// Whether a segment belongs to a connection that was let pass a moment ago: from the same device and MAC address, by the
/// policy in force.
#[inline(always)]
fn goes_on(skb: *mut __sk_buff, ethernet: bool, plain: &Plain) -> bool {
    let Some(flow) = PR_LAN_FLOWS.get_ptr(plain.flow) else { return false };
    // SAFETY: a live map value, written by programs of other packets meanwhile: what is read of two of them is at worst
    // taken for no match, or for either.
    let flow = unsafe { &*flow };
    // SAFETY: a valid context.
    let (device, tagged, tag) = unsafe { ((*skb).ifindex, (*skb).vlan_present != 0, (*skb).vlan_tci & 0xfff) };
    // The first look has found no tags in the frame.
    let vlan = if ethernet && tagged { tag } else { 0 };
    let mac = if ethernet { Direct::of(skb).get::<6>(6).unwrap_or([0; 6]) } else { [0; 6] };
    flow.generation == maps::active_generation()
        && flow.interface == device
        && flow.vlan == vlan
        && flow.mac == mac
        && ticks().wrapping_sub(flow.ticks) < JUDGED
}

/// The kernel's ticks.
#[inline(always)]
fn ticks() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_jiffies64() }
}

/// Whether the first look has been told that the frame has an Ethernet header.
#[inline(always)]
fn is_ethernet(skb: *mut __sk_buff) -> bool {
    // SAFETY: a valid context.
    unsafe { (&raw const (*skb).cb).cast::<u32>().add(4).read_volatile() & 1 != 0 }
}

/// Decides; what is to be counted is left to `count`.
#[inline(always)]
pub(crate) fn judge(skb: *mut __sk_buff) -> Fate {
    let tables = LanMaps::new(maps::active_generation());
    if tables.header().is_some_and(|header| header.flags & LAN_ON == 0) {
        return Fate::Passes;
    }
    // SAFETY: a valid context.
    let (kind, device) = unsafe { ((*skb).pkt_type, (*skb).ifindex) };
    let Some(seen) = PR_LAN_SEEN.get_ptr_mut(0) else { return Fate::Lost };
    // SAFETY: the value of this CPU, aligned. Frames come in one after the other on a CPU, and the programs that one of
    // them runs through are not interrupted by those of another (`sch_handle_ingress`, net/core/dev.c, runs with bottom
    // halves off).
    let seen = unsafe { &mut *seen };
    let found = Found::handed_over(skb);
    // SAFETY: a helper without a precondition.
    (seen.interface, seen.now) = unsafe { (device, bpf_ktime_get_boot_ns()) };
    look_closer(skb, &found, seen);
    seen.decision = judge_lan(&tables, &seen.packet);
    let passes = seen.decision.passes();
    if passes && !(if seen.packet.clear { is_new(skb, &found, seen) } else { is_first(skb, device) }) {
        return Fate::Passes;
    }
    if !passes && kind == OTHERHOST && !is_bridged(device) {
        // Seen because somebody listens to everything here, or a switch has lost its bearings: it goes nowhere by this host.
        count::total(Total::Dropped);
        return Fate::Drops;
    }
    // SAFETY: a valid context; a store of a word. With the packet, and not only in the map: were that another packet's by
    // then, nothing would pass by it.
    unsafe {
        (&raw mut (*skb).cb).cast::<u32>().add(4).write_volatile(u32::from(is_ethernet(skb)) | u32::from(passes) << 1)
    };
    Fate::Counts
}

/// Whether a LAN interface is a port of a bridge.
#[inline(always)]
fn is_bridged(device: u32) -> bool {
    // SAFETY: a live map value; a load of a word.
    PR_LAN_DEVICES.get_ptr(device).is_none_or(|flags| unsafe { flags.read_volatile() } & LAN_BRIDGED != 0)
}

/// Counts and reports what `judge` has decided.
#[inline(always)]
pub(crate) fn count(skb: *mut __sk_buff) -> Fate {
    let Some(seen) = PR_LAN_SEEN.get_ptr_mut(0) else { return Fate::Lost };
    // SAFETY: as in `judge`.
    let seen = unsafe { &*seen };
    let (mut refuse, mut most) = (LAN_DROP, 0);
    if let Some(header) = LanMaps::new(maps::active_generation()).header() {
        (refuse, most) = (header.refuse, header.sources);
    }
    // SAFETY: a valid context.
    let said = unsafe { (&raw const (*skb).cb).cast::<u32>().add(4).read_volatile() } & 2 != 0;
    let passes = said && seen.decision.passes();
    if !passes {
        count::total(Total::Dropped);
    }
    let source = LanSource {
        address: seen.packet.source,
        interface: seen.interface,
        vlan: seen.packet.vlan,
        mac: seen.packet.mac,
        prefix: 128,
    };
    count::lan(&source, seen.decision.verdict, seen.now, most);
    report::lan(seen);
    if passes {
        Fate::Passes
    } else if refuse == LAN_DROP || !seen.packet.clear || seen.tcp_flags & TCP_RST != 0 {
        Fate::Drops
    } else {
        Fate::Refused
    }
}

/// What the verdict asks about.
#[inline(always)]
fn look_closer(skb: *mut __sk_buff, found: &Found, seen: &mut LanSeen) {
    let frame = &Loaded(skb);
    let packet = &mut seen.packet;
    *packet = LanPacket { source: [0; 16], destination: [0; 16], port: 0, mac: [0; 6], vlan: 0, clear: found.clear };
    (seen.sport, seen.tcp_flags) = (0, 0);
    if is_ethernet(skb) {
        packet.mac = frame.get::<6>(6).unwrap_or([0; 6]);
        // SAFETY: a valid context.
        let (present, tag) = unsafe { ((*skb).vlan_present, (*skb).vlan_tci as u16) };
        packet.vlan = vlan(frame, if present != 0 { Some(tag) } else { None });
    }
    if found.clear {
        packet.source = found.tcp.source(frame);
        packet.destination = found.tcp.destination(frame);
        packet.port = found.tcp.dport;
        seen.sport = found.tcp.sport(frame);
        seen.tcp_flags = found.tcp.flags(frame);
    }
}

/// Whether a segment that passes is the first of its connection that is seen here; and tells the devices it will leave by
/// of it, once a second. It may come by twice, by a bridge's port and by the bridge.
#[inline(always)]
fn is_new(skb: *mut __sk_buff, found: &Found, seen: &LanSeen) -> bool {
    let key = FlowKey {
        saddr: seen.packet.source,
        daddr: seen.packet.destination,
        sport: seen.sport,
        dport: seen.packet.port,
    };
    let opens = seen.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN;
    let seq = found.tcp.seq(&Loaded(skb));
    let mut is_new = true;
    if let Some(flow) = PR_LAN_FLOWS.get_ptr(key) {
        // SAFETY: a live map value; loads of words.
        let (judged, first, generation) = unsafe { ((*flow).ticks, (*flow).seq, (*flow).generation) };
        if !opens && generation == seen.decision.generation && ticks().wrapping_sub(judged) < JUDGED {
            return false;
        }
        is_new = opens && first != seq;
    }
    // Were there no room, the segment is refused where it leaves, and sent again. What is for this host does not leave.
    let leaves = !matches!(seen.decision.verdict, Verdict::Local);
    if leaves {
        let key = pass_key(skb, &found.tcp);
        let _full = PR_PASSES.insert(key, now(), 0);
        let _full = PR_PASSES.insert(PassKey { daddr: [0; 16], dport: 0, of: PASS_LAN, ..key }, now(), 0);
    }
    let flow = LanFlow {
        ticks: ticks(),
        seq: if opens { seq } else { 0 },
        generation: seen.decision.generation,
        interface: seen.interface,
        vlan: seen.packet.vlan,
        mac: seen.packet.mac,
        _pad: 0,
    };
    let _full = PR_LAN_FLOWS.insert(key, flow, 0);
    is_new
}

/// Whether an unclear frame that passes is seen here for the first time: a bridge's port has marked it for the bridge. It
/// names no connection to know it again by. Nothing passes by the mark: whoever forges one is not counted where nobody is
/// refused.
#[inline(always)]
fn is_first(skb: *mut __sk_buff, device: u32) -> bool {
    /// Anything but 0, which is what a frame that comes in has.
    const COUNTED: u32 = 0x7072;
    let is_port = is_bridged(device);
    // SAFETY: a valid context; a load of a word.
    let is_first = is_port || unsafe { (&raw const (*skb).tc_index).read_volatile() } != COUNTED;
    if is_port || !is_first {
        // Off again where the way through the bridge ends.
        let mark = if is_port { COUNTED } else { 0 };
        // SAFETY: a valid context; a store of a word.
        unsafe { (&raw mut (*skb).tc_index).write_volatile(mark) };
    }
    is_first
}

/// Answers a segment that was refused, back out of the device that it came in by. False where it cannot be answered, or
/// must not be.
#[inline(always)]
pub(crate) fn refuse(skb: *mut __sk_buff) -> bool {
    let found = Found::handed_over(skb);
    let ethernet = is_ethernet(skb);
    if !is_plain(&Loaded(skb), ethernet, found.tcp.ip) {
        return false;
    }
    let plain = found.tcp.tcp == found.tcp.ip + if found.tcp.v6 { 40 } else { 20 };
    // The device completes the checksum where the one of the segment was.
    if found.partial && !plain {
        return false;
    }
    let tables = LanMaps::new(maps::active_generation());
    let prohibited = tables.header().is_some_and(|header| header.refuse == LAN_PROHIBITED);
    let Some(answer) = PR_LAN_ANSWER.get_ptr_mut(0) else { return false };
    // SAFETY: as in `judge`.
    let answer = unsafe { &mut *answer };
    // Not on the stack, which it does not fit on; and the verifier does not follow what a map holds.
    answer.kind = u32::from(prohibited && plain && !found.partial) << 1 | u32::from(found.tcp.v6);
    (answer.ip, answer.ethernet) = (found.tcp.ip, u32::from(ethernet));
    describe(&mut answer.segment, skb, &found);
    if !answer.segment.has_a_source() {
        return false;
    }
    let written = match answer.kind {
        0 => write(skb, answer.ip, &answer.segment.reset_v4()),
        1 => write(skb, answer.ip, &answer.segment.reset_v6()),
        2 => prohibit_v4(skb, answer.ip),
        _ => prohibit_v6(skb, answer.ip),
    };
    if !written || (answer.ethernet != 0 && !turn_round(skb)) {
        return false;
    }
    // SAFETY: the helper has no precondition; a valid context.
    unsafe { bpf_redirect((*skb).ifindex, 0) };
    true
}

/// What is answered, and where.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    /// 0 and 1 a reset by IPv4 and IPv6, 2 and 3 an ICMP error.
    kind: u32,
    ip: u32,
    ethernet: u32,
    segment: Segment,
}

/// Whether nothing but tags is before the IP header of a segment, and it is to one host alone (RFC 1122 §3.2.2, RFC 9293
/// §3.9.2.1). What comes in a tunnel gets no answer.
#[inline(always)]
fn is_plain(frame: &Loaded, ethernet: bool, ip: u32) -> bool {
    if !ethernet {
        return ip == 0;
    }
    let (Some([first, _]), Some(types)) = (frame.get::<2>(0), frame.get::<10>(12)) else { return false };
    let is_ip = |a: u8, b: u8| matches!([a, b], [0x08, 0x00] | [0x86, 0xdd]);
    let is_tag = |a: u8, b: u8| matches!([a, b], [0x81 | 0x91 | 0x92 | 0x93, 0x00] | [0x88, 0xa8]);
    let plain = match ip {
        14 => is_ip(types[0], types[1]),
        18 => is_tag(types[0], types[1]) && is_ip(types[4], types[5]),
        22 => is_tag(types[0], types[1]) && is_tag(types[4], types[5]) && is_ip(types[8], types[9]),
        _ => false,
    };
    plain && first & 1 == 0
}

/// What the answer is about.
#[inline(always)]
fn describe(segment: &mut Segment, skb: *mut __sk_buff, found: &Found) {
    let frame = &Loaded(skb);
    let tcp = &found.tcp;
    segment.source = tcp.source(frame);
    segment.destination = tcp.destination(frame);
    segment.sport = tcp.sport(frame);
    segment.dport = tcp.dport;
    segment.seq = tcp.seq(frame);
    segment.ack = frame.get::<4>(tcp.tcp + 8).map_or(0, u32::from_be_bytes);
    segment.flags = tcp.flags(frame);
    segment.partial = found.partial;
    let offset = frame.get::<2>(tcp.tcp + 12).map_or(5, |[offset, _]| u32::from(offset >> 4));
    // By the packet's own word: what is behind its end is padding.
    let at = tcp.ip + if tcp.v6 { 4 } else { 2 };
    let length = frame.get::<2>(at).map_or(0, |length| u32::from(u16::from_be_bytes(length)));
    // SAFETY: a valid context.
    let whole = unsafe { (*skb).len }.wrapping_sub(tcp.ip);
    let said = if tcp.v6 { length + 40 } else { length };
    // Large ones say nothing of themselves.
    let end = if length == 0 { whole } else { said };
    segment.data = end.saturating_sub(tcp.tcp.wrapping_sub(tcp.ip) + offset * 4);
}

#[inline(always)]
fn prohibit_v4(skb: *mut __sk_buff, ip: u32) -> bool {
    let Some(quote) = Loaded(skb).get::<QUOTE_V4>(ip) else { return false };
    write(skb, ip, &answer::prohibited_v4(&quote))
}

#[inline(always)]
fn prohibit_v6(skb: *mut __sk_buff, ip: u32) -> bool {
    let Some(quote) = Loaded(skb).get::<QUOTE_V6>(ip) else { return false };
    write(skb, ip, &answer::prohibited_v6(&quote))
}

/// Puts a packet in the place of the frame's own.
#[inline(always)]
fn write<const N: usize>(skb: *mut __sk_buff, ip: u32, packet: &[u8; N]) -> bool {
    // SAFETY: a valid context; the array is as long as it says.
    unsafe {
        bpf_skb_change_tail(skb, ip + N as u32, 0) == 0
            && bpf_skb_store_bytes(skb, ip, packet.as_ptr().cast(), N as u32, 0) == 0
    }
}

/// Sends a frame back to where it came from.
#[inline(always)]
fn turn_round(skb: *mut __sk_buff) -> bool {
    let mut macs = [0_u8; 12];
    // SAFETY: a valid context, and arrays as long as is said.
    unsafe {
        if bpf_skb_load_bytes(skb.cast(), 0, macs.as_mut_ptr().cast(), 12) != 0 {
            return false;
        }
        let turned = [
            macs[6], macs[7], macs[8], macs[9], macs[10], macs[11], macs[0], macs[1], macs[2], macs[3], macs[4],
            macs[5],
        ];
        bpf_skb_store_bytes(skb, 0, turned.as_ptr().cast(), 12, 0) == 0
    }
}
