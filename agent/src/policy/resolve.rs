//! From names to what they name on this host.

use std::path::{Path, PathBuf};

use ipnet::IpNet;
use jiff::Timestamp;
use portreeve_abi::ExeId;

use super::diagnostic::{Diagnostic, Place, Severity};
use super::host::{self, ExeFile, SystemHost};
use super::model::{At, Policy, Rule, beneath};
use super::mta::{self, Mta};
use super::units;

/// Programs that run whatever they are given.
const INTERPRETERS: [&str; 16] = [
    "bash", "busybox", "dash", "java", "ksh", "ld-linux", "ld-linux-x86-", "lua", "node", "perl", "php", "python",
    "ruby", "sh", "tclsh", "zsh",
];

/// The rules with everything looked up.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// One or more for each rule of the policy: each mail server of an `mta` is a rule of its own.
    pub rules: Vec<ResolvedRule>,
    /// What was found on the way.
    pub diagnostics: Vec<Diagnostic>,
}

/// A rule as the kernel asks about it. `None` leaves a dimension open; an empty list matches nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResolvedRule {
    /// The name that records show.
    pub name: String,
    /// Executables. One the kernel could not be asked about has no identity and matches nothing.
    pub exe: Option<Vec<(PathBuf, Option<ExeId>)>>,
    /// Effective users.
    pub users: Option<Vec<u32>>,
    /// Effective groups.
    pub groups: Option<Vec<u32>>,
    /// Paths of cgroups from the hierarchy's root.
    pub cgroups: Option<Vec<String>>,
    /// Destinations.
    pub to: Option<Vec<IpNet>>,
    /// Ports.
    pub ports: Option<Vec<u16>>,
    /// From when on it no longer counts.
    pub expires: Option<Timestamp>,
    /// It only observes.
    pub audit: bool,
    /// For people: who it sanctions.
    pub who: String,
}

impl Resolved {
    /// Every executable that a rule resolved to.
    pub fn executables(&self) -> impl Iterator<Item = (&Path, ExeId)> {
        self.rules
            .iter()
            .flat_map(|rule| rule.exe.iter().flatten())
            .filter_map(|(path, exe)| exe.map(|exe| (path.as_path(), exe)))
    }

    /// Lets every rule that names `path` match another executable too.
    pub fn add_executable(&mut self, path: &Path, exe: ExeId) {
        for rule in &mut self.rules {
            if let Some(known) = &mut rule.exe
                && known.iter().any(|(known, _)| known == path)
            {
                known.push((path.to_owned(), Some(exe)));
            }
        }
    }

    /// A line for people about each rule.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        self.rules.iter().map(|rule| rule.who.clone()).collect()
    }
}

/// Looks up everything that the rules name. What is not there makes its rule match nothing, and is said.
pub fn resolve(policy: &Policy, host: &mut SystemHost<'_>) -> Resolved {
    let mut resolver = Resolver { policy, host, resolved: Resolved::default() };
    for rule in &policy.rules {
        match &rule.mta {
            Some(name) => resolver.mta_rule(rule, name),
            None => resolver.plain_rule(rule),
        }
    }
    resolver.resolved
}

struct Resolver<'p, 'h, 'l> {
    policy: &'p Policy,
    host: &'h mut SystemHost<'l>,
    resolved: Resolved,
}

