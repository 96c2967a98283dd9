//! `portreeve mail`

use clap::Args as ClapArgs;

use super::Outcome;
use super::records::{Which, list};
use crate::control::Request;
use crate::instance::Instance;
use crate::relay::MailRecord;

/// List the messages that have come by the relay, the oldest first
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example: portreeve mail --since 1h\nExample: portreeve mail --follow --json")]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
}

pub(super) fn run(args: &Args, instance: &Instance) -> Outcome {
    let which = &args.which;
    list::<MailRecord>(&Request::Mail { since: which.since, follow: which.follow }, which, "messages", instance)
}
