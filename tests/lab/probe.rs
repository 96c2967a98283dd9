//! The judge of what has got through: every frame that comes into a host, taken apart by a reader of its own.
//!
//! It knows nothing of the guard's parser, and is generous: whatever some receiver might take for TCP to the port
//! counts, whether or not Linux would. A reset that the sender's kernel answers a stray SYN-ACK with counts as well.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::Host;
use crate::until::{DEADLINE, until};

/// How a segment, or the first of its fragments, came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What it was wrapped in, from the outside, such as `vlan ipv6 destination fragment tcp`.
    pub wrapping: String,
    /// The flags of the TCP header, if that much of it was there.
    pub flags: Option<u8>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    segments: Mutex<Vec<Segment>>,
}

/// Watches everything that comes into a host for TCP to one port.
#[derive(Debug)]
pub struct Probe {
    shared: Arc<Shared>,
    socket: Arc<OwnedFd>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Probe {
    /// Watches from now on.
    #[track_caller]
    #[must_use]
    pub fn listen(host: &Host, port: u16) -> Self {
        let socket = Arc::new(host.netns().enter(every_frame));
        let shared = Arc::new(Shared::default());
        let (inside, ears) = (Arc::clone(&shared), Arc::clone(&socket));
        let thread = std::thread::spawn(move || {
            let mut reader = Reader { port, datagrams: HashMap::new() };
            let mut buffer = vec![0; 1 << 17];
            while !inside.stop.load(Ordering::Relaxed) {
                if let Some(frame) = incoming(&ears, &mut buffer) {
                    let found = reader.frame(frame);
                    inside.segments.lock().unwrap().extend(found);
                }
            }
        });
        Self { shared, socket, thread: Some(thread) }
    }

    /// How many segments to the port have come in.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.segments().len() as u64
    }

    /// The segments to the port that have come in.
    #[must_use]
    pub fn segments(&self) -> Vec<Segment> {
        self.shared.segments.lock().unwrap().clone()
    }

    /// How many have come in once none come any more.
    ///
    /// # Panics
    /// When frames were lost because they came faster than they were read: then nobody knows.
    #[track_caller]
    #[must_use]
    pub fn settled(&self) -> u64 {
        let mut last = self.seen();
        let seen = until("quiet on the wire", DEADLINE, || {
            std::thread::sleep(Duration::from_millis(100));
            let now = self.seen();
            let quiet = now == last;
            last = now;
            if quiet { Ok(now) } else { Err(now) }
        });
        assert_eq!(lost(&self.socket), 0, "frames that nobody has looked at");
        seen
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Opens a connection from a chosen port of a host, as the far end of a simultaneous open does (RFC 9293 §3.5), and
/// says whether it was established.
///
/// The near end must have sent its SYN already, and must not have been answered by a reset: give `host` a blackhole
/// route to the near end while that happens (`ip route add blackhole …`).
#[must_use]
pub fn connects_from(host: &Host, port: u16, to: SocketAddr) -> bool {
    host.netns().enter(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_reuse_address(true).unwrap();
        let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
        socket.bind(&SocketAddr::new(any.parse().unwrap(), port).into()).unwrap();
        let connected = socket.connect_timeout(&to.into(), Duration::from_secs(3)).is_ok();
        drop(TcpStream::from(socket));
        connected
    })
}

/// A socket that gets every frame of every device in the namespace, those that come later too.
fn every_frame() -> OwnedFd {
    let protocol = i32::from((libc::ETH_P_ALL as u16).to_be());
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    assert!(fd >= 0, "packet socket: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let (room, limit) = (1i32 << 26, libc::timeval { tv_sec: 0, tv_usec: 20_000 });
    // SAFETY: options of the sizes named.
    let set = unsafe {
        let room = libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const room).cast(), 4);
        let size = size_of_val(&limit) as libc::socklen_t;
        room | libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const limit).cast(), size)
    };
    assert_eq!(set, 0, "packet socket: {}", std::io::Error::last_os_error());
    socket
}

