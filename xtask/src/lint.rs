//! `cargo xtask lint`.

use anyhow::{Result, bail};

use crate::{
    build,
    exec::{cargo, headline, show, target_dir},
    other, setup,
};
use xtask::ebpf::{self, Toolchain};

/// Checks formatting, lints, documentation, and the dependencies' licences and sources.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cargo xtask lint   what .ci/run checks before it runs the tests")]
pub(crate) struct Args {
    #[command(flatten)]
    pub setup: setup::Switches,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&[setup::Group::Build, setup::Group::Lint], args.setup)?;
    let scratch = ebpf::scratch(&target_dir()?);
    let request = build::request(&scratch);
    build::object()?;

    let mut format = cargo();
    format.args(["fmt", "--all", "--check"]);
    let mut host = cargo();
    host.args(["clippy", "--workspace", "--all-targets", "--", "--deny=warnings"]);
    let mut documentation = cargo();
    documentation.args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "--deny=warnings");
    let mut dependencies = cargo();
    // Advisories are left out: their database is a GitHub repository, which a build machine need not reach.
    dependencies.args(["deny", "--workspace", "--log-level=warn", "check", "bans", "licenses", "sources"]);

    let mut steps = vec![("formatting", format), ("lints", host), ("documentation", documentation)];
    match Toolchain::find(&scratch)?.clippy(&request) {
        Some(mut kernel) => {
            kernel.args(["--release", "--package=portreeve-ebpf", "--", "--deny=warnings"]);
            steps.push(("lints of the kernel programs, for the BPF target", kernel));
        }
        None => println!("note: the kernel programs are linted for the host only: this toolchain has no clippy"),
    }
    match other::command()? {
        Ok(command) => steps.push(("agent and kernel programs for aarch64", command)),
        Err(why) => println!("note: nothing is built for {}: {why}", other::TARGET),
    }
    steps.push(("dependencies", dependencies));

    let mut failed = Vec::new();
    for (title, mut command) in steps {
        headline(title);
        // All of them, so that one run shows everything there is to mend.
        if show(&mut command).is_err() {
            failed.push(title);
        }
    }
    if !failed.is_empty() {
        bail!("{} of the checks failed: {}", failed.len(), failed.join(", "));
    }
    println!("all checks passed");
    Ok(())
}
