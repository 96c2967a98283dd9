//! `portreeve alerts`

mod list;
mod paint;
mod report;
mod show;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use jiff::Timestamp;

use super::allow::change::{Answer, Carried, add_for};
use super::{Outcome, ask, complain, read, records, say};
use crate::alert::{Alert, Filter, Glimpse, Resolution, State, Wishes, glimpse};
use crate::control::{Changed, Client, ClientError, Request};
use crate::detect::{Kind, Severity};
use crate::instance::Instance;

/// List the alerts, show one, and say what became of it
///
/// Without anything else: those that nobody has resolved, the most severe first.
#[derive(Debug, ClapArgs)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "When no agent is running, alerts are read from the store; nothing can be changed then.\n\n\
                  Exit code 1: there is no such alert.\n\n\
                  Example: portreeve alerts --severity critical --since 1d\n\
                  Example: portreeve alerts --follow --json | jq '.id, .who.name'\n\
                  Example: portreeve alerts show 17"
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListArgs,
    /// Where the store is when no agent is running, if not in /var/lib/portreeve
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(super) state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show one alert whole: what was found and why, who it is, where it went, what to do next
    #[command(after_help = "Example: portreeve alerts show 17\n\
                            Example: portreeve alerts show 17 --json | jq -r .sha256")]
    Show {
        /// The alert's number
        id: u64,
        /// As one line of JSON
        #[arg(long)]
        json: bool,
    },
    Report(report::Args),
    /// Say that you are looking at an alert
    #[command(after_help = "Example: portreeve alerts ack 17 --note 'asked the web team'")]
    Ack {
        /// The alert's number
        id: u64,
        /// What is to stand in its history
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Say what an alert turned out to be. If its subject comes back it opens again, with its history
    #[command(
        after_help = "Example: portreeve alerts resolve 17 --as spam-bot --note 'web shell in uploads/, removed'"
    )]
    Resolve {
        /// The alert's number
        id: u64,
        /// What it was
        #[arg(long = "as", value_name = "WHAT")]
        resolution: ResolutionArg,
        /// What is to stand in its history
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Write the narrowest rule that lets the subject send as it tried to, and resolve the alert as allowed
    Allow(AllowArgs),
    /// Let processes go on that were stopped about an alert, and thaw its cgroup
    #[command(after_help = "Example: portreeve alerts undo 17")]
    Undo {
        /// The alert's number
        id: u64,
    },
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Example: portreeve alerts allow 17 --note 'ticket 4711'\n\
                        Example: portreeve alerts allow 17 --dry-run")]
struct AllowArgs {
    /// The alert's number
    id: u64,
    /// Let it send anywhere, not only where it tried to
    #[arg(long)]
    any_destination: bool,
    /// Name the interpreter, and with it every script that it runs as this user
    #[arg(long)]
    any_script: bool,
    /// The folder that holds the root file system of the container
    #[arg(long, value_name = "FOLDER")]
    root: Option<PathBuf>,
    /// The policy
    #[arg(long, value_name = "FILE", default_value_os_t = super::default_config())]
    config: PathBuf,
    /// What is to stand above the rule and in the alert's history
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    #[command(flatten)]
    answer: Answer,
}

#[derive(Debug, ClapArgs)]
struct ListArgs {
    /// Only those in this state; may be given several times
    #[arg(long, value_name = "STATE")]
    state: Vec<StateArg>,
    /// Only those at least so severe
    #[arg(long, value_name = "SEVERITY")]
    severity: Option<SeverityArg>,
    /// Only those that this test has found; may be given several times
    #[arg(long, value_name = "TEST")]
    kind: Vec<KindArg>,
    /// Only those with an attempt since: a time (2026-11-24T10:00:00Z) or so long ago (90s, 15m, 2h, 7d)
    #[arg(long, value_name = "TIME", value_parser = records::since)]
    since: Option<Timestamp>,
    /// The resolved ones too
    #[arg(long, short)]
    all: bool,
    /// Only those with this in the path of the executable or the script
    #[arg(long, value_name = "TEXT")]
    exe: Option<String>,
    /// Only those of this user, by name or number
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only those with this in the name of the systemd unit or of the container
    #[arg(long, value_name = "TEXT")]
    unit: Option<String>,
    /// Go on with what happens to them; with --since, after those since then
    #[arg(long, short)]
    follow: bool,
    /// As JSON Lines
    #[arg(long)]
    json: bool,
}

/// The names on the command line are those of the JSON, so that there is one list of each.
macro_rules! named {
    ($name:ident, $of:ty) => {
        #[derive(Clone, Copy, Debug)]
        struct $name($of);

        impl ValueEnum for $name {
            fn value_variants<'a>() -> &'a [Self] {
                const ALL: [$name; <$of>::ALL.len()] = {
                    let mut all = [$name(<$of>::ALL[0]); <$of>::ALL.len()];
                    let mut n = 0;
                    while n < all.len() {
                        all[n] = $name(<$of>::ALL[n]);
                        n += 1;
                    }
                    all
                };
                &ALL
            }

            fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
                Some(clap::builder::PossibleValue::new(self.0.name()))
            }
        }
    };
}

named!(StateArg, State);
named!(SeverityArg, Severity);
named!(KindArg, Kind);
named!(ResolutionArg, Resolution);

