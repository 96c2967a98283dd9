//! `cargo xtask fuzz`.

mod finding;

use std::{
    collections::BTreeSet,
    env, fs,
    io::BufReader,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::{
    exec::{headline, line, target_dir, workspace},
    setup,
};
use finding::{Said, describe};

/// Feeds the parsers with whatever makes them go where they have not been.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask fuzz                       every target, five minutes each
  cargo xtask fuzz packet --seconds 60   one target, one minute
  cargo xtask fuzz packet --input FILE   one input again, such as one that was kept because of what it did

The inputs that lead to new places are kept in tests/fuzz/corpus, and are where the next run goes on.")]
pub(crate) struct Args {
    /// The target; every one if none is named.
    pub target: Option<Target>,
    /// How long to try each target.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Run this input only.
    #[arg(long, value_name = "FILE", requires = "target", conflicts_with = "seconds")]
    pub input: Option<PathBuf>,
    #[command(flatten)]
    pub setup: setup::Switches,
}

/// What is fuzzed; each is a file of tests/fuzz.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Target {
    /// The packet programs' parsers, with fragments and what receivers make of them.
    Packet,
    /// The policy's loader.
    Policy,
    /// The kernel's events, to the record and its JSON.
    Event,
    /// The readers of traces, and the detector on what they make of them.
    Trace,
    /// The relay's reader of commands.
    SmtpCommand,
    /// Its reader of messages.
    SmtpData,
    /// Its reader of replies.
    SmtpReply,
}

/// No input takes longer than some milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An event is the largest input that means something.
const LARGEST: usize = 4096;
/// Where the targets are, below the workspace.
const FOLDER: &str = "tests/fuzz";

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Policy => "policy",
            Self::Event => "event",
            Self::Trace => "trace",
            Self::SmtpCommand => "smtp_command",
            Self::SmtpData => "smtp_data",
            Self::SmtpReply => "smtp_reply",
        }
    }

    /// Inputs to begin with, below the workspace.
    fn seeds(self) -> &'static [&'static str] {
        match self {
            Self::Packet => &["tests/fuzz/seeds/packet"],
            Self::Policy => &["config"],
            Self::Event | Self::SmtpCommand | Self::SmtpData | Self::SmtpReply => &[],
            Self::Trace => &["tests/fuzz/seeds/trace"],
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&[setup::Group::Fuzz], args.setup)?;
    let targets = args.target.as_ref().map_or(Target::value_variants(), std::slice::from_ref);
    let sanitizer = sanitizer()?;
    let (mut failed, mut findings) = (Vec::new(), Vec::new());
    for target in targets {
        let before = kept(*target)?;
        let mut command = match &args.input {
            Some(input) => again(*target, sanitizer, input)?,
            None => {
                let corpus = workspace().join(corpus(*target));
                fs::create_dir_all(&corpus).with_context(|| format!("cannot create {}", corpus.display()))?;
                search(*target, sanitizer, args.seconds)?
            }
        };
        headline(&line(&command));
        let (said, good) = listen(&mut command)?;
        for path in kept(*target)?.difference(&before) {
            findings.push(describe(target.name(), path, workspace(), &said)?);
        }
        if !good {
            failed.push(target.name());
        }
    }
    for finding in &findings {
        println!("{finding}");
    }
    if !failed.is_empty() {
        bail!("fuzzing found something, or did not start: {}", failed.join(", "));
    }
    println!("nothing was found");
    Ok(())
}

/// Runs a target, and tells what it said and whether it ended well.
fn listen(command: &mut Command) -> Result<(Said, bool)> {
    let name = line(command);
    let mut child = command.stderr(Stdio::piped()).spawn().with_context(|| format!("cannot start {name}"))?;
    let output = child.stderr.take().with_context(|| format!("cannot listen to {name}"))?;
    let said = Said::listen(BufReader::new(output), |line| eprintln!("{line}")).context("cannot read what it says")?;
    let status = child.wait().context("cannot wait for it")?;
    Ok((said, status.success()))
}

/// Where the inputs are that led to new places, below the workspace.
fn corpus(target: Target) -> PathBuf {
    Path::new(FOLDER).join("corpus").join(target.name())
}

