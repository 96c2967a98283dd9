//! `portreeve subjects`

use std::io::Write as _;

use clap::Args as ClapArgs;

use super::{Outcome, complain, read};
use crate::agent::Subject;
use crate::control::{Client, Request};
use crate::instance::Instance;

/// List the exact counters, one line for each executable, user and cgroup
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
    let exe = subject.exe.clone().unwrap_or_else(|| format!("inode {}", subject.exe_inode));
    let user = subject.user.clone().unwrap_or_else(|| format!("uid {}", subject.euid));
    let cgroup = subject.cgroup.clone().unwrap_or_else(|| format!("cgroup {}", subject.cgroup_id));
    format!(
        "{:>9} {:>9} {:>9} {:>9}  {:<20}  {exe} as {user} in {cgroup}",
        subject.refused,
        subject.allowed,
        subject.observed,
        subject.local,
        subject.last.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}
