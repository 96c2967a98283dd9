//! `portreeve mail`

use std::io::Write as _;

use clap::Args as ClapArgs;
use jiff::Timestamp;
use serde_json::Value;

use super::attempts::since;
use super::{Outcome, complain, say};
use crate::control::{Client, Lost, Request};
use crate::instance::Instance;
use crate::relay::MailRecord;

/// List the messages that have come by the relay, the oldest first
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example: portreeve mail --since 1h\nExample: portreeve mail --follow --json")]
pub(super) struct Args {
    /// Go on with those to come; with --since, after those since then
    #[arg(long, short)]
    follow: bool,
    /// Only those since: a time (2026-11-24T10:00:00Z) or so long ago (90s, 15m, 2h, 7d)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// As JSON Lines
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, instance: &Instance) -> Outcome {
    let request = Request::Mail { since: args.since, follow: args.follow };
    let mut client = match Client::ask(&instance.socket(), &request) {
        Ok(client) => client,
        Err(error) => return complain(&error),
    };
    let mut any = false;
    loop {
        match client.next_line() {
            Ok(Some(value)) => {
                any = true;
                // Whoever reads has seen enough (head).
                if show(value, args.json).is_err() {
                    return Outcome::Done;
                }
            }
            Ok(None) => break,
            Err(error) => return complain(&error),
        }
    }
    if !any && !args.json && !args.follow {
        say("no mail\n");
    }
    Outcome::Done
}

fn show(value: Value, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{value}")?;
    } else if let Ok(record) = serde_json::from_value::<MailRecord>(value.clone()) {
        writeln!(out, "{record}")?;
    } else if let Ok(Lost { lost }) = serde_json::from_value(value) {
        writeln!(out, "({lost} messages came too fast to be shown; `portreeve status` has counted them)")?;
    }
    out.flush()
}
