//! Another program's hand: a child under ptrace(2) is made to connect in its own name.

use std::net::SocketAddr;

use nix::errno::Errno;

use crate::{Said, Way};

/// The ways.
pub(crate) const WAYS: &[Way] = &[
    ("ptrace_inject", strings::inject),
    ("traced_start", strings::traced_start),
    ("write_memory", |_, rest| write_memory(rest)),
    ("plain_when_told", |to, rest| plain_when_told(to, rest)),
];

/// `write_memory ADDRESS PORT PID`: opens the memory of a process for writing, which is all that it takes, and closes it.
fn write_memory(rest: &[String]) -> Said {
    let pid = rest.first().ok_or(Errno::EINVAL)?;
    let memory = std::fs::File::options().read(true).write(true).open(format!("/proc/{pid}/mem"));
    crate::os("open", memory).map(|_memory| "written")
}

/// `plain_when_told ADDRESS PORT FILE`: has a socket and says `ready`, and connects once the file is there.
fn plain_when_told(to: SocketAddr, rest: &[String]) -> Said {
    let socket = crate::ways::stream(&to, 0)?;
    crate::announce("ready");
    crate::before::told(rest.first());
    crate::ways::connect(&socket, to)?;
    Ok("connected")
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod strings {
    use std::ffi::CString;
    use std::net::SocketAddr;

    use nix::errno::Errno;
    use nix::libc::user_regs_struct;
    use nix::sys::ptrace;
    use nix::sys::signal::Signal;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, Pid, execv, fork};
    use socket2::{Domain, SockAddr};

    use crate::Said;

    /// The machine's instruction for a system call, little-endian in a word of memory.
    #[cfg(target_arch = "x86_64")]
    const SYSCALL: (libc::c_long, libc::c_long) = (0x050f, 0xffff);
    /// As above: `svc #0`.
    #[cfg(target_arch = "aarch64")]
    const SYSCALL: (libc::c_long, libc::c_long) = (0xd400_0001, 0xffff_ffff);

    /// `ptrace_inject ADDRESS PORT PROGRAM`: starts PROGRAM and makes it connect before its first instruction.
    pub(super) fn inject(to: SocketAddr, rest: &[String]) -> Said {
        let program = CString::new(rest.first().ok_or(Errno::EINVAL)?.as_str()).map_err(|_nul| Errno::EINVAL)?;
        // SAFETY: there are no other threads.
        match unsafe { fork() }? {
            ForkResult::Child => {
                let _never = ptrace::traceme().and_then(|()| execv(&program, &[&program]));
                // SAFETY: ends the child alone.
                unsafe { libc::_exit(127) }
            }
            ForkResult::Parent { child } => {
                let said = trapped(child).and_then(|()| connect(child, to));
                // It may have ended by itself.
                if ptrace::kill(child).is_ok() {
                    waitpid(child, None)?;
                }
                said
            }
        }
    }

    /// `traced_start ADDRESS PORT PROGRAM FILE`: starts PROGRAM as `plain_when_told` under a tracer, which is gone by the
    /// time it connects.
    pub(super) fn traced_start(to: SocketAddr, rest: &[String]) -> Said {
        let text = |text: String| CString::new(text).map_err(|_nul| Errno::EINVAL);
        let [program, file] = rest else { return Err(Errno::EINVAL) };
        let program = text(program.clone())?;
        let arguments = ["lab-client", "plain_when_told", &to.ip().to_string(), &to.port().to_string(), file];
        let arguments = arguments.map(|argument| text(argument.to_owned()));
        let arguments: Vec<CString> = arguments.into_iter().collect::<Result<_, _>>()?;
        // SAFETY: there are no other threads.
        match unsafe { fork() }? {
            ForkResult::Child => {
                let _never = ptrace::traceme().and_then(|()| execv(&program, &arguments));
                // SAFETY: ends the child alone.
                unsafe { libc::_exit(127) }
            }
            ForkResult::Parent { child } => {
                trapped(child)?;
                ptrace::detach(child, None)?;
                waitpid(child, None)?;
                Ok("gone")
            }
        }
    }

    /// socket() and connect(), each with the instruction at which the program stands.
    fn connect(child: Pid, to: SocketAddr) -> Said {
        let before = ptrace::getregs(child)?;
        let (place, stack) = places(&before);
        let word = ptrace::read(child, place as ptrace::AddressType)?;
        ptrace::write(child, place as ptrace::AddressType, word & !SYSCALL.1 | SYSCALL.0)?;
        let family = i32::from(Domain::for_address(to)) as u64;
        let socket = call(child, &before, libc::SYS_socket, [family, libc::SOCK_STREAM as u64, 0])?;
        // Below the red zone of what the stack holds.
        let address = SockAddr::from(to);
        let at = (stack - 512) & !15;
        poke(child, at, &address)?;
        call(child, &before, libc::SYS_connect, [socket, at, u64::from(address.len())])?;
        Ok("connected")
    }

    /// Writes an address into the child's memory.
    fn poke(child: Pid, at: u64, address: &SockAddr) -> Result<(), Errno> {
        // SAFETY: the address has that many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(address.as_ptr().cast::<u8>(), address.len() as usize) };
        for (number, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let place = at + number as u64 * 8;
            ptrace::write(child, place as ptrace::AddressType, libc::c_long::from_ne_bytes(word))?;
        }
        Ok(())
    }

    /// Waits until the child stands still: at its program's beginning, or after a step.
    fn trapped(child: Pid) -> Result<(), Errno> {
        let status = waitpid(child, None)?;
        if matches!(status, WaitStatus::Stopped(_, Signal::SIGTRAP)) {
            return Ok(());
        }
        crate::remark(&format!("{status:?}"));
        Err(Errno::ECHILD)
    }

    /// One system call of the child's.
    fn call(child: Pid, before: &user_regs_struct, number: i64, arguments: [u64; 3]) -> Result<u64, Errno> {
        ptrace::setregs(child, registers(before, number as u64, arguments))?;
        ptrace::step(child, None)?;
        trapped(child)?;
        let returned = result(&ptrace::getregs(child)?);
        if returned < 0 { Err(Errno::from_raw(-returned as i32)) } else { Ok(returned as u64) }
    }

    /// Instruction pointer and stack pointer.
    #[cfg(target_arch = "x86_64")]
    fn places(registers: &user_regs_struct) -> (u64, u64) {
        (registers.rip, registers.rsp)
    }

    #[cfg(target_arch = "aarch64")]
    fn places(registers: &user_regs_struct) -> (u64, u64) {
        (registers.pc, registers.sp)
    }

    #[cfg(target_arch = "x86_64")]
    fn registers(before: &user_regs_struct, number: u64, [rdi, rsi, rdx]: [u64; 3]) -> user_regs_struct {
        // Not in a call already: nothing to restart.
        user_regs_struct { rax: number, orig_rax: u64::MAX, rdi, rsi, rdx, ..*before }
    }

    #[cfg(target_arch = "aarch64")]
    fn registers(before: &user_regs_struct, number: u64, arguments: [u64; 3]) -> user_regs_struct {
        let mut registers = *before;
        registers.regs[..3].copy_from_slice(&arguments);
        registers.regs[8] = number;
        registers
    }

    #[cfg(target_arch = "x86_64")]
    fn result(registers: &user_regs_struct) -> i64 {
        registers.rax as i64
    }

    #[cfg(target_arch = "aarch64")]
    fn result(registers: &user_regs_struct) -> i64 {
        registers.regs[0] as i64
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod strings {
    /// Written for two machines alone.
    pub(super) fn traced_start(_to: std::net::SocketAddr, _rest: &[String]) -> crate::Said {
        Ok("unsupported")
    }

    /// Likewise.
    pub(super) fn inject(_to: std::net::SocketAddr, _rest: &[String]) -> crate::Said {
        Ok("unsupported")
    }
}
