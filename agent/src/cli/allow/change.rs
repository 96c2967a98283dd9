//! A change of the policy, from the proposal to the reload: shown, asked about, written, and put back if the agent
//! refuses it.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use jiff::{Timestamp, tz::TimeZone};
use nix::unistd::{User, getuid};
use serde_json::Value;

use super::super::{Outcome, say};
use crate::alert::{Alert, NoRule, Wishes, narrowest, narrowest_lan};
use crate::control::{Client, ClientError, Request};
use crate::instance::Instance;
use crate::policy::edit::{EditError, NewLanRule, NewRule, Proposal, Stamp};
use crate::policy::{self, CgroupPath, SystemHost};

/// How a change is to be treated.
#[derive(Clone, Copy, Debug, Default, ClapArgs)]
pub(in crate::cli) struct Answer {
    /// Show the change and write nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Write without asking
    #[arg(long, short, conflicts_with = "dry_run")]
    pub(in crate::cli) yes: bool,
}

/// What has become of a proposal that nothing was wrong with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Carried {
    /// It is written, and in force where an agent runs with that file.
    Written,
    /// It was only shown.
    Shown,
}

/// Adds a rule, with a comment above it that says who, when and what for.
pub(in crate::cli) fn add(
    config: &Path,
    rule: NewRule,
    note: Option<&str>,
    answer: &Answer,
    instance: &Instance,
) -> Result<Carried, Outcome> {
    let rule = NewRule { comment: Some(stamp().comment(note)), ..rule };
    let proposal = Proposal::add(config, &rule, &mut SystemHost::new(None)).map_err(|error| complain(&error))?;
    carry_out(&proposal, answer, instance)
}

/// Adds the narrowest rule that lets pass what an alert has seen.
pub(in crate::cli) fn add_for(
    alert: &Alert,
    wishes: Wishes,
    config: &Path,
    note: Option<&str>,
    answer: &Answer,
    instance: &Instance,
) -> Result<Carried, Outcome> {
    let no_rule = |why: NoRule| {
        eprintln!("portreeve: no rule for alert {}: {why}", alert.id);
        Outcome::Failed
    };
    let say_notes = |notes: &[String]| notes.iter().for_each(|note| say(&format!("note: {note}\n")));
    let note = note.map_or_else(|| format!("alert {}", alert.id), |note| format!("alert {}: {note}", alert.id));
    if alert.worst.as_ref().is_some_and(|worst| worst.hook == "lan") {
        let found = narrowest_lan(alert, &wishes).map_err(no_rule)?;
        say_notes(&found.notes);
        let rule = NewLanRule { comment: Some(stamp().comment(Some(&note))), ..found.rule };
        let proposal = Proposal::add_lan(config, &rule, &mut SystemHost::new(None)).map_err(|why| complain(&why))?;
        return carry_out(&proposal, answer, instance);
    }
    let guarded = guarded(config, instance)?;
    let found = narrowest(alert, &Wishes { guarded, ..wishes }).map_err(no_rule)?;
    say_notes(&found.notes);
    add(config, found.rule, Some(&note), answer, instance)
}

/// Who changes the policy, and when.
fn stamp() -> Stamp {
    Stamp { date: TimeZone::UTC.to_datetime(Timestamp::now()).date(), by: author() }
}

/// Shows a change, asks, writes it, and has the agent put it in force.
///
/// An error is what the command ends with; everything is said already.
pub(in crate::cli) fn carry_out(proposal: &Proposal, answer: &Answer, instance: &Instance) -> Result<Carried, Outcome> {
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    say(&format!("{}\n", proposal.diff(colour)));
    for warning in &proposal.warnings {
        say(&format!("{warning}\n\n"));
    }
    if answer.dry_run {
        say("The policy would check. Nothing was written (--dry-run).\n");
        return Ok(Carried::Shown);
    }
    if !answer.yes {
        ask_first()?;
    }
    let running = running(proposal, instance);
    proposal.write().map_err(|error| {
        eprintln!("portreeve: {error}");
        if error.is_denied() {
            eprintln!("portreeve: run this as root, or as whoever may write that file and its folder");
            return Outcome::NotAllowed;
        }
        Outcome::Failed
    })?;
    tracing::info!("{} was changed by {}: {}", proposal.file.display(), author(), proposal.what);
    match running {
        Running::With => reload(proposal, instance),
        Running::Nobody => {
            say("Written. No agent is running; it reads the policy when it starts: portreeve run\n");
            Ok(Carried::Written)
        }
        Running::Other(file) => {
            say(&format!("Written. The running agent has another policy, {file}, and was left alone.\n"));
            Ok(Carried::Written)
        }
        Running::Unknown(why) => {
            say(&format!("Written. Whether an agent has it in force cannot be told: {why}\n"));
            Ok(Carried::Written)
        }
    }
}

