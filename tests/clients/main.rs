//! `lab-client WAY ADDRESS PORT [MORE…]`: reaches for a TCP port in one of many ways, and says in a word what came of
//! it: `connected`; `sent` when a packet left the system call without an error (whether it arrived, the far end
//! knows); or the name of the errno. Standard error names the step that failed, where there are several.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use nix::errno::Errno;

mod before;
mod compat;
mod disguise;
mod frame;
mod handed;
mod inject;
mod link;
mod mask;
mod packet;
mod protocols;
mod puppet;
mod repair;
mod reuse;
mod tun;
mod txring;
mod ways;
mod xdp;

use ways::WAYS;

/// A word for what came of it, or why nothing did.
type Said = Result<&'static str, Errno>;

/// A way past connect(): its name, and what it does with the destination and the further arguments.
type Way = (&'static str, fn(SocketAddr, &[String]) -> Said);

/// Every way past connect(), and those that come to it in disguise.
const BYPASSES: [&[Way]; 12] = [
    inject::WAYS,
    frame::WAYS,
    xdp::WAYS,
    tun::WAYS,
    repair::WAYS,
    before::WAYS,
    handed::WAYS,
    protocols::WAYS,
    mask::WAYS,
    puppet::WAYS,
    reuse::WAYS,
    compat::WAYS,
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [way, address, port, rest @ ..] = arguments.as_slice() else { return usage() };
    let (Ok(address), Ok(port)) = (address.parse::<IpAddr>(), port.parse::<u16>()) else { return usage() };
    let to = SocketAddr::new(address, port);
    if way == "hammer" {
        let count = rest.first().and_then(|text| text.parse().ok()).unwrap_or(1);
        return hammer(to, count, rest.get(1).map(std::path::Path::new));
    }
    if let Some((_, connect)) = WAYS.iter().find(|(name, _)| name == way) {
        return say(connect(to).map(|()| "connected"));
    }
    let bypass = BYPASSES.into_iter().flatten().find(|(name, _)| name == way);
    bypass.map_or_else(usage, |(_, attempt)| say(attempt(to, rest)))
}

#[expect(clippy::print_stdout, reason = "the answer")]
fn say(said: Said) -> ExitCode {
    match said {
        Ok(word) => println!("{word}"),
        Err(errno) => println!("{errno:?}"),
    }
    ExitCode::SUCCESS
}

/// A word before the last one, for who waits for it.
#[expect(clippy::print_stdout, reason = "part of the answer")]
fn announce(word: &str) {
    // Standard output writes out whole lines, also to a file.
    println!("{word}");
}

#[expect(clippy::print_stderr, reason = "for who looks into a surprise")]
fn remark(text: &str) {
    eprintln!("{text}");
}

/// The errno of the step that has just failed.
fn refused(step: &str) -> Errno {
    let errno = Errno::last();
    remark(&format!("{step}: {errno}"));
    errno
}

/// What a system call returned, if it did not fail.
fn step<T: PartialOrd + From<i8>>(step: &str, returned: T) -> Result<T, Errno> {
    if returned < T::from(0) { Err(refused(step)) } else { Ok(returned) }
}

/// What the standard library returned, if it did not fail.
fn os<T>(step: &str, result: io::Result<T>) -> Result<T, Errno> {
    result.map_err(|error| {
        remark(&format!("{step}: {error}"));
        ways::errno(&error)
    })
}

#[expect(clippy::print_stderr, reason = "a test's mistake")]
fn usage() -> ExitCode {
    let bypasses = BYPASSES.into_iter().flatten().map(|(name, _)| *name);
    let ways: Vec<&str> = WAYS.iter().map(|(name, _)| *name).chain(bypasses).collect();
    eprintln!("usage: lab-client hammer|{} ADDRESS PORT [MORE...]", ways.join("|"));
    ExitCode::from(2)
}

/// Connects COUNT times, or until there is a file, and says how often each outcome came: `EPERM 1000`.
#[expect(clippy::print_stdout, reason = "the answer")]
fn hammer(to: SocketAddr, count: u64, stop: Option<&std::path::Path>) -> ExitCode {
    let mut outcomes = std::collections::BTreeMap::<String, u64>::new();
    let address = socket2::SockAddr::from(to);
    for number in 0..count {
        // Now and then, so that looking for it does not slow the hammer down.
        if number % 64 == 0 && stop.is_some_and(std::path::Path::exists) {
            break;
        }
        let outcome = match ways::stream(&to, 0) {
            // No lingering: a thousand closed connections must not use up the ports.
            Ok(socket) => match socket.connect(&address) {
                Ok(()) => "connected".to_owned(),
                Err(error) => format!("{:?}", ways::errno(&error)),
            },
            Err(errno) => format!("socket {errno:?}"),
        };
        *outcomes.entry(outcome).or_default() += 1;
    }
    for (outcome, times) in outcomes {
        println!("{outcome} {times}");
    }
    ExitCode::SUCCESS
}

/// The same destination in the mapped form, for IPv6 sockets (RFC 4291 §2.5.5.2).
fn mapped(to: SocketAddr) -> SocketAddr {
    match to.ip() {
        IpAddr::V4(v4) => SocketAddr::new(IpAddr::V6(v4.to_ipv6_mapped()), to.port()),
        IpAddr::V6(v6) => SocketAddr::new(IpAddr::V6(Ipv6Addr::from(v6.octets())), to.port()),
    }
}