/// New inputs, until the time is over or one of them is a finding.
fn search(target: Target, sanitizer: &str, seconds: u64) -> Result<Command> {
    let mut command = cargo_fuzz(&["run"], sanitizer, target)?;
    command.arg(corpus(target)).args(target.seeds()).arg("--");
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-timeout={}", TIMEOUT.as_secs()));
    command.arg(format!("-max_len={LARGEST}"));
    let dictionary = format!("{FOLDER}/{}.dict", target.name());
    if workspace().join(&dictionary).is_file() {
        command.arg(format!("-dict={dictionary}"));
    }
    Ok(command)
}

fn again(target: Target, sanitizer: &str, input: &Path) -> Result<Command> {
    // As the user means it, from where the user is; cargo-fuzz runs in the workspace.
    let input = fs::canonicalize(input)
        .or_else(|_| fs::canonicalize(workspace().join(input)))
        .with_context(|| format!("cannot find {}", input.display()))?;
    let mut command = cargo_fuzz(&["run"], sanitizer, target)?;
    command.arg(input).args(["--", &format!("-timeout={}", TIMEOUT.as_secs())]);
    Ok(command)
}

/// The sanitizer that this toolchain can link: with none, a target still finds panics and overflows.
fn sanitizer() -> Result<&'static str> {
    let Some(first) = Target::value_variants().first() else { return Ok("none") };
    headline("building the fuzz targets, which takes some minutes the first time");
    for sanitizer in ["address", "none"] {
        let mut build = cargo_fuzz(&["build"], sanitizer, *first)?;
        if build.status().with_context(|| format!("cannot start {}", line(&build)))?.success() {
            return Ok(sanitizer);
        }
        if sanitizer == "address" {
            println!("note: this does not build with the address sanitizer; trying without");
        }
    }
    bail!("the fuzz targets do not build")
}

/// cargo-fuzz needs unstable options of the compiler: rustup's nightly, or the stable one told to take them.
fn cargo_fuzz(subcommand: &[&str], sanitizer: &str, target: Target) -> Result<Command> {
    let mut command = if has_nightly() {
        let mut rustup = Command::new("rustup");
        // Otherwise cargo believes that it is the one that runs us.
        rustup.args(["run", "nightly", "cargo"]).env_remove("CARGO").env_remove("RUSTC");
        rustup
    } else {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.env("RUSTC_BOOTSTRAP", "1");
        cargo
    };
    command.current_dir(workspace()).env("PORTREEVE_EBPF_SKIP", "1").stdin(Stdio::null());
    command.arg("fuzz").args(subcommand).args(["--fuzz-dir", FOLDER, "--sanitizer", sanitizer, "--target-dir"]);
    command.arg(target_dir()?.join("fuzz")).arg(target.name());
    Ok(command)
}

fn has_nightly() -> bool {
    let mut rustup = Command::new("rustup");
    // To look for a toolchain must not download one.
    rustup.args(["run", "nightly", "rustc", "--version"]).env("RUSTUP_AUTO_INSTALL", "0");
    rustup.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    rustup.status().is_ok_and(|status| status.success())
}

/// The inputs that were kept because of what they did, below the workspace.
fn kept(target: Target) -> Result<BTreeSet<PathBuf>> {
    let folder = Path::new(FOLDER).join("artifacts").join(target.name());
    let found = match fs::read_dir(workspace().join(&folder)) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", folder.display())),
    };
    let paths = found.map(|entry| Ok(folder.join(entry?.file_name())));
    paths.collect::<std::io::Result<_>>().with_context(|| format!("cannot read {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::{FOLDER, Target, search};
    use crate::exec::{line, workspace};

    #[test]
    fn every_target_is_a_program_with_seeds_that_are_there() {
        let manifest = std::fs::read_to_string(workspace().join(FOLDER).join("Cargo.toml")).unwrap();
        for target in Target::value_variants() {
            assert!(manifest.contains(&format!("path = \"{}.rs\"", target.name())), "{target:?}");
            assert!(target.seeds().iter().all(|seeds| workspace().join(seeds).is_dir()), "{target:?}");
        }
    }

    #[test]
    fn a_search_ends_when_its_time_is_over() {
        let command = line(&search(Target::Policy, "address", 60).unwrap());
        assert!(command.contains("--fuzz-dir tests/fuzz --sanitizer address"), "{command}");
        assert!(command.contains(" policy tests/fuzz/corpus/policy config -- -max_total_time=60 "), "{command}");
    }
}
