//! `portreeve subjects`

use std::io::Write as _;

use clap::Args as ClapArgs;

use super::{Outcome, complain, read};
use crate::agent::{HostSubject, Subject};
use crate::control::{Client, Request};
use crate::instance::Instance;

/// List the exact counters, one line for each executable, user and cgroup, and each LAN host
#[derive(Debug, ClapArgs)]
#[command(after_help = "The kernel counts these itself: they are exact through floods and while no agent runs.\n\n\
                        Example: portreeve subjects | head")]
pub(super) struct Args {
    /// As JSON Lines
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, instance: &Instance) -> Outcome {
    let mut client = match Client::ask(&instance.socket(), &Request::Subjects) {
        Ok(client) => client,
        Err(error) => return complain(&error),
    };
    let mut out = std::io::stdout().lock();
    if !args.json
        && writeln!(out, "{:>9} {:>9} {:>9} {:>9}  {:<20}  who", "refused", "allowed", "observed", "local", "last")
            .is_err()
    {
        return Outcome::Done;
    }
    loop {
        let value = match client.next_line() {
            Ok(Some(value)) => value,
            Ok(None) => return Outcome::Done,
            Err(error) => return complain(&error),
        };
        let shown = if args.json {
            writeln!(out, "{value}")
        } else {
            match read::<Subject>(value) {
                Ok(subject) => writeln!(out, "{}", line(&subject)),
                Err(outcome) => return outcome,
            }
        };
        // Whoever reads has seen enough (head).
        if shown.is_err() {
            return Outcome::Done;
        }
    }
}

fn line(subject: &Subject) -> String {
    let who = subject.host.as_ref().map_or_else(|| program(subject), host);
    format!(
        "{:>9} {:>9} {:>9} {:>9}  {:<20}  {who}",
        subject.refused,
        subject.allowed,
        subject.observed,
        subject.local,
        subject.last.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}

fn host(host: &HostSubject) -> String {
    let single = host.address.prefix_len() == host.address.max_prefix_len();
    let address = if single { host.address.addr().to_string() } else { format!("all of {}", host.address) };
    let name = host.name.as_ref().map(|name| format!("{} ", name.name)).unwrap_or_default();
    let mac = host.mac.map(|mac| format!(" ({mac})")).unwrap_or_default();
    let vlan = host.vlan.as_ref().map(|vlan| format!(" in VLAN {vlan}")).unwrap_or_default();
    let interface = host.interface.as_ref().map(|interface| format!(" on {interface}")).unwrap_or_default();
    format!("host {name}{address}{mac}{vlan}{interface}")
}

fn program(subject: &Subject) -> String {
    let exe = subject.exe.clone().unwrap_or_else(|| format!("inode {}", subject.exe_inode));
    let user = subject.user.clone().unwrap_or_else(|| format!("uid {}", subject.euid));
    let cgroup = subject.cgroup.clone().unwrap_or_else(|| format!("cgroup {}", subject.cgroup_id));
    format!("{exe} as {user} in {cgroup}")
}
