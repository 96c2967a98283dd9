//! `cargo xtask run`.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    build,
    exec::{headline, line, mounts, require_root, show, workspace},
    setup,
};

/// Guards port 25 on this machine: builds everything and runs the agent in the foreground.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask run                                      with config/portreeve.toml
  cargo xtask run -- --config /etc/portreeve.toml      with another policy
  cargo xtask run --no-install -- --instance trial     install nothing; pins, socket and state of its own

Ctrl-C ends the agent and leaves the port guarded; the agent says how to open it.")]
pub(crate) struct Args {
    #[command(flatten)]
    pub setup: setup::Switches,
    /// Arguments for `portreeve run`.
    #[arg(last = true, value_name = "ARGS")]
    pub agent: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    require_root("guarding a port", "run")?;
    setup::ensure(&[setup::Group::Build], args.setup)?;
    let agent = build::agent(true)?;
    mount_missing()?;

    let mut command = Command::new(&agent);
    command.arg("run");
    if !args.agent.iter().any(|word| word == "--config" || word.starts_with("--config=")) {
        command.arg("--config").arg(workspace().join("config/portreeve.toml"));
    }
    command.args(&args.agent);
    headline(&line(&command));
    // In our place rather than below us, so that Ctrl-C and every other signal reach the agent itself.
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", agent.display()))
}

/// Mounts what the agent pins its programs in and attaches them to, where a distribution has not.
pub(crate) fn mount_missing() -> Result<()> {
    if !mounts("bpf")?.iter().any(|at| at == Path::new("/sys/fs/bpf")) {
        mount("bpf", Path::new("/sys/fs/bpf"))?;
    }
    if mounts("cgroup2")?.is_empty() {
        // /sys/fs/cgroup may be full of version 1 hierarchies, so this one gets a place of its own.
        let at = PathBuf::from("/run/portreeve/cgroup2");
        fs::create_dir_all(&at).with_context(|| format!("cannot create {}", at.display()))?;
        mount("cgroup2", &at)?;
    }
    Ok(())
}

fn mount(kind: &str, at: &Path) -> Result<()> {
    headline(&format!("mounting the {kind} file system, which is not mounted here, at {}", at.display()));
    show(Command::new("mount").args(["-t", kind, kind]).arg(at))
}
