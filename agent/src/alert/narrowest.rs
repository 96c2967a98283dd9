//! The narrowest rule that would let pass what an alert has seen, where there is one that is safe.

mod lan;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use thiserror::Error;

use super::Alert;
use crate::attempt::Attempt;
use crate::detect::Kind;
use crate::interpreter::is_interpreter;
use crate::policy::edit::NewRule;
use crate::policy::{Account, CgroupPath};
use crate::subject::{Container, place};

pub use lan::{NarrowestLan, narrowest_lan};

/// So many destinations are a list; more are no program with a mail server of its own.
const DESTINATIONS: usize = 16;
/// Folders that every user may put programs into.
const TEMPORARY: [&str; 5] = ["/tmp", "/var/tmp", "/dev/shm", "/run/user", "/run/shm"];

/// What the caller takes upon himself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The program may send to any destination.
    pub any_destination: bool,
    /// The rule may let through every script that the interpreter runs for the user.
    pub any_script: bool,
    /// The root file system of the container.
    pub root: Option<PathBuf>,
    /// The guarded sub-tree, from which the cgroups of rules count; nothing means all of the hierarchy.
    pub guarded: CgroupPath,
}

/// A rule, and what its author should know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Narrowest {
    /// The rule.
    pub rule: NewRule,
    /// What it lets pass beyond what was seen, and what will make it useless; each a sentence without its end.
    pub notes: Vec<String>,
}

/// Why no rule would be safe, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoRule {
    /// Nothing is known of who it was.
    #[error("the alert keeps no attempt to make a rule of; write one with portreeve allow add")]
    NoAttempt,
    /// No program is behind it.
    #[error("no program of this host is behind it that a rule could name; for frames of others see guard.forwarded")]
    NoProgram,
    /// Its frames had no address to make a rule of.
    #[error("the address of the LAN host is not known; write a rule, [[gateway.allow]], by hand")]
    NoAddress,
    /// A rule is about another host.
    #[error(
        "{address} is allowed, but {what}: either somebody has taken the server's address, or the server has another card \
         or place; find out which before you correct that rule by hand"
    )]
    Another {
        /// The address.
        address: String,
        /// What is not as the rule says.
        what: &'static str,
    },
    /// Its packets could not be followed.
    #[error("its packets cannot be followed to their ports (tunnels, fragments), and no rule lets such through")]
    Unclear,
    /// It asked for a way around the guard.
    #[error("it asked for senders past every packet check; if that is meant, write a rule with raw_senders = true")]
    RawSender,
    /// Many programs.
    #[error(
        "one user's many programs are behind it, and no rule for one of them would be about this; see which they are"
    )]
    ManyPrograms,
    /// The path is cut.
    #[error("the path of its program is longer than what is recorded; write a rule with portreeve allow add")]
    CutPath,
    /// The file is gone.
    #[error(
        "the file of its program, {exe}, is deleted, so a rule would name nothing or another one; start it from a file that stays"
    )]
    Deleted {
        /// The program.
        exe: String,
    },
    /// There was no file.
    #[error("its program was only ever in memory ({exe}), and no rule can name that; install it as a file")]
    InMemory {
        /// The program.
        exe: String,
    },
    /// Everybody can put another program there.
    #[error(
        "{exe} is in {folder}, where every user may put programs; install it where only root may, as in /usr/local/bin"
    )]
    OpenFolder {
        /// The program.
        exe: String,
        /// The folder.
        folder: String,
    },
    /// The process may not be what its executable says.
    #[error("the process may not be what its program says ({}); {}", .taint.join(", "), untaint(.taint))]
    Tainted {
        /// The words of the record.
        taint: Vec<String>,
    },
    /// The program is an interpreter.
    #[error(
        "{exe} is an interpreter, and a rule for it lets through every script of {user}; run {} as a systemd service of \
         its own, have it use the local mail server, or accept any script (--any-script)", .script.as_deref().unwrap_or("it")
    )]
    Interpreter {
        /// The program.
        exe: String,
        /// The user.
        user: String,
        /// The script.
        script: Option<String>,
    },
    /// It runs in a container.
    #[error(
        "{exe} is in the {} container {:.12}, and this host knows that file by another path; say where the container's root \
         file system is (--root)", .container.runtime, .container.id
    )]
    Container {
        /// The program.
        exe: String,
        /// The container.
        container: Container,
    },
    /// It went to too many destinations.
    #[error(
        "it went to {} destinations, as spam bots and mail servers do, and a rule would have to allow any; if that is meant, \
         accept any destination", count(*.seen, *.more)
    )]
    FanOut {
        /// How many are known.
        seen: usize,
        /// There were more.
        more: bool,
    },
    /// It only used the local mail server.
    #[error("it only handed mail to this host's own mail server, which needs no rule (guard.local_submission)")]
    OnlyLocal,
    /// No destination is known.
    #[error("no destination of it is known; write a rule with portreeve allow add")]
    NoDestination,
}

