//! What a socket is to the guard: its verdict, kept in the socket itself, and what the kernel's structures say of it.

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get};
use portreeve_abi::{Brought, SocketState, Standing};
use portreeve_decide::packet::{TCP_ACK, TCP_RST, TCP_SYN};

use crate::maps::{PR_BROUGHT, PR_VERDICTS};
use crate::offsets::offset;
use crate::read::{self, Address};

/// `SOCK_STREAM` and `SOCK_RAW`, include/linux/net.h.
const SOCK_STREAM: u16 = 1;
const SOCK_RAW: u16 = 3;
/// `IPPROTO_TCP`, include/uapi/linux/in.h.
const IPPROTO_TCP: u16 = 6;
/// `TCP_LISTEN`, include/net/tcp_states.h.
const TCP_LISTEN: u8 = 10;
/// `AF_INET` and `AF_INET6`, include/linux/socket.h.
pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;

/// The kernel's own `struct sock`, read through offsets.
#[derive(Clone, Copy)]
pub(crate) struct Socket(Address);

impl Socket {
    /// The socket behind a pointer that the verifier keeps an eye on; with the number in it, fields can be read that the
    /// verifier does not know.
    #[inline(always)]
    pub(crate) fn of<T>(sock: *mut T) -> Self {
        Self(read::forget(&sock).map_or(0, |sock| sock as Address))
    }

    /// The socket at an address.
    #[inline(always)]
    pub(crate) fn at(address: Address) -> Self {
        Self(address)
    }

    /// Address of a field.
    #[inline(always)]
    pub(crate) fn field(&self, offset: usize) -> Address {
        self.0 + offset
    }

    /// The address of its cgroup.
    #[inline(always)]
    pub(crate) fn cgroup(&self) -> Address {
        read::pointer(self.field(offset!(sock_cgroup))).unwrap_or(0)
    }

    /// `SOCK_…`
    #[inline(always)]
    pub(crate) fn is_stream(&self) -> bool {
        read::kernel::<u16>(self.field(offset!(sock_type))) == Some(SOCK_STREAM)
    }

    /// `IPPROTO_…`
    #[inline(always)]
    pub(crate) fn protocol(&self) -> u16 {
        read::kernel(self.field(offset!(sock_protocol))).unwrap_or(0)
    }

    /// `TCP_…`
    #[inline(always)]
    pub(crate) fn state(&self) -> u8 {
        read::kernel(self.field(offset!(sock_state))).unwrap_or(0)
    }

    /// Whether the current task is the one that makes it send.
    ///
    /// A connection also sends by itself, when an acknowledgement or a timer comes, in whatever task that interrupts. But
    /// then no task holds its lock (`lock_sock_nested`, net/core/sock.c), and while one holds it, nobody else sends.
    /// Sockets without a connection send in the system call alone.
    #[inline(always)]
    pub(crate) fn is_current(&self) -> bool {
        !self.is_stream() || read::kernel::<u32>(self.field(offset!(sock_owned))).is_some_and(|owned| owned != 0)
    }

    /// `AF_…`
    #[inline(always)]
    pub(crate) fn family(&self) -> u16 {
        read::kernel(self.field(offset!(sock_family))).unwrap_or(0)
    }

