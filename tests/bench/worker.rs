//! The process that connects, told what to do line by line on its standard input; and the one that accepts.

use std::fs::File;
use std::io::Write as _;
use std::mem::size_of_val;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Uid, seteuid};
use socket2::{Domain, SockAddr, Type};

use crate::machine;

/// Obeys until standard input ends.
pub(crate) fn work() {
    machine::pin(0, Some(0));
    // Others on this processor wait a little longer for us; nothing starves.
    // SAFETY: no pointers.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[..] {
            ["go", cgroup, netns] => {
                File::options().write(true).open(cgroup).unwrap().write_all(b"0").unwrap();
                setns(File::open(netns).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
                "gone".to_owned()
            }
            ["run", kind, to, count, user, expected] => {
                let (to, expected): (SocketAddr, i32) = (to.parse().unwrap(), expected.parse().unwrap());
                let count = count.parse().unwrap();
                seteuid(Uid::from_raw(user.parse().unwrap())).unwrap();
                let taken = if kind == "udp" { datagram(to, count, expected) } else { stream(to, count, expected) };
                seteuid(Uid::from_raw(0)).unwrap();
                format!("{} {} {}", taken.whole, taken.connect, taken.wrong)
            }
            ["stamp", to, user] => {
                let to: SocketAddr = to.parse().unwrap();
                seteuid(Uid::from_raw(user.parse().unwrap())).unwrap();
                let socket = socket(to, Type::STREAM);
                let errno = connect(&socket, &to.into());
                let now = boottime();
                seteuid(Uid::from_raw(0)).unwrap();
                format!("{now} {errno}")
            }
            ["exec", program, count] => exec(program, count.parse().unwrap()).to_string(),
            _ => panic!("not an order: {line}"),
        };
        println!("{answer}");
    }
}

/// CLOCK_BOOTTIME in nanoseconds.
pub(crate) fn boottime() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

struct Taken {
    /// Nanoseconds of socket, connect and close together, a call.
    whole: u64,
    /// Nanoseconds of connect alone, a call.
    connect: u64,
    /// Calls whose outcome was not the expected one.
    wrong: u64,
}

fn stream(to: SocketAddr, count: u64, expected: i32) -> Taken {
    let address = SockAddr::from(to);
    let (mut connecting, mut wrong) = (0, 0);
    let start = Instant::now();
    for _ in 0..count {
        let socket = socket(to, Type::STREAM);
        // Closing resets the connection: nothing stays in TIME_WAIT, of which there would soon be too many.
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        // SAFETY: pointer and length are of one live structure.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of_val(&linger) as libc::socklen_t,
            )
        };
        let before = Instant::now();
        let errno = connect(&socket, &address);
        connecting += before.elapsed().as_nanos() as u64;
        wrong += u64::from(errno != expected);
    }
    Taken { whole: start.elapsed().as_nanos() as u64 / count, connect: connecting / count, wrong }
}

/// One socket, connected again and again: no packet, hardly more than the hook itself.
fn datagram(to: SocketAddr, count: u64, expected: i32) -> Taken {
    let (address, socket) = (SockAddr::from(to), socket(to, Type::DGRAM));
    let mut wrong = 0;
    let start = Instant::now();
    for _ in 0..count {
        wrong += u64::from(connect(&socket, &address) != expected);
    }
    let taken = start.elapsed().as_nanos() as u64 / count;
    Taken { whole: taken, connect: taken, wrong }
}

pub(crate) fn socket(to: SocketAddr, kind: Type) -> OwnedFd {
    let domain = if to.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(domain.into(), libc::c_int::from(kind) | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "socket: {}", Errno::last());
    // SAFETY: the descriptor is new and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// connect(2): 0 or the errno.
pub(crate) fn connect(socket: &OwnedFd, to: &SockAddr) -> i32 {
    // SAFETY: pointer and length are of one live address.
    let result = unsafe { libc::connect(socket.as_raw_fd(), to.as_ptr().cast(), to.len()) };
    if result == 0 { 0 } else { Errno::last_raw() }
}

/// Nanoseconds of fork, exec, exit and wait together, a process.
fn exec(program: &str, count: u64) -> u64 {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    for _ in 0..count {
        command.status().unwrap();
    }
    start.elapsed().as_nanos() as u64 / count
}

/// Accepts and closes for ever.
pub(crate) fn answer(at: SocketAddr) -> ExitCode {
    machine::pin(0, machine::last_cpu());
    let listener = TcpListener::bind(at).unwrap();
    // SAFETY: no pointers. A second listen() only changes the length of the queue.
    unsafe { libc::listen(listener.as_raw_fd(), 4096) };
    for _connection in listener.incoming() {}
    ExitCode::FAILURE
}

/// Standard input's other end.
pub(crate) fn read_line(from: &mut impl std::io::BufRead) -> String {
    let mut line = String::new();
    let length = from.read_line(&mut line).unwrap();
    assert!(length > 0, "the process that connects has ended");
    line.trim().to_owned()
}
