//! `lab-client PATH ADDRESS PORT [COUNT]`: connects in one of many ways, and says in a line what came of it:
//! `connected`, or the name of the errno.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

mod disguise;
mod ways;

use ways::{Outcome, WAYS};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [way, address, port, rest @ ..] = arguments.as_slice() else { return usage() };
    let (Ok(address), Ok(port)) = (address.parse::<IpAddr>(), port.parse::<u16>()) else { return usage() };
    let to = SocketAddr::new(address, port);
    if way == "hammer" {
        let count = rest.first().and_then(|text| text.parse().ok()).unwrap_or(1);
        return hammer(to, count);
    }
    let Some((_, connect)) = WAYS.iter().find(|(name, _)| name == way) else { return usage() };
    say(&connect(to))
}

#[expect(clippy::print_stdout, reason = "the answer")]
fn say(outcome: &Outcome) -> ExitCode {
    match outcome {
        Ok(()) => println!("connected"),
        Err(errno) => println!("{errno:?}"),
    }
    ExitCode::SUCCESS
}

#[expect(clippy::print_stderr, reason = "a test's mistake")]
fn usage() -> ExitCode {
    let ways: Vec<&str> = WAYS.iter().map(|(name, _)| *name).collect();
    eprintln!("usage: lab-client hammer|{} ADDRESS PORT [COUNT]", ways.join("|"));
    ExitCode::from(2)
}

/// Connects COUNT times and says how often each outcome came: `EPERM 1000`.
#[expect(clippy::print_stdout, reason = "the answer")]
fn hammer(to: SocketAddr, count: u64) -> ExitCode {
    let mut outcomes = std::collections::BTreeMap::<String, u64>::new();
    let address = socket2::SockAddr::from(to);
    for _ in 0..count {
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
