//! What the verdict would be, and dimension by dimension why.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use nix::unistd::{Group, User};
use portreeve_abi::{CGROUP_NAME_LEN, Dimension, ExeId, ExecRecord, RuleSet, Taint};
use portreeve_decide::{CgroupNames, Flow, Identity, Tables as _, judge, mapped, satisfied};
use serde::{Deserialize, Serialize};

use super::Agent;
use crate::attempt::verdict_word;
use crate::clock::Clock;
use crate::control::Question;
use crate::policy;

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// `allow`, `deny` or `observe`; `unguarded` where the port is none of ours.
    pub verdict: String,
    /// The rule that decides.
    pub rule: Option<String>,
    /// Why, in a sentence.
    pub because: String,
    /// Who was asked about.
    pub subject: String,
    /// Where to.
    pub destination: SocketAddr,
    /// The policy's generation.
    pub generation: u32,
    /// For each dimension what was asked about and the rules it satisfies.
    pub dimensions: Vec<Why>,
}

/// One dimension.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Why {
    /// `exe`, `user`, `group`, `cgroup`, `to` or `port`.
    pub dimension: String,
    /// What was asked about.
    pub value: String,
    /// The rules it satisfies.
    pub satisfies: Vec<String>,
}

/// A cgroup's path as the programs see it, name by name.
pub(super) struct Names(Vec<String>);

impl Names {
    /// Those of a path below the hierarchy's root.
    pub(super) fn of(path: &str) -> Self {
        Self(path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }
}

impl CgroupNames for Names {
    fn name(&self, level: u32, name: &mut [u8; CGROUP_NAME_LEN]) -> bool {
        let Some(text) = self.0.get(level as usize - 1) else { return false };
        *name = [0; CGROUP_NAME_LEN];
        // As the programs do: a name that fills the array counts as cut.
        let fits = text.len() < CGROUP_NAME_LEN - 1;
        if fits {
            name[..text.len()].copy_from_slice(text.as_bytes());
        }
        fits
    }
}

/// A process, real or supposed.
#[derive(Default)]
pub(super) struct Supposed {
    pub(super) exe: Option<(String, Option<ExeId>)>,
    pub(super) euid: Option<u32>,
    pub(super) egid: Option<u32>,
    pub(super) cgroup: Option<String>,
    pub(super) taint: u32,
}

impl Agent {
    /// Answers a question with the tables that are in force, through the code that runs in the kernel.
    ///
    /// # Errors
    ///
    /// What in the question cannot be found.
    pub fn explain(&mut self, question: &Question) -> Result<Explanation, String> {
        let destination = question.to.ok_or("say where to, as ADDRESS:PORT")?;
        if let Some(from) = question.from {
            return self.explain_lan(question, from, destination);
        }
        let who = self.suppose(question)?;
        let names: Vec<String> = self.in_force.compiled.rule_names.clone();
        let tables = &self.in_force.compiled;
        let header = tables.header().ok_or("no policy is in force")?;
        let flow = Flow { address: sixteen(destination.ip()), port: destination.port() };
        let (euid, egid) = (who.euid.unwrap_or(u32::MAX), who.egid.unwrap_or(u32::MAX));
        // Device 0 with inode 0 is no file: an executable the kernel does not know satisfies only what leaves it open.
        let exe = who.exe.as_ref().and_then(|(_, id)| *id).unwrap_or_default();
        let identity = Identity { exe, euid, egid, taint: who.taint };
        let cgroup = who.cgroup.clone().unwrap_or_else(|| "/".to_owned());
        let path = Names::of(&cgroup);
        let value = |dimension| match dimension {
            Dimension::Exe => who.exe.as_ref().map_or("(not said)".to_owned(), |(path, _)| path.clone()),
            Dimension::User => who.euid.map_or("(not said)".to_owned(), user_text),
            Dimension::Group => who.egid.map_or("(not said)".to_owned(), group_text),
            Dimension::Cgroup => cgroup.clone(),
            Dimension::Destination => destination.ip().to_string(),
            Dimension::Port => destination.port().to_string(),
        };
        let dimensions = Dimension::ALL
            .into_iter()
            .map(|dimension| Why {
                dimension: dimension_word(dimension).to_owned(),
                value: value(dimension),
                satisfies: rule_names(&satisfied(tables, header, dimension, &identity, &path, &flow), &names),
            })
            .collect();
        let mut explanation = Explanation {
            verdict: "unguarded".to_owned(),
            rule: None,
            because: format!("port {} is not guarded", flow.port),
            subject: subject_text(question, &who),
            destination,
            generation: header.generation,
            dimensions,
        };
        if tables.guards(flow.port) {
            let decision = judge(tables, Ok(&identity), &path, &flow, Clock::now().boot);
            explanation.rule = names.get(decision.rule as usize).cloned();
            explanation.verdict = verdict_word(decision.verdict).to_owned();
            explanation.because = because(&explanation, decision.reason);
        }
        Ok(explanation)
    }

