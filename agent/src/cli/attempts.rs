//! `portreeve attempts`

use clap::Args as ClapArgs;

use super::Outcome;
use super::records::{Which, list};
use crate::attempt::Attempt;
use crate::control::Request;
use crate::instance::Instance;

/// List the attempts, the oldest first
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example: portreeve attempts --since 1h\nExample: portreeve attempts --follow --json")]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
}

pub(super) fn run(args: &Args, instance: &Instance) -> Outcome {
    let which = &args.which;
    list::<Attempt>(&Request::Attempts { since: which.since, follow: which.follow }, which, "attempts", instance)
}
