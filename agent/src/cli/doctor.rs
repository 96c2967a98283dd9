//! `portreeve doctor`

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{Outcome, default_config, say};
use crate::doctor::{self, State};
use crate::instance::Instance;

/// Look at this host: what the guard needs, and what stands in its way
#[derive(Debug, ClapArgs)]
#[command(after_help = "Exit code 0: nothing is missing; 1: something is.\n\nExample: portreeve doctor")]
pub(super) struct Args {
    /// As JSON Lines, a finding a line
    #[arg(long)]
    json: bool,
    /// The policy, which says whether this host is a gateway
    #[arg(long, value_name = "FILE", default_value_os_t = default_config())]
    config: PathBuf,
}

pub(super) fn run(args: &Args, instance: &Instance) -> Outcome {
    let findings = doctor::examine(instance, &args.config);
    for finding in &findings {
        if args.json {
            say(&(serde_json::to_string(finding).unwrap_or_default() + "\n"));
            continue;
        }
        let mark = match finding.state {
            State::Good => "ok  ",
            State::Note => "note",
            State::Bad => "BAD ",
        };
        say(&format!("{mark}  {:<18}{}\n", finding.what, finding.found));
        if let Some(mend) = &finding.mend {
            say(&format!("      {:<18}mend: {mend}\n", ""));
        }
    }
    if findings.iter().any(|finding| finding.state == State::Bad) { Outcome::Failed } else { Outcome::Done }
}