/// Says why there is no proposal.
pub(in crate::cli) fn complain(error: &EditError) -> Outcome {
    eprintln!("portreeve: {error}");
    match error {
        EditError::Errors { findings, .. } => {
            for finding in findings {
                eprintln!("\n{finding}");
            }
            Outcome::Wrong
        }
        EditError::Unsafe { .. } => Outcome::Failed,
        EditError::Unreadable { .. }
        | EditError::Syntax { .. }
        | EditError::OneList
        | EditError::NoSuchRule { .. }
        | EditError::Ambiguous { .. }
        | EditError::Included { .. } => Outcome::Wrong,
    }
}

/// Who this is: the real user, and whom sudo says it was before.
fn author() -> String {
    let uid = getuid();
    let name = User::from_uid(uid).ok().flatten().map_or_else(|| format!("uid {uid}"), |user| user.name);
    // Anybody can set a variable, so this is only said beside the user's name.
    match std::env::var("SUDO_USER").ok().filter(|sudo| *sudo != name) {
        Some(sudo) if sudo.chars().all(|c| c.is_alphanumeric() || "._-@$\\".contains(c)) && !sudo.is_empty() => {
            format!("{name} (sudo: {sudo})")
        }
        Some(_) | None => name,
    }
}

fn ask_first() -> Result<(), Outcome> {
    if !std::io::stdin().is_terminal() {
        eprintln!(
            "portreeve: nothing was written: there is no terminal to ask on; say --yes, or --dry-run to look only"
        );
        return Err(Outcome::Wrong);
    }
    eprint!("Write this? [y/N] ");
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    if read.is_ok() && matches!(line.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    eprintln!("Nothing was written.");
    Err(Outcome::Failed)
}

/// The sub-tree that a rule of the policy is looked up in: the agent may have been told to guard another than the policy
/// says, and an agent with another policy has no part in this one.
fn guarded(config: &Path, instance: &Instance) -> Result<CgroupPath, Outcome> {
    let status = Client::ask(&instance.socket(), &Request::Status).and_then(Client::answer);
    let agents = status.ok().filter(|status| has(status, config));
    let agents = agents.as_ref().and_then(|status| status["policy"]["cgroup"].as_str()).filter(|path| !path.is_empty());
    let text = agents.map_or_else(|| policy::load(config).draft.guard.cgroup, str::to_owned);
    CgroupPath::parse(&text).map_err(|why| {
        eprintln!("portreeve: no rule can be proposed: the guarded cgroup \"{text}\" {why}");
        Outcome::Failed
    })
}

/// Whether an agent, by its status, runs with a file.
fn has(status: &Value, file: &Path) -> bool {
    let Some(its) = status["policy"]["file"].as_str() else { return false };
    // A relative path counts from the agent's folder.
    let cwd = std::fs::read_link(format!("/proc/{}/cwd", status["pid"])).unwrap_or_else(|_| PathBuf::from("/"));
    match (std::fs::canonicalize(cwd.join(its)), std::fs::canonicalize(file)) {
        (Ok(its), Ok(ours)) => its == ours,
        (Err(_), _) | (_, Err(_)) => false,
    }
}

/// Whether an agent runs with the file.
enum Running {
    With,
    Other(String),
    Nobody,
    Unknown(String),
}

fn running(proposal: &Proposal, instance: &Instance) -> Running {
    let status = match Client::ask(&instance.socket(), &Request::Status).and_then(Client::answer) {
        Ok(status) => status,
        Err(ClientError::NotRunning(_)) => return Running::Nobody,
        Err(error) => return Running::Unknown(error.to_string()),
    };
    let policy = &status["policy"];
    let Some(file) = policy["file"].as_str() else {
        return Running::Unknown("the agent is of another version".to_owned());
    };
    if !has(&status, &proposal.file) {
        return Running::Other(file.to_owned());
    }
    if policy["mode_by_command"] == true {
        let mode = policy["mode"].as_str().unwrap_or("switched");
        say(&format!("The mode was {mode} by command; with the reload it is what the policy says.\n"));
    }
    Running::With
}

fn reload(proposal: &Proposal, instance: &Instance) -> Result<Carried, Outcome> {
    match Client::ask(&instance.socket(), &Request::Reload).and_then(Client::answer) {
        Ok(value) => {
            say(&format!("In force: generation {}, {} rules.\n", value["generation"], value["rules"]));
            Ok(Carried::Written)
        }
        Err(ClientError::Refused(why)) => {
            eprintln!("portreeve: the agent refuses the new policy:\n{why}");
            match proposal.put_back() {
                Ok(()) => {
                    tracing::info!("{} is as it was before", proposal.file.display());
                    eprintln!("portreeve: the file was put back, the policy before stays in force");
                }
                Err(error) => eprintln!("portreeve: the old text cannot be put back: {error}"),
            }
            Err(Outcome::Wrong)
        }
        Err(ClientError::NotRunning(_)) => {
            say("Written. The agent has just ended; it reads the policy when it starts: portreeve run\n");
            Ok(Carried::Written)
        }
        // The agent looks at the file several times a second.
        Err(ClientError::NotAllowed) => {
            say("Written. The agent sees that by itself; portreeve status tells whether it is in force.\n");
            Ok(Carried::Written)
        }
        Err(error @ ClientError::Broken(_)) => {
            eprintln!("portreeve: written, but {error}; portreeve status tells whether it is in force");
            Err(Outcome::Failed)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write as _};
    use std::os::unix::net::UnixListener;
    use std::thread::{self, JoinHandle};

    use serde_json::json;

    use super::*;
    use crate::policy::Account;

    const TEXT: &str = "# Words.\n[[allow]]\nname = \"a\"\nuser = 1\n";
    const YES: Answer = Answer { dry_run: false, yes: true };

    /// A policy, and the place of an agent.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            std::fs::write(place.config(), TEXT).unwrap();
            place
        }

        fn config(&self) -> PathBuf {
            self.0.path().join("p.toml")
        }

        fn instance(&self) -> Instance {
            let folder = self.0.path().to_owned();
            Instance { name: "test".to_owned(), runtime: folder.clone(), state: folder }
        }

        /// Something that gives these answers, one a conversation, and tells what it was asked.
        fn agent(&self, answers: Vec<Value>) -> JoinHandle<Vec<String>> {
            let listener = UnixListener::bind(self.instance().socket()).unwrap();
            thread::spawn(move || {
                let asked = answers.into_iter().map(|answer| {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut line = String::new();
                    BufReader::new(&stream).read_line(&mut line).unwrap();
                    writeln!(stream, "{answer}").unwrap();
                    serde_json::from_str::<Value>(&line).unwrap()["ask"].as_str().unwrap().to_owned()
                });
                asked.collect()
            })
        }

        fn status(&self) -> Value {
            json!({ "pid": std::process::id(), "policy": { "file": self.config(), "mode": "enforce" } })
        }

        fn add(&self, answer: &Answer) -> Result<Carried, Outcome> {
            let rule = NewRule { user: vec![Account::Id(2)], ..NewRule::default() };
            add(&self.config(), rule, Some("for a test"), answer, &self.instance())
        }

        fn text(&self) -> String {
            std::fs::read_to_string(self.config()).unwrap()
        }
    }

    #[test]
    fn what_the_agent_takes_stays_and_says_who_and_what_for() {
        let place = Place::new();
        let agent = place.agent(vec![place.status(), json!({ "generation": 2, "rules": 2 })]);
        assert_eq!(place.add(&YES), Ok(Carried::Written));
        assert_eq!(agent.join().unwrap(), ["status", "reload"]);
        let today = TimeZone::UTC.to_datetime(Timestamp::now()).date();
        let comment = format!("\n# Added {today} by {}: for a test\n[[allow]]\nname = \"2\"\nuser = 2\n", author());
        assert_eq!(place.text(), format!("{TEXT}{comment}"));
    }

    #[test]
    fn what_the_agent_refuses_is_put_back() {
        let place = Place::new();
        let agent = place.agent(vec![place.status(), json!({ "error": "there is no room" })]);
        assert_eq!(place.add(&YES), Err(Outcome::Wrong));
        assert_eq!((agent.join().unwrap().len(), place.text().as_str()), (2, TEXT));
    }

    #[test]
    fn an_agent_with_another_policy_is_left_alone() {
        let place = Place::new();
        let agent = place.agent(vec![json!({ "pid": 1, "policy": { "file": "/nonexistent/p.toml" } })]);
        assert_eq!(place.add(&YES), Ok(Carried::Written));
        assert_eq!(agent.join().unwrap(), ["status"]);
        assert_ne!(place.text(), TEXT);
    }

    #[test]
    fn without_an_agent_it_is_written_and_with_dry_run_it_is_not() {
        let place = Place::new();
        assert_eq!(place.add(&Answer { dry_run: true, yes: false }), Ok(Carried::Shown));
        assert_eq!(place.text(), TEXT);
        assert_eq!(place.add(&YES), Ok(Carried::Written));
        assert_ne!(place.text(), TEXT);
    }

    #[test]
    fn an_alert_without_an_attempt_changes_nothing() {
        let place = Place::new();
        let time = "2026-11-25T10:00:00Z";
        let alert = serde_json::from_value(json!({
            "id": 7, "subject": "0000000000000007", "who": { "name": "x" }, "severity": "warning", "state": "open",
            "resolution": null, "opened": time, "last": time, "first": time, "quiet_since": null, "episodes": 1,
            "findings": [], "attempts": 9, "refused": 9, "local": 0, "destinations": [], "elsewhere": 0, "worst": null,
            "sha256": null, "package": null, "clear": [], "next": [], "history": [],
        }));
        let added = add_for(&alert.unwrap(), Wishes::default(), &place.config(), None, &YES, &place.instance());
        assert_eq!((added, place.text().as_str()), (Err(Outcome::Failed), TEXT));
    }

    #[test]
    fn a_cgroup_counts_from_what_the_agent_guards_and_not_from_what_the_policy_says() {
        let seen = |user: &mut crate::attempt::Attempt| {
            user.exe = Some("/usr/bin/true".to_owned());
            user.user = Some("root".to_owned());
            (user.uid, user.euid) = (0, 0);
        };
        let mut alert = crate::alert::examples::alert();
        alert.worst.as_mut().map(seen);
        let added = |status: Option<&dyn Fn(&Place) -> Value>| {
            let place = Place::new();
            std::fs::write(place.config(), format!("[guard]\ncgroup = \"/system.slice\"\n{TEXT}")).unwrap();
            let asked = status.map(|status| {
                let status = status(&place);
                place.agent(vec![status.clone(), status, json!({ "generation": 2, "rules": 2 })])
            });
            let wishes = Wishes { any_destination: true, ..Wishes::default() };
            let added = add_for(&alert, wishes, &place.config(), None, &YES, &place.instance());
            assert_eq!(added, Ok(Carried::Written));
            let text = place.text();
            // An agent with another policy is not told to reload, and waits for that.
            drop(asked.filter(|asked| asked.is_finished()).map(JoinHandle::join));
            text.lines().find(|line| line.starts_with("unit") || line.starts_with("cgroup = \"/a")).map(str::to_owned)
        };
        let guarding = |cgroup: &'static str| {
            move |place: &Place| {
                let mut status = place.status();
                status["policy"]["cgroup"] = json!(cgroup);
                status
            }
        };
        let (below, unit) = (Some("cgroup = \"/apache2.service\""), Some("unit = \"apache2.service\""));
        assert_eq!(added(Some(&guarding("/"))).as_deref(), unit);
        assert_eq!(added(Some(&guarding("/system.slice"))).as_deref(), below);
        // Without an agent, with one that does not say, and with one that has another policy, the policy counts.
        assert_eq!(added(None).as_deref(), below);
        assert_eq!(added(Some(&Place::status)).as_deref(), below);
        let other = |_: &Place| json!({ "pid": 1, "policy": { "file": "/nonexistent/p.toml", "cgroup": "/" } });
        assert_eq!(added(Some(&other)).as_deref(), below);
    }
}
