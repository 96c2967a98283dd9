//! `cargo xtask test`.

use std::{
    fmt, fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build,
    exec::{cargo, headline, line, require_root, target_dir},
    run, setup, vm,
};

/// Runs every test: those of the crates, and those on the real kernel with real mail servers.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test                 everything
  cargo xtask test mptcp           the tests with `mptcp` in their names
  cargo xtask test --all-kernels   everything, then the kernel tests on Linux 6.1 and 6.12 in virtual machines
  cargo test                       only the tests that need neither root nor packages

The last line sums up all test runners: N passed, N failed, N skipped.")]
pub(crate) struct Args {
    /// Only the tests whose names contain this.
    pub filter: Option<String>,
    /// Afterwards the kernel tests on other kernels too, as `cargo xtask vm` runs them.
    #[arg(long)]
    pub all_kernels: bool,
    #[command(flatten)]
    pub setup: setup::Switches,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    require_root("testing on the real kernel (`cargo test` alone runs the tests that do without)", "test")?;
    let mut groups = vec![setup::Group::Build, setup::Group::Test];
    if args.all_kernels {
        groups.push(setup::Group::Vm);
    }
    setup::ensure(&groups, args.setup)?;
    let agent = build::agent(true)?;
    run::mount_missing()?;
    // The lab appends a line for each test that this kernel cannot run: the test harness knows no such outcome.
    let skips = target_dir()?.join("portreeve-skipped-tests");
    fs::write(&skips, "").with_context(|| format!("cannot write {}", skips.display()))?;

    let mut total = Summary::default();
    let mut broken = Vec::new();
    let filter = args.filter.as_deref();
    for (title, mut tier) in
        [("tests of the crates", host(filter)), ("tests on the real kernel", kernel(filter, &agent, &skips))]
    {
        headline(title);
        let (sums, ok) = stream(&mut tier)?;
        if !ok && sums.failed == 0 {
            broken.push(format!("did not finish: {}", line(&tier)));
        }
        total.add(sums);
    }

    let skipped = fs::read_to_string(&skips).with_context(|| format!("cannot read {}", skips.display()))?;
    total.skip(skipped.lines().map(|reason| println!("skipped: {reason}")).count());
    if args.all_kernels {
        for tried in vm::test_all(filter, &agent)? {
            total.add(tried.sums);
            broken.extend(tried.trouble);
        }
    }
    for trouble in &broken {
        println!("{trouble}");
    }
    println!("{total}");
    if total.failed > 0 || !broken.is_empty() {
        bail!("not every test passed");
    }
    if total.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

fn host(filter: Option<&str>) -> Command {
    let mut tier = cargo();
    tier.args(["test", "--no-fail-fast"]).args(filter);
    tier
}

/// One test at a time: they share the kernel's hooks, and some measure.
fn kernel(filter: Option<&str>, agent: &Path, skips: &Path) -> Command {
    let mut tier = cargo();
    tier.args(["test", "--no-fail-fast", "--release", "--package", "portreeve-tests"]).args(filter);
    tier.args(["--", "--test-threads=1"]).env("PORTREEVE_BIN", agent).env("PORTREEVE_SKIPS", skips);
    tier
}

/// Runs one tier, passes its output on and sums up its result lines.
fn stream(tier: &mut Command) -> Result<(Summary, bool)> {
    let mut child = tier
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", line(tier)))?;
    let mut sums = Summary::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("cannot read the tests' output")?;
            // A test may print bytes that are no text.
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            sums.add(Summary::of(&line).unwrap_or_default());
        }
    }
    let status = child.wait().with_context(|| format!("cannot wait for {}", line(tier)))?;
    Ok((sums, status.success()))
}

/// What one or more test runners found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Summary {
    /// Reads a runner's last line, `test result: ok. 5 passed; 0 failed; 1 ignored; …`.
    pub(crate) fn of(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |word: &str| {
            let part = counts.split("; ").find(|part| part.ends_with(word))?;
            part.split(' ').next()?.parse().ok()
        };
        Some(Self { passed: count(" passed")?, failed: count(" failed")?, skipped: count(" ignored")? })
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Takes tests that skipped themselves, which the harness counts as passed.
    pub(crate) fn skip(&mut self, count: usize) {
        self.passed = self.passed.saturating_sub(count);
        self.skipped += count;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn a_result_line_is_counted() {
        let line = "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 0.4s";
        assert_eq!(Summary::of(line), Some(Summary { passed: 12, failed: 1, skipped: 2 }));
        assert_eq!(Summary::of("test result_of_something ... ok"), None);
        assert_eq!(Summary::of("test result: nothing like it"), None);
    }

    #[test]
    fn a_test_that_skipped_itself_has_not_passed() {
        let mut sums = Summary { passed: 3, failed: 0, skipped: 1 };
        sums.skip(2);
        assert_eq!(sums, Summary { passed: 1, failed: 0, skipped: 3 });
    }
}
