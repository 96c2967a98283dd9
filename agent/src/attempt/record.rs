//! From the kernel's event to the record that people and scripts read.

mod words;

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use jiff::Timestamp;
use portreeve_abi::{CMDLINE_LEN, Event, Hook, RULE_LOCAL, RULE_NONE, Reason, Truncated, Verdict};
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::host::{HostName, Mac};
use crate::policy::vlan_text;
use crate::subject::{About, Container, Owner, Processes, Surroundings, Users, names_plainly, place};
pub(crate) use words::verdict_word;
use words::{hook_word, interface, protocol_word, reason_word, severity, taints, tcp_flags, truncated};

/// How many generations' rule names are remembered, for events that were on their way when the policy changed.
const GENERATIONS: usize = 16;

/// One attempt. The JSON has these fields, documented in README.md.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// When.
    pub time: Timestamp,
    /// `allow`, `deny` or `observe`.
    pub verdict: String,
    /// Why: `rule`, `local`, `no-rule`, `no-process`, `unreadable`, `no-policy`, `tainted`, `audit-rule`, and those of
    /// packets, of LAN hosts and of the relay.
    pub reason: String,
    /// The rule that decided.
    pub rule: Option<String>,
    /// `info`, `notice` or `warning`.
    pub severity: String,
    /// The policy generation that decided.
    pub generation: u32,
    /// The hook that saw it.
    pub hook: String,
    /// Where to; none for a program that asked for a way around the guard, and a packet that does not show it.
    pub destination: Option<SocketAddr>,
    /// Where from, as far as the socket was bound.
    pub source: Option<SocketAddr>,
    /// `tcp`, `mptcp`, or what was asked for to get around the guard: `af_packet`, `af_xdp`.
    pub protocol: String,
    /// The device a frame was to leave by.
    pub interface: Option<String>,
    /// The flags of a packet's TCP header: `syn`, `ack`, …
    pub tcp_flags: Vec<String>,
    /// The process; 0 when nobody is known to be behind it.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// When the process started.
    pub started: Option<Timestamp>,
    /// The thread's name, which the process chooses itself.
    pub comm: String,
    /// The executable's path, as the process's mount namespace has it.
    pub exe: Option<String>,
    /// The executable's inode number.
    pub exe_inode: u64,
    /// The executable's device, as the kernel numbers it.
    pub exe_device: u32,
    /// The executable's file is deleted.
    pub exe_deleted: bool,
    /// The executable was only ever in memory.
    pub exe_in_memory: bool,
    /// The beginning of the command line.
    pub cmdline: Vec<String>,
    /// The script behind an interpreter.
    pub script: Option<String>,
    /// The working directory.
    pub cwd: Option<String>,
    /// The real user.
    pub uid: u32,
    /// The effective user, which the rules ask about.
    pub euid: u32,
    /// The real group.
    pub gid: u32,
    /// The effective group.
    pub egid: u32,
    /// The effective user's name.
    pub user: Option<String>,
    /// The user that logged in.
    pub login_uid: Option<u32>,
    /// The login session.
    pub session: Option<String>,
    /// The cgroup's path.
    pub cgroup: String,
    /// The cgroup's id.
    pub cgroup_id: u64,
    /// The systemd unit.
    pub unit: Option<String>,
    /// The container.
    pub container: Option<Container>,
    /// The network namespace's inode number.
    pub netns: u32,
    /// The socket's cookie.
    pub socket: u64,
    /// What speaks against the process being its executable.
    pub taint: Vec<String>,
    /// The parent, its parent, and so on.
    pub parents: Vec<Parent>,
    /// Which of the texts above are cut.
    pub truncated: Vec<String>,
    /// The package that owns the executable.
    #[serde(default)]
    pub package: Option<String>,
    /// Whether the host's package database was asked: only then does no package mean that none owns it.
    #[serde(default)]
    pub package_known: bool,
    /// The executable lies in a folder that everybody may write to.
    #[serde(default)]
    pub exe_world_writable: bool,
    /// The script behind the interpreter, as the command line names it, belongs to root, and nobody else may write to it or
    /// to a folder on the way. Only of the host's own files, and of an interpreter of a package's that is what it seems.
    #[serde(default)]
    pub script_of_root: bool,
    /// The login session that the process was started in is over.
    #[serde(default)]
    pub session_gone: bool,
    /// A mail server listens on this host's loopback, and the process does not use it.
    #[serde(default)]
    pub mta_unused: bool,
    /// The process asked for MX records.
    #[serde(default)]
    pub mx_lookups: bool,
    /// The mail domain or the host name that was looked up, where the answer is known.
    #[serde(default)]
    pub domain: Option<String>,
    /// The MAC address that a LAN host's frame has for its source.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// The VLAN of a LAN host's frame; with two tags the outer one's number, a point, and the inner one's.
    #[serde(default)]
    pub vlan: Option<String>,
    /// What the LAN host is called, and how that is known.
    #[serde(default)]
    pub host: Option<HostName>,
    /// Who has made its card.
    #[serde(default)]
    pub vendor: Option<String>,
    /// How many addresses the card has lately been seen with; 0 where nobody has looked.
    #[serde(default)]
    pub mac_addresses: u32,
}

