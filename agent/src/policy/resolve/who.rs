//! Executables, accounts and cgroups.

use std::path::Path;

use super::super::diagnostic::{Located, Place, Severity};
use super::super::host::{ExeFile, Weakness};
use super::super::model::{Account, CgroupPath, MtaChoice, Rule, UnitChoice, hex};
use super::super::mta::Mta;
use super::{Named, ResolvedRule, Resolver, given, joined};
use crate::interpreter::is_interpreter;

/// Whether an account is a user or a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Group,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
        }
    }
}

impl Resolver<'_> {
    /// The executable of a rule, or why there is none; said already.
    pub(super) fn executable(&mut self, rule: &Rule, exe: &Located<std::path::PathBuf>) -> Result<ExeFile, String> {
        let root = rule.root.as_ref().map(|root| root.value.as_path());
        let shown = exe.value.display();
        let file = self.host.exe(root, &exe.value).map_err(|problem| {
            let what = format!("{shown} {problem}");
            let mend = match &problem {
                super::ExeProblem::Missing => "install it, mend the path, or take the rule out",
                super::ExeProblem::Script(_) => {
                    "name a unit or a user of its own instead, or have it hand its mail to the local mail server"
                }
                super::ExeProblem::Unlearned(_) => "run portreeve doctor",
                super::ExeProblem::Unreadable(_) | super::ExeProblem::NotRegular | super::ExeProblem::NotExecutable => {
                    "name a program that can be executed"
                }
            };
            self.find(Severity::Error, exe.place, what.clone(), mend);
            what
        })?;
        if let Some(sum) = &rule.sha256 {
            self.checksum(root, exe, &file, sum)?;
        }
        if !self.trusted(rule, &file, exe.place) {
            return Err(format!("everybody can replace {shown}"));
        }
        if is_interpreter(&file.path) {
            let what = format!("{} is an interpreter or loader: the rule sanctions everything it runs", shown);
            let mend =
                "name a unit or a user that nothing else has, or have the script hand its mail to the local server";
            self.find(Severity::Warning, exe.place, what, mend);
        }
        Ok(file)
    }

    /// Compares a file with the checksum of its rule.
    fn checksum(
        &mut self,
        root: Option<&Path>,
        exe: &Located<std::path::PathBuf>,
        file: &ExeFile,
        sum: &Located<[u8; 32]>,
    ) -> Result<(), String> {
        let shown = exe.value.display();
        let found = self.host.sha256(&file.path);
        // Another file may have taken the place while this one was read; the sum is then nobody's.
        let after = self.host.exe(root, &exe.value);
        let what = match found {
            Err(error) => format!("{shown} cannot be read for its SHA-256: {error}"),
            Ok(found) if found != sum.value => format!("{shown} has the SHA-256 {}", hex(&found)),
            Ok(_) if after.as_ref() != Ok(file) => format!("{shown} has changed while it was read"),
            Ok(_) => return Ok(()),
        };
        let mend = "if the change is meant, put the new sum in; until then the rule matches nothing";
        self.find(Severity::Error, sum.place, what.clone(), mend);
        Err(what)
    }

    /// Whether only root can put another program in the place of this one; false if everybody can.
    pub(super) fn trusted(&mut self, rule: &Rule, file: &ExeFile, place: Place) -> bool {
        for weakness in &file.weaknesses {
            let (path, who) = match weakness {
                Weakness::Everybody(path) => {
                    let what =
                        format!("everybody can write to {}, and so replace {}", path.display(), file.path.display());
                    self.find(Severity::Error, place, what, "take the right away: chmod o-w");
                    return false;
                }
                Weakness::Group(path, gid) => (path, format!("group {gid}")),
                // What a user's own program may do, that user may do anyway.
                Weakness::Owner(_, uid) if rule.user.iter().any(|user| user.value == Account::Id(*uid)) => continue,
                Weakness::Owner(path, uid) => (path, format!("user {uid}")),
            };
            let what = format!("{who} can write to {}, and so replace {}", path.display(), file.path.display());
            self.find(Severity::Warning, place, what, "let it belong to root and its group not write to it");
            break;
        }
        true
    }

    /// A set-user-ID program does not run as who calls it.
    pub(super) fn set_user(&mut self, rule: &Rule, resolved: &ResolvedRule) {
        let (Some(files), Some(users)) = (&resolved.exe, &resolved.user) else { return };
        for file in files {
            if let Some(uid) = file.set_user
                && !users.iter().any(|user| user.id == uid)
                && let Some(place) = rule.user.first().map(|user| user.place)
            {
                let path = file.path.display();
                let what =
                    format!("{path} is set-user-ID: unless it gives that up it runs as user {uid}, which is not here");
                self.find(Severity::Warning, place, what, "name the effective user it connects as");
            }
        }
    }

    fn look_up(&mut self, rule: &Rule, name: &str, kind: Kind) -> std::io::Result<Option<u32>> {
        let root = rule.root.as_ref().map(|root| root.value.as_path());
        match kind {
            Kind::User => self.host.user(root, name),
            Kind::Group => self.host.group(root, name),
        }
    }

    /// The accounts of a rule that exist.
    pub(super) fn accounts(
        &mut self,
        rule: &Rule,
        accounts: &[Located<Account>],
        kind: Kind,
        problem: &mut Option<String>,
    ) -> Option<Vec<Named>> {
        if accounts.is_empty() {
            return None;
        }
        let mut found = Vec::new();
        for account in accounts {
            let name = account.value.to_string();
            let what = match &account.value {
                Account::Id(id) => {
                    found.push(Named { id: *id, name });
                    continue;
                }
                Account::Name(text) => match self.look_up(rule, text, kind) {
                    Ok(Some(id)) => {
                        found.push(Named { id, name });
                        continue;
                    }
                    Ok(None) => format!("unknown {} \"{name}\"", kind.word()),
                    Err(error) => format!("the {} \"{name}\" cannot be looked up: {error}", kind.word()),
                },
            };
            let mend = match &rule.root {
                Some(root) => format!("create it in {}, or write its number", root.value.display()),
                None => "create it, mend the name, or write its number".to_owned(),
            };
            self.find(Severity::Error, account.place, what.clone(), &mend);
            *problem = Some(what);
        }
        Some(found)
    }

    /// The first `count` of some names that exist.
    pub(super) fn existing(&mut self, rule: &Rule, names: &[&str], kind: Kind, count: usize) -> Vec<Named> {
        let found = names.iter().filter_map(|name| {
            let id = self.look_up(rule, name, kind).ok().flatten()?;
            Some(Named { id, name: (*name).to_owned() })
        });
        found.take(count).collect()
    }

    /// Says that a mail server is installed whose accounts are not there.
    pub(super) fn nobody(&mut self, mta: &Mta, names: &[&str], choice: Located<MtaChoice>, kind: Kind) -> String {
        let severity = match choice.value {
            MtaChoice::Auto => Severity::Warning,
            MtaChoice::One(_) => Severity::Error,
        };
        let what = format!("{} is installed, but there is no {} {}", mta.title, kind.word(), names.join(" or "));
        let mend = format!("say in the rule which {0} it runs as, with \"{0}\"", kind.word());
        self.find(severity, choice.place, what.clone(), &mend);
        what
    }

    /// The cgroups of a rule: those of its units, those it names, and where it does both, what is in both.
    pub(super) fn cgroups(
        &mut self,
        rule: &Rule,
        mta: Option<&Mta>,
        problem: &mut Option<String>,
    ) -> Option<Vec<CgroupPath>> {
        let units: Option<Vec<CgroupPath>> = (!rule.unit.is_empty()).then(|| {
            let mut paths = Vec::new();
            for unit in &rule.unit {
                match &unit.value {
                    UnitChoice::Name(name) => paths.extend(self.unit(name, unit.place, problem)),
                    UnitChoice::Auto => paths.extend(self.mail_server_units(mta, unit.place, problem)),
                }
            }
            paths
        });
        let named = given(rule.cgroup.iter().map(|cgroup| cgroup.value.clone()).collect());
        for cgroup in &rule.cgroup {
            let whole = CgroupPath::parse(&self.policy.guard.cgroup).map(|guard| guard.join(&cgroup.value));
            if whole.is_ok_and(|whole| self.host.cgroup_exists(&whole) == Some(false)) {
                let what = format!("there is no cgroup {} at present", cgroup.value);
                self.find(Severity::Warning, cgroup.place, what, "mend the path, if it is not one that comes and goes");
            }
        }
        let (units, named) = match (units, named) {
            (Some(units), Some(named)) => (units, named),
            (units, named) => return units.or(named),
        };
        let mut both: Vec<CgroupPath> = Vec::new();
        for unit in &units {
            for cgroup in &named {
                let deeper = if unit.is_within(cgroup) { unit } else { cgroup };
                if deeper.is_within(cgroup) && deeper.is_within(unit) && !both.contains(deeper) {
                    both.push(deeper.clone());
                }
            }
        }
        if both.is_empty() && !units.is_empty() {
            let what = format!("no process is both in {} and in {}", joined(&units), joined(&named));
            self.find(Severity::Error, rule.place, what.clone(), "take \"unit\" or \"cgroup\" out");
            *problem = Some(what);
        }
        Some(both)
    }

    fn mail_server_units(&mut self, mta: Option<&Mta>, place: Place, problem: &mut Option<String>) -> Vec<CgroupPath> {
        let units = mta.map_or(&[][..], |mta| mta.units);
        let places: Vec<_> = units.iter().map(|unit| self.host.unit(unit)).collect();
        // Distributions differ in the name; where systemd does not run, each may be the one.
        let known = places.iter().filter(|place| place.known != Some(false));
        let paths: Vec<CgroupPath> = known.filter_map(|place| CgroupPath::parse(&place.path).ok()).collect();
        if paths.is_empty() {
            let what = match mta {
                Some(mta) => format!("{} has no unit here that is known by name", mta.title),
                None => "\"auto\" stands for the units of a mail server, and the rule has no \"mta\"".to_owned(),
            };
            self.find(Severity::Error, place, what.clone(), "name the unit, or take \"unit\" out");
            *problem = Some(what);
        }
        paths
    }

    fn unit(&mut self, name: &str, place: Place, problem: &mut Option<String>) -> Option<CgroupPath> {
        let found = self.host.unit(name);
        if found.known == Some(false) {
            let what = format!("systemd knows no unit \"{name}\"; the rule waits for one in {}", found.path);
            self.find(Severity::Warning, place, what, "mend the name, or install what brings the unit");
        }
        let path = CgroupPath::parse(&found.path).and_then(|path| match path.names() {
            [] => Err("holds every process that is guarded, and says nothing".to_owned()),
            _ => Ok(path),
        });
        path.map_err(|why| {
            let what = format!("the cgroup {} of the unit \"{name}\" {why}", found.path);
            self.find(Severity::Error, place, what.clone(), "name a unit or slice below or above it");
            *problem = Some(what);
        })
        .ok()
    }
}
