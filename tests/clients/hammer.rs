//! A flood: connect, close, again, from many processes and threads, counted by errno.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::wait::wait;
use nix::unistd::{ForkResult, fork};
use serde_json::json;
use socket2::SockRef;

use crate::{Args, raw};

/// For the signal's handler.
static SHARED: AtomicPtr<Shared> = AtomicPtr::new(std::ptr::null_mut());

/// What all processes share. Index 0 of `by_errno` counts the connected.
struct Shared {
    stop: AtomicBool,
    left: AtomicU64,
    by_errno: [AtomicU64; 256],
}

extern "C" fn stop(_signal: i32) {
    // SAFETY: `run` has set the pointer before the handler, to a mapping that is never unmapped.
    unsafe { &*SHARED.load(Ordering::Relaxed) }.stop.store(true, Ordering::Relaxed);
}

/// Hammers until the count is reached or SIGTERM comes, and prints the sums.
pub(crate) fn run(args: &Args) {
    let size = NonZeroUsize::new(size_of::<Shared>()).expect("not empty");
    // SAFETY: a new anonymous mapping, which nothing else refers to.
    let page =
        unsafe { mmap_anonymous(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED) };
    let page = page.expect("map shared memory");
    // SAFETY: the mapping is large enough, aligned to a page, zeroed (which `Shared` may be), and never unmapped.
    let shared: &'static Shared = unsafe { page.cast::<Shared>().as_ref() };
    SHARED.store(page.cast::<Shared>().as_ptr(), Ordering::Relaxed);
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the handler stores to an atomic, which is safe in a handler.
        unsafe { libc::signal(signal, stop as extern "C" fn(i32) as libc::sighandler_t) };
    }
    let total = if args.count == 0 { u64::MAX } else { args.count };
    shared.left.store(total, Ordering::Relaxed);

    let start = Instant::now();
    for _ in 0..args.procs {
        // SAFETY: no thread has been started yet, so the child may do as it likes.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Child => {
                work(args, shared);
                std::process::exit(0);
            }
            ForkResult::Parent { .. } => {}
        }
    }
    // Until there are no children; the signal interrupts one wait or none.
    while !matches!(wait(), Err(Errno::ECHILD)) {}
    let by_errno: BTreeMap<String, u64> = (0..)
        .zip(&shared.by_errno)
        .map(|(errno, count)| (errno, count.load(Ordering::Relaxed)))
        .filter(|(_, count)| *count > 0)
        .map(|(errno, count)| match errno {
            0 => ("connected".to_owned(), count),
            errno => (format!("{:?}", Errno::from_raw(errno)), count),
        })
        .collect();
    println!(
        "{}",
        json!({
            "path": "hammer",
            "result": "done",
            "errno": null,
            "ns": start.elapsed().as_nanos() as u64,
            "pid": std::process::id(),
            "attempts": by_errno.values().sum::<u64>(),
            "by_errno": by_errno,
        })
    );
}

fn work(args: &Args, shared: &'static Shared) {
    let to = SocketAddr::new(args.to, args.port);
    let timeout = Duration::from_millis(args.timeout_ms.into());
    let threads: Vec<_> =
        (0..args.threads).map(|_| std::thread::spawn(move || while_wanted(to, timeout, shared))).collect();
    for thread in threads {
        thread.join().expect("a hammering thread");
    }
}

fn while_wanted(to: SocketAddr, timeout: Duration, shared: &Shared) {
    let wanted = || {
        !shared.stop.load(Ordering::Relaxed)
            && shared.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    };
    while wanted() {
        let errno = match once(to, timeout) {
            Ok(()) => 0,
            Err(errno) => errno as usize,
        };
        shared.by_errno[errno.min(255)].fetch_add(1, Ordering::Relaxed);
    }
}

fn once(to: SocketAddr, timeout: Duration) -> Result<(), Errno> {
    let socket = raw::stream(to, 0)?;
    let limits = SockRef::from(&socket);
    // Closing resets the connection, or a flood would run out of ports in TIME_WAIT.
    limits
        .set_linger(Some(Duration::ZERO))
        .and_then(|()| limits.set_write_timeout(Some(timeout)))
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    raw::connect(&socket, to)
}