/// An ancestor of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Its process id.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its thread name.
    pub comm: String,
    /// Its executable's path, where it was read.
    #[serde(default)]
    pub exe: Option<String>,
}

impl fmt::Display for Attempt {
    /// One line for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.verdict.as_str() {
            "allow" => "allowed ",
            "deny" => "REFUSED ",
            _ => "observed",
        };
        let time = self.time.strftime("%Y-%m-%dT%H:%M:%SZ");
        let program = self.exe.as_deref().unwrap_or("(no program)");
        let user = self.user.clone().unwrap_or_else(|| format!("uid {}", self.euid));
        match (self.pid, self.source) {
            (0, Some(source)) if self.hook == "frame" => write!(f, "{time}  {word}  a frame from {source}")?,
            (0, Some(source)) if self.hook == "lan" => {
                let name = self.host.as_ref().map(|host| format!("{} ", host.name)).unwrap_or_default();
                write!(f, "{time}  {word}  host {name}{}", source.ip().to_canonical())?;
            }
            (0, None) if self.hook == "lan" => write!(f, "{time}  {word}  a LAN host")?,
            (0, _) => write!(f, "{time}  {word}  (no program)")?,
            (pid, _) => write!(f, "{time}  {word}  {program}[{pid}] {user}")?,
        }
        if let Some(mac) = &self.mac {
            write!(f, " ({mac})")?;
        }
        if let Some(vlan) = &self.vlan {
            write!(f, " in VLAN {vlan}")?;
        }
        if let Some(script) = &self.script {
            write!(f, " running {script}")?;
        }
        if let Some(container) = &self.container {
            write!(f, " in {} container {:.12}", container.runtime, container.id)?;
        } else if let Some(unit) = &self.unit {
            write!(f, " in {unit}")?;
        }
        match self.destination {
            Some(destination) => write!(f, " -> {destination}: {}", self.because())?,
            None => write!(f, ": {}", self.because())?,
        }
        if let Some(interface) = &self.interface {
            write!(f, " (by {interface})")?;
        }
        if self.exe_in_memory {
            write!(f, "; the program is only in memory")?;
        } else if self.exe_deleted {
            write!(f, "; the program's file is deleted")?;
        }
        if !self.taint.is_empty() {
            write!(f, "; tainted: {}", self.taint.join(", "))?;
        }
        Ok(())
    }
}

impl Attempt {
    /// The reason as a half-sentence.
    #[must_use]
    pub fn because(&self) -> String {
        let rule = self.rule.as_deref().unwrap_or("?");
        match self.reason.as_str() {
            "rule" => format!("rule \"{rule}\""),
            "local" if self.hook == "lan" => "mail for this gateway itself".to_owned(),
            "local" => "mail for this host's own loopback".to_owned(),
            "no-rule" => "no rule allows it".to_owned(),
            "no-process" => "no process is behind it".to_owned(),
            "unreadable" => "the process could not be read".to_owned(),
            "no-policy" => "no policy is in force".to_owned(),
            "tainted" => format!("rule \"{rule}\" matches, but the process is tainted"),
            "audit-rule" => format!("rule \"{rule}\" only observes"),
            "no-verdict" if self.hook == "frame" || self.hook == "packet" => {
                "a packet that no allowed connect() vouches for".to_owned()
            }
            "no-verdict" => "no rule has allowed this connection".to_owned(),
            "forwarded" => "no socket of this host sent it, and guard.forwarded is \"refuse\"".to_owned(),
            "unclear" => "it might be TCP to a guarded port, and cannot be told".to_owned(),
            "raw-sender" => format!("{} sender that would pass every packet hook", self.protocol),
            "other-mac" => "a rule allows the address, but not from this MAC address".to_owned(),
            "other-vlan" => "a rule allows the address, but not in this VLAN".to_owned(),
            "relayed" => format!("rule \"{rule}\", by way of the relay"),
            "no-relay" => format!("rule \"{rule}\" sends it through the relay, which does not listen"),
            "no-memory" => "the kernel had no memory to keep the verdict".to_owned(),
            other => other.to_owned(),
        }
    }
}

