//! The few system calls that aya does not offer: the only `unsafe` of the agent.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use tokio::io::unix::AsyncFd;

/// `bpf(2)` commands, `enum bpf_cmd` of include/uapi/linux/bpf.h.
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const BPF_MAP_FREEZE: libc::c_int = 22;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
/// `enum bpf_attach_type`.
const CGROUP_INET_EGRESS: u32 = 1;
const CGROUP_INET4_CONNECT: u32 = 10;
const CGROUP_INET6_CONNECT: u32 = 11;
const CGROUP_SETSOCKOPT: u32 = 22;
const CGROUP_SOCK_OPS: u32 = 3;
const CGROUP_INET4_GETPEERNAME: u32 = 29;
const CGROUP_INET6_GETPEERNAME: u32 = 30;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
/// `BPF_F_BEFORE`: with nothing named, before all others.
const BEFORE: u32 = 1 << 3;
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
    /// For a tcx link the device's index, 0 when that device is gone; meaningless for other links.
    pub device: u32,
}

/// `bpf_attr` of BPF_OBJ_PIN and BPF_OBJ_GET.
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

/// The beginning of `struct bpf_link_info`, with as much of its union as cgroup and tcx links use.
#[repr(C)]
#[derive(Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    _pad: u32,
    detail: [u8; 16],
}

/// `bpf_attr` of BPF_LINK_CREATE, with as much of its union as tcx links use.
#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    _pad: u32,
    expected_revision: u64,
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

/// `bpf_attr` of BPF_RAW_TRACEPOINT_OPEN.
#[repr(C)]
struct RawTracepointOpen {
    name: u64,
    prog_fd: u32,
    _pad: u32,
}

