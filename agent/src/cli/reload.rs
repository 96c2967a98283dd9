//! `portreeve reload`

use clap::Args as ClapArgs;

use super::{Outcome, ask, say};
use crate::control::Request;
use crate::instance::Instance;

/// Read the policy again; one that does not check changes nothing
#[derive(Debug, ClapArgs)]
#[command(after_help = "For root. SIGHUP and a change of the file do the same.\n\nExample: portreeve reload")]
pub(super) struct Args {
    /// As one line of JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, instance: &Instance) -> Outcome {
    match ask(instance, &Request::Reload) {
        Ok(value) if args.json => say(&format!("{value}\n")),
        Ok(value) => {
            say(&format!("in force: generation {}, {} rules\n", value["generation"], value["rules"]));
        }
        Err(Outcome::Failed) => {
            eprintln!("portreeve: nothing was changed, the policy before stays in force");
            return Outcome::Wrong;
        }
        Err(outcome) => return outcome,
    }
    Outcome::Done
}
