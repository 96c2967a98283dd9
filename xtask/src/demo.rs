//! `cargo xtask demo`.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{
    build,
    exec::{cargo, headline, require_root, show, target_dir},
    run, setup,
};

/// Shows the guard at work in network namespaces of its own: a mail server that may, a bot that may not.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub setup: setup::Switches,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    require_root("guarding a port, also in a demonstration,", "demo")?;
    setup::ensure(&[setup::Group::Build, setup::Group::Demo], args.setup)?;
    let agent = build::agent(true)?;
    run::mount_missing()?;

    headline("building the demonstration");
    show(cargo().args(["build", "--release", "--package", "portreeve-tests", "--bin", "lab-demo"]))?;
    let demo = target_dir()?.join("release/lab-demo");
    demo.is_file().then_some(()).with_context(|| format!("cargo left no program at {}", demo.display()))?;
    show(Command::new(demo).env("PORTREEVE_BIN", agent))
}