    /// The process that is asked about: what a pid is, and in place of that what the question says.
    fn suppose(&mut self, question: &Question) -> Result<Supposed, String> {
        let mut who = match question.pid {
            Some(pid) => self.process(pid)?,
            None => Supposed::default(),
        };
        if let Some(path) = &question.exe {
            let file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
            let id = self.guard.learn(&file).map_err(|error| format!("{path}: {error}"))?;
            let shown = fs::canonicalize(path).map_or_else(|_| path.clone(), |path| path.display().to_string());
            who.exe = Some((shown, Some(id)));
        }
        if let Some(name) = &question.user {
            let user = match name.parse() {
                Ok(uid) => User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten().map(|user| (uid, Some(user))),
                Err(_) => User::from_name(name).ok().flatten().map(|user| (user.uid.as_raw(), Some(user))),
            };
            let uid = name.parse().ok().or(user.as_ref().map(|(uid, _)| *uid));
            who.euid = Some(uid.ok_or_else(|| format!("there is no user \"{name}\""))?);
            // A process of a user is in that user's group unless something else is said.
            if question.group.is_none() && question.pid.is_none() {
                who.egid = user.and_then(|(_, user)| user).map(|user| user.gid.as_raw());
            }
        }
        if let Some(name) = &question.group {
            let found = Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
            let gid = name.parse().ok().or(found);
            who.egid = Some(gid.ok_or_else(|| format!("there is no group \"{name}\""))?);
        }
        if let Some(unit) = &question.unit {
            who.cgroup = Some(policy::unit_path(&self.in_force.policy, unit)?);
        }
        Ok(who)
    }

    /// What a process is.
    pub(super) fn process(&mut self, pid: u32) -> Result<Supposed, String> {
        let gone = |error: &dyn std::fmt::Display| format!("process {pid}: {error}");
        let process = procfs::process::Process::new(pid as i32).map_err(|error| gone(&error))?;
        let status = process.status().map_err(|error| gone(&error))?;
        let link = Path::new("/proc").join(pid.to_string()).join("exe");
        let exe = match File::open(&link) {
            Ok(file) => {
                let shown = fs::read_link(&link).map_err(|error| gone(&error))?.display().to_string();
                Some((shown, self.guard.learn(&file).ok()))
            }
            Err(_) => None,
        };
        let cgroups = process.cgroups().map_err(|error| gone(&error))?;
        let cgroup = cgroups.0.into_iter().find(|group| group.hierarchy == 0).map(|group| group.pathname);
        let mut taint = if status.tracerpid != 0 { Taint::TRACED } else { 0 };
        let record = self.guard.exec_record(pid);
        if self.guard.exec_watch().is_ok() {
            taint |= exec_taint(record.as_ref(), exe.as_ref().and_then(|(_, id)| id.as_ref()));
        }
        Ok(Supposed { exe, euid: Some(status.euid), egid: Some(status.egid), cgroup, taint })
    }
}

/// The taint of a process with this record and this executable, as the programs find it.
fn exec_taint(record: Option<&ExecRecord>, exe: Option<&ExeId>) -> u32 {
    let Some(record) = record else { return Taint::EXEC_UNSEEN };
    let changed = exe.is_none_or(|exe| {
        (record.exe.ino, record.exe.dev, record.exe.generation) != (exe.ino, exe.dev, exe.generation)
    });
    record.taint | if changed { Taint::EXE_CHANGED } else { 0 }
}

fn because(explanation: &Explanation, reason: portreeve_abi::Reason) -> String {
    use portreeve_abi::Reason;
    let rule = explanation.rule.as_deref().unwrap_or("?");
    match reason {
        Reason::Rule => format!("rule \"{rule}\" matches in every dimension"),
        Reason::Local => "mail may be handed to this host's own loopback (local_submission = \"allow\")".to_owned(),
        Reason::NoRule => match explanation.dimensions.iter().find(|why| why.satisfies.is_empty()) {
            Some(why) => format!("no rule allows this {}: {}", why.dimension, why.value),
            None => "no single rule matches in every dimension".to_owned(),
        },
        Reason::NoVerdict | Reason::Forwarded | Reason::Unclear | Reason::RawSender | Reason::NoMemory => {
            "of a packet, not of a connection".to_owned()
        }
        Reason::Relayed => format!("rule \"{rule}\" matches in every dimension; it goes by way of the relay"),
        Reason::NoRelay => format!("rule \"{rule}\" sends it through the relay, which does not listen"),
        Reason::OtherMac | Reason::OtherVlan => "of a LAN host's packet".to_owned(),
        Reason::Tainted => format!("rule \"{rule}\" matches, but the process is tainted and refuse_tainted is on"),
        Reason::AuditRule => format!("only the rule \"{rule}\" matches, and that one only observes"),
        Reason::NoProcess | Reason::Unreadable | Reason::NoPolicy => "no policy is in force".to_owned(),
    }
}

/// An address as the tables have it.
pub(super) fn sixteen(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn dimension_word(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Exe => "exe",
        Dimension::User => "user",
        Dimension::Group => "group",
        Dimension::Cgroup => "cgroup",
        Dimension::Destination => "to",
        Dimension::Port => "port",
    }
}

pub(super) fn rule_names(rules: &RuleSet, names: &[String]) -> Vec<String> {
    names.iter().enumerate().filter(|(index, _)| rules.contains(*index)).map(|(_, name)| name.clone()).collect()
}

fn user_text(uid: u32) -> String {
    let user = User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| format!("{} ({uid})", user.name))
}

fn group_text(gid: u32) -> String {
    let group = Group::from_gid(nix::unistd::Gid::from_raw(gid)).ok().flatten();
    group.map_or_else(|| gid.to_string(), |group| format!("{} ({gid})", group.name))
}

fn subject_text(question: &Question, who: &Supposed) -> String {
    let exe = who.exe.as_ref().map_or("any program", |(path, _)| path);
    let pid = question.pid.map_or(String::new(), |pid| format!("[{pid}]"));
    let user = who.euid.map_or("nobody in particular".to_owned(), user_text);
    format!("{exe}{pid} as {user}")
}
