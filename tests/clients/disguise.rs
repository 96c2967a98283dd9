//! Another executable's face: a process that changes what stands for its program (`PR_SET_MM_MAP`,
//! kernel/sys.c), which an unprivileged one may do inside a user namespace of its own.
//!
//! The kernel refuses while the old executable is still mapped, so the last steps run from a page of anonymous memory:
//! unmap the program, change the face, connect, and exit with the errno.

use std::net::SocketAddr;

use nix::errno::Errno;
use socket2::SockAddr;

use crate::ways::Outcome;

/// What the code in the page needs, at fixed places (see the offsets in the assembler text).
#[repr(C)]
struct Task {
    /// How many ranges to unmap.
    ranges: u64,
    /// Start and length of each.
    range: [[u64; 2]; 16],
    /// Keeps the places.
    _unused: u64,
    /// The socket.
    socket: u64,
    /// The address and its length.
    address: [u8; 32],
    address_len: u64,
    /// `struct prctl_mm_map`, include/uapi/linux/prctl.h, all as it is but for the executable.
    map: [u64; 12],
    auxv_size: u32,
    exe_fd: u32,
}

// r15 holds the task. System calls and their numbers: arch/x86/entry/syscalls/syscall_64.tbl.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".global disguise_start",
    ".global disguise_end",
    "disguise_start:",
    "mov r15, rdi",
    "xor r14, r14",
    "2:",
    "cmp r14, [r15]",
    "jae 3f",
    "mov rax, r14",
    "shl rax, 4",
    "mov rdi, [r15 + rax + 8]",
    "mov rsi, [r15 + rax + 16]",
    "mov eax, 11", // munmap
    "syscall",
    "inc r14",
    "jmp 2b",
    "3:",
    "mov edi, 35", // PR_SET_MM
    "mov esi, 14", // PR_SET_MM_MAP
    "lea rdx, [r15 + 320]",
    "mov r10d, 104",
    "xor r8, r8",
    "mov eax, 157", // prctl
    "syscall",
    "test rax, rax",
    "js 4f",
    "mov rdi, [r15 + 272]",
    "lea rsi, [r15 + 280]",
    "mov rdx, [r15 + 312]",
    "mov eax, 42", // connect
    "syscall",
    "neg rax",
    "mov edi, eax",
    "jmp 5f",
    "4:",
    "mov rdi, rax",
    "neg rdi",
    "or edi, 128",
    "5:",
    "mov eax, 231", // exit_group
    "syscall",
    "disguise_end:",
);

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    static disguise_start: u8;
    static disguise_end: u8;
}

/// Takes the face of the program in `LAB_FACE`, and connects with it. Ends the process with the errno as exit code;
/// 128 + the errno means that the kernel did not let the face be changed.
#[cfg(target_arch = "x86_64")]
pub(crate) fn disguised(to: SocketAddr) -> Outcome {
    use std::os::fd::{AsRawFd as _, IntoRawFd as _};
    let face = std::env::var("LAB_FACE").map_err(|_unset| Errno::EINVAL)?;
    let exe = std::fs::File::open(face).map_err(|error| crate::ways::errno(&error))?;
    let socket = crate::ways::stream(&to, 0)?;
    let address = SockAddr::from(to);
    let own = std::env::current_exe().map_err(|error| crate::ways::errno(&error))?;
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|error| crate::ways::errno(&error))?;
    let mut task = Box::new(Task {
        ranges: 0,
        range: [[0; 2]; 16],
        _unused: 0,
        socket: socket.as_raw_fd() as u64,
        address: [0; 32],
        address_len: address.len().into(),
        map: memory_map()?,
        auxv_size: 0,
        exe_fd: exe.into_raw_fd() as u32,
    });
    for line in maps.lines().filter(|line| line.ends_with(&*own.to_string_lossy())) {
        let (start, rest) = line.split_once('-').ok_or(Errno::EINVAL)?;
        let (end, _) = rest.split_once(' ').ok_or(Errno::EINVAL)?;
        let number = |text| u64::from_str_radix(text, 16).map_err(|_text| Errno::EINVAL);
        let (start, end) = (number(start)?, number(end)?);
        *task.range.get_mut(task.ranges as usize).ok_or(Errno::E2BIG)? = [start, end - start];
        task.ranges += 1;
    }
    // SAFETY: an address of `len` bytes, no more than the 28 of sockaddr_in6; the code is position-independent and
    // touches nothing but the task, which is never freed, and the page it runs in.
    unsafe {
        std::ptr::copy_nonoverlapping(address.as_ptr().cast::<u8>(), task.address.as_mut_ptr(), address.len() as usize);
        let (start, end) = (&raw const disguise_start, &raw const disguise_end);
        let length = end.offset_from(start) as usize;
        let page = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if page == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        std::ptr::copy_nonoverlapping(start, page.cast::<u8>(), length);
        let run: extern "C" fn(*const Task) -> ! = std::mem::transmute(page);
        run(Box::leak(task))
    }
}

/// Where the process's own code, data, heap, stack, arguments and environment are, from /proc/self/stat (proc_pid_stat(5)),
/// in the order of `struct prctl_mm_map`.
#[cfg(target_arch = "x86_64")]
fn memory_map() -> Result<[u64; 12], Errno> {
    let stat = std::fs::read_to_string("/proc/self/stat").map_err(|error| crate::ways::errno(&error))?;
    // Counted from the third field, which follows the name in parentheses.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok()).ok_or(Errno::EINVAL);
    // SAFETY: asks where the heap ends.
    let brk = unsafe { libc::sbrk(0) } as u64;
    let (start_code, end_code, start_data, end_data) = (field(26)?, field(27)?, field(45)?, field(46)?);
    let (start_brk, start_stack) = (field(47)?, field(28)?);
    let (arg_start, arg_end, env_start, env_end) = (field(48)?, field(49)?, field(50)?, field(51)?);
    Ok([
        start_code,
        end_code,
        start_data,
        end_data,
        start_brk,
        brk,
        start_stack,
        arg_start,
        arg_end,
        env_start,
        env_end,
        0,
    ])
}

/// Only written for x86-64.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn disguised(_to: SocketAddr) -> Outcome {
    Err(Errno::ENOSYS)
}
