//! System calls by the entry of 32-bit programs, where the kernel asks the cgroup's programs nothing
//! (`do_sock_setsockopt`, net/socket.c).

use std::net::SocketAddr;

use crate::{Said, Way};

/// The ways.
pub(crate) const WAYS: &[Way] = &[("compat_bypass", bypass)];

/// `compat_bypass ADDRESS PORT [FILE]`: as `packet_bypass`; with a file it says `ready` in between, and waits for that.
#[cfg(target_arch = "x86_64")]
fn bypass(to: SocketAddr, rest: &[String]) -> Said {
    use std::os::fd::AsRawFd as _;

    use nix::errno::Errno;

    use crate::frame::{address, ethertype, send, socket};
    use crate::link::Link;
    use crate::packet::Flow;

    /// arch/x86/entry/syscalls/syscall_32.tbl
    const SETSOCKOPT: i32 = 366;
    let (link, flow) = (Link::to(to, None)?, Flow::to(to)?);
    let socket = socket(libc::SOCK_RAW)?;
    // SAFETY: a page of our own, below 4 GiB, where such a call finds it.
    let page = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    if page == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: the page is ours.
    unsafe { page.cast::<i32>().write(1) };
    let mut result = SETSOCKOPT;
    // SAFETY: the call reads the integer on the page; rbx is the compiler's own, and given back.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {fd:r}",
            "int 0x80",
            "xchg rbx, {fd:r}",
            fd = inout(reg) i64::from(socket.as_raw_fd()) => _,
            inout("eax") result,
            in("ecx") libc::SOL_PACKET,
            in("edx") libc::PACKET_QDISC_BYPASS,
            in("esi") page as usize as u32,
            in("edi") 4,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    if result < 0 {
        return Err(Errno::from_raw(-result));
    }
    if !rest.is_empty() {
        crate::announce("ready");
        crate::before::told(rest.first());
    }
    link.syn(&flow).iter().try_for_each(|frame| send(&socket, frame, &address(&link, ethertype(&flow))))?;
    Ok("sent")
}

#[cfg(not(target_arch = "x86_64"))]
fn bypass(_to: SocketAddr, _rest: &[String]) -> Said {
    Ok("unsupported")
}