/// Makes records of events.
#[derive(Debug, Default)]
pub struct Recorder {
    users: Users,
    processes: Processes,
    surroundings: Surroundings,
    names: VecDeque<(u32, RuleNames)>,
}

/// The names of a policy's rules, by their numbers.
#[derive(Clone, Debug, Default)]
pub struct RuleNames {
    /// Of this host's programs.
    pub host: Vec<String>,
    /// Of LAN hosts.
    pub lan: Vec<String>,
}

impl Recorder {
    /// Learns the names of a generation's rules.
    pub fn policy(&mut self, generation: u32, names: RuleNames) {
        self.names.retain(|(known, _)| *known != generation);
        self.names.push_front((generation, names));
        self.names.truncate(GENERATIONS);
    }

    /// The name of a user.
    pub fn user(&mut self, uid: u32) -> Option<String> {
        self.users.name(uid)
    }

    fn rule(&self, generation: u32, rule: u32, hook: Hook) -> Option<String> {
        match rule {
            RULE_NONE | RULE_LOCAL => None,
            _ => {
                let known = self.names.iter().find(|(known, _)| *known == generation);
                let of = |names: &RuleNames| {
                    let list = if hook == Hook::Lan { &names.lan } else { &names.host };
                    list.get(rule as usize).cloned()
                };
                let name = known.and_then(|(_, names)| of(names));
                Some(name.unwrap_or_else(|| format!("rule {} of generation {generation}", u64::from(rule) + 1)))
            }
        }
    }

