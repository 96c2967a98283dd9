//! From names to what a host knows by these names.

mod redirected;
mod who;

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use jiff::Timestamp;
use portreeve_abi::ExeId;

use super::diagnostic::{Diagnostic, Located, Place, Severity};
use super::host::{ExeFile, ExeProblem, Host, SystemHost};
use super::model::{Account, CgroupPath, MtaChoice, Policy, Rule, UnitChoice, Via};
use super::mta::{Mta, Users};
use super::{overlap, unit};

/// A policy as it stands on one host.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// The rules in order; `mta = "auto"` has become one for each mail server that is installed.
    pub rules: Vec<ResolvedRule>,
    /// What does not fit this host.
    pub diagnostics: Vec<Diagnostic>,
}

/// A user or group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its number.
    pub id: u32,
    /// As the policy has it.
    pub name: String,
}

/// A rule as it stands on one host. `None` leaves a dimension open, a list wants one of its elements.
#[derive(Clone, Debug, Default)]
pub struct ResolvedRule {
    /// What it is called in records.
    pub name: String,
    /// The index of the policy's rule it comes from.
    pub source: usize,
    /// Where that begins.
    pub place: Place,
    /// Executables.
    pub exe: Option<Vec<ExeFile>>,
    /// Effective users.
    pub user: Option<Vec<Named>>,
    /// Effective groups.
    pub group: Option<Vec<Named>>,
    /// Cgroups, below the guarded sub-tree.
    pub cgroup: Option<Vec<CgroupPath>>,
    /// Destinations.
    pub to: Option<Vec<IpNet>>,
    /// Destination ports.
    pub ports: Option<BTreeSet<u16>>,
    /// The executable was compared with a checksum: no other may take its place.
    pub checksum: bool,
    /// From when on the rule no longer counts.
    pub expires: Option<Timestamp>,
    /// The rule only observes.
    pub audit: bool,
    /// It lets the program have senders that pass every packet hook, and nobody connect.
    pub raw_senders: bool,
    /// Its connections are brought to the relay, where the policy has one that they are brought to.
    pub relayed: bool,
    /// Why the rule matches nothing on this host.
    pub problem: Option<String>,
}

impl Resolved {
    /// The rules, each as a line for people.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        self.rules.iter().map(ToString::to_string).collect()
    }

    /// Every executable of a rule that counts, and how the kernel names it.
    pub fn executables(&self) -> impl Iterator<Item = (&Path, ExeId)> {
        let files = self.rules.iter().filter(|rule| rule.problem.is_none()).flat_map(|rule| rule.exe.iter().flatten());
        files.filter_map(|file| Some((file.path.as_path(), file.id?)))
    }

    /// Lets another file count as the executable at `path`: one that a package upgrade has replaced and that is
    /// still running. Rules with a checksum take none but the file they have compared.
    pub fn add_executable(&mut self, path: &Path, id: ExeId) {
        for files in self.rules.iter_mut().filter(|rule| !rule.checksum).filter_map(|rule| rule.exe.as_mut()) {
            let same = files.iter().find(|file| file.path == path).cloned();
            if let Some(same) = same
                && !files.iter().any(|file| file.id == Some(id))
            {
                files.push(ExeFile { id: Some(id), ..same });
            }
        }
    }
}

impl fmt::Display for ResolvedRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(problem) = &self.problem {
            return write!(f, ": matches nothing, {problem}");
        }
        let named = |list: &[Named]| {
            let texts = list.iter().map(|named| match named.id.to_string() {
                id if id == named.name => id,
                id => format!("{} ({id})", named.name),
            });
            texts.collect::<Vec<_>>().join(" or ")
        };
        match &self.exe {
            // A replaced file that still runs has the same path.
            Some(files) => {
                let mut paths: Vec<String> = files.iter().map(|file| file.path.display().to_string()).collect();
                paths.dedup();
                write!(f, ": {}", paths.join(" or "))?;
            }
            None => f.write_str(": any program")?,
        }
        if let Some(users) = &self.user {
            write!(f, " as {}", named(users))?;
        }
        if let Some(groups) = &self.group {
            write!(f, ", group {}", named(groups))?;
        }
        if let Some(cgroups) = &self.cgroup {
            write!(f, ", in {}", joined(cgroups))?;
        }
        if let Some(networks) = &self.to {
            write!(f, ", to {}", shortened(networks))?;
        }
        if let Some(ports) = &self.ports {
            write!(f, ", port {}", shortened(&ports.iter().collect::<Vec<_>>()))?;
        }
        if let Some(time) = self.expires {
            write!(f, ", until {time}")?;
        }
        f.write_str(if self.raw_senders { ", raw senders only" } else { "" })?;
        f.write_str(if self.audit { ", only observed" } else { "" })
    }
}

