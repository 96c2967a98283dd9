//! `portreeve check`

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{Outcome, default_config, say};
use crate::policy::{self, SystemHost};

/// Check a policy without touching the guard
#[derive(Debug, ClapArgs)]
#[command(after_help = "All errors and warnings are shown in one run. Exit code 0: it would be put in force; \
                        2: it would not.\n\nExample: portreeve check /etc/portreeve/portreeve.toml")]
pub(super) struct Args {
    /// The policy
    #[arg(value_name = "FILE", default_value_os_t = default_config())]
    file: PathBuf,
    /// As JSON Lines, a finding a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Outcome {
    let loaded = policy::load(&args.file);
    let checked = policy::check(&args.file, &loaded, &mut SystemHost::new(None));
    let (rules, findings, errors) = (checked.resolved.describe(), &checked.findings, checked.errors());
    let warnings = findings.len() - errors;
    for finding in findings {
        if args.json {
            say(&(serde_json::to_string(finding).unwrap_or_default() + "\n"));
        } else {
            say(&format!("{finding}\n"));
        }
    }
    if !args.json {
        let rules = match rules.len() {
            1 => "1 rule".to_owned(),
            many => format!("{many} rules"),
        };
        say(&format!("{}: {rules}, {errors} errors, {warnings} warnings\n", args.file.display()));
    }
    if errors == 0 && loaded.policy.is_some() { Outcome::Done } else { Outcome::Wrong }
}
