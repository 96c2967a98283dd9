//! `cargo xtask demo`.

use std::process::Command;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::{
    build,
    exec::{cargo, headline, require_root, show, target_dir},
    run, setup,
};

/// Shows the guard at work in network namespaces of its own: a mail server that may, a bot that may not.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask demo           on one host
  cargo xtask demo gateway   in an office behind a gateway
  cargo xtask demo relay     a mail server's mail by way of a filtering service")]
pub(crate) struct Args {
    /// Which of them.
    #[arg(default_value = "host")]
    pub scenario: Scenario,
    #[command(flatten)]
    pub setup: setup::Switches,
}

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Programs of one host.
    Host,
    /// Hosts behind a gateway.
    Gateway,
    /// Mail by way of the relay.
    Relay,
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
    let scenario = match args.scenario {
        Scenario::Host => "host",
        Scenario::Gateway => "gateway",
        Scenario::Relay => "relay",
    };
    show(Command::new(demo).arg(scenario).env("PORTREEVE_BIN", agent))
}
