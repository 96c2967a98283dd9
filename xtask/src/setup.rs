//! `cargo xtask setup`, which the other commands run first.

use std::{
    env,
    io::{IsTerminal as _, Write as _, stdin, stdout},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::exec::{Missing, headline, is_root, line, program, show};
use needs::{Need, Remedy};

mod needs;

/// Installs what building, testing and linting need and this machine lacks.
#[derive(clap::Args)]
#[command(after_help = "\
It says what is missing, what for, and the commands that install it; at a terminal it asks once before it runs them.

Examples:
  cargo xtask setup                 everything
  cargo xtask setup --no-install    only say; exit code 3 if something is missing
  cargo xtask setup build           only what building needs")]
pub(crate) struct Args {
    /// What to prepare for; everything if nothing is named.
    pub groups: Vec<Group>,
    #[command(flatten)]
    pub switches: Switches,
}

/// What a command that needs packages has in common with `setup`.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Switches {
    /// Install nothing; say what is missing, and fail if something is.
    #[arg(long)]
    pub no_install: bool,
}

/// What a need is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Group {
    /// The kernel programs' toolchain.
    Build,
    /// The tests on the real kernel.
    Test,
    /// The tests on other kernels, in virtual machines.
    Vm,
    /// The demonstration.
    Demo,
    /// Fuzzing the parsers.
    Fuzz,
    /// Formatting, lints and licences.
    Lint,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let all = [Group::Build, Group::Test, Group::Vm, Group::Demo, Group::Fuzz, Group::Lint];
    let groups = if args.groups.is_empty() { &all[..] } else { &args.groups };
    ensure(groups, args.switches)?;
    println!("nothing is missing");
    Ok(())
}

/// Sees to it that nothing the groups need is missing; says nothing if nothing is.
pub(crate) fn ensure(groups: &[Group], switches: Switches) -> Result<()> {
    let missing = needs::missing(groups)?;
    if missing.is_empty() {
        return Ok(());
    }
    let commands = commands(&missing);
    println!("Missing on this machine:");
    for need in &missing {
        println!("  {:<24} {}", need.what, need.why);
    }
    println!("What installs it:");
    for command in &commands {
        println!("  {}", line(command));
    }
    may_install(&missing, switches)?;

    for (number, mut command) in commands.into_iter().enumerate() {
        headline(&format!("step {}: {}", number + 1, line(&command)));
        show(&mut command)?;
    }
    let left = needs::missing(groups)?;
    if !left.is_empty() {
        let names: Vec<&str> = left.iter().map(|need| need.what.as_str()).collect();
        bail!(Missing(format!("still missing after that: {}; run it once more", names.join(", "))));
    }
    Ok(())
}

/// Everything that speaks against installing, before the first command runs: a setup is never left half done.
fn may_install(missing: &[Need], switches: Switches) -> Result<()> {
    if switches.no_install {
        bail!(Missing("nothing was installed, because of --no-install".to_owned()));
    }
    if missing.iter().any(|need| matches!(need.remedy, Remedy::Apt(_) | Remedy::Linker { .. })) {
        if program("apt-get").is_none() {
            bail!(Missing("there is no apt-get here: install these by this system's own means".to_owned()));
        }
        if !is_root() {
            let how = if program("sudo").is_some() { "with sudo" } else { "as root" };
            bail!(Missing(format!("nothing was installed: run the apt-get commands above {how}, then this again")));
        }
    }
    if missing.iter().any(|need| matches!(need.remedy, Remedy::Component(_))) && program("rustup").is_none() {
        bail!(Missing("there is no rustup here: install rustfmt and clippy by this system's own means".to_owned()));
    }
    if !stdin().is_terminal() || !stdout().is_terminal() {
        return Ok(());
    }
    print!("Run these now? [Y/n] ");
    stdout().flush().context("cannot write to the terminal")?;
    let mut answer = String::new();
    stdin().read_line(&mut answer).context("cannot read the answer")?;
    match answer.trim().to_lowercase().as_str() {
        "" | "y" | "yes" => Ok(()),
        _ => bail!(Missing("nothing was installed".to_owned())),
    }
}

/// The commands that install it all, in the order they have to run in.
fn commands(missing: &[Need]) -> Vec<Command> {
    let mut packages: Vec<&str> = missing.iter().flat_map(|need| need.remedy.packages()).copied().collect();
    packages.sort_unstable();
    packages.dedup();

    let mut commands = Vec::new();
    if !packages.is_empty() {
        let mut update = apt();
        update.arg("update");
        let mut install = apt();
        install.args(["install", "--yes", "--no-install-recommends"]).args(packages);
        commands.extend([update, install]);
    }
    commands.extend(missing.iter().filter_map(|need| match need.remedy {
        Remedy::Component(name) => {
            let mut rustup = Command::new("rustup");
            rustup.args(["component", "add", name]);
            Some(rustup)
        }
        Remedy::Linker { force } => {
            let mut install = cargo_install(needs::LINKER);
            install.env("LLVM_PREFIX", needs::LLVM_PREFIX);
            install.args(["--no-default-features", "--features", needs::LINKER_FEATURE]);
            if force {
                install.arg("--force");
            }
            Some(install)
        }
        Remedy::Crate(name) => Some(cargo_install(name)),
        Remedy::Apt(_) => None,
    }));
    commands
}

fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    // A machine that has just been started may be updating itself: wait for that rather than fail.
    apt.args(["-q", "-o", "DPkg::Lock::Timeout=120"]).env("DEBIAN_FRONTEND", "noninteractive");
    apt.stdin(std::process::Stdio::null());
    apt
}

/// Not in the workspace, whose lock file and cargo configuration are none of the tool's business.
fn cargo_install(what: &str) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir("/").args(["install", "--locked", what]).env_remove("CARGO_TARGET_DIR");
    cargo
}

#[cfg(test)]
mod tests {
    use super::{
        commands,
        needs::{Need, Remedy},
    };
    use crate::exec::line;

    fn need(remedy: Remedy) -> Need {
        Need { what: "it".to_owned(), why: "for the test".to_owned(), remedy }
    }

    #[test]
    fn the_package_lists_are_fetched_once_and_each_package_is_named_once() {
        let missing = [need(Remedy::Apt(&["swaks", "curl"])), need(Remedy::Apt(&["curl"]))];
        let lines: Vec<String> = commands(&missing).iter().map(line).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].ends_with("apt-get -q -o DPkg::Lock::Timeout=120 update"), "{lines:?}");
        assert!(lines[1].ends_with("install --yes --no-install-recommends curl swaks"), "{lines:?}");
    }

    #[test]
    fn llvm_is_there_before_the_linker_is_built() {
        let lines: Vec<String> = commands(&[need(Remedy::Linker { force: false })]).iter().map(line).collect();
        assert!(lines[1].contains("llvm-22-dev"), "{lines:?}");
        assert!(lines[2].starts_with("LLVM_PREFIX=/usr/lib/llvm-22 cargo install --locked bpf-linker@"), "{lines:?}");
    }

    #[test]
    fn a_crate_needs_no_packages() {
        let lines: Vec<String> = commands(&[need(Remedy::Crate("cargo-deny@1.0.0"))]).iter().map(line).collect();
        assert_eq!(lines, ["cargo install --locked cargo-deny@1.0.0"]);
    }
}
