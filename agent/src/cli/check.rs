//! `portreeve check`

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{Outcome, default_config, say};
use crate::clock::Clock;
use crate::policy::{self, Diagnostic, SystemHost};

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
    let mut findings: Vec<Diagnostic> = loaded.diagnostics;
    // Also when the text has errors: everything that is wrong is said in one run.
    let resolved = policy::resolve(&loaded.draft, &mut SystemHost::new(None));
    let rules = resolved.describe();
    findings.extend(resolved.diagnostics.iter().cloned());
    if !findings.iter().any(Diagnostic::is_error)
        && let Some(policy) = &loaded.policy
        // Whether the kernel's tables have room for it, as a reload would find out.
        && let Err(error) = policy::compile(policy, &resolved, 1, Clock::now())
    {
        let mend = "join rules, or name wider networks and fewer ports";
        findings.push(Diagnostic::of_file(&args.file, error.to_string(), mend));
    }
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let warnings = findings.len() - errors;
    for finding in &findings {
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
