//! A policy as its text means it, before anything of it is looked up on a host.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use ipnet::IpNet;
use jiff::Timestamp;
use nix::errno::Errno;
use portreeve_abi::{CGROUP_DEPTH, CGROUP_NAME_LEN, MODE_ENFORCE, MODE_OBSERVE};
use sha2::{Digest as _, Sha256};

use super::diagnostic::{Located, Place, Sources};
use super::gateway::Gateway;
use super::mta::{MTAS, Mta};
use super::respond::Respond;
use crate::detect::Settings;

/// A checked policy.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// What holds for all rules.
    pub guard: Guard,
    /// How the hosts behind this one are guarded, if they are.
    pub gateway: Option<Gateway>,
    /// How attempts are judged.
    pub detect: Settings,
    /// The rules, in order: the first that matches decides.
    pub rules: Vec<Rule>,
    /// What is done about alerts, in order: the first that matches decides.
    pub respond: Vec<Respond>,
    /// How alerts are kept, and who is told of them.
    pub alert: crate::alert::Settings,
    /// How mail is relayed, if it is.
    pub relay: Option<crate::relay::Settings>,
    pub(super) sources: Sources,
    /// There are errors in the text, so a rule may say less here than its author meant.
    pub(super) draft: bool,
}

impl Policy {
    /// The SHA-256 over the text of all its files, in hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.sources)
    }

    /// Where something stands: the file, and the line from 1.
    #[must_use]
    pub fn at(&self, place: Place) -> (PathBuf, usize) {
        self.sources.at(place)
    }

    /// Every path that a rule could resolve to on some host, there or not: what to watch.
    #[must_use]
    pub fn executable_paths(&self) -> Vec<PathBuf> {
        let mut paths = BTreeSet::new();
        for rule in &self.rules {
            let mtas = rule.mta.iter().flat_map(|choice| choice.value.mtas());
            let known = mtas.flat_map(|mta| mta.exes).map(PathBuf::from);
            for path in rule.exe.iter().map(|exe| exe.value.clone()).chain(known) {
                paths.insert(match &rule.root {
                    Some(root) => root.value.join(path.strip_prefix("/").unwrap_or(&path)),
                    None => path,
                });
            }
        }
        paths.into_iter().collect()
    }
}

/// The SHA-256 over all texts, each preceded by its length, so that no text can pass for the end of another.
pub(super) fn digest(sources: &Sources) -> String {
    let mut hash = Sha256::new();
    for text in sources.texts() {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    hex(&hash.finalize())
}

/// Bytes in hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What holds for all rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Whether anything is refused.
    pub mode: Mode,
    /// The guarded TCP destination ports.
    pub ports: BTreeSet<u16>,
    /// What a refused `connect()` gets.
    pub refuse_with: Refusal,
    /// Whether every program may hand mail to this host's own loopback.
    pub local_submission: bool,
    /// Whether a tainted process is refused even where a rule allows it.
    pub refuse_tainted: bool,
    /// Whether frames that no socket of this host sent may go to guarded ports.
    pub forwarded: bool,
    /// The names of devices that lead to this host's own containers and virtual machines, with `*` and `?`.
    pub inside: Vec<String>,
    /// The guarded sub-tree of the cgroup2 hierarchy, `/` for all of it.
    pub cgroup: String,
}

/// What Docker, Podman, Kubernetes' CNI plug-ins, libvirt, LXC, LXD and Incus call their bridges.
const INSIDE: [&str; 8] = ["docker*", "br-*", "podman*", "cni*", "virbr*", "lxcbr*", "lxdbr*", "incusbr*"];

impl Default for Guard {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            ports: BTreeSet::from([25]),
            refuse_with: Refusal::Eperm,
            local_submission: true,
            refuse_tainted: false,
            forwarded: false,
            inside: INSIDE.map(str::to_owned).to_vec(),
            cgroup: "/".to_owned(),
        }
    }
}

/// Whether anything is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What no rule allows is refused.
    Enforce,
    /// Everything passes, and the record says what would have been refused.
    Observe,
}

impl Mode {
    /// The number in the policy header.
    #[must_use]
    pub fn abi(self) -> u32 {
        match self {
            Self::Enforce => MODE_ENFORCE,
            Self::Observe => MODE_OBSERVE,
        }
    }
}

