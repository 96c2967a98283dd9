//! `cargo xtask demo`.

use anyhow::{Result, bail};

use crate::setup;

/// Shows the guard at work in network namespaces of its own: a mail server that may, a bot that may not.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub setup: setup::Switches,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&[setup::Group::Build, setup::Group::Demo], args.setup)?;
    bail!("not yet written")
}
