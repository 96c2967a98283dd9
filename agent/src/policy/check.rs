//! Everything there is to say of a policy without touching the guard.

use std::path::Path;

use super::compile::compile;
use super::diagnostic::Diagnostic;
use super::host::Host;
use super::load::Loaded;
use super::resolve::{Resolved, resolve};
use crate::clock::Clock;

/// What a check has found.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Every finding: of the text, of what it names on the host, and of the room in the kernel's tables.
    pub findings: Vec<Diagnostic>,
    /// The rules as they stand on the host.
    pub resolved: Resolved,
}

impl Checked {
    /// How many of the findings are errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.findings.iter().filter(|finding| finding.is_error()).count()
    }
}

/// Checks a policy that was read from `file`, as a reload would.
pub fn check(file: &Path, loaded: &Loaded, host: &mut dyn Host) -> Checked {
    let mut findings = loaded.diagnostics.clone();
    // Also when the text has errors: everything that is wrong is said in one run.
    let resolved = resolve(&loaded.draft, host);
    findings.extend(resolved.diagnostics.iter().cloned());
    if !findings.iter().any(Diagnostic::is_error)
        && let Some(policy) = &loaded.policy
        // Whether the kernel's tables have room for it, as a reload would find out.
        && let Err(error) = compile(policy, &resolved, 1, Clock::now())
    {
        let mend = "join rules, or name wider networks and fewer ports";
        findings.push(Diagnostic::of_file(file, error.to_string(), mend));
    }
    Checked { findings, resolved }
}
