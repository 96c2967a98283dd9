//! An alert as the file that abuse desks exchange.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use thiserror::Error;

use super::{say, show};
use crate::alert::{Incomplete, ReporterSettings, is_domain, is_mail_address, report};
use crate::cli::{Outcome, default_config};
use crate::instance::Instance;
use crate::policy;

/// Write an alert as an X-ARF report, the JSON that abuse desks exchange
///
/// It holds the alert with its numbers, destinations and command lines, and not what was done about it: read it before
/// you send it to anybody.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Exit code 1: there is no such alert, or the file is there already; 2: the reporter is not known.\n\n\
                        Example: portreeve alerts report 17 --output alert-17.json\n\
                        Example: portreeve alerts report 17 --org Example --contact abuse@example.org --source 192.0.2.1"
)]
pub(super) struct Args {
    /// The alert's number
    id: u64,
    /// Where to; without it, to standard output. The file can be read by its owner only
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write over a file that is there already
    #[arg(long, requires = "output")]
    force: bool,
    /// In one line
    #[arg(long)]
    json: bool,
    /// The organisation that reports, in place of the policy's org in [alert.reporter]
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    org: Option<String>,
    /// The mail address for questions, in place of the policy's
    #[arg(long, value_name = "ADDRESS", value_parser = contact)]
    contact: Option<String>,
    /// The organisation's domain, in place of the policy's, or else of that of the mail address
    #[arg(long, value_name = "DOMAIN", value_parser = domain)]
    domain: Option<String>,
    /// The host that it is about, as others see it, in place of the policy's and of what the alert knows
    #[arg(long, value_name = "HOST", value_parser = source)]
    source: Option<String>,
    /// The policy that names the reporter
    #[arg(long, value_name = "FILE", default_value_os_t = default_config())]
    config: PathBuf,
}

