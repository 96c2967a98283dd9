//! The way to the relay: an allowed connection is sent there instead, and keeps in its socket where it was to go.
//!
//! Three programs do that. `connect()` changes the destination; sock_ops tells the relay who comes, by the port that the
//! kernel has given the connection meanwhile and before its first segment; and getpeername() tells the program what it asked
//! for. What cannot be brought there is refused: it never goes out by itself.

use aya_ebpf::bindings::{BPF_F_CURRENT_NETNS, BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock_addr, bpf_sock_ops};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_release};
use aya_ebpf::programs::SockAddrContext;
use portreeve_abi::{BroughtKey, Hook, Reason, RelayAt, Standing, Verdict};
use portreeve_decide::{Tables as _, mapped, relayed};

use super::connect::field;
use crate::maps::{self, MapTables, PR_ARRIVING};
use crate::report::Seen;
use crate::socket;

/// `ECONNREFUSED`, include/uapi/asm-generic/errno.h: what a relay that does not listen would have said.
const ECONNREFUSED: u32 = 111;
/// The third word of an IPv4-mapped address (RFC 4291 §2.5.5.2).
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
/// Bytes of a tuple of IPv4 and of IPv6 addresses in `struct bpf_sock_tuple`.
const TUPLE_V4: u32 = 12;
const TUPLE_V6: u32 = 36;

/// Writes a field of the context.
macro_rules! set {
    ($ctx:expr, $($field:tt)+) => {{
        |value: u32| {
            let ctx: *mut bpf_sock_addr = $ctx;
            // SAFETY: the kernel hands the program a valid context, of which it lets these fields be written.
            unsafe { core::ptr::write_volatile(&raw mut (*ctx).$($field)+, value) }
        }
    }};
}

/// Sends a connection that a rule allows to the relay, if the rule says so. `hook` is a constant: each program may write the
/// fields of its family only.
#[inline(always)]
pub(super) fn bring(ctx: &SockAddrContext, seen: &mut Seen, hook: Hook) {
    let tables = MapTables::new(seen.decision.generation);
    let Some(header) = relayed(&tables, &seen.decision) else { return };
    // An IPv6 socket can go to an IPv4 listener; the other way round there is no way.
    let by_v4 = is_mapped(&seen.flow.address) || header.relay[1].port == 0;
    let at = if by_v4 { &header.relay[0] } else { &header.relay[1] };
    if at.port != 0 && listens(ctx, at, by_v4) && keep(ctx, seen, by_v4) {
        turn(ctx, hook, at, by_v4);
        seen.decision.reason = Reason::Relayed;
    } else {
        seen.decision.verdict = Verdict::Deny;
        seen.decision.reason = Reason::NoRelay;
        seen.decision.errno = ECONNREFUSED;
    }
}

#[inline(always)]
fn is_mapped(address: &[u8; 16]) -> bool {
    word(address, 0) == 0 && word(address, 4) == 0 && word(address, 8) == MAPPED
}

#[inline(always)]
fn word(address: &[u8; 16], at: usize) -> u32 {
    u32::from_ne_bytes([address[at], address[at + 1], address[at + 2], address[at + 3]])
}

/// Whether the relay itself listens there, in the connection's own network namespace: not just anybody who has taken the
/// port since the relay went.
#[inline(always)]
fn listens(ctx: &SockAddrContext, at: &RelayAt, by_v4: bool) -> bool {
    let size = if by_v4 { TUPLE_V4 } else { TUPLE_V6 };
    let tuple = at.tuple.as_ptr().cast_mut().cast();
    // SAFETY: a valid context, and a tuple of the size named, which the helper only reads.
    let found = unsafe { bpf_sk_lookup_tcp(ctx.sock_addr.cast(), tuple, size, BPF_F_CURRENT_NETNS as i64 as u64, 0) };
    if found.is_null() {
        return false;
    }
    let standing = socket::standing(found);
    // SAFETY: what was looked up is given back once.
    unsafe { bpf_sk_release(found.cast()) };
    standing == Standing::Listens as u32
}

/// Keeps where the connection was to go.
#[inline(always)]
fn keep(ctx: &SockAddrContext, seen: &Seen, by_v4: bool) -> bool {
    let sock = field!(ctx, __bindgen_anon_1.sk);
    // The mark by which the next connect() of this socket knows that there is something to forget.
    if sock.is_null() || !socket::keep(sock, Standing::Used) {
        return false;
    }
    let brought = socket::bring(sock);
    if brought.is_null() {
        return false;
    }
    // SAFETY: not null, so the socket's own value, which nobody else looks at before the connection is made.
    unsafe {
        (*brought).address = seen.flow.address;
        (*brought).port = seen.flow.port;
        (*brought).by_v4 = u16::from(by_v4);
        (*brought).rule = seen.decision.rule;
        (*brought).generation = seen.decision.generation;
        (*brought).pid = seen.task.tgid();
        (*brought).euid = seen.who.euid;
    }
    true
}