/// The next frame, unless none comes for a moment or it is the host's own.
fn incoming<'buffer>(socket: &OwnedFd, buffer: &'buffer mut [u8]) -> Option<&'buffer [u8]> {
    // SAFETY: integers alone, for which all zeroes is a value.
    let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut size = size_of_val(&from) as libc::socklen_t;
    // SAFETY: buffer and address with their lengths.
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
    let got = usize::try_from(got).ok()?;
    let own = from.sll_pkttype == libc::PACKET_OUTGOING || from.sll_hatype == libc::ARPHRD_LOOPBACK;
    if own { None } else { buffer.get(..got) }
}

/// How many frames the kernel dropped for want of room since it was last asked.
fn lost(socket: &OwnedFd) -> u32 {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut size = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the structure that the option fills, with its length.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut size,
        )
    };
    assert_eq!(got, 0, "PACKET_STATISTICS: {}", std::io::Error::last_os_error());
    statistics.tp_drops
}

/// Which datagram a fragment belongs to: both addresses and the identification.
type Key = (Vec<u8>, u32);

/// The parts of a datagram that have come so far, and whether it has been counted.
#[derive(Default)]
struct Datagram {
    parts: Vec<(usize, Vec<u8>)>,
    counted: bool,
}

/// Takes frames apart. Every function looks at bytes that may end anywhere, and appends to a path of what it went
/// through.
struct Reader {
    port: u16,
    datagrams: HashMap<Key, Datagram>,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

impl Reader {
    fn frame(&mut self, frame: &[u8]) -> Option<Segment> {
        self.typed(word(frame, 12)?, frame.get(14..)?, String::new())
    }

    /// What an EtherType announces.
    fn typed(&mut self, kind: u16, bytes: &[u8], path: String) -> Option<Segment> {
        match kind {
            // Customer, provider, and the tags that came before the standard.
            0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x9300 => self.typed(word(bytes, 2)?, bytes.get(4..)?, path + "vlan "),
            // PPP over Ethernet (RFC 2516): its own header, then PPP's protocol number.
            0x8864 => match word(bytes, 6)? {
                0x0021 => self.ip(bytes.get(8..)?, path + "ppp "),
                0x0057 => self.ip(bytes.get(8..)?, path + "ppp "),
                _ => None,
            },
            // MPLS (RFC 3032): labels until the bottom of the stack.
            0x8847 | 0x8848 => {
                let bottom = bytes.chunks(4).position(|label| label.get(2).is_some_and(|byte| byte & 1 == 1))?;
                self.ip(bytes.get((bottom + 1) * 4..)?, path + "mpls ")
            }
            // A length instead of a type: LLC, and SNAP if that is what it says (RFC 1042).
            length if length < 0x0600 => match bytes {
                [0xaa, 0xaa, 3, _, _, _, high, low, rest @ ..] => {
                    self.typed(u16::from_be_bytes([*high, *low]), rest, path + "snap ")
                }
                [6, 6, 3, rest @ ..] => self.ip(rest, path + "llc "),
                _ => None,
            },
            // Whatever else it claims to be, it may be IP all the same.
            _ => self.ip(bytes, path),
        }
    }

    /// IP by its own version field alone.
    fn ip(&mut self, bytes: &[u8], path: String) -> Option<Segment> {
        match bytes.first()? >> 4 {
            4 => self.v4(bytes, path + "ipv4 "),
            6 => self.v6(bytes, path + "ipv6 "),
            _ => None,
        }
    }

    fn v4(&mut self, bytes: &[u8], mut path: String) -> Option<Segment> {
        let header = usize::from(bytes.first()? & 0xf) * 4;
        if header > 20 {
            path += "options ";
        }
        // No more than the packet says it has, if it says anything: what pads a short frame is none of it.
        let length = match usize::from(word(bytes, 2)?) {
            0 => bytes.len(),
            length => length.min(bytes.len()),
        };
        let (payload, protocol, field) = (bytes.get(header..length)?, *bytes.get(9)?, word(bytes, 6)?);
        if field & 0x3fff == 0 {
            return self.upper(protocol, payload, path);
        }
        let key = (bytes.get(12..20)?.to_vec(), word(bytes, 4)?.into());
        self.fragment(key, usize::from(field & 0x1fff) * 8, protocol, payload, path + "fragment ")
    }

