//! `cargo xtask`: builds, runs, tests and checks Portreeve.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "these commands are for a person at a terminal")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exec::Missing;

mod bench;
mod build;
mod demo;
mod exec;
mod fuzz;
mod lint;
mod other;
mod run;
mod setup;
mod test;
mod vm;

/// Builds, runs, tests and checks Portreeve.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  cargo xtask run                  guard port 25 on this machine, in the foreground (needs root)
  cargo xtask test                 every test (needs root)
  cargo xtask vm --kernel 6.1      the kernel tests on Linux 6.1, in a virtual machine
  cargo xtask setup --no-install   what is missing here, and how it would be installed

Exit codes:
  0  done
  1  something failed: a build, a test, a check
  2  the command line is wrong
  3  something needed is missing here: a package, root";

#[derive(Subcommand)]
enum Command {
    Setup(setup::Args),
    Build(build::Args),
    Run(run::Args),
    Test(test::Args),
    Vm(vm::Args),
    Fuzz(fuzz::Args),
    Lint(lint::Args),
    Demo(demo::Args),
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Vm(args) => vm::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<Missing>() { 3 } else { 1 })
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::{Cli, Command};

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_two_dashes_goes_to_the_agent() {
        let cli = Cli::try_parse_from(["xtask", "run", "--no-install", "--", "--instance", "two"]).expect("parses");
        let Command::Run(args) = cli.command else { panic!("not `run`") };
        assert!(args.setup.no_install);
        assert_eq!(args.agent, ["--instance", "two"]);
    }

    #[test]
    fn fuzzing_takes_a_target_and_either_a_time_or_an_input() {
        let cli = Cli::try_parse_from(["xtask", "fuzz"]).expect("parses");
        let Command::Fuzz(args) = cli.command else { panic!("not `fuzz`") };
        assert_eq!((args.target, args.seconds), (None, 300));
        assert!(Cli::try_parse_from(["xtask", "fuzz", "packet", "--seconds", "60"]).is_ok());
        assert!(Cli::try_parse_from(["xtask", "fuzz", "--seconds", "0"]).is_err());
        assert!(Cli::try_parse_from(["xtask", "fuzz", "--input", "x"]).is_err());
        assert!(Cli::try_parse_from(["xtask", "fuzz", "event", "--input", "x", "--seconds", "1"]).is_err());
    }

    #[test]
    fn a_test_filter_is_optional() {
        let cli = Cli::try_parse_from(["xtask", "test", "mptcp"]).expect("parses");
        let Command::Test(args) = cli.command else { panic!("not `test`") };
        assert_eq!(args.filter.as_deref(), Some("mptcp"));
        assert!(Cli::try_parse_from(["xtask", "test"]).is_ok());
    }

    #[test]
    fn the_virtual_machine_takes_kernels_and_a_filter_or_a_command() {
        let cli = Cli::try_parse_from(["xtask", "vm", "--kernel", "6.1", "--", "mptcp"]).expect("parses");
        let Command::Vm(args) = cli.command else { panic!("not `vm`") };
        assert_eq!((args.kernels, args.tests), (vec!["6.1".to_owned()], vec!["mptcp".to_owned()]));
        let cli = Cli::try_parse_from(["xtask", "vm", "--run", "uname -r"]).expect("parses");
        let Command::Vm(args) = cli.command else { panic!("not `vm`") };
        assert_eq!((args.kernels, args.run.as_deref()), (vec!["6.1".to_owned(), "6.12".to_owned()], Some("uname -r")));
        assert!(Cli::try_parse_from(["xtask", "vm", "--kernel", "new"]).is_err());
        assert!(Cli::try_parse_from(["xtask", "vm", "--run", "true", "--", "mptcp"]).is_err());
    }
}