/// `bpf_attr` of BPF_PROG_QUERY, with as much of it as queries of devices use.
#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    _pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// One `bpf(2)` call.
fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is a `repr(C)` prefix of `union bpf_attr` of the size that is named; the kernel treats the
    // rest as zero. Pointers inside point to live memory of the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// On a cgroup, at cgroup_skb/egress.
    Egress(BorrowedFd<'a>),
    /// On a cgroup, at cgroup/connect4.
    Connect4(BorrowedFd<'a>),
    /// On a cgroup, at cgroup/connect6.
    Connect6(BorrowedFd<'a>),
    /// On a cgroup, at cgroup/setsockopt.
    Setsockopt(BorrowedFd<'a>),
    /// On a cgroup, at sock_ops.
    SockOps(BorrowedFd<'a>),
    /// On a cgroup, at cgroup/getpeername4.
    PeerName4(BorrowedFd<'a>),
    /// On a cgroup, at cgroup/getpeername6.
    PeerName6(BorrowedFd<'a>),
    /// On the device of this index in the thread's network namespace, at tcx, before all other programs.
    Device(u32, Way),
}

/// Which way frames go through a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Into this host, by tc ingress.
    In,
    /// Out of it, by tc egress.
    Out,
}

impl Way {
    /// The hook's name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::In => "lan",
            Self::Out => "frame",
        }
    }

    fn tcx(self) -> u32 {
        match self {
            Self::In => TCX_INGRESS,
            Self::Out => TCX_EGRESS,
        }
    }
}

/// Attaches a program; it stays as long as the link is open or pinned. Links on cgroups since Linux 5.7, tcx since 6.6.
///
/// # Errors
///
/// Those of the system call; EINVAL where the kernel does not know the kind of link.
pub fn link_create(program: BorrowedFd<'_>, target: Target<'_>) -> io::Result<OwnedFd> {
    let fd = |cgroup: BorrowedFd<'_>| cgroup.as_raw_fd() as u32;
    let (target, attach_type, flags) = match target {
        Target::Egress(cgroup) => (fd(cgroup), CGROUP_INET_EGRESS, 0),
        Target::Connect4(cgroup) => (fd(cgroup), CGROUP_INET4_CONNECT, 0),
        Target::Connect6(cgroup) => (fd(cgroup), CGROUP_INET6_CONNECT, 0),
        Target::Setsockopt(cgroup) => (fd(cgroup), CGROUP_SETSOCKOPT, 0),
        Target::SockOps(cgroup) => (fd(cgroup), CGROUP_SOCK_OPS, 0),
        Target::PeerName4(cgroup) => (fd(cgroup), CGROUP_INET4_GETPEERNAME, 0),
        Target::PeerName6(cgroup) => (fd(cgroup), CGROUP_INET6_GETPEERNAME, 0),
        Target::Device(index, way) => (index, way.tcx(), BEFORE),
    };
    let prog_fd = program.as_raw_fd() as u32;
    let mut attributes = LinkCreate { prog_fd, target, attach_type, flags, ..LinkCreate::default() };
    let link = bpf(BPF_LINK_CREATE, &mut attributes)?;
    // SAFETY: a descriptor the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(link as i32) })
}

/// Attaches a program to a raw tracepoint, or to the kernel function it was loaded for; it stays as long as the link is
/// open or pinned. Since Linux 4.17.
///
/// # Errors
///
/// Those of the system call.
pub fn raw_tracepoint_open(program: BorrowedFd<'_>, tracepoint: Option<&str>) -> io::Result<OwnedFd> {
    let name = tracepoint.map(CString::new).transpose()?;
    let name_address = name.as_ref().map_or(0, |name| name.as_ptr() as u64);
    let mut attributes = RawTracepointOpen { name: name_address, prog_fd: program.as_raw_fd() as u32, _pad: 0 };
    let link = bpf(BPF_RAW_TRACEPOINT_OPEN, &mut attributes)?;
    // SAFETY: a descriptor the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(link as i32) })
}

/// Pins an object.
///
/// # Errors
///
/// Those of the system call; EEXIST where something is pinned already.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes =
        ObjGet { pathname: path.as_ptr() as u64, bpf_fd: object.as_raw_fd() as u32, ..ObjGet::default() };
    bpf(BPF_OBJ_PIN, &mut attributes).map(drop)
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
    let [a, b, c, d, e, f, g, h, ..] = raw.detail;
    Ok(LinkInfo {
        id: raw.id,
        program: raw.prog_id,
        cgroup: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        device: u32::from_ne_bytes([a, b, c, d]),
    })
}

/// The links of a device of the thread's network namespace at tcx, in their order; 0 for a program without one.
/// Since Linux 6.6.
///
/// # Errors
///
/// Those of the system call; EINVAL where the kernel has no tcx.
pub fn tcx_links(device: u32, way: Way) -> io::Result<Vec<u32>> {
    // More than the kernel lets a device have (BPF_MPROG_MAX, include/linux/bpf_mprog.h).
    let mut links = vec![0_u32; 64];
    let mut programs = vec![0_u32; links.len()];
    let mut attributes = ProgQuery {
        target: device,
        attach_type: way.tcx(),
        prog_ids: programs.as_mut_ptr() as u64,
        count: links.len() as u32,
        link_ids: links.as_mut_ptr() as u64,
        ..ProgQuery::default()
    };
    bpf(BPF_PROG_QUERY, &mut attributes)?;
    links.truncate(attributes.count as usize);
    Ok(links)
}

/// Writes a value into the storage of one of this process's sockets (`bpf_fd_sk_storage_update_elem`,
/// net/core/bpf_sk_storage.c).
///
/// # Errors
///
/// Those of the system call.
pub fn set_socket_storage<V: Copy>(map: BorrowedFd<'_>, socket: BorrowedFd<'_>, value: &V) -> io::Result<()> {
    // `bpf_attr` of BPF_MAP_UPDATE_ELEM: the map, the key's and the value's address, flags.
    let key = socket.as_raw_fd();
    let mut attributes = [map.as_raw_fd() as u64, &raw const key as u64, core::ptr::from_ref(value) as u64, 0];
    bpf(BPF_MAP_UPDATE_ELEM, &mut attributes).map(drop)
}

/// Whether there is a program of this id, in so far as the caller may know.
#[must_use]
pub fn program_exists(id: u32) -> bool {
    // `bpf_attr` of BPF_PROG_GET_FD_BY_ID: the id, the next one (unused), flags.
    let mut attributes = [id, 0, 0];
    // SAFETY: a descriptor the kernel has just made for us.
    bpf(BPF_PROG_GET_FD_BY_ID, &mut attributes).map(|fd| drop(unsafe { OwnedFd::from_raw_fd(fd as i32) })).is_ok()
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

/// An option of a socket that is an integer.
///
/// # Errors
///
/// Those of getsockopt(2).
pub fn option(socket: &OwnedFd, level: i32, name: i32) -> io::Result<i32> {
    let (mut value, mut size) = (0_i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: the integer with its size, alive during the call.
    let got = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut size) };
    if got == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Sets an option of a socket that is an integer.
///
/// # Errors
///
/// Those of setsockopt(2).
pub fn set_option(socket: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: an integer of the size named.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A process as a descriptor. Since Linux 5.3.
///
/// # Errors
///
/// Those of pidfd_open(2).
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends a signal to the process behind a descriptor, and to no other that has its number now. Since Linux 5.1.
///
/// # Errors
///
/// Those of pidfd_send_signal(2): ESRCH when the process has ended, EPERM without CAP_KILL.
pub fn pidfd_send_signal(process: BorrowedFd<'_>, signal: libc::c_int) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the one pointer is null, for which the kernel fills in what kill(2) would.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, no_info, 0) };
    if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor of another process, as one of ours. Since Linux 5.6.
///
/// # Errors
///
/// Those of pidfd_getfd(2).
pub fn pidfd_getfd(process: &OwnedFd, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Makes a mount, and with `below` all mounts below it, read-only or writable. Since Linux 5.12.
///
/// # Errors
///
/// Those of mount_setattr(2).
pub fn set_read_only(mount: &Path, below: bool, read_only: bool) -> io::Result<()> {
    let path = CString::new(mount.as_os_str().as_bytes())?;
    // `struct mount_attr`, include/uapi/linux/mount.h: what is set, what is cleared, propagation, user namespace.
    let attributes = if read_only { [libc::MOUNT_ATTR_RDONLY, 0, 0, 0] } else { [0, libc::MOUNT_ATTR_RDONLY, 0, 0] };
    let flags = if below { libc::AT_RECURSIVE } else { 0 };
    let size = size_of_val(&attributes);
    // SAFETY: a path that ends with NUL and a structure of the size named, alive during the call.
    let done = unsafe {
        libc::syscall(libc::SYS_mount_setattr, libc::AT_FDCWD, path.as_ptr(), flags, attributes.as_ptr(), size)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Forbids every further write to a map from outside the kernel's programs.
///
/// # Errors
///
/// Those of the system call; EBUSY when it is frozen already.
pub fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut fd = map.as_raw_fd() as u32;
    bpf(BPF_MAP_FREEZE, &mut fd).map(drop)
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

/// The record of what may have moved a program; `None` when it is not one of this version.
#[must_use]
pub fn decode_stir(bytes: &[u8]) -> Option<portreeve_abi::Stir> {
    if bytes.len() != size_of::<portreeve_abi::Stir>() {
        return None;
    }
    // SAFETY: as in `decode_event`.
    Some(unsafe { bytes.as_ptr().cast::<portreeve_abi::Stir>().read_unaligned() })
}

/// The records in what the iterator has written; a cut one at the end is left out.
pub fn decode_existing(bytes: &[u8]) -> impl Iterator<Item = portreeve_abi::Existing> + '_ {
    bytes.chunks_exact(size_of::<portreeve_abi::Existing>()).map(|record| {
        // SAFETY: as in `decode_event`.
        unsafe { record.as_ptr().cast::<portreeve_abi::Existing>().read_unaligned() }
    })
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