    /// Whether a segment of its answers somebody who connected to this host: a listener's, its child's, or what the kernel
    /// itself says in the name of a connection that is over or never was.
    ///
    /// A child that has been taken apart and connected anew is one for ever: its mark tells, see [`forget_past`].
    #[inline(always)]
    pub(crate) fn answers(&self, flags: u8) -> bool {
        if !matches!(self.family(), AF_INET | AF_INET6) {
            return false;
        }
        if self.is_stream() {
            // A listener opens nothing.
            let answer = flags & (TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK || flags & TCP_RST != 0;
            return (self.state() == TCP_LISTEN && answer) || self.is_child();
        }
        self.is_kernels_own()
    }

    /// Whether it is the child of a listener.
    ///
    /// Such a socket has the device its SYN came in by in a place that no system call can set in a stream socket
    /// (`tcp_v4_syn_recv_sock`, net/ipv4/tcp_ipv4.c; `tcp_v6_syn_recv_sock`, net/ipv6/tcp_ipv6.c; IP_MULTICAST_IF and
    /// IPV6_MULTICAST_IF are refused, net/ipv4/ip_sockglue.c and net/ipv6/ipv6_sockglue.c).
    #[inline(always)]
    pub(crate) fn is_child(&self) -> bool {
        if read::kernel::<u32>(self.field(offset!(inet_mc_index))).is_some_and(|index| index != 0) {
            return true;
        }
        let v6 = offset!(inet_pinet6);
        v6 != 0
            && read::pointer(self.field(v6))
                .and_then(|info| read::kernel::<u32>(info + offset!(ipv6_mcast_oif)))
                .is_some_and(|index| index != 0)
    }

    /// Whether it is the socket by which the kernel sends resets and last acknowledgements (`tcp_sk_init`,
    /// net/ipv4/tcp_ipv4.c): a raw TCP socket without an open file. Those of programs have one.
    #[inline(always)]
    fn is_kernels_own(&self) -> bool {
        if read::kernel::<u16>(self.field(offset!(sock_type))) != Some(SOCK_RAW) || self.protocol() != IPPROTO_TCP {
            return false;
        }
        let Some(socket) = read::pointer(self.field(offset!(sock_socket))) else { return false };
        read::kernel::<Address>(socket + offset!(socket_file)) == Some(0)
    }
}

/// In [`standing`]: the socket has met the guard in no way.
pub(crate) const NONE: u32 = 0;
/// In [`standing`]: it may send.
pub(crate) const PASSES: u32 = Standing::Passes as u32;
const RELAY: u32 = Standing::Relay as u32;
/// In [`standing`]: it has been refused, and that is counted.
pub(crate) const REFUSED: u32 = Standing::Refused as u32;

/// What a socket may do: a [`Standing`], or [`NONE`].
#[inline(always)]
pub(crate) fn standing<T>(sock: *mut T) -> u32 {
    let state = state(sock);
    // SAFETY: not null, so the socket's own value.
    match if state.is_null() { NONE } else { unsafe { (*state).standing } } {
        // The relay's own stays so where no connect program asks: outside the guarded cgroup.
        RELAY => PASSES,
        standing => standing,
    }
}

/// What is kept in a socket, if anything is.
#[inline(always)]
pub(crate) fn state<T>(sock: *mut T) -> *mut SocketState {
    // SAFETY: the verifier vouches for the socket; without the flag nothing is made.
    unsafe { bpf_sk_storage_get(verdicts(), sock.cast(), core::ptr::null_mut(), 0) }.cast()
}

/// Keeps a standing in a socket; false when the kernel has no memory for it.
#[inline(always)]
pub(crate) fn keep<T>(sock: *mut T, standing: Standing) -> bool {
    let mut first = SocketState { standing: standing as u32, noted: 0 };
    let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: the verifier vouches for the socket; the value is as large as the map's.
    let state = unsafe { bpf_sk_storage_get(verdicts(), sock.cast(), (&raw mut first).cast(), flags) };
    let state = state.cast::<SocketState>();
    if state.is_null() {
        return false;
    }
    // SAFETY: not null, so the socket's own value. One store of a word each.
    unsafe {
        (&raw mut (*state).standing).write_volatile(standing as u32);
        (&raw mut (*state).noted).write_volatile(0);
    }
    true
}

/// What a socket was before is nothing to what it asks for now, wherever that is: a standing it had is taken from it, and
/// a listener's child, which would pass for one even so (`tcp_disconnect` leaves the mark of it, net/ipv4/tcp.c), gets
/// one. False when the kernel has no memory for that.
#[inline(always)]
pub(crate) fn forget_past(sock: *mut bpf_sock) -> bool {
    let state = state(sock);
    if !state.is_null() {
        // SAFETY: as above.
        unsafe { (&raw mut (*state).standing).write_volatile(Standing::Used as u32) };
        // Nor is it on its way to the relay any more. That there may be nothing to delete is no error.
        // SAFETY: the verifier vouches for the socket.
        let _none = unsafe { bpf_sk_storage_delete(brought(), sock.cast()) };
        return true;
    }
    !Socket::of(sock).is_child() || keep(sock, Standing::Used)
}

/// Takes a connection of the relay's own for one, once: then it passes like an allowed one. True when it is that.
#[inline(always)]
pub(crate) fn is_relays_own(sock: *mut bpf_sock) -> bool {
    let state = state(sock);
    if state.is_null() {
        return false;
    }
    // SAFETY: not null, so the socket's own value. A load and a store of a word.
    unsafe {
        if (&raw const (*state).standing).read_volatile() != Standing::Relay as u32 {
            return false;
        }
        (&raw mut (*state).standing).write_volatile(Standing::Passes as u32);
    }
    true
}

/// Where a connection was to go that is on its way to the relay; null when it is not.
#[inline(always)]
pub(crate) fn brought_by<T>(sock: *mut T) -> *mut Brought {
    // SAFETY: the verifier vouches for the socket; without the flag nothing is made.
    unsafe { bpf_sk_storage_get(brought(), sock.cast(), core::ptr::null_mut(), 0) }.cast()
}

/// Makes room for that in the socket, all zeros; null when the kernel has no memory for it.
#[inline(always)]
pub(crate) fn bring<T>(sock: *mut T) -> *mut Brought {
    let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: the verifier vouches for the socket. What was there has been deleted.
    unsafe { bpf_sk_storage_get(brought(), sock.cast(), core::ptr::null_mut(), flags) }.cast()
}

/// The map's address, as the helpers want it.
#[inline(always)]
fn brought() -> *mut aya_ebpf::cty::c_void {
    core::ptr::from_ref(&PR_BROUGHT).cast_mut().cast()
}

/// The map's address, as the helpers want it.
#[inline(always)]
fn verdicts() -> *mut aya_ebpf::cty::c_void {
    core::ptr::from_ref(&PR_VERDICTS).cast_mut().cast()
}
