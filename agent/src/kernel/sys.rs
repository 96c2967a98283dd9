//! The few system calls that aya does not offer: the only `unsafe` of the agent.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use tokio::io::unix::AsyncFd;

/// `bpf(2)` commands, `enum bpf_cmd` of include/uapi/linux/bpf.h.
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_UPDATE: libc::c_int = 29;
/// `MEMBARRIER_CMD_GLOBAL`, include/uapi/linux/membarrier.h.
const MEMBARRIER_GLOBAL: libc::c_int = 1;

/// What the kernel says about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The link's id.
    pub id: u32,
    /// The program's id.
    pub program: u32,
    /// For a cgroup link the cgroup's id, 0 when that cgroup is gone; meaningless for other links.
    pub cgroup: u64,
}

/// `bpf_attr` of BPF_OBJ_GET.
#[repr(C)]
#[derive(Default)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `bpf_attr` of BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
#[derive(Default)]
struct InfoByFd {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`, with the member of its union that cgroup links use.
#[repr(C)]
#[derive(Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    _pad: u32,
    cgroup_id: u64,
    attach_type: u32,
    _pad2: u32,
}

/// `bpf_attr` of BPF_LINK_UPDATE.
#[repr(C)]
#[derive(Default)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// One `bpf(2)` call.
fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is a `repr(C)` prefix of `union bpf_attr` of the size that is named; the kernel treats the
    // rest as zero. Pointers inside point to live memory of the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Opens a pinned object.
///
/// # Errors
///
/// Those of the system call; `NotFound` where nothing is pinned.
pub fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjGet { pathname: path.as_ptr() as u64, ..ObjGet::default() };
    let fd = bpf(BPF_OBJ_GET, &mut attributes)?;
    // SAFETY: a descriptor the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Asks about a link.
///
/// # Errors
///
/// Those of the system call.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut raw = RawLinkInfo::default();
    let mut attributes = InfoByFd {
        bpf_fd: link.as_raw_fd() as u32,
        info_len: size_of::<RawLinkInfo>() as u32,
        info: &raw mut raw as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(LinkInfo { id: raw.id, program: raw.prog_id, cgroup: raw.cgroup_id })
}

/// Puts another program behind a link, in one step: no moment without a program.
///
/// # Errors
///
/// Those of the system call; ENOLINK when the link's cgroup is gone.
pub fn link_update(link: BorrowedFd<'_>, program: impl AsFd) -> io::Result<()> {
    let mut attributes = LinkUpdate {
        link_fd: link.as_raw_fd() as u32,
        new_prog_fd: program.as_fd().as_raw_fd() as u32,
        ..LinkUpdate::default()
    };
    bpf(BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// Returns when every program that was running has ended (an RCU grace period, kernel/sched/membarrier.c).
pub fn wait_for_running_programs() {
    // SAFETY: no pointers.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_GLOBAL, 0, 0) };
    if done != 0 {
        // Kernels with nohz_full do not offer it. A program runs for microseconds; this is generous.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// The event in a ring-buffer record; `None` when it is not one of this version.
#[must_use]
pub fn decode_event(bytes: &[u8]) -> Option<portreeve_abi::Event> {
    if bytes.len() != size_of::<portreeve_abi::Event>() {
        return None;
    }
    // SAFETY: as many bytes as the structure has, and any bytes are a value of it; the read needs no alignment.
    Some(unsafe { bytes.as_ptr().cast::<portreeve_abi::Event>().read_unaligned() })
}

/// The ring buffer as something to wait for.
///
/// # Errors
///
/// When the reactor does not take it.
pub fn event_stream(
    ring: aya::maps::RingBuf<aya::maps::MapData>,
) -> io::Result<AsyncFd<aya::maps::RingBuf<aya::maps::MapData>>> {
    // SAFETY: the ring buffer owns its descriptor, and gives the same one until it is dropped, by the AsyncFd itself.
    unsafe { AsyncFd::register(ring) }.map_err(io::Error::other)
}