fn untaint(taint: &[String]) -> &'static str {
    match taint.iter().all(|word| word == "exec_unseen" || word == "environment_unseen") {
        true => "start the program anew while the guard watches, and wait for its next attempt",
        false => "see what was preloaded, traced or exchanged before you trust it",
    }
}

fn count(seen: usize, more: bool) -> String {
    if more { format!("more than {seen}") } else { seen.to_string() }
}

/// The narrowest rule that lets pass what an alert has seen: its program, its user, its unit or container, the
/// destinations and ports.
///
/// # Errors
///
/// When no rule would be safe.
pub fn narrowest(alert: &Alert, wishes: &Wishes) -> Result<Narrowest, NoRule> {
    let attempt = alert.worst.as_ref().ok_or(NoRule::NoAttempt)?;
    if alert.findings.iter().any(|finding| finding.kind == Kind::ManyPrograms) {
        return Err(NoRule::ManyPrograms);
    }
    let exe = program(attempt, wishes)?;
    let mut found = Narrowest { rule: NewRule { exe: vec![exe.into()], ..NewRule::default() }, notes: Vec::new() };
    found.rule.user.push(user(attempt));
    found.within(attempt, wishes)?;
    if is_interpreter(Path::new(exe)) {
        found.interpreter(attempt, exe, wishes)?;
    }
    found.towards(alert, wishes)?;
    Ok(found)
}

/// The path of the program, if a rule may name it.
fn program<'a>(attempt: &'a Attempt, wishes: &Wishes) -> Result<&'a str, NoRule> {
    if attempt.hook == "setsockopt" {
        return Err(NoRule::RawSender);
    }
    let exe = attempt.exe.as_deref().filter(|_| attempt.pid != 0).ok_or(NoRule::NoProgram)?;
    let owned = || exe.to_owned();
    if attempt.exe_in_memory {
        return Err(NoRule::InMemory { exe: owned() });
    }
    if attempt.exe_deleted {
        return Err(NoRule::Deleted { exe: owned() });
    }
    if !exe.starts_with('/') {
        return Err(NoRule::CutPath);
    }
    if !attempt.taint.is_empty() {
        return Err(NoRule::Tainted { taint: attempt.taint.clone() });
    }
    let temporary =
        TEMPORARY.iter().find(|folder| Path::new(exe).starts_with(folder)).map(|folder| (*folder).to_owned());
    if let Some(folder) = temporary.or_else(|| open_folder(wishes.root.as_deref(), exe)) {
        return Err(NoRule::OpenFolder { exe: owned(), folder });
    }
    Ok(exe)
}

/// A folder on the way to a program that everybody may write to, sticky or not: with the sticky bit nobody replaces
/// what is there, and everybody can take a name that becomes free.
fn open_folder(root: Option<&Path>, exe: &str) -> Option<String> {
    let path = root.unwrap_or(Path::new("/")).join(exe.trim_start_matches('/'));
    let open = |folder: &&Path| fs::metadata(folder).is_ok_and(|meta| meta.mode() & 0o002 != 0);
    path.ancestors().skip(1).find(open).map(|folder| folder.display().to_string())
}

/// The effective user: by name, unless it is one of a container's, which this host has no name for, or looks like a
/// number.
fn user(attempt: &Attempt) -> Account {
    let name = attempt.user.as_ref().filter(|_| attempt.container.is_none());
    match name.filter(|name| !name.bytes().all(|byte| byte.is_ascii_digit())) {
        Some(name) => Account::Name(name.clone()),
        None => Account::Id(attempt.euid),
    }
}

impl Narrowest {
    /// The unit or cgroup, where there is one that stays.
    fn within(&mut self, attempt: &Attempt, wishes: &Wishes) -> Result<(), NoRule> {
        let cut = attempt.truncated.iter().any(|what| what == "cgroup");
        if let Some(container) = &attempt.container {
            let Some(root) = &wishes.root else {
                let exe = attempt.exe.clone().unwrap_or_default();
                return Err(NoRule::Container { exe, container: container.clone() });
            };
            self.rule.root = Some(root.clone());
            let cgroup = up_to(&attempt.cgroup, |path| place(path).container.as_ref() == Some(container));
            self.rule.cgroup.extend(cgroup.and_then(|cgroup| below(&cgroup, wishes)));
            let renamed = !matches!(container.runtime.as_str(), "lxc" | "nspawn");
            if renamed && !self.rule.cgroup.is_empty() {
                let what = "the cgroup has the container's id in it, and the rule matches nothing once it is made anew";
                self.notes.push(what.to_owned());
            }
            return Ok(());
        }
        let Some(unit) = attempt.unit.as_ref().filter(|_| !cut) else { return Ok(()) };
        if unit.ends_with(".scope") && unit != "init.scope" {
            self.notes.push(format!("{unit} is left out: it is gone when the program or its session ends"));
            return Ok(());
        }
        // A unit by its name is one of the system's; one of a user's manager has its name in a unit of the system's.
        let parts = attempt.cgroup.split('/').filter(|name| !name.is_empty());
        let outermost = parts.map(|name| !name.ends_with(".slice")).position(|inside| inside);
        let own = attempt.cgroup.split('/').filter(|name| !name.is_empty()).position(|name| name == unit);
        if outermost == own && wishes.guarded.names().is_empty() {
            self.rule.unit.push(unit.clone());
        } else {
            let cgroup = up_to(&attempt.cgroup, |path| place(path).unit.as_ref() == Some(unit));
            self.rule.cgroup.extend(cgroup.and_then(|cgroup| below(&cgroup, wishes)));
        }
        Ok(())
    }

