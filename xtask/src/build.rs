//! `cargo xtask build`.

use std::{env::consts::ARCH, fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{
    exec::{cargo, headline, show, target_dir, workspace},
    setup,
};
use xtask::{
    build_script::digest,
    ebpf::{self, Object, Output, Request},
};

/// Builds the kernel programs and the agent that carries them.
#[derive(clap::Args)]
#[command(after_help = "\
Environment:
  PORTREEVE_EBPF_TOOLCHAIN   `nightly` or `debian`: build the kernel programs with that toolchain only

Example:
  cargo xtask build --release   leaves target/release/portreeve, one file to install")]
pub(crate) struct Args {
    /// Build the agent with optimisations; the kernel programs always are.
    #[arg(long)]
    pub release: bool,
    #[command(flatten)]
    pub setup: setup::Switches,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&[setup::Group::Build], args.setup)?;
    let agent = agent(args.release)?;
    println!("built {}", agent.display());
    Ok(())
}

/// Builds both; returns the agent's path.
pub(crate) fn agent(release: bool) -> Result<PathBuf> {
    // The agent's build script would do it too, but there cargo shows nothing of it until it is over.
    headline("building the kernel programs (half a minute the first time)");
    let object = object()?;
    let bytes = fs::read(&object.path).with_context(|| format!("cannot read {}", object.path.display()))?;
    println!("    {} bytes, sha256 {}, by {}", bytes.len(), digest(&bytes), object.toolchain.name);

    headline("building the agent");
    let mut build = cargo();
    build.args(["build", "--package", "portreeve"]);
    if release {
        build.arg("--release");
    }
    show(&mut build)?;
    let agent = target_dir()?.join(if release { "release" } else { "debug" }).join("portreeve");
    agent.is_file().then_some(&agent).with_context(|| format!("cargo left no program at {}", agent.display()))?;
    Ok(agent)
}

/// Builds the BPF object alone, with the compiler's output shown.
pub(crate) fn object() -> Result<Object> {
    let scratch = ebpf::scratch(&target_dir()?);
    Ok(ebpf::object(&request(&scratch))?)
}

/// The object for this machine's kernel.
pub(crate) fn request(scratch: &std::path::Path) -> Request<'_> {
    Request {
        workspace: workspace(),
        scratch,
        arch: ARCH,
        big_endian: cfg!(target_endian = "big"),
        output: Output::Show,
    }
}
