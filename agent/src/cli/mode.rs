//! `portreeve mode`

use clap::{Args as ClapArgs, ValueEnum};

use super::{Outcome, ask, say};
use crate::control::Request;
use crate::instance::Instance;

/// Switch between enforce and observe, until the policy is read again
#[derive(Debug, ClapArgs)]
#[command(after_help = "For root.\n\nExample: portreeve mode observe")]
pub(super) struct Args {
    /// The mode
    mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Refuse what no rule allows
    Enforce,
    /// Let everything pass, record what would be refused
    Observe,
}

pub(super) fn run(args: &Args, instance: &Instance) -> Outcome {
    let observe = args.mode == Mode::Observe;
    if let Err(outcome) = ask(instance, &Request::Mode { observe }) {
        return outcome;
    }
    if observe {
        say("observe: NOTHING IS REFUSED until `portreeve mode enforce` or a reload of the policy\n");
    } else {
        say("enforce: what no rule allows is refused\n");
    }
    Outcome::Done
}
