//! `cargo xtask bench`.

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::setup;

/// Measures what Portreeve costs.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  cargo xtask bench guard   connect() with the guard on and off, a flood, and the time to a line"
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
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&[setup::Group::Build, setup::Group::Test], args.setup)?;
    match args.what {
        Subject::Guard => bail!("not yet written"),
    }
}