    fn v6(&mut self, bytes: &[u8], path: String) -> Option<Segment> {
        // Zero stands for a jumbogram (RFC 2675), or for a packet that a device has put together.
        let length = match usize::from(word(bytes, 4)?) {
            0 => bytes.len(),
            length => (40 + length).min(bytes.len()),
        };
        let key = bytes.get(8..40)?.to_vec();
        self.chain(*bytes.get(6)?, bytes.get(40..length)?, &key, path)
    }

    /// IPv6 extension headers (IANA's list of them), in any order and number.
    fn chain(&mut self, next: u8, bytes: &[u8], addresses: &[u8], path: String) -> Option<Segment> {
        let name = match next {
            0 => "hop-by-hop ",
            43 => "routing ",
            44 => {
                let (after, field) = (*bytes.first()?, word(bytes, 2)?);
                let number = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
                let (key, path) = ((addresses.to_vec(), number), path + "fragment ");
                return self.fragment(key, usize::from(field & 0xfff8), after, bytes.get(8..)?, path);
            }
            51 => "authentication ",
            60 => "destination ",
            135 | 139 | 140 | 253 | 254 => "other ",
            _ => return self.upper(next, bytes, path),
        };
        // The authentication header counts in words of four bytes (RFC 4302 §2.2).
        let length = usize::from(*bytes.get(1)?);
        let length = if next == 51 { (length + 2) * 4 } else { (length + 1) * 8 };
        self.chain(*bytes.first()?, bytes.get(length..)?, addresses, path + name)
    }

    /// A fragment: what it shows by itself, or what it makes together with the others, whichever of two that overlap
    /// a receiver prefers. Each datagram counts once.
    fn fragment(&mut self, key: Key, offset: usize, next: u8, bytes: &[u8], path: String) -> Option<Segment> {
        let addresses = key.0.clone();
        let mut datagram = self.datagrams.remove(&key).unwrap_or_default();
        datagram.parts.push((offset, bytes.to_vec()));
        let mut views = vec![bytes.to_vec()];
        if offset > 0 {
            views.clear();
        }
        views.push(joined(datagram.parts.iter()));
        views.push(joined(datagram.parts.iter().rev()));
        let mut found = None;
        for view in views {
            found = found.or_else(|| self.chain(next, &view, &addresses, path.clone()));
        }
        let first = !datagram.counted;
        datagram.counted |= found.is_some();
        self.datagrams.insert(key, datagram);
        found.filter(|_segment| first)
    }

    fn upper(&mut self, protocol: u8, bytes: &[u8], path: String) -> Option<Segment> {
        match protocol {
            6 => (word(bytes, 2)? == self.port)
                .then(|| Segment { wrapping: path + "tcp", flags: bytes.get(13).copied() }),
            // IP in IP (RFC 2003, RFC 2473).
            4 | 41 => self.ip(bytes, path),
            // GRE (RFC 2784, RFC 2890): four bytes, and four more for each of three flags.
            47 => {
                let flags = bytes.first()?;
                let more = [0x80, 0x20, 0x10].iter().filter(|flag| flags & **flag != 0).count();
                self.typed(word(bytes, 2)?, bytes.get(4 + 4 * more..)?, path + "gre ")
            }
            // Extension headers are no part of IPv4 but for this one.
            51 => self.upper(*bytes.first()?, bytes.get((usize::from(*bytes.get(1)?) + 2) * 4..)?, path),
            _ => None,
        }
    }
}

/// The datagram's beginning, as far as there is no hole. Where parts overlap the later in this order stands.
fn joined<'part>(parts: impl Iterator<Item = &'part (usize, Vec<u8>)>) -> Vec<u8> {
    let mut bytes: Vec<Option<u8>> = Vec::new();
    for (offset, part) in parts {
        let end = offset + part.len();
        bytes.resize(bytes.len().max(end), None);
        for (place, byte) in bytes.iter_mut().skip(*offset).zip(part) {
            *place = Some(*byte);
        }
    }
    bytes.into_iter().map_while(|byte| byte).collect()
}
