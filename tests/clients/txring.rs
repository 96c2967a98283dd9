//! Frames from memory that is shared with the kernel (Documentation/networking/packet_mmap.rst).

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{Ordering, fence};

use nix::errno::Errno;

use crate::frame::set_option;

/// One block with one frame is all we need.
const SIZE: usize = 4096;

/// Sends one frame by a ring of its own: a socket takes one ring.
pub(crate) fn send(socket: &OwnedFd, frame: &[u8], to: &libc::sockaddr_ll) -> Result<(), Errno> {
    set_option(socket, "PACKET_VERSION", libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V2 as i32))?;
    let request =
        libc::tpacket_req { tp_block_size: SIZE as u32, tp_block_nr: 1, tp_frame_size: SIZE as u32, tp_frame_nr: 1 };
    set_option(socket, "PACKET_TX_RING", libc::PACKET_TX_RING, &request)?;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping of the ring, as large as it was asked for.
    let ring = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, access, libc::MAP_SHARED, socket.as_raw_fd(), 0) };
    if ring == libc::MAP_FAILED {
        return Err(crate::refused("mmap"));
    }
    let header = ring.cast::<libc::tpacket2_hdr>();
    // Where the kernel looks for the frame: behind the header, without the address that stands there on receipt.
    let start = libc::TPACKET2_HDRLEN - size_of::<libc::sockaddr_ll>();
    // SAFETY: header and frame (of a hundred bytes) lie inside the mapping, and the kernel does not touch the place
    // before it has been told to.
    unsafe {
        std::ptr::copy_nonoverlapping(frame.as_ptr(), ring.cast::<u8>().add(start), frame.len());
        (&raw mut (*header).tp_len).write_volatile(frame.len() as u32);
        fence(Ordering::Release);
        (&raw mut (*header).tp_status).write_volatile(libc::TP_STATUS_SEND_REQUEST);
    }
    // SAFETY: no data, and an address with its length.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            std::ptr::null(),
            0,
            0,
            std::ptr::from_ref(to).cast(),
            size_of_val(to) as libc::socklen_t,
        )
    };
    crate::step("send", sent)?;
    // SAFETY: inside the mapping, which is never unmapped.
    let status = unsafe { (&raw const (*header).tp_status).read_volatile() };
    // Taken: it is free again, or on its way.
    if status == libc::TP_STATUS_WRONG_FORMAT { Err(Errno::EBADMSG) } else { Ok(()) }
}