fn joined<T: ToString>(list: &[T]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

fn shortened<T: ToString>(list: &[T]) -> String {
    match list.len() {
        0..=4 => joined(list),
        more => format!("{} and {} more", joined(&list[..3]), more - 3),
    }
}

/// Looks up everything a policy names. What is not found makes its rule match nothing, never more.
pub fn resolve(policy: &Policy, host: &mut dyn Host) -> Resolved {
    let mut resolver = Resolver { policy, host, resolved: Resolved::default() };
    for (index, rule) in policy.rules.iter().enumerate() {
        match rule.mta {
            Some(choice) => resolver.mail_servers(index, rule, choice),
            None => resolver.rule(index, rule),
        }
    }
    let mut resolved = resolver.resolved;
    if !policy.draft {
        resolved.diagnostics.extend(overlap::findings(&policy.sources, &resolved.rules));
    }
    resolved
}

/// The path of a unit's cgroup from the root of the hierarchy, for a policy that guards a part of it.
///
/// # Errors
///
/// Why there is none, in a sentence.
pub fn unit_path(policy: &Policy, unit: &str) -> Result<String, String> {
    unit::check(unit).map_err(|mend| format!("\"{unit}\" is no unit with processes: {mend}"))?;
    let path = SystemHost::new(None).unit(unit).path;
    let below = CgroupPath::parse(&path).map_err(|why| format!("the cgroup {path} {why}"))?;
    let guard = CgroupPath::parse(&policy.guard.cgroup).map_err(|why| format!("the guarded cgroup {why}"))?;
    Ok(guard.join(&below).to_string())
}

struct Resolver<'a> {
    policy: &'a Policy,
    host: &'a mut dyn Host,
    resolved: Resolved,
}

