//! `portreeve detach`

use clap::Args as ClapArgs;

use super::{Outcome, say};
use crate::instance::Instance;
use crate::kernel;

/// Take the guard out of the kernel: the port is open then
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "For root, with the agent ended. Removes everything of the instance from the kernel and nothing \
                        else, also what another version has left.\n\nExample: portreeve detach"
)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, instance: &Instance) -> Outcome {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("portreeve: portreeve detach needs root");
        return Outcome::NotAllowed;
    }
    // An agent that runs, or is about to, would go on with tables nobody judges by.
    let running = instance.runtime.exists() && instance.lock().is_err();
    if running {
        eprintln!("portreeve: the agent is running; end it first, then detach (nothing was changed)");
        return Outcome::Failed;
    }
    match kernel::detach(&instance.name) {
        Ok(true) => say("detached: the port is open, nothing is guarded any more\n"),
        Ok(false) => say("nothing was attached\n"),
        Err(error) => {
            eprintln!("portreeve: {error}");
            return Outcome::Failed;
        }
    }
    if let Err(error) = std::fs::remove_dir_all(&instance.runtime)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("portreeve: {} stays: {error}", instance.runtime.display());
    }
    Outcome::Done
}
