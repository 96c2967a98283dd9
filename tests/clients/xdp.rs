//! Frames by an AF_XDP socket (Documentation/networking/af_xdp.rst), which reach the device past every packet hook.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::{Ordering, fence};

use nix::errno::Errno;

use crate::link::Link;
use crate::packet::Flow;
use crate::{Said, Way};

/// The ways.
pub(crate) const WAYS: &[Way] = &[("xdp_tx", transmit)];

/// Entries of every ring.
const ENTRIES: u32 = 4;
/// One page of frames; a frame has half of it.
const MEMORY: usize = 4096;
const CHUNK: u32 = 2048;

fn transmit(to: SocketAddr, rest: &[String]) -> Said {
    let (link, flow) = (Link::to(to, rest.first())?, Flow::to(to)?);
    let frame = link.syn(&flow).concat();
    // SAFETY: no pointers.
    let fd = crate::step("socket", unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let memory = map(None, MEMORY, 0)?;
    let register = libc::xdp_umem_reg {
        addr: memory as u64,
        len: MEMORY as u64,
        chunk_size: CHUNK,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set_option(&socket, "XDP_UMEM_REG", libc::XDP_UMEM_REG, &register)?;
    // Without these two the kernel does not bind.
    set_option(&socket, "XDP_UMEM_FILL_RING", libc::XDP_UMEM_FILL_RING, &ENTRIES)?;
    set_option(&socket, "XDP_UMEM_COMPLETION_RING", libc::XDP_UMEM_COMPLETION_RING, &ENTRIES)?;
    set_option(&socket, "XDP_TX_RING", libc::XDP_TX_RING, &ENTRIES)?;
    let ring = offsets(&socket)?;
    let page = map(Some(&socket), ring.desc as usize + ENTRIES as usize * size_of::<libc::xdp_desc>(), TX_RING)?;
    bind(&socket, &link)?;
    // SAFETY: the frame (of a hundred bytes) fits into the memory, the kernel's offsets lie inside the ring's mapping,
    // and the kernel reads neither before the producer has moved.
    unsafe {
        std::ptr::copy_nonoverlapping(frame.as_ptr(), memory, frame.len());
        let first = page.add(ring.desc as usize).cast::<libc::xdp_desc>();
        first.write_volatile(libc::xdp_desc { addr: 0, len: frame.len() as u32, options: 0 });
        fence(Ordering::Release);
        page.add(ring.producer as usize).cast::<u32>().write_volatile(1);
    }
    // SAFETY: no data and no address: a call to look at the ring.
    let sent =
        unsafe { libc::sendto(socket.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
    crate::step("send", sent)?;
    Ok("sent")
}

/// Where the transmit ring is to be mapped from.
const TX_RING: libc::off_t = libc::XDP_PGOFF_TX_RING;

/// New memory, the socket's or our own. Never unmapped.
fn map(socket: Option<&OwnedFd>, length: usize, offset: libc::off_t) -> Result<*mut u8, Errno> {
    let kind = if socket.is_some() { libc::MAP_SHARED } else { libc::MAP_PRIVATE | libc::MAP_ANONYMOUS };
    let fd = socket.map_or(-1, std::os::fd::AsRawFd::as_raw_fd);
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, where the kernel likes.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), length, access, kind | libc::MAP_POPULATE, fd, offset) };
    if mapped == libc::MAP_FAILED { Err(crate::refused("mmap")) } else { Ok(mapped.cast()) }
}

fn set_option<T>(socket: &OwnedFd, name: &str, option: i32, value: &T) -> Result<(), Errno> {
    let (pointer, length) = (std::ptr::from_ref(value).cast(), size_of_val(value) as libc::socklen_t);
    // SAFETY: an option with its length.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_XDP, option, pointer, length) };
    crate::step(name, set).map(drop)
}

/// Where the transmit ring's parts are.
fn offsets(socket: &OwnedFd) -> Result<libc::xdp_ring_offset, Errno> {
    // SAFETY: integers alone, for which all zeroes is a value.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&offsets) as libc::socklen_t;
    // SAFETY: an option's place with its length.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_MMAP_OFFSETS,
            (&raw mut offsets).cast(),
            &raw mut length,
        )
    };
    crate::step("XDP_MMAP_OFFSETS", got)?;
    Ok(offsets.tx)
}

/// To the device's first queue; copying works with every driver.
fn bind(socket: &OwnedFd, link: &Link) -> Result<(), Errno> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: libc::XDP_COPY,
        sxdp_ifindex: link.index as u32,
        sxdp_queue_id: 0,
        sxdp_shared_umem_fd: 0,
    };
    // SAFETY: an address with its length.
    let bound = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
    };
    crate::step("bind", bound).map(drop)
}