impl Resolver<'_> {
    fn find(&mut self, severity: Severity, place: Place, what: String, mend: &str) {
        let found = self.policy.sources.diagnostic(severity, place, what, mend.to_owned());
        self.resolved.diagnostics.push(found);
    }

    /// What a rule says beside who may send.
    fn start(&mut self, source: usize, rule: &Rule, name: String) -> ResolvedRule {
        if let Some(expires) = &rule.expires
            && expires.value <= self.host.now()
        {
            let what = format!("this rule has ended, at {}", expires.value);
            self.find(Severity::Warning, expires.place, what, "take the rule out, or give it a later end");
        }
        ResolvedRule {
            name,
            source,
            place: rule.place,
            to: given(rule.to.iter().map(|to| to.value).collect()),
            ports: (!rule.ports.is_empty()).then(|| rule.ports.clone()),
            checksum: rule.sha256.is_some(),
            expires: rule.expires.map(|expires| expires.value),
            audit: rule.audit,
            raw_senders: rule.raw_senders,
            relayed: rule.via.as_ref().is_none_or(|via| via.value == Via::Relay),
            ..ResolvedRule::default()
        }
    }

    fn rule(&mut self, source: usize, rule: &Rule) {
        let mut resolved = self.start(source, rule, rule_name(rule, source));
        if !rule.exe.is_empty() {
            let mut files: Vec<ExeFile> = Vec::new();
            for exe in &rule.exe {
                match self.executable(rule, exe) {
                    Ok(file) if files.contains(&file) => {}
                    Ok(file) => files.push(file),
                    Err(problem) => resolved.problem = Some(problem),
                }
            }
            resolved.exe = Some(files);
        }
        resolved.user = self.accounts(rule, &rule.user, who::Kind::User, &mut resolved.problem);
        resolved.group = self.accounts(rule, &rule.group, who::Kind::Group, &mut resolved.problem);
        resolved.cgroup = self.cgroups(rule, None, &mut resolved.problem);
        self.set_user(rule, &resolved);
        self.push(resolved);
    }

    /// A rule counts if each of its lists has an element left: a list that has lost one only allows less.
    fn push(&mut self, mut rule: ResolvedRule) {
        self.redirected(&mut rule);
        let lost = [
            rule.exe.as_ref().is_some_and(Vec::is_empty),
            rule.user.as_ref().is_some_and(Vec::is_empty),
            rule.group.as_ref().is_some_and(Vec::is_empty),
            rule.cgroup.as_ref().is_some_and(Vec::is_empty),
        ];
        rule.problem = match lost.contains(&true) {
            true => Some(rule.problem.unwrap_or_else(|| "nothing it names is there".to_owned())),
            false => None,
        };
        self.resolved.rules.push(rule);
    }

    fn mail_servers(&mut self, source: usize, rule: &Rule, choice: Located<MtaChoice>) {
        let mut taken: HashSet<PathBuf> = HashSet::new();
        let mut installed = Vec::new();
        for mta in choice.value.mtas() {
            let files = self.mail_server_files(rule, mta, choice.place, &mut taken);
            if !files.is_empty() {
                installed.push((mta, files));
            }
        }
        if installed.is_empty() {
            self.none_installed(source, rule, choice);
        }
        let several = installed.len() > 1;
        for (mta, files) in installed {
            let name = match &rule.name {
                Some(name) if several => format!("{} ({})", name.value, mta.title),
                Some(name) => name.value.clone(),
                None => mta.title.to_owned(),
            };
            let mut resolved = self.start(source, rule, name);
            resolved.exe = Some(files);
            resolved.user = match rule.user.is_empty() {
                true => self.mail_server_users(rule, mta, choice, &mut resolved.problem),
                false => self.accounts(rule, &rule.user, who::Kind::User, &mut resolved.problem),
            };
            resolved.group = match rule.group.is_empty() {
                true => self.mail_server_groups(rule, mta, choice, &mut resolved.problem),
                false => self.accounts(rule, &rule.group, who::Kind::Group, &mut resolved.problem),
            };
            resolved.cgroup = self.cgroups(rule, Some(mta), &mut resolved.problem);
            self.push(resolved);
        }
    }

    fn mail_server_files(
        &mut self,
        rule: &Rule,
        mta: &Mta,
        place: Place,
        taken: &mut HashSet<PathBuf>,
    ) -> Vec<ExeFile> {
        let mut files = Vec::new();
        for path in mta.exes {
            let path = Path::new(path);
            match self.host.exe(rule.root.as_ref().map(|root| root.value.as_path()), path) {
                // One path may be a link to another, or to another mail server's.
                Ok(file) => {
                    if taken.insert(file.path.clone()) && self.trusted(rule, &file, place) {
                        files.push(file);
                    }
                }
                Err(ExeProblem::Missing) => {}
                Err(problem) => {
                    let what = format!("{}, where {} may be, {problem}", path.display(), mta.title);
                    self.find(
                        Severity::Warning,
                        place,
                        what,
                        "name the executable and the user in a rule with \"exe\"",
                    );
                }
            }
        }
        files
    }

    fn none_installed(&mut self, source: usize, rule: &Rule, choice: Located<MtaChoice>) {
        let mend = "install it, or name its executable and user with \"exe\" and \"user\"";
        match choice.value {
            MtaChoice::Auto => {
                let what = "no mail server that is known is installed: by this rule nothing may send".to_owned();
                self.find(Severity::Warning, choice.place, what, mend);
            }
            MtaChoice::One(mta) => {
                let what = format!("{} is not installed where distributions put it", mta.title);
                self.find(Severity::Error, choice.place, what.clone(), mend);
                let name = rule.name.as_ref().map_or(mta.title.to_owned(), |name| name.value.clone());
                let resolved = self.start(source, rule, name);
                self.resolved.rules.push(ResolvedRule { problem: Some(what), ..resolved });
            }
        }
    }

    fn mail_server_users(
        &mut self,
        rule: &Rule,
        mta: &Mta,
        choice: Located<MtaChoice>,
        problem: &mut Option<String>,
    ) -> Option<Vec<Named>> {
        let (names, count) = match mta.users {
            Users::First(names) => (names, 1),
            Users::Each(names) => (names, names.len()),
            Users::Anybody => return None,
        };
        let found = self.existing(rule, names, who::Kind::User, count);
        if found.is_empty() {
            *problem = Some(self.nobody(mta, names, choice, who::Kind::User));
        }
        Some(found)
    }

    fn mail_server_groups(
        &mut self,
        rule: &Rule,
        mta: &Mta,
        choice: Located<MtaChoice>,
        problem: &mut Option<String>,
    ) -> Option<Vec<Named>> {
        if mta.groups.is_empty() {
            return None;
        }
        let found = self.existing(rule, mta.groups, who::Kind::Group, mta.groups.len());
        if found.is_empty() {
            *problem = Some(self.nobody(mta, mta.groups, choice, who::Kind::Group));
        }
        Some(found)
    }
}

/// A list that says something.
fn given<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// What a rule without a name is called.
fn rule_name(rule: &Rule, source: usize) -> String {
    if let Some(name) = &rule.name {
        return name.value.clone();
    }
    let exe = rule.exe.first().and_then(|exe| Some(exe.value.file_name()?.to_string_lossy().into_owned()));
    let account = |list: &[Located<Account>]| list.first().map(|account| account.value.to_string());
    let unit = || match rule.unit.first().map(|unit| &unit.value) {
        Some(UnitChoice::Name(name)) => Some(name.clone()),
        Some(UnitChoice::Auto) | None => None,
    };
    let who = exe.or_else(|| account(&rule.user)).or_else(unit).or_else(|| account(&rule.group));
    match who {
        Some(who) => format!("{who} (rule {})", source + 1),
        None => format!("rule {}", source + 1),
    }
}

#[cfg(test)]
mod tests;
