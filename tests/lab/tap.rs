//! Frames and packets made by hand: on a device of a host's, and by a TUN device.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::Host;
use crate::until::patience;

/// ioctl TUNSETIFF (include/uapi/linux/if_tun.h): `_IOW('T', 202, int)`.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
/// ioctl TUNSETLINK: `_IOW('T', 205, int)`.
const TUNSETLINK: libc::Ioctl = 0x4004_54cd;

/// A frame that has come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// All of it, with the VLAN tag that the kernel has taken out of it.
    pub bytes: Vec<u8>,
    /// Its checksum is not written yet (`TP_STATUS_CSUMNOTREADY`, packet(7)).
    pub unfinished: bool,
}

/// A packet socket on one device of a host.
#[derive(Debug)]
pub struct Tap {
    socket: OwnedFd,
}

impl Tap {
    /// Opens it; what comes in from now on is kept until it is asked for.
    #[track_caller]
    #[must_use]
    pub fn on(host: &Host, device: &str) -> Self {
        let socket = host.enter(|| {
            let index = nix::net::if_::if_nametoindex(device).unwrap();
            open(index)
        });
        Self { socket }
    }

    /// Sends a frame.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        // SAFETY: a buffer with its length.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(usize::try_from(sent).ok(), Some(frame.len()), "send a frame: {}", std::io::Error::last_os_error());
    }

    /// Forgets what has come in so far.
    pub fn forget(&self) {
        while self.next(Duration::ZERO).is_some() {}
    }

    /// Waits for a frame of which `wanted` makes something; `None` when none comes in time.
    #[must_use]
    pub fn wait<T>(&self, time: Duration, wanted: impl Fn(&Received) -> Option<T>) -> Option<T> {
        let end = Instant::now() + time * patience();
        loop {
            let frame = self.next(end.saturating_duration_since(Instant::now()))?;
            if let Some(found) = wanted(&frame) {
                return Some(found);
            }
        }
    }

    /// The next frame that came in from outside.
    fn next(&self, time: Duration) -> Option<Received> {
        let end = Instant::now() + time;
        loop {
            let left = PollTimeout::try_from(end.saturating_duration_since(Instant::now())).unwrap();
            if poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], left).unwrap() == 0 {
                return None;
            }
            if let Some(frame) = receive(&self.socket) {
                return Some(frame);
            }
        }
    }
}

fn open(index: u32) -> OwnedFd {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol.into()) };
    assert!(fd >= 0, "packet socket: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: integers alone, for which all zeroes is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index as i32;
    let (on, room) = (1i32, 1i32 << 25);
    // SAFETY: an address and options of the sizes named.
    let set = unsafe {
        libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
            | libc::setsockopt(fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, (&raw const on).cast(), 4)
            | libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const room).cast(), 4)
    };
    assert_eq!(set, 0, "packet socket: {}", std::io::Error::last_os_error());
    socket
}

/// One frame; `None` when it is the host's own.
fn receive(socket: &OwnedFd) -> Option<Received> {
    let mut bytes = vec![0; 1 << 16];
    let mut control = [0_u64; 16];
    // SAFETY: integers alone, for which all zeroes is a value.
    let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: integers and pointers, for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = size_of_val(&from) as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: a message whose parts live until it returns.
    let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    bytes.truncate(usize::try_from(got).ok()?);
    if from.sll_pkttype == libc::PACKET_OUTGOING {
        return None;
    }
    // SAFETY: the message that the kernel has just filled.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    assert!(!header.is_null(), "a frame without its auxiliary data");
    // SAFETY: not null, and the only one that was asked for.
    let auxiliary: libc::tpacket_auxdata =
        unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() };
    if auxiliary.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
        let kind =
            if auxiliary.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0 { auxiliary.tp_vlan_tpid } else { 0x8100 };
        let tag = [kind.to_be_bytes(), auxiliary.tp_vlan_tci.to_be_bytes()].concat();
        bytes.splice(12..12, tag);
    }
    Some(Received { bytes, unfinished: auxiliary.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0 })
}

/// A TUN device of a host, which carries bare IP packets and goes with this value.
#[derive(Debug)]
pub struct Tun {
    device: File,
}

impl Tun {
    /// Makes it; it is down and has no address.
    #[track_caller]
    #[must_use]
    pub fn new(host: &Host, name: &str) -> Self {
        let device = host.enter(|| {
            let device = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
            // SAFETY: integers and a union of them, for which all zeroes is a value.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
                *to = from as libc::c_char;
            }
            request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
            // SAFETY: the request that the command takes.
            let made = unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, &raw const request) };
            assert_eq!(made, 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
            device
        });
        Self { device }
    }

    /// Makes it a device of another type (`ARPHRD_…`, include/uapi/linux/if_arp.h). It must be down.
    #[track_caller]
    #[must_use]
    pub fn typed(self, kind: u16) -> Self {
        // SAFETY: a command that takes a number.
        let set = unsafe { libc::ioctl(self.device.as_raw_fd(), TUNSETLINK, libc::c_ulong::from(kind)) };
        assert_eq!(set, 0, "TUNSETLINK: {}", std::io::Error::last_os_error());
        self
    }

    /// A packet comes in by it.
    #[track_caller]
    pub fn send(&mut self, packet: &[u8]) {
        self.device.write_all(packet).unwrap();
    }

    /// Waits for a packet that leaves by it, of which `wanted` makes something; `None` when none comes in time.
    pub fn wait<T>(&mut self, time: Duration, wanted: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let end = Instant::now() + time * patience();
        let mut bytes = vec![0; 1 << 16];
        loop {
            let left = PollTimeout::try_from(end.saturating_duration_since(Instant::now())).unwrap();
            if poll(&mut [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)], left).unwrap() == 0 {
                return None;
            }
            let got = self.device.read(&mut bytes).unwrap();
            if let Some(found) = wanted(&bytes[..got]) {
                return Some(found);
            }
        }
    }
}