impl Resolver<'_, '_, '_> {
    fn say(&mut self, severity: Severity, place: &Place, what: String, mend: &str) {
        self.resolved.diagnostics.push(Diagnostic::new(severity, place, what, mend));
    }

    /// Everything of a rule but its executables and users.
    fn common(&mut self, rule: &Rule) -> ResolvedRule {
        let groups = self.numbers(rule, &rule.group, "group", host::group);
        let cgroups = self.cgroups(rule);
        let given = |empty: bool| !empty;
        ResolvedRule {
            name: rule.name.clone(),
            exe: None,
            users: None,
            groups,
            cgroups,
            to: given(rule.to.is_empty()).then(|| rule.to.iter().map(|to| to.value).collect()),
            ports: given(rule.ports.is_empty()).then(|| rule.ports.iter().map(|port| port.value).collect()),
            expires: rule.expires.as_ref().map(|expires| expires.value),
            audit: rule.audit,
            who: String::new(),
        }
    }

    fn plain_rule(&mut self, rule: &Rule) {
        let mut resolved = self.common(rule);
        resolved.users = self.numbers(rule, &rule.user, "user", host::user);
        if !rule.exe.is_empty() {
            let found: Vec<_> = rule.exe.iter().filter_map(|exe| self.executable(rule, exe)).collect();
            resolved.exe = Some(found);
        }
        self.finish(rule, resolved);
    }

    /// A rule for each mail server that is installed.
    fn mta_rule(&mut self, rule: &Rule, name: &At<String>) {
        let mut seen: Vec<PathBuf> = Vec::new();
        for mta in mta::named(&name.value) {
            let Some((files, users)) = self.installed(rule, mta, &mut seen) else { continue };
            let mut resolved = self.common(rule);
            resolved.exe = Some(files);
            resolved.users = Some(users);
            if !rule.user.is_empty() {
                resolved.users = self.numbers(rule, &rule.user, "user", host::user);
            }
            let unnamed = rule.name.starts_with("rule ");
            resolved.name = if unnamed { mta.name.to_owned() } else { format!("{} ({})", rule.name, mta.name) };
            // Two unnamed rules for one mail server still need two names.
            if self.resolved.rules.iter().any(|other| other.name == resolved.name) {
                resolved.name = format!("{} ({})", rule.name, mta.name);
            }
            self.finish(rule, resolved);
        }
        if seen.is_empty() {
            let what = match name.value.as_str() {
                "auto" => "no known mail server is installed, so this rule allows nobody".to_owned(),
                other => format!("{other} is not installed, so this rule allows nobody"),
            };
            self.say(Severity::Warning, &name.place, what, "install one, or write a rule with exe and user");
        }
    }

    /// The executables and users of a mail server, where both are there.
    fn installed(
        &mut self,
        rule: &Rule,
        mta: &Mta,
        seen: &mut Vec<PathBuf>,
    ) -> Option<(Vec<(PathBuf, Option<ExeId>)>, Vec<u32>)> {
        let root = rule.root.as_ref().map(|root| &root.value);
        let users: Vec<u32> = mta.users.iter().filter_map(|user| host::user(user, root)).collect();
        let mut files = Vec::new();
        for path in mta.paths {
            let Ok(file) = self.host.exe(&beneath(root, Path::new(path))) else { continue };
            if file.script || seen.contains(&file.path) {
                continue;
            }
            self.warn_of_writable(rule.mta.as_ref().map_or(&rule.place, |name| &name.place), &file);
            seen.push(file.path.clone());
            files.push((file.path, file.exe));
        }
        if files.is_empty() {
            return None;
        }
        if users.is_empty() {
            let what = format!("{} is installed, but none of its users exists: {}", mta.name, mta.users.join(", "));
            self.say(Severity::Warning, &rule.place, what, "write a rule with exe and user");
            return None;
        }
        Some((files, users))
    }

    fn executable(&mut self, rule: &Rule, exe: &At<PathBuf>) -> Option<(PathBuf, Option<ExeId>)> {
        let path = beneath(rule.root.as_ref().map(|root| &root.value), &exe.value);
        let file = match self.host.exe(&path) {
            Ok(file) => file,
            Err(why) => {
                let what = format!("{} {why}", path.display());
                self.say(Severity::Error, &exe.place, what, "correct the path, install the program, or remove the rule");
                return None;
            }
        };
        if file.script {
            let what = format!("{} is a script: the kernel sees its interpreter", path.display());
            self.say(Severity::Error, &exe.place, what, "name the interpreter, with a user and a unit that run nothing else");
            return None;
        }
        self.warn_of_writable(&exe.place, &file);
        let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.').trim_end_matches(".so");
        if INTERPRETERS.contains(&stem) || name.starts_with("ld-") {
            let what = format!("{} runs whatever it is given, so this rule sanctions all of it", file.path.display());
            self.say(Severity::Warning, &exe.place, what, "name a user and a unit that run nothing else");
        }
        if let Some(wanted) = &rule.sha256 {
            let found = self.host.sha256(&file.path).unwrap_or_else(|error| error.to_string());
            if found != wanted.value {
                let what = format!("{} has another SHA-256: {found}", file.path.display());
                self.say(Severity::Error, &wanted.place, what, "see who changed the program; if it was you, write the new digest");
                return None;
            }
        }
        Some((file.path, file.exe))
    }

    fn warn_of_writable(&mut self, place: &Place, file: &ExeFile) {
        if let Some(by) = &file.writable {
            let what = format!("{} can be changed by {by}", file.path.display());
            self.say(Severity::Warning, place, what, "give it to root: chown root:root, chmod go-w");
        }
    }

    fn numbers(
        &mut self,
        rule: &Rule,
        names: &[At<String>],
        kind: &str,
        look_up: impl Fn(&str, Option<&PathBuf>) -> Option<u32>,
    ) -> Option<Vec<u32>> {
        if names.is_empty() {
            return None;
        }
        let mut found = Vec::new();
        for name in names {
            match look_up(&name.value, rule.root.as_ref().map(|root| &root.value)) {
                Some(number) => found.push(number),
                None => {
                    let what = format!("there is no {kind} \"{}\"", name.value);
                    let mend = format!("correct the name, or make the {kind}");
                    self.say(Severity::Error, &name.place, what, &mend);
                }
            }
        }
        Some(found)
    }

    fn cgroups(&mut self, rule: &Rule) -> Option<Vec<String>> {
        if rule.unit.is_empty() && rule.cgroup.is_empty() {
            return None;
        }
        let root = &self.policy.guard.cgroup;
        let mut paths: Vec<String> = rule.cgroup.iter().map(|path| units::below(root, &path.value)).collect();
        for name in &rule.unit {
            match units::find(&name.value) {
                Ok(unit) => {
                    if unit.unknown {
                        let what = format!("systemd does not know the unit {}", name.value);
                        self.say(Severity::Warning, &name.place, what, "correct the name, or leave it for when the unit is there");
                    }
                    paths.push(units::below(root, &unit.path));
                }
                Err(what) => self.say(Severity::Error, &name.place, what, "see systemctl list-units"),
            }
        }
        Some(paths)
    }

    fn finish(&mut self, rule: &Rule, mut resolved: ResolvedRule) {
        let texts = |list: &[At<String>]| list.iter().map(|at| at.value.clone()).collect::<Vec<_>>().join(" or ");
        let mut who = match &resolved.exe {
            Some(files) if files.is_empty() => "nothing that exists".to_owned(),
            Some(files) => files.iter().map(|(path, _)| path.display().to_string()).collect::<Vec<_>>().join(" or "),
            None => "any program".to_owned(),
        };
        let users: Vec<String> = resolved.users.iter().flatten().map(|uid| user_text(*uid, rule.root.is_some())).collect();
        if !users.is_empty() {
            who.push_str(&format!(" as {}", users.join(" or ")));
        }
        for (word, list) in [("group", &rule.group), ("in", &rule.unit), ("below", &rule.cgroup)] {
            if !list.is_empty() {
                who.push_str(&format!(" {word} {}", texts(list)));
            }
        }
        if let Some(to) = &resolved.to {
            who.push_str(&format!(" to {}", to.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")));
        }
        if let Some(expires) = &resolved.expires {
            who.push_str(&format!(" until {expires}"));
        }
        if resolved.audit {
            who.push_str(" (only observed)");
        }
        resolved.who = format!("{}: {who}", resolved.name);
        self.resolved.rules.push(resolved);
    }
}

fn user_text(uid: u32, elsewhere: bool) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
    match user {
        // The number means somebody else under another root.
        Some(user) if !elsewhere => user.name,
        _ => format!("uid {uid}"),
    }
}
