//! `cargo xtask bench`.

use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;

use crate::{
    build,
    exec::{cargo, headline, require_root, show, target_dir},
    run, setup,
};

/// Measures what Portreeve costs.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  cargo xtask bench guard     connect() with the guard on and off, a flood, and the time to a line\n  cargo \
                  xtask bench packets   what packets and socket options pay that are none of the guard's business"
)]
pub(crate) struct Args {
    /// What to measure.
    pub what: Subject,
    #[command(flatten)]
    pub setup: setup::Switches,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Subject {
    /// The kernel guard.
    Guard,
    /// Packets, frames and socket options that are none of the guard's business.
    Packets,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    require_root("loading programs into the kernel and making networks to measure in", "bench guard")?;
    setup::ensure(&[setup::Group::Build, setup::Group::Test], args.setup)?;
    match args.what {
        Subject::Guard => measure(&[]),
        Subject::Packets => measure(&["packets"]),
    }
}

fn measure(arguments: &[&str]) -> Result<()> {
    let agent = build::agent(true)?;
    run::mount_missing()?;
    headline("building the measuring program");
    show(cargo().args(["build", "--release", "--package", "portreeve-tests", "--bin", "lab-bench"]))?;
    headline("measuring, which takes a minute or two; keep the machine quiet meanwhile");
    show(Command::new(target_dir()?.join("release/lab-bench")).args(arguments).env("PORTREEVE_BIN", agent))
}
