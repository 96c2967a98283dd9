//! `lab-client`: one attempt to connect, on one of the many ways there are, reported as one line of JSON.
//!
//! A path counts as `connected` only after a round trip: the bytes went out and the other end closed in turn. So a
//! client that says so has been counted by the sink.
#![expect(
    clippy::print_stdout,
    reason = "the report on standard output is what the program is for"
)]

mod hammer;
mod paths;
mod raw;
mod report;
mod ring;

use std::net::IpAddr;

use clap::Parser;

/// Makes one attempt to connect.
#[derive(Debug, Parser)]
struct Args {
    /// The path to take, e.g. `plain`, `tfo_sendto`, `io_uring_sqpoll`, `hammer`.
    path: String,
    /// The address to connect to.
    #[arg(long)]
    to: IpAddr,
    /// The port to connect to.
    #[arg(long)]
    port: u16,
    /// How long a connection may take.
    #[arg(long, default_value_t = 3000)]
    timeout_ms: u32,
    /// `bind_first`: the source port; 0 lets the kernel choose.
    #[arg(long, default_value_t = 0)]
    source_port: u16,
    /// `setuid`: the user to become.
    #[arg(long, default_value_t = 0)]
    uid: u32,
    /// `setuid`: the group to become.
    #[arg(long, default_value_t = 0)]
    gid: u32,
    /// `setuid`: change the effective ids only.
    #[arg(long)]
    effective_only: bool,
    /// `hammer`: attempts over all; 0 goes on until SIGTERM.
    #[arg(long, default_value_t = 0)]
    count: u64,
    /// `hammer`: how many processes share the work.
    #[arg(long, default_value_t = 1)]
    procs: u32,
    /// `hammer`: threads in each process.
    #[arg(long, default_value_t = 1)]
    threads: u32,
    /// Wait for a line on standard input before the attempt, after saying `{"ready":PID}`.
    #[arg(long)]
    hold: bool,
}

fn main() {
    let args = Args::parse();
    if args.hold {
        println!("{{\"ready\":{}}}", std::process::id());
        std::io::stdin()
            .read_line(&mut String::new())
            .map(drop)
            .unwrap_or_default();
    }
    if args.path == "hammer" {
        hammer::run(&args);
    } else {
        paths::run(&args);
    }
}
