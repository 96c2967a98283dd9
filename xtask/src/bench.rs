//! `cargo xtask bench`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};
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
                  xtask bench packets   what packets and socket options pay that are none of the guard's business\n  cargo \
                  xtask bench gateway   what a gateway pays for what it forwards, and a flood of refused attempts\n  cargo \
                  xtask bench relay     what mail pays that takes the relay, beside a plain TCP proxy\n  cargo \
                  xtask bench detect    how good the detector is on made-up traces, beside the counters in use today"
)]
pub(crate) struct Args {
    /// What to measure.
    pub what: Subject,
    /// With `detect`: write the traces there instead, a file of JSON Lines for each model.
    #[arg(long, value_name = "DIR")]
    pub write: Option<PathBuf>,
    /// With `detect`: another seed than the report's, to change the detector by.
    #[arg(long, conflicts_with = "write")]
    pub tune: bool,
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
    /// Forwarded traffic of LAN hosts.
    Gateway,
    /// The relay, beside a plain TCP proxy.
    Relay,
    /// The detector, on made-up traces; needs neither root nor packages.
    Detect,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let guard: &[&str] = match args.what {
        Subject::Detect => return detect(args.write.as_deref(), args.tune),
        Subject::Guard => &[],
        Subject::Packets => &["packets"],
        Subject::Gateway => &["gateway"],
        Subject::Relay => &["relay"],
    };
    if args.write.is_some() || args.tune {
        bail!("--write and --tune are for `bench detect`");
    }
    require_root("loading programs into the kernel and making networks to measure in", "bench guard")?;
    setup::ensure(&[setup::Group::Build, setup::Group::Test], args.setup)?;
    measure(guard)
}

fn measure(arguments: &[&str]) -> Result<()> {
    let agent = build::agent(true)?;
    run::mount_missing()?;
    headline("building the measuring program");
    show(cargo().args(["build", "--release", "--package", "portreeve-tests", "--bin", "lab-bench"]))?;
    headline("measuring, which takes a minute or two; keep the machine quiet meanwhile");
    show(Command::new(target_dir()?.join("release/lab-bench")).args(arguments).env("PORTREEVE_BIN", agent))
}

/// The detector is the agent's library, which needs no kernel programs to judge with.
fn detect(write: Option<&Path>, tune: bool) -> Result<()> {
    headline("building the measuring program");
    let mut build = cargo();
    build.args(["build", "--release", "--package", "portreeve-tests", "--bin", "lab-bench"]);
    show(build.env(xtask::ebpf::SKIP, "1"))?;
    headline("judging made-up traces, which takes about a minute");
    let mut bench = Command::new(target_dir()?.join("release/lab-bench"));
    bench.arg("detect");
    match write {
        Some(folder) => bench.arg("write").arg(folder),
        None => bench.args(tune.then_some("tune")),
    };
    show(&mut bench)
}
