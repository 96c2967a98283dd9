//! `portreeve allow`: the rules of the policy, shown, added to and taken from.

mod add;
pub(super) mod change;
mod list;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::{Outcome, default_config};
use crate::instance::Instance;
use crate::policy::SystemHost;
use crate::policy::edit::Proposal;
use change::{Answer, carry_out, complain};

/// List the rules of the policy, add one, take one out
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example: portreeve allow list\n\
                        Example: portreeve allow add --exe /usr/lib/nagios/plugins/check_smtp --user nagios --to 192.0.2.10")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::Args),
    Add(Box<add::Args>),
    Remove(RemoveArgs),
}

/// The file, for every one of the commands.
#[derive(Debug, ClapArgs)]
struct Config {
    /// The policy
    #[arg(long, value_name = "FILE", default_value_os_t = default_config())]
    config: PathBuf,
}

/// Take a rule out, with the comment above it
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "The change is shown before it is written; the rest of the file stays as it is. The agent reloads; if it \
                  refuses, the file is put back.\n\n\
                  Example: portreeve allow remove \"monitoring probe\"\n\
                  Example: portreeve allow remove 3 --dry-run"
)]
struct RemoveArgs {
    /// The rule's name or its number, as `portreeve allow list` shows them
    #[arg(value_name = "NAME|NUMBER")]
    which: String,
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    answer: Answer,
}

pub(super) fn run(args: Args, instance: &Instance) -> Outcome {
    match args.command {
        Command::List(args) => list::run(&args, instance),
        Command::Add(args) => add::run(*args, instance),
        Command::Remove(args) => {
            let carried = Proposal::remove(&args.config.config, &args.which, &mut SystemHost::new(None))
                .map_err(|error| complain(&error))
                .and_then(|proposal| carry_out(&proposal, &args.answer, instance));
            carried.map_or_else(|outcome| outcome, |_| Outcome::Done)
        }
    }
}
