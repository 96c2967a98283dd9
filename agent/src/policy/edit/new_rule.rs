//! A rule that is to be written.

mod lan;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use jiff::civil::Date;
use toml_edit::{Datetime, Value};

use super::super::model::{Account, CgroupPath, hex};
use super::super::network;

pub use lan::NewLanRule;

/// The width that comments are broken at, and from which on a list has a line for each element.
const WIDTH: usize = 116;

/// A rule to write; what is empty is left out. Each key means what config/portreeve.toml says of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewRule {
    /// For the comment above it.
    pub comment: Option<String>,
    /// `name`
    pub name: Option<String>,
    /// `description`
    pub description: Option<String>,
    /// `exe`
    pub exe: Vec<PathBuf>,
    /// `exe_alone`
    pub exe_alone: bool,
    /// `user`
    pub user: Vec<Account>,
    /// `group`
    pub group: Vec<Account>,
    /// `unit`
    pub unit: Vec<String>,
    /// `cgroup`
    pub cgroup: Vec<CgroupPath>,
    /// `to`
    pub to: Vec<IpNet>,
    /// `ports`
    pub ports: BTreeSet<u16>,
    /// `sha256`
    pub sha256: Option<[u8; 32]>,
    /// `expires`
    pub expires: Option<Datetime>,
    /// `audit`
    pub audit: bool,
    /// `root`
    pub root: Option<PathBuf>,
}

/// Who writes a rule, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The day.
    pub date: Date,
    /// The user.
    pub by: String,
}

impl Stamp {
    /// The comment above a rule.
    #[must_use]
    pub fn comment(&self, note: Option<&str>) -> String {
        match note.map(str::trim).filter(|note| !note.is_empty()) {
            Some(note) => format!("Added {} by {}: {note}", self.date, self.by),
            None => format!("Added {} by {}", self.date, self.by),
        }
    }
}

impl NewRule {
    /// A destination as a policy has it.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and the remedy.
    pub fn network(text: &str) -> Result<IpNet, String> {
        network::parse(text).map_err(|bad| format!("{}; {}", bad.what, bad.mend))
    }

    /// A user or group as a policy has it: what has only digits is a number.
    #[must_use]
    pub fn account(text: &str) -> Account {
        text.parse().map_or_else(|_| Account::Name(text.to_owned()), Account::Id)
    }

    /// A SHA-256 from its 64 hexadecimal digits.
    #[must_use]
    pub fn checksum(digits: &str) -> Option<[u8; 32]> {
        super::super::parse::digits(digits)
    }

    /// What the rule is called if nobody says: after its program and its user.
    #[must_use]
    pub fn usual_name(&self) -> String {
        let exe = self.exe.first().and_then(|exe| exe.file_name()).map(|name| name.to_string_lossy().into_owned());
        let user = self.user.first().or(self.group.first()).map(ToString::to_string);
        let whose = user.or_else(|| self.unit.first().cloned());
        match (exe, whose) {
            (Some(exe), Some(whose)) => format!("{exe} of {whose}"),
            (Some(name), None) | (None, Some(name)) => name,
            (None, None) => "rule".to_owned(),
        }
    }

    /// The lines of its text.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = self.comment.as_deref().map(comment_lines).unwrap_or_default();
        lines.push("[[allow]]".to_owned());
        let text = |text: &str| Value::from(text);
        let paths = |list: &[PathBuf]| list.iter().map(|path| text(&path.to_string_lossy())).collect::<Vec<_>>();
        one(&mut lines, "name", self.name.as_deref().map(text));
        one(&mut lines, "description", self.description.as_deref().map(text));
        list(&mut lines, "exe", paths(&self.exe));
        one(&mut lines, "exe_alone", self.exe_alone.then(|| Value::from(true)));
        list(&mut lines, "user", self.user.iter().map(account).collect());
        list(&mut lines, "group", self.group.iter().map(account).collect());
        list(&mut lines, "unit", self.unit.iter().map(|unit| text(unit)).collect());
        list(&mut lines, "cgroup", self.cgroup.iter().map(|path| text(&path.to_string())).collect());
        list(&mut lines, "to", self.to.iter().map(|to| text(&destination(to))).collect());
        ports(&mut lines, &self.ports);
        one(&mut lines, "sha256", self.sha256.map(|sum| text(&hex(&sum))));
        one(&mut lines, "expires", self.expires.map(Value::from));
        one(&mut lines, "audit", self.audit.then(|| Value::from(true)));
        one(&mut lines, "root", self.root.as_ref().map(|root| text(&root.to_string_lossy())));
        lines
    }
}

fn one(lines: &mut Vec<String>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        lines.push(format!("{key} = {}", shown(&value)));
    }
}

/// One element stands for itself; many have a line each.
fn list(lines: &mut Vec<String>, key: &str, values: Vec<Value>) {
    let elements: Vec<String> = values.iter().map(|value| shown(value)).collect();
    let whole = match elements.as_slice() {
        [] => return,
        [one] => format!("{key} = {one}"),
        several => format!("{key} = [{}]", several.join(", ")),
    };
    if whole.chars().count() <= WIDTH || elements.len() == 1 {
        lines.push(whole);
        return;
    }
    lines.push(format!("{key} = ["));
    lines.extend(elements.into_iter().map(|element| format!("    {element},")));
    lines.push("]".to_owned());
}

fn ports(lines: &mut Vec<String>, ports: &BTreeSet<u16>) {
    match ports.first() {
        // One port alone is a list as well, as in config/portreeve.toml.
        Some(port) if ports.len() == 1 => lines.push(format!("ports = [{port}]")),
        _ => list(lines, "ports", ports.iter().map(|port| Value::from(i64::from(*port))).collect()),
    }
}

fn shown(value: &dyn fmt::Display) -> String {
    value.to_string().trim().to_owned()
}

fn account(account: &Account) -> Value {
    match account {
        Account::Id(id) => Value::from(i64::from(*id)),
        Account::Name(name) => Value::from(name.as_str()),
    }
}

/// A single address without its prefix length.
fn destination(network: &IpNet) -> String {
    let (address, longest) = match network {
        IpNet::V4(v4) => (IpAddr::V4(v4.addr()), 32),
        IpNet::V6(v6) => (IpAddr::V6(v6.addr()), 128),
    };
    if network.prefix_len() == longest { address.to_string() } else { network.to_string() }
}

/// A text as comment lines. Control characters may stand in no comment (TOML 1.0, "Comment").
fn comment_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::from("#");
        for word in paragraph.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
            if line.len() > 1 && line.chars().count() + word.chars().count() > WIDTH {
                lines.push(std::mem::replace(&mut line, String::from("#")));
            }
            line.push(' ');
            line.push_str(word);
        }
        if line.len() > 1 {
            lines.push(line);
        }
    }
    lines
}
