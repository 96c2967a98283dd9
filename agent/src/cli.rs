//! The commands. One file a subcommand; `--help` of each has an example.

#![expect(clippy::print_stderr, reason = "this is where people are spoken to")]

mod alerts;
mod allow;
mod attempts;
mod check;
mod detach;
mod detect;
mod doctor;
mod explain;
mod mail;
mod mode;
mod records;
mod reload;
mod run;
mod status;
mod subjects;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::control::{Client, ClientError, Request};
use crate::instance::{DEFAULT, Instance};

/// What a command's exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 0: done, or yes.
    Done,
    /// 1: it failed, or the answer is no.
    Failed,
    /// 2: the words of the call or the policy are wrong.
    Wrong,
    /// 3: no agent is running.
    NotRunning,
    /// 4: the caller lacks the right.
    NotAllowed,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Done => 0,
            Outcome::Failed => 1,
            Outcome::Wrong => 2,
            Outcome::NotRunning => 3,
            Outcome::NotAllowed => 4,
        })
    }
}

/// Outbound-mail firewall: TCP port 25 leaves only from the sanctioned mail server.
#[derive(Debug, Parser)]
#[command(
    name = "portreeve",
    version,
    about,
    after_help = "Exit codes: 0 done, 1 failed or the answer is no, 2 wrong call or policy, 3 no agent is running, \
                  4 not allowed.\n\nExample: portreeve status && portreeve attempts --follow"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The agent that is meant, when several run side by side
    #[arg(long, global = true, default_value = DEFAULT, value_name = "NAME")]
    instance: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Status(status::Args),
    Alerts(alerts::Args),
    Attempts(attempts::Args),
    Mail(mail::Args),
    Subjects(subjects::Args),
    Check(check::Args),
    Explain(explain::Args),
    Allow(allow::Args),
    Reload(reload::Args),
    Mode(mode::Args),
    Doctor(doctor::Args),
    Detach(detach::Args),
    Detect(detect::Args),
}

/// Runs the command of the command line.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env("PORTREEVE_LOG").unwrap_or_else(|_| EnvFilter::new("info")))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .without_time()
        .init();
    let state = match &cli.command {
        Command::Run(args) => args.state_dir.clone(),
        Command::Alerts(args) => args.state_dir.clone(),
        Command::Status(_)
        | Command::Attempts(_)
        | Command::Mail(_)
        | Command::Allow(_)
        | Command::Detect(_)
        | Command::Subjects(_)
        | Command::Check(_)
        | Command::Explain(_)
        | Command::Reload(_)
        | Command::Mode(_)
        | Command::Doctor(_)
        | Command::Detach(_) => None,
    };
    match Instance::new(&cli.instance, state) {
        Ok(instance) => dispatch(cli.command, instance).into(),
        Err(error) => {
            eprintln!("portreeve: {error}");
            Outcome::Wrong.into()
        }
    }
}

fn dispatch(command: Command, instance: Instance) -> Outcome {
    match command {
        Command::Run(args) => run::run(args, instance),
        Command::Status(args) => status::run(&args, &instance),
        Command::Alerts(args) => alerts::run(&args, &instance),
        Command::Attempts(args) => attempts::run(&args, &instance),
        Command::Mail(args) => mail::run(&args, &instance),
        Command::Subjects(args) => subjects::run(&args, &instance),
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(&args, &instance),
        Command::Allow(args) => allow::run(args, &instance),
        Command::Reload(args) => reload::run(&args, &instance),
        Command::Mode(args) => mode::run(&args, &instance),
        Command::Doctor(args) => doctor::run(&args, &instance),
        Command::Detach(args) => detach::run(&args, &instance),
        Command::Detect(args) => detect::run(&args),
    }
}

/// Writes a text to standard output. Whoever closes it has read enough (`head`): that is no failure.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        tracing::debug!("standard output: {error}");
    }
}

/// Asks the agent something that has one answer.
fn ask(instance: &Instance, request: &Request) -> Result<serde_json::Value, Outcome> {
    Client::ask(&instance.socket(), request).and_then(Client::answer).map_err(|error| complain(&error))
}

/// Says what went wrong with a question.
fn complain(error: &ClientError) -> Outcome {
    eprintln!("portreeve: {error}");
    match error {
        ClientError::NotRunning(_) => Outcome::NotRunning,
        ClientError::NotAllowed => Outcome::NotAllowed,
        ClientError::Refused(_) | ClientError::Broken(_) => Outcome::Failed,
    }
}

/// An answer as the type it should be.
fn read<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<T, Outcome> {
    serde_json::from_value(value).map_err(|error| {
        eprintln!("portreeve: the agent is of another version: {error}");
        Outcome::Failed
    })
}

/// The policy file that nobody named.
const CONFIG: &str = "/etc/portreeve/portreeve.toml";

fn default_config() -> PathBuf {
    PathBuf::from(CONFIG)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_commands_hold_together_and_each_has_an_example() {
        let command = Cli::command();
        command.clone().debug_assert();
        let mut commands: Vec<_> = command.get_subcommands().collect();
        while let Some(sub) = commands.pop() {
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{} has no example", sub.get_name());
            commands.extend(sub.get_subcommands());
        }
    }
}
