//! `cargo xtask vm`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::{
    build,
    exec::{headline, target_dir},
    setup,
    test::Summary,
};
use console::Report;
use cpio::Archive;
use debian::Kernel;
use lab::Lab;
use machine::{Accel, Boot};

mod boot;
mod console;
mod cpio;
pub(crate) mod debian;
mod lab;
mod machine;

/// The kernels that Portreeve is tried on, besides the one that runs: Debian 12's own, and the one of its backports.
pub(crate) const KERNELS: [&str; 2] = ["6.1", "6.12"];

/// Runs the tests on other kernels: Debian's, each in a virtual machine.
#[derive(clap::Args)]
#[command(after_help = "\
The machine has no disk and no network: kernel, a small Debian root and the tests are all in its memory. Without a
KVM that works it is emulated, which takes five to ten times as long.

Environment:
  PORTREEVE_BIN   an agent to test, instead of one built from here

Examples:
  cargo xtask vm                                   every kernel test on every kernel
  cargo xtask vm --kernel 6.1 -- mptcp             the tests with `mptcp` in their names, on Linux 6.1
  cargo xtask vm --kernel 6.12 --run 'uname -a; portreeve doctor'
  cargo xtask vm --boot                            whether the guard stands before the network, under systemd
  cargo xtask vm --kernel 6.12 --boot=healthy      one of these boots (vm/boot/scenarios.rs lists them)")]
pub(crate) struct Args {
    /// The kernel's line, such as 6.12, of which the newest is taken; may be given more than once.
    #[arg(long = "kernel", value_name = "LINE", value_parser = release_line, default_values = KERNELS)]
    pub kernels: Vec<String>,
    /// Run this command in place of the tests.
    #[arg(long, value_name = "COMMAND", conflicts_with = "tests")]
    pub run: Option<String>,
    /// Boot into systemd with the units as they are shipped, in place of the tests; `all` or one scenario.
    #[arg(
        long,
        value_name = "SCENARIO",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = boot::ALL,
        conflicts_with_all = ["tests", "run"]
    )]
    pub boot: Option<String>,
    /// Minutes after which a machine is ended that has not ended by itself.
    #[arg(long, default_value_t = 60)]
    pub minutes: u64,
    #[command(flatten)]
    pub setup: setup::Switches,
    /// Arguments for the test programs, such as a filter.
    #[arg(last = true, value_name = "FILTER")]
    pub tests: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let given = lab::given_agent()?;
    let groups = if given.is_some() { &[setup::Group::Vm][..] } else { &[setup::Group::Build, setup::Group::Vm] };
    setup::ensure(groups, args.setup)?;
    let agent = given.map_or_else(|| build::agent(true), Ok)?;
    let limit = Duration::from_secs(args.minutes * 60);
    let all = match (&args.boot, &args.run) {
        (Some(scenario), _) => boot::run(&args.kernels, scenario, &agent, limit),
        (None, Some(command)) => boot_each(&args.kernels, &agent, Job::Command(command), limit),
        (None, None) => boot_each(&args.kernels, &agent, Job::Tests(&args.tests), limit),
    };
    let mut total = Summary::default();
    let mut broken = Vec::new();
    for tried in all? {
        total.add(tried.sums);
        broken.extend(tried.trouble);
    }
    for trouble in &broken {
        println!("{trouble}");
    }
    if args.run.is_none() {
        println!("{total}");
    }
    if total.failed > 0 || !broken.is_empty() {
        bail!("not everything passed");
    }
    if args.run.is_none() && total.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

/// Runs the kernel tests on every kernel; for `cargo xtask test`.
pub(crate) fn test_all(filter: Option<&str>, agent: &Path) -> Result<Vec<Tried>> {
    let filter: Vec<String> = filter.map(str::to_owned).into_iter().collect();
    boot_each(&KERNELS.map(str::to_owned), agent, Job::Tests(&filter), Duration::from_secs(3600))
}

