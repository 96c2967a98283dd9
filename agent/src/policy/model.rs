//! A policy whose text has been checked.

use std::path::PathBuf;

use ipnet::IpNet;
use jiff::Timestamp;
use nix::errno::Errno;

use super::diagnostic::Place;
use super::mta;

/// The whole policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `[guard]`
    pub guard: GuardSection,
    /// `[[allow]]`, in the order of the files.
    pub rules: Vec<Rule>,
}

/// `[guard]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardSection {
    /// `mode = "observe"`
    pub observe: bool,
    /// The guarded ports, sorted.
    pub ports: Vec<u16>,
    /// What a refused `connect()` gets.
    pub refuse_with: Errno,
    /// Programs may hand mail to this host's own loopback.
    pub local_submission: bool,
    /// A tainted process is refused even where a rule allows it.
    pub refuse_tainted: bool,
    /// The sub-tree of the cgroup2 hierarchy that is guarded.
    pub cgroup: String,
}

impl Default for GuardSection {
    fn default() -> Self {
        Self {
            observe: false,
            ports: vec![25],
            refuse_with: Errno::EPERM,
            local_submission: true,
            refuse_tainted: false,
            cgroup: "/".to_owned(),
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where.
    pub place: Place,
}

/// One `[[allow]]`. Keys combine with AND, the members of a list with OR; an empty list was not given.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Where the rule begins.
    pub place: Place,
    /// Its name, made up if none was given.
    pub name: String,
    /// A known mail server, or `auto`.
    pub mta: Option<At<String>>,
    /// Executables.
    pub exe: Vec<At<PathBuf>>,
    /// Effective users, names or numbers.
    pub user: Vec<At<String>>,
    /// Effective groups, names or numbers.
    pub group: Vec<At<String>>,
    /// systemd units.
    pub unit: Vec<At<String>>,
    /// Paths of cgroups.
    pub cgroup: Vec<At<String>>,
    /// Destinations.
    pub to: Vec<At<IpNet>>,
    /// Ports.
    pub ports: Vec<At<u16>>,
    /// The executable's digest, lower-case hexadecimal.
    pub sha256: Option<At<String>>,
    /// From when on the rule no longer counts.
    pub expires: Option<At<Timestamp>>,
    /// The rule only observes.
    pub audit: bool,
    /// The executable alone is enough.
    pub exe_alone: bool,
    /// Executables and users are looked up beneath this directory.
    pub root: Option<At<PathBuf>>,
}

impl Policy {
    /// Every path that a rule's executable could be at, there or not.
    #[must_use]
    pub fn executable_paths(&self) -> Vec<PathBuf> {
        self.rules
            .iter()
            .flat_map(|rule| {
                let own = rule.exe.iter().map(|exe| exe.value.clone());
                let known = rule.mta.iter().flat_map(|name| mta::named(&name.value)).flat_map(|mta| {
                    mta.paths.iter().map(PathBuf::from).collect::<Vec<_>>()
                });
                own.chain(known).map(|path| beneath(rule.root.as_ref().map(|root| &root.value), &path)).collect::<Vec<_>>()
            })
            .collect()
    }
}

/// A path beneath a root directory, where there is one.
pub(super) fn beneath(root: Option<&PathBuf>, path: &std::path::Path) -> PathBuf {
    match root {
        Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_owned(),
    }
}