pub(super) fn run(args: &Args, instance: &Instance) -> Outcome {
    match &args.command {
        None => list::run(&filter(&args.list), args.list.follow, args.list.json, instance),
        Some(Command::Show { id, json }) => show::run(*id, *json, instance),
        Some(Command::Report(args)) => report::run(args, instance),
        Some(Command::Ack { id, note }) => change(instance, &Request::AckAlert { id: *id, note: note.clone() }),
        Some(Command::Resolve { id, resolution, note }) => {
            let request = Request::ResolveAlert { id: *id, resolution: resolution.0, note: note.clone() };
            change(instance, &request)
        }
        Some(Command::Allow(args)) => allow(args, instance),
        Some(Command::Undo { id }) => change(instance, &Request::UndoAlert { id: *id }),
    }
}

/// Writes a rule for an alert's subject, and says so to the agent.
fn allow(args: &AllowArgs, instance: &Instance) -> Outcome {
    let alert: Alert = match ask(instance, &Request::Alert { id: args.id }).and_then(read) {
        Ok(alert) => alert,
        Err(outcome) => return outcome,
    };
    let wishes = Wishes {
        any_destination: args.any_destination,
        any_script: args.any_script,
        root: args.root.clone(),
        ..Wishes::default()
    };
    match add_for(&alert, wishes, &args.config, args.note.as_deref(), &args.answer, instance) {
        Ok(Carried::Shown) => Outcome::Done,
        Ok(Carried::Written) => {
            let what = format!("allowed by a rule in {}", args.config.display());
            change(instance, &Request::NoteAlert { id: args.id, what, note: args.note.clone() })
        }
        Err(outcome) => outcome,
    }
}

fn filter(args: &ListArgs) -> Filter {
    Filter {
        all: args.all,
        states: args.state.iter().map(|state| state.0).collect(),
        severity: args.severity.map(|severity| severity.0),
        kinds: args.kind.iter().map(|kind| kind.0).collect(),
        since: args.since,
        exe: args.exe.clone(),
        user: args.user.clone(),
        unit: args.unit.clone(),
    }
}

/// Has the agent do something about an alert, and says what was done.
fn change(instance: &Instance, request: &Request) -> Outcome {
    let changed: Changed = match ask(instance, request).and_then(read) {
        Ok(changed) => changed,
        Err(outcome) => return outcome,
    };
    let alert = &changed.alert;
    let what = alert.history.last().map_or("changed", |change| change.what.as_str());
    say(&format!("alert {} {what}: {}\n", alert.id, paint::plain(&alert.who.name)));
    if let Some(why) = &changed.not_on_disk {
        eprintln!("portreeve: this is only in the agent's memory, and is lost if it ends before the disk works: {why}");
    }
    Outcome::Done
}

/// Asks the agent; when there is none, opens the store and says so.
fn agent_or_store(instance: &Instance, request: &Request) -> Result<Result<Client, Glimpse>, Outcome> {
    let not_running = match Client::ask(&instance.socket(), request) {
        Ok(client) => return Ok(Ok(client)),
        Err(error @ ClientError::NotRunning(_)) => error,
        Err(error) => return Err(complain(&error)),
    };
    match glimpse(&instance.state) {
        Ok(glimpse) => {
            let written = glimpse.written.strftime("%Y-%m-%dT%H:%M:%SZ");
            eprintln!("portreeve: no agent is running; this is the store as of {written}");
            Ok(Err(glimpse))
        }
        Err(why) => {
            let outcome = complain(&not_running);
            eprintln!("portreeve: {why}");
            Err(outcome)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command as Top};
    use super::*;

    fn parsed(line: &str) -> Args {
        let Top::Alerts(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else { panic!("{line}") };
        args
    }

    #[test]
    fn each_flag_is_understood() {
        let line = "portreeve alerts --state open --state resolved --severity warning --kind hammer --kind fan-out \
                    --since 2026-11-24T10:00:00Z --all --exe php --user 33 --unit cron --follow --json";
        let list = parsed(line).list;
        assert!(list.follow && list.json);
        let expected = Filter {
            all: true,
            states: vec![State::Open, State::Resolved],
            severity: Some(Severity::Warning),
            kinds: vec![Kind::Hammer, Kind::FanOut],
            since: Some("2026-11-24T10:00:00Z".parse().unwrap()),
            exe: Some("php".into()),
            user: Some("33".into()),
            unit: Some("cron".into()),
        };
        assert_eq!(filter(&list), expected);
        assert_eq!(filter(&parsed("portreeve alerts").list), Filter::default());
    }

    #[test]
    fn each_subcommand_is_understood() {
        let show = parsed("portreeve alerts show 17 --json --state-dir /srv/x");
        assert_eq!(show.state_dir, Some(PathBuf::from("/srv/x")));
        assert!(matches!(show.command, Some(Command::Show { id: 17, json: true })));
        let ack = parsed("portreeve alerts ack 17 --note mine").command;
        assert!(matches!(ack, Some(Command::Ack { id: 17, note: Some(note) }) if note == "mine"));
        for resolution in Resolution::ALL {
            let command = parsed(&format!("portreeve alerts resolve 3 --as {resolution}")).command;
            assert!(
                matches!(command, Some(Command::Resolve { id: 3, resolution: r, note: None }) if r.0 == resolution)
            );
        }
        for wrong in ["resolve 3", "resolve 3 --as spam", "show", "show x", "--severity bad", "--json ack 3"] {
            assert!(Cli::try_parse_from(format!("portreeve alerts {wrong}").split(' ')).is_err(), "{wrong}");
        }
    }
}