/// Writes the relay's address in the place of what was asked for.
#[inline(always)]
fn turn(ctx: &SockAddrContext, hook: Hook, at: &RelayAt, by_v4: bool) {
    let ctx = ctx.sock_addr;
    set!(ctx, user_port)(u32::from((at.port as u16).to_be()));
    if matches!(hook, Hook::Connect4) {
        set!(ctx, user_ip4)(at.tuple[1]);
    } else if by_v4 {
        set!(ctx, user_ip6[0])(0);
        set!(ctx, user_ip6[1])(0);
        set!(ctx, user_ip6[2])(MAPPED);
        set!(ctx, user_ip6[3])(at.tuple[1]);
    } else {
        set!(ctx, user_ip6[0])(at.tuple[4]);
        set!(ctx, user_ip6[1])(at.tuple[5]);
        set!(ctx, user_ip6[2])(at.tuple[6]);
        set!(ctx, user_ip6[3])(at.tuple[7]);
    }
}

/// cgroup/getpeername4 and 6: what the program asked for, and not where it has got.
#[inline(always)]
pub(crate) fn peername(ctx: &SockAddrContext, hook: Hook) {
    let sock = field!(ctx, __bindgen_anon_1.sk);
    if sock.is_null() {
        return;
    }
    let brought = socket::brought_by(sock);
    if brought.is_null() {
        return;
    }
    // SAFETY: not null, so the socket's own value.
    let brought = unsafe { &*brought };
    let ctx = ctx.sock_addr;
    set!(ctx, user_port)(u32::from(brought.port.to_be()));
    if matches!(hook, Hook::Connect4) {
        set!(ctx, user_ip4)(word(&brought.address, 12));
    } else {
        set!(ctx, user_ip6[0])(word(&brought.address, 0));
        set!(ctx, user_ip6[1])(word(&brought.address, 4));
        set!(ctx, user_ip6[2])(word(&brought.address, 8));
        set!(ctx, user_ip6[3])(word(&brought.address, 12));
    }
}

/// sock_ops: before its first segment, the relay is told who comes.
///
/// Whoever else goes to the relay is told too, by taking away what stood there: a connection that was brought and never
/// arrived may have had the same address and port.
#[inline(always)]
pub(crate) fn announce(ops: *mut bpf_sock_ops) {
    // SAFETY: the kernel hands the program a valid context.
    let (op, sock, remote) = unsafe { ((*ops).op, (*ops).__bindgen_anon_2.sk, (*ops).remote_port) };
    if op != BPF_SOCK_OPS_TCP_CONNECT_CB || sock.is_null() {
        return;
    }
    let brought = socket::brought_by(sock);
    if brought.is_null() {
        // Network order, in the upper half of a little-endian word (`sock_ops_convert_ctx_access`, net/core/filter.c).
        if is_relays(u32::from_be(remote)) {
            let _none = PR_ARRIVING.remove(key(ops, true));
            let _none = PR_ARRIVING.remove(key(ops, false));
        }
        return;
    }
    // SAFETY: not null, so the socket's own value.
    let brought = unsafe { *brought };
    // Were there no room, the relay does not know who comes, and puts them off.
    let _full = PR_ARRIVING.insert(key(ops, brought.by_v4 != 0), brought, 0);
}

/// Whether the relay listens at a port.
#[inline(always)]
fn is_relays(port: u32) -> bool {
    let tables = MapTables::new(maps::active_generation());
    tables.header().is_some_and(|header| header.relay[0].port == port || header.relay[1].port == port)
}

/// The connection's own end. Each field by a load of its own at a fixed place, which the verifier insists on.
#[inline(always)]
fn key(ops: *mut bpf_sock_ops, by_v4: bool) -> BroughtKey {
    let load = |field: *const u32| {
        // SAFETY: a field of a valid context.
        unsafe { core::ptr::read_volatile(field) }
    };
    // SAFETY: only addresses are made.
    let (v4, v6, port) =
        unsafe { (&raw const (*ops).local_ip4, &raw const (*ops).local_ip6, &raw const (*ops).local_port) };
    let v6 = v6.cast::<u32>();
    let (v4, port) = (load(v4), load(port));
    let words = [load(v6), load(v6.wrapping_add(1)), load(v6.wrapping_add(2)), load(v6.wrapping_add(3))];
    let mut key = BroughtKey { address: mapped(v4.to_ne_bytes()), port };
    if !by_v4 {
        for (bytes, word) in key.address.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
    }
    key
}