    fn interpreter(&mut self, attempt: &Attempt, exe: &str, wishes: &Wishes) -> Result<(), NoRule> {
        let user = self.rule.user.first().map(ToString::to_string).unwrap_or_default();
        let within = self.rule.unit.first().cloned().or(self.rule.cgroup.first().map(ToString::to_string));
        match within {
            Some(within) => self.notes.push(format!("every script that {user} runs with {exe} in {within} may send")),
            None if wishes.any_script => self.notes.push(format!("every script that {user} runs with {exe} may send")),
            None => {
                return Err(NoRule::Interpreter { exe: exe.to_owned(), user, script: attempt.script.clone() });
            }
        }
        Ok(())
    }

    fn towards(&mut self, alert: &Alert, wishes: &Wishes) -> Result<(), NoRule> {
        let towards = Towards::of(alert, wishes)?;
        (self.rule.to, self.rule.ports) = (towards.to, towards.ports);
        self.notes.extend(towards.notes);
        Ok(())
    }
}

/// Where to something was seen to go.
struct Towards {
    to: Vec<IpNet>,
    ports: BTreeSet<u16>,
    notes: Vec<String>,
}

impl Towards {
    fn of(alert: &Alert, wishes: &Wishes) -> Result<Self, NoRule> {
        let mut seen: Vec<SocketAddr> = alert.destinations.iter().filter_map(|seen| seen.to.parse().ok()).collect();
        seen.extend(alert.worst.as_ref().and_then(|attempt| attempt.destination));
        let known = seen.len();
        if alert.local > 0 || alert.worst.as_ref().is_some_and(|attempt| attempt.reason == "local") {
            seen.retain(|to| !to.ip().to_canonical().is_loopback() && !to.ip().to_canonical().is_unspecified());
        }
        let addresses: BTreeSet<IpAddr> = seen.iter().map(|to| to.ip().to_canonical()).collect();
        if addresses.is_empty() {
            return Err(if known > 0 { NoRule::OnlyLocal } else { NoRule::NoDestination });
        }
        let ports: BTreeSet<u16> = seen.iter().map(SocketAddr::port).collect();
        let more = alert.elsewhere > 0;
        if wishes.any_destination {
            let notes = vec![format!("any destination is allowed; {} were seen", count(addresses.len(), more))];
            return Ok(Self { to: Vec::new(), ports, notes });
        }
        if addresses.len() > DESTINATIONS || more {
            return Err(NoRule::FanOut { seen: addresses.len(), more });
        }
        let pairs: BTreeSet<(IpAddr, u16)> = seen.iter().map(|to| (to.ip().to_canonical(), to.port())).collect();
        let mut notes = Vec::new();
        if pairs.len() < addresses.len() * ports.len() {
            notes.push("each of the destinations is allowed on each of the ports".to_owned());
        }
        Ok(Self { to: addresses.into_iter().map(IpNet::from).collect(), ports, notes })
    }
}

/// The shortest beginning of a cgroup's path that something holds for.
fn up_to(cgroup: &str, holds: impl Fn(&str) -> bool) -> Option<CgroupPath> {
    let ends = cgroup.match_indices('/').map(|(index, _)| index).skip(1).chain([cgroup.len()]);
    let path = ends.map(|end| &cgroup[..end]).find(|path| holds(path))?;
    CgroupPath::parse(path).ok()
}

/// A cgroup as a rule has it: from the guarded sub-tree on.
fn below(cgroup: &CgroupPath, wishes: &Wishes) -> Option<CgroupPath> {
    let names = cgroup.names().strip_prefix(wishes.guarded.names()).filter(|names| !names.is_empty())?;
    CgroupPath::parse(&format!("/{}", names.join("/"))).ok()
}

#[cfg(test)]
mod tests;