/// Why there is no report.
#[derive(Debug, Error)]
enum ReportError {
    #[error(transparent)]
    Incomplete(#[from] Incomplete),
    #[error("{} is there already and was left alone; say --force to write over it", .file.display())]
    Exists { file: PathBuf },
    #[error("{} is no ordinary file and was left alone; name another, or leave --output out", .file.display())]
    NoFile { file: PathBuf },
    #[error("cannot {step} {}: {source}; no report was written", .file.display())]
    Step { step: &'static str, file: PathBuf, source: io::Error },
}

/// Writes the report of an alert.
pub(super) fn run(args: &Args, instance: &Instance) -> Outcome {
    let alert = match show::alert(args.id, instance) {
        Ok(alert) => alert,
        Err(outcome) => return outcome,
    };
    let flags = ReporterSettings {
        org: args.org.clone(),
        contact: args.contact.clone(),
        domain: args.domain.clone(),
        source: args.source.clone(),
    };
    let policy = policy::load(&args.config).draft.alert.reporter;
    let hostname = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let written =
        flags.complete(&policy, &alert, &hostname).map_err(ReportError::from).and_then(|(reporter, source)| {
            let report = report(&alert, &source, &reporter);
            let text = if args.json { format!("{report}\n") } else { format!("{report:#}\n") };
            match &args.output {
                Some(file) => write(file, &text, args.force),
                None => {
                    say(&text);
                    Ok(())
                }
            }
        });
    match written {
        Ok(()) => Outcome::Done,
        Err(error) => complain(&error, &args.config),
    }
}

fn complain(error: &ReportError, config: &Path) -> Outcome {
    eprintln!("portreeve: {error}");
    match error {
        ReportError::Incomplete(_) => {
            // A policy that somebody else may not read says nothing either.
            if let Err(why) = File::open(config) {
                eprintln!("portreeve: {} cannot be read: {why}", config.display());
            }
            Outcome::Wrong
        }
        ReportError::Step { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Outcome::NotAllowed,
        ReportError::Exists { .. } | ReportError::NoFile { .. } | ReportError::Step { .. } => Outcome::Failed,
    }
}

/// Writes a file whole or not at all: beside its place first, under a hidden name of this process.
fn write(file: &Path, text: &str, force: bool) -> Result<(), ReportError> {
    let step = |step: &'static str| move |source| ReportError::Step { step, file: file.to_owned(), source };
    // To replace what is no file, such as /dev/null, is never meant.
    if fs::symlink_metadata(file).is_ok_and(|there| !there.is_file()) {
        return Err(ReportError::NoFile { file: file.to_owned() });
    }
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = file.with_file_name(format!(".{name}.{}", std::process::id()));
    // The command lines in it may hold passwords.
    let new = File::options().write(true).create_new(true).mode(0o600).open(&beside).map_err(step("make"))?;
    let written = fill(new, text).map_err(step("write")).and_then(|()| {
        if force {
            return fs::rename(&beside, file).map_err(step("write over"));
        }
        // A link, unlike a rename, fails when something has come to be there in the meantime.
        fs::hard_link(&beside, file).map_err(|source| {
            let exists = source.kind() == io::ErrorKind::AlreadyExists;
            if exists { ReportError::Exists { file: file.to_owned() } } else { step("make")(source) }
        })
    });
    if (written.is_err() || !force)
        && let Err(error) = fs::remove_file(&beside)
    {
        tracing::warn!("cannot remove {}: {error}", beside.display());
    }
    written
}

fn fill(mut new: File, text: &str) -> io::Result<()> {
    new.write_all(text.as_bytes())?;
    new.sync_all()
}

fn contact(text: &str) -> Result<String, String> {
    checked(text, is_mail_address(text), "it is no mail address; write it alone, as in abuse@example.org")
}

fn domain(text: &str) -> Result<String, String> {
    checked(text, is_domain(text), "it is no domain; write it as in example.org")
}

fn source(text: &str) -> Result<String, String> {
    let is_host = text.parse::<IpAddr>().is_ok() || is_domain(text);
    checked(text, is_host, "it is neither an address nor a name with a domain; write it as in 192.0.2.1")
}

fn checked(text: &str, right: bool, wrong: &str) -> Result<String, String> {
    if right { Ok(text.to_owned()) } else { Err(wrong.to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::sync::Arc;
    use std::time::Duration;

    use clap::Parser as _;
    use serde_json::Value;

    use super::super::super::{Cli, Command as Top};
    use super::super::Command;
    use super::*;
    use crate::alert::{Keep, Save, Store, examples};

    /// A state folder with one alert in it, and no agent.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            let mut store = Store::new(place.0.path(), Keep::default());
            store.start();
            store.save(Save { alert: Arc::new(examples::alert()), changed: true, partial: false });
            assert!(store.end(Duration::from_secs(15)));
            fs::write(place.file("p.toml"), "[alert.reporter]\norg = \"Example\"\ncontact = \"abuse@example.org\"\n")
                .unwrap();
            place
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn args(&self, output: Option<&str>) -> Args {
            Args {
                id: examples::alert().id,
                output: output.map(|name| self.file(name)),
                force: false,
                json: false,
                org: None,
                contact: None,
                domain: None,
                source: Some("192.0.2.1".to_owned()),
                config: self.file("p.toml"),
            }
        }

        fn run(&self, args: &Args) -> Outcome {
            let folder = self.0.path().to_owned();
            run(args, &Instance { name: "test".to_owned(), runtime: folder.clone(), state: folder })
        }

        fn names(&self) -> Vec<String> {
            let names =
                fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.filter(|name| !name.contains("sqlite")).collect();
            names.sort();
            names
        }
    }

    #[test]
    fn each_flag_is_understood() {
        let line = "portreeve alerts report 17 --output r.json --force --json --org Example --contact abuse@example.org \
                    --domain example.com --source mx.example.org --config p.toml";
        let parsed = |line: &str| {
            let Top::Alerts(args) = Cli::try_parse_from(line.split(' ')).ok()?.command else { return None };
            match args.command {
                Some(Command::Report(args)) => Some(args),
                _ => None,
            }
        };
        let args = parsed(line).unwrap();
        assert!(args.id == 17 && args.force && args.json);
        assert_eq!((args.output.unwrap().as_path(), args.config.as_path()), (Path::new("r.json"), Path::new("p.toml")));
        let said = [args.org, args.contact, args.domain, args.source].map(Option::unwrap);
        assert_eq!(said, ["Example", "abuse@example.org", "example.com", "mx.example.org"]);
        for wrong in ["", " 17 --force", " 17 --contact abuse", " 17 --domain x", " 17 --source web", " 17 --org="] {
            assert!(parsed(&format!("portreeve alerts report{wrong}")).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_report_is_the_alert_in_the_policys_name() {
        let place = Place::new();
        let args = place.args(Some("r.json"));
        assert_eq!(place.run(&args), Outcome::Done);
        let text = fs::read_to_string(place.file("r.json")).unwrap();
        let written: Value = serde_json::from_str(&text).unwrap();
        let [org, contact, domain] = ["Example", "abuse@example.org", "example.org"].map(str::to_owned);
        let expected = report(&examples::alert(), "192.0.2.1", &crate::alert::Reporter { org, contact, domain });
        assert!(written == expected && text.lines().count() > 10, "{text}");
        let rights = fs::metadata(place.file("r.json")).unwrap().permissions().mode() & 0o777;
        assert_eq!((rights, place.names()), (0o600, vec!["p.toml".to_owned(), "r.json".to_owned()]));
        assert_eq!(place.run(&Args { output: Some(place.file("line.json")), json: true, ..args }), Outcome::Done);
        assert_eq!(fs::read_to_string(place.file("line.json")).unwrap(), format!("{expected}\n"));
    }

    #[test]
    fn a_file_that_is_there_is_left_alone_unless_told() {
        let place = Place::new();
        fs::write(place.file("r.json"), "mine").unwrap();
        let args = place.args(Some("r.json"));
        assert_eq!(place.run(&args), Outcome::Failed);
        assert_eq!(fs::read_to_string(place.file("r.json")).unwrap(), "mine");
        let forced = Args { force: true, ..args };
        assert_eq!(place.run(&forced), Outcome::Done);
        assert!(fs::read_to_string(place.file("r.json")).unwrap().contains("xarf_version"));
        // What is no file is never replaced, even where one may.
        symlink("r.json", place.file("link")).unwrap();
        assert_eq!(place.run(&Args { output: Some(place.file("link")), ..forced }), Outcome::Failed);
        assert!(fs::symlink_metadata(place.file("link")).unwrap().is_symlink());
        assert_eq!(place.names(), ["link", "p.toml", "r.json"]);
    }

    #[test]
    fn without_a_reporter_or_an_alert_nothing_is_written() {
        let place = Place::new();
        let nobody = Args { config: place.file("none.toml"), ..place.args(Some("r.json")) };
        assert_eq!(place.run(&nobody), Outcome::Wrong);
        assert_eq!(place.run(&Args { id: 999, ..place.args(Some("r.json")) }), Outcome::Failed);
        assert_eq!(place.run(&place.args(Some("none/r.json"))), Outcome::Failed);
        assert_eq!(place.names(), ["p.toml"]);
    }
}