/// What came of one kernel.
pub(crate) struct Tried {
    /// The tests.
    pub sums: Summary,
    /// What is wrong beside single tests that failed, in one line.
    pub trouble: Option<String>,
}

/// What a machine is booted for.
#[derive(Clone, Copy)]
enum Job<'a> {
    /// The tests, with arguments for them.
    Tests(&'a [String]),
    /// A command.
    Command(&'a str),
}

fn boot_each(lines: &[String], agent: &Path, job: Job<'_>, limit: Duration) -> Result<Vec<Tried>> {
    let lab = Lab::build(agent)?;
    let cache = Cache::open()?;
    let root = debian::root("lab", lab::PACKAGES, &cache.dir)?;
    lines.iter().map(|line| boot_one(line, &lab, &root, job, &cache.dir, limit)).collect()
}

fn boot_one(line: &str, lab: &Lab, root: &Path, job: Job<'_>, cache: &Path, limit: Duration) -> Result<Tried> {
    let kernel = debian::kernel(line, cache)?;
    let log = cache.join(format!("console-{line}.log"));
    let accel = Accel::find(&kernel.image, &log)?;
    headline(&format!("Linux {line} in a virtual machine ({accel:?}); the whole console goes to {}", log.display()));
    let (script, programs) = match job {
        Job::Tests(arguments) => (lab::test_job(arguments, accel.patience()), lab.tests()),
        Job::Command(command) => (lab::command_job(command, accel.patience()), 1),
    };
    let initrd = image(cache, root, &kernel, |archive| lab.pack(archive, &script))?;

    let start = Instant::now();
    let mut report = Report::default();
    let boot = Boot { kernel: &kernel.image, initrd: Some(&initrd), parameters: "", log: &log, limit };
    let end = boot.run(accel, |text| {
        println!("[{line}] {text}");
        report.read(text);
    })?;
    machine::discard(&initrd)?;
    println!("    {} on Linux {line}, in {} seconds", report.sums(), start.elapsed().as_secs());
    let trouble = report.trouble(end, programs).map(|what| format!("Linux {line}: {what} (see {})", log.display()));
    Ok(Tried { sums: report.sums(), trouble })
}

/// Where kernels and roots are kept; one command has it at a time, for two machines would slow each other down too.
struct Cache {
    dir: PathBuf,
    _lock: Flock<File>,
}

impl Cache {
    fn open() -> Result<Self> {
        let dir = target_dir()?.join("vm");
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let path = dir.join("lock");
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).or_else(|(file, _)| {
            headline("waiting for another virtual machine of this folder");
            Flock::lock(file, FlockArg::LockExclusive)
        });
        let lock = lock.map_err(|(_, errno)| errno).with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self { dir, _lock: lock })
    }
}

/// One initramfs out of a root, a kernel's modules and what a job adds.
fn image(cache: &Path, root: &Path, kernel: &Kernel, add: impl FnOnce(&mut Archive) -> Result<()>) -> Result<PathBuf> {
    let initrd = cache.join(format!("initrd-{}.cpio", std::process::id()));
    let mut archive = Archive::create(&initrd)?;
    archive.include(root)?;
    archive.include(&kernel.modules)?;
    add(&mut archive)?;
    archive.finish()?;
    Ok(initrd)
}

/// A kernel's line: two numbers.
fn release_line(text: &str) -> Result<String, String> {
    let numbers: Vec<&str> = text.split('.').collect();
    let number = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    if numbers.len() == 2 && numbers.iter().all(number) {
        Ok(text.to_owned())
    } else {
        Err("a kernel's line is two numbers, such as 6.12".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::release_line;

    #[test]
    fn a_kernels_line_is_two_numbers() {
        assert!(release_line("6.12").is_ok());
        for wrong in ["6", "6.12.1", "6.x", "6.", ""] {
            assert!(release_line(wrong).is_err(), "{wrong}");
        }
    }
}