    /// The record of an event; `None` when the event is of another version and means nothing here.
    pub fn record(&mut self, event: &Event, clock: &Clock) -> Option<Attempt> {
        let verdict = Verdict::from_u8(event.verdict)?;
        let reason = Reason::from_u8(event.reason)?;
        let hook = Hook::from_u8(event.hook)?;
        let exe_parts = parts(&event.exe_path, event.exe_path_used);
        let exe = path_up(&exe_parts, event.truncated & Truncated::EXE_PATH != 0);
        let cgroup = format!("/{}", parts(&event.cgroup_path, event.cgroup_path_used).join("/"));
        let mut cmdline = parts(&event.cmdline, event.cmdline_used);
        if hook == Hook::Existing {
            // Found by a search of the agent's, which does not see into the process.
            cmdline = Processes::arguments(event.pid, event.start, CMDLINE_LEN);
        }
        let exe_in_memory = exe_parts.first().is_some_and(|name| name.starts_with("memfd:"));
        let details = self.processes.details(event.pid, event.start, exe.as_deref().unwrap_or_default(), &cmdline);
        let place = place(&cgroup);
        // Whatever speaks against the process being its executable speaks against its command line as well.
        let itself = event.pid != 0 && event.nlink != 0 && !exe_in_memory && event.taint == 0;
        let cut = event.truncated & Truncated::CMDLINE != 0;
        let (program, cwd) = (exe.as_deref().unwrap_or_default(), details.cwd.as_deref());
        let plainly = |script: &&str| names_plainly(program, &cmdline, cwd, cut, script);
        let script = details.script.as_deref().filter(|_| itself && place.container.is_none()).filter(plainly);
        let facts = self.surroundings.of(&About {
            pid: event.pid,
            start: event.start,
            exe: exe.as_deref(),
            exe_id: (event.exe.dev, event.exe.ino),
            script,
            session: place.session.as_deref(),
            login_uid: details.login_uid,
            netns: event.netns,
        });
        let exe_deleted = exe.is_some() && event.nlink == 0;
        let taint = taints(event.taint);
        let severity = severity(verdict, exe_deleted || !taint.is_empty());
        let exe_deleted = exe_deleted && event.pid != 0;
        let packaged = matches!(facts.package, Owner::Package(_));
        Some(Attempt {
            time: clock.at(event.time),
            verdict: verdict_word(verdict).to_owned(),
            reason: reason_word(reason).to_owned(),
            rule: self.rule(event.generation, event.rule, hook),
            severity: severity.to_owned(),
            generation: event.generation,
            hook: hook_word(hook).to_owned(),
            destination: (hook != Hook::Setsockopt && reason != Reason::Unclear)
                .then(|| SocketAddr::new(address(event.daddr), event.dport)),
            source: (event.saddr != [0; 16] || event.sport != 0)
                .then(|| SocketAddr::new(address(event.saddr), event.sport)),
            protocol: protocol_word(event.protocol).to_owned(),
            interface: interface(event.interface),
            tcp_flags: tcp_flags(event.tcp_flags),
            pid: event.pid,
            tid: event.tid,
            started: (event.start != 0).then(|| clock.at(event.start)),
            comm: text(&event.comm),
            exe,
            exe_inode: event.exe.ino,
            exe_device: event.exe.dev,
            exe_deleted,
            exe_in_memory,
            cmdline,
            script: details.script,
            cwd: details.cwd,
            uid: event.uid,
            euid: event.euid,
            gid: event.gid,
            egid: event.egid,
            user: self.users.name(event.euid).filter(|_| hook != Hook::Lan),
            login_uid: details.login_uid,
            session: place.session,
            cgroup,
            cgroup_id: event.cgroup,
            unit: place.unit,
            container: place.container,
            netns: event.netns,
            socket: event.cookie,
            taint,
            parents: event
                .parents
                .iter()
                .filter(|parent| parent.pid != 0)
                .map(|parent| Parent {
                    pid: parent.pid,
                    uid: parent.uid,
                    comm: text(&parent.comm),
                    exe: facts.forebears.iter().find(|(pid, _)| *pid == parent.pid).and_then(|(_, exe)| exe.clone()),
                })
                .collect(),
            truncated: truncated(event.truncated),
            package_known: facts.package != Owner::Unknown,
            package: match facts.package {
                Owner::Package(package) => Some(package),
                Owner::NoPackage | Owner::Unknown => None,
            },
            exe_world_writable: facts.exe_world_writable.unwrap_or_default(),
            script_of_root: packaged && facts.script_of_root.unwrap_or_default(),
            session_gone: facts.session_gone.unwrap_or_default(),
            mta_unused: facts.mta_listens.unwrap_or_default() && verdict != Verdict::Local,
            // Nobody looks into the resolver's traffic; captures may have it.
            mx_lookups: false,
            domain: None,
            host: None,
            vendor: None,
            mac_addresses: 0,
            mac: Mac::from_bytes(&event.mac),
            vlan: (event.vlan != 0).then(|| vlan_text(event.vlan)),
        })
    }
}

/// The NUL-terminated parts of a text of which `used` bytes were written.
fn parts(bytes: &[u8], used: u16) -> Vec<String> {
    let used = bytes.get(..usize::from(used)).unwrap_or(bytes);
    let used = used.strip_suffix(&[0]).unwrap_or(used);
    if used.is_empty() {
        return Vec::new();
    }
    used.split(|byte| *byte == 0).map(printable).collect()
}

/// A text up to its NUL.
pub(crate) fn text(bytes: &[u8]) -> String {
    printable(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
}

/// What a process named itself must not reach a terminal raw: control characters are escaped.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if !text.chars().any(char::is_control) {
        return text.into_owned();
    }
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// A path from its names, the last first; an incomplete one begins with an ellipsis.
fn path_up(names: &[String], cut: bool) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let mut path = String::from(if cut { "…" } else { "" });
    for name in names.iter().rev() {
        path.push('/');
        path.push_str(name);
    }
    Some(path)
}

fn address(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

#[cfg(test)]
mod tests;
