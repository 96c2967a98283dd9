//! What really arrived at a host: every frame, looked at below the socket layer.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::NetNs;
use crate::{DEADLINE, until};

/// Marks travel to a port where nobody listens.
const MARK_PORT: u16 = 9;
const ETH_P_ALL: u16 = 0x0003; // include/uapi/linux/if_ether.h

/// A packet socket in a host's namespace that counts TCP segments to one port.
#[derive(Debug)]
pub(crate) struct Sniffer {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    syns: AtomicU64,
    segments: AtomicU64,
    /// Payloads of the marks that have arrived.
    marks: Mutex<Vec<[u8; 8]>>,
    stop: AtomicBool,
}

impl Sniffer {
    #[track_caller]
    pub(crate) fn start(netns: &NetNs, port: u16) -> Self {
        let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let socket =
            netns.enter(|| Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))).expect("open a packet socket");
        socket.set_recv_buffer_size(64 << 20).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let seen = Arc::new(Seen::default());
        let watched = Arc::clone(&seen);
        let thread = std::thread::spawn(move || watch(&socket, port, &watched));
        Self { seen, thread: Some(thread) }
    }

    /// SYNs without ACK to the port so far.
    pub(crate) fn syns(&self) -> u64 {
        self.seen.syns.load(Ordering::Acquire)
    }

    /// TCP segments of any kind to the port so far.
    pub(crate) fn segments(&self) -> u64 {
        self.seen.segments.load(Ordering::Acquire)
    }

    /// Returns when everything that `from` had sent to `to` before this call has been counted.
    ///
    /// A wire's packets queue on the processor that sent them (`veth_xmit` → `netif_rx`, net/core/dev.c), so one
    /// mark is sent from each processor and all are waited for.
    #[track_caller]
    pub(crate) fn catch_up(&self, from: &NetNs, to: IpAddr) {
        for cpu in 0..std::thread::available_parallelism().unwrap().get() {
            let mark = rand_mark();
            from.enter(|| {
                let mut only = CpuSet::new();
                only.set(cpu).unwrap();
                sched_setaffinity(Pid::from_raw(0), &only).unwrap();
                let unspecified = match to {
                    IpAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
                    IpAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
                };
                let socket = UdpSocket::bind(unspecified).unwrap();
                socket.send_to(&mark, (to, MARK_PORT)).unwrap();
            });
            until(&format!("a mark at {to}"), DEADLINE, || {
                let marks = self.seen.marks.lock().unwrap();
                if marks.contains(&mark) { Ok(()) } else { Err(marks.len()) }
            });
        }
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::Release);
        self.thread.take().map(JoinHandle::join);
    }
}

fn rand_mark() -> [u8; 8] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes()
}

fn watch(socket: &Socket, port: u16, seen: &Seen) {
    let mut buffer = [0; 2048];
    while !seen.stop.load(Ordering::Acquire) {
        match receive(socket, &mut buffer) {
            Ok((length, ethertype)) => match parse(ethertype, &buffer[..length]) {
                Some(Seg::Tcp { to, flags }) if to == port => {
                    // RFC 9293 §3.1: SYN is 0x02, ACK 0x10.
                    if flags & 0x12 == 0x02 {
                        seen.syns.fetch_add(1, Ordering::AcqRel);
                    }
                    seen.segments.fetch_add(1, Ordering::AcqRel);
                }
                Some(Seg::Mark(mark)) => seen.marks.lock().unwrap().push(mark),
                Some(Seg::Tcp { .. }) | None => {}
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("read a packet socket: {error}"),
        }
    }
}

fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<(usize, u16)> {
    use std::os::fd::AsRawFd;
    // SAFETY: sockaddr_ll is plain old data, for which all zeroes is a value.
    let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut size = libc::socklen_t::try_from(size_of_val(&from)).unwrap();
    // SAFETY: each pointer goes with the length of what it points at, and all live through the call.
    let got = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            (&raw mut from).cast(),
            &raw mut size,
        )
    };
    let Ok(got) = usize::try_from(got) else {
        return Err(io::Error::last_os_error());
    };
    // Frames on loopback pass twice; the outgoing copy is not an arrival.
    if from.sll_pkttype == libc::PACKET_OUTGOING {
        return Ok((0, 0));
    }
    Ok((got, u16::from_be(from.sll_protocol)))
}

enum Seg {
    Tcp { to: u16, flags: u8 },
    Mark([u8; 8]),
}

/// Reads one packet; fragments other than the first hold no port and count as nothing.
fn parse(ethertype: u16, packet: &[u8]) -> Option<Seg> {
    match ethertype {
        // IEEE 802.1Q and 802.1ad: two bytes of tag, then the type of what follows.
        0x8100 | 0x88a8 => parse(u16_at(packet, 2)?, packet.get(4..)?),
        0x0800 => {
            let header = usize::from(packet.first()? & 0x0f) * 4; // RFC 791 §3.1
            let fragment = u16_at(packet, 6)? & 0x1fff;
            if fragment != 0 {
                return None;
            }
            transport(*packet.get(9)?, packet.get(header..)?)
        }
        0x86dd => {
            let (mut next, mut rest) = (*packet.get(6)?, packet.get(40..)?);
            loop {
                let length = match next {
                    0 | 43 | 60 => (usize::from(*rest.get(1)?) + 1) * 8, // RFC 8200 §4.3, 4.4, 4.6
                    44 if u16_at(rest, 2)? & 0xfff8 == 0 => 8,           // RFC 8200 §4.5
                    51 => (usize::from(*rest.get(1)?) + 2) * 4,          // RFC 4302 §2.2
                    _ => return transport(next, rest),
                };
                (next, rest) = (*rest.first()?, rest.get(length..)?);
            }
        }
        _ => None,
    }
}

fn transport(protocol: u8, segment: &[u8]) -> Option<Seg> {
    let to = u16_at(segment, 2)?;
    match protocol {
        6 => Some(Seg::Tcp {
            to,
            // The first of several tiny fragments may end before the flags.
            flags: segment.get(13).copied().unwrap_or(0),
        }),
        17 if to == MARK_PORT => Some(Seg::Mark(segment.get(8..16)?.try_into().ok()?)),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}