/// What a refused `connect()` gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// "Operation not permitted", as from a firewall.
    Eperm,
    /// "Permission denied".
    Eacces,
    /// "Connection refused", as from a host without a mail server.
    Econnrefused,
    /// "Network is unreachable".
    Enetunreach,
}

impl Refusal {
    /// The errno, positive.
    #[must_use]
    pub fn errno(self) -> u32 {
        let errno = match self {
            Self::Eperm => Errno::EPERM,
            Self::Eacces => Errno::EACCES,
            Self::Econnrefused => Errno::ECONNREFUSED,
            Self::Enetunreach => Errno::ENETUNREACH,
        };
        (errno as i32).unsigned_abs()
    }
}

/// One `[[allow]]`: all that is said of it must hold, of each list one element. An empty list says nothing.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Its name, if it has one.
    pub name: Option<Located<String>>,
    /// Where it begins.
    pub place: Place,
    /// A known mail server, in place of `exe` and `user`.
    pub mta: Option<Located<MtaChoice>>,
    /// Executables.
    pub exe: Vec<Located<PathBuf>>,
    /// Effective users.
    pub user: Vec<Located<Account>>,
    /// Effective groups.
    pub group: Vec<Located<Account>>,
    /// systemd units.
    pub unit: Vec<Located<UnitChoice>>,
    /// Cgroups, below the guarded sub-tree.
    pub cgroup: Vec<Located<CgroupPath>>,
    /// Destinations; an IPv6 network never means IPv4-mapped addresses.
    pub to: Vec<Located<IpNet>>,
    /// Destination ports.
    pub ports: BTreeSet<u16>,
    /// The SHA-256 of the one executable.
    pub sha256: Option<Located<[u8; 32]>>,
    /// From when on the rule no longer counts.
    pub expires: Option<Located<Timestamp>>,
    /// The rule only observes.
    pub audit: bool,
    /// It lets the program have senders that pass every packet hook, and nobody connect.
    pub raw_senders: bool,
    /// The way its connections take; `None` where the rule does not say.
    pub via: Option<Located<Via>>,
    /// The folder that holds the executable's and the users' root file system.
    pub root: Option<Located<PathBuf>>,
}

/// The way that an allowed connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// It is brought to the relay.
    Relay,
    /// It goes where it was to go.
    Direct,
}

/// Which known mail servers a rule means.
#[derive(Clone, Copy, Debug)]
pub enum MtaChoice {
    /// Every one that is installed.
    Auto,
    /// This one.
    One(&'static Mta),
}

impl MtaChoice {
    /// The mail servers meant.
    #[must_use]
    pub fn mtas(self) -> &'static [Mta] {
        match self {
            Self::Auto => MTAS,
            Self::One(mta) => std::slice::from_ref(mta),
        }
    }
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// By number, as the host's user namespace has it.
    Id(u32),
    /// By name.
    Name(String),
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A systemd unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitChoice {
    /// The units of the rule's mail server.
    Auto,
    /// By name.
    Name(String),
}

/// The path of a cgroup as its names from the top down.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CgroupPath(Vec<String>);

impl CgroupPath {
    /// Reads an absolute path.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as the end of a sentence about it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err("is no absolute path".to_owned());
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let names: Vec<String> = rest.split('/').filter(|_| !rest.is_empty()).map(str::to_owned).collect();
        for name in &names {
            if name.is_empty() || name == "." || name == ".." || name.contains('\0') {
                return Err(format!("has a part that names no cgroup: \"{}\"", name.escape_debug()));
            }
            // One byte for the NUL, one by which the programs tell that they saw the whole name.
            let longest = CGROUP_NAME_LEN - 2;
            if name.len() > longest {
                return Err(format!("has the name \"{name}\", which is longer than the {longest} bytes compared"));
            }
        }
        if names.len() > CGROUP_DEPTH as usize {
            return Err(format!("is {} cgroups deep; {CGROUP_DEPTH} are compared", names.len()));
        }
        Ok(Self(names))
    }

    /// Its names, from the top down.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// A cgroup below this one.
    #[must_use]
    pub fn join(&self, below: &Self) -> Self {
        Self(self.0.iter().chain(&below.0).cloned().collect())
    }

    /// Whether this is `other` or below it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0.iter().try_for_each(|name| write!(f, "/{name}"))
    }
}
