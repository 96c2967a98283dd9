//! From resolved rules to the tables of the kernel.

mod destination;
mod lan;
mod sanction;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use jiff::Timestamp;
use portreeve_abi::{
    CGROUP_NAME_LEN, CgroupKey, CgroupNode, DestKey, Dimension, EXPIRY_GROUPS, ExeKey, ExpiryGroup, FLAG_FORWARDED,
    FLAG_LOCAL_SUBMISSION, FLAG_REFUSE_TAINTED, IdKey, MAPS, MAX_RULES, PORT_WORDS, PolicyHeader, PortKey, RelayAt,
    RuleSet,
};
use portreeve_decide::Tables;

pub use lan::CompiledLan;

use super::model::{CgroupPath, Policy};
use super::resolve::{Resolved, ResolvedRule};
use crate::clock::Clock;
use crate::relay::origin::Way;

/// Why a policy cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// More rules than a rule set has bits.
    #[error(
        "the policy comes to {rules} rules on this host and the kernel's tables hold {MAX_RULES}; join some of them"
    )]
    TooManyRules {
        /// How many.
        rules: usize,
    },
    /// More entries than one generation may have.
    #[error("the policy needs {wanted} entries for its {what} and the kernel's table has room for {limit}; name fewer")]
    TableFull {
        /// What the entries are for.
        what: &'static str,
        /// How many it needs.
        wanted: usize,
        /// How many there may be: half the table, for two generations stand in it at once.
        limit: usize,
    },
    /// A cgroup that the programs cannot compare.
    #[error("the cgroup {path} {why}")]
    Cgroup {
        /// Its path.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The tables of one generation.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// What holds for the generation as a whole.
    pub header: PolicyHeader,
    /// The bitmap of guarded ports.
    pub ports: Box<[u64; PORT_WORDS]>,
    /// Rules by executable.
    pub exe: Vec<(ExeKey, RuleSet)>,
    /// Rules by effective user.
    pub user: Vec<(IdKey, RuleSet)>,
    /// Rules by effective group.
    pub group: Vec<(IdKey, RuleSet)>,
    /// The tree of cgroup names.
    pub cgroup: Vec<(CgroupKey, CgroupNode)>,
    /// Rules by destination; the prefix length counts from the first bit of the generation.
    pub destination: Vec<(u32, DestKey, RuleSet)>,
    /// Rules by port.
    pub port: Vec<(PortKey, RuleSet)>,
    /// The names of devices that may lead inwards.
    pub inside: Vec<String>,
    /// The gateway's part.
    pub lan: CompiledLan,
    /// The name of each rule, by its number.
    pub rule_names: Vec<String>,
    /// When the next rule ends: the policy is to be compiled anew then, because the kernel can tell only
    /// [`EXPIRY_GROUPS`] ends apart and the wall clock may have been set.
    pub next_expiry: Option<Timestamp>,
}

impl Default for Compiled {
    /// No policy: everything to a guarded port is refused, and no port is guarded.
    fn default() -> Self {
        Self {
            header: PolicyHeader::default(),
            ports: Box::new([0; PORT_WORDS]),
            exe: Vec::new(),
            user: Vec::new(),
            group: Vec::new(),
            cgroup: Vec::new(),
            destination: Vec::new(),
            port: Vec::new(),
            inside: Vec::new(),
            lan: CompiledLan::default(),
            rule_names: Vec::new(),
            next_expiry: None,
        }
    }
}

impl Compiled {
    /// Whether a port is guarded.
    #[must_use]
    pub fn guards(&self, port: u16) -> bool {
        self.ports[usize::from(port) / 64] >> (port % 64) & 1 == 1
    }

    /// The guarded ports.
    #[must_use]
    pub fn guarded_ports(&self) -> Vec<u16> {
        (1..=u16::MAX).filter(|port| self.guards(*port)).collect()
    }
}

/// The look-ups of the kernel, over lists.
impl Tables for Compiled {
    fn header(&self) -> Option<&PolicyHeader> {
        // Generation 0 is that of no policy.
        (self.header.generation != 0).then_some(&self.header)
    }

    fn exe(&self, key: &ExeKey) -> Option<RuleSet> {
        self.exe.iter().find(|(found, _)| found == key).map(|(_, rules)| *rules)
    }

    fn user(&self, key: &IdKey) -> Option<RuleSet> {
        self.user.iter().find(|(found, _)| found == key).map(|(_, rules)| *rules)
    }

    fn group(&self, key: &IdKey) -> Option<RuleSet> {
        self.group.iter().find(|(found, _)| found == key).map(|(_, rules)| *rules)
    }

    fn cgroup(&self, key: &CgroupKey) -> Option<CgroupNode> {
        self.cgroup.iter().find(|(found, _)| found == key).map(|(_, node)| *node)
    }

    fn destination(&self, key: &DestKey) -> Option<RuleSet> {
        destination::longest(&self.destination, key)
    }

    fn port(&self, key: &PortKey) -> Option<RuleSet> {
        self.port.iter().find(|(found, _)| found == key).map(|(_, rules)| *rules)
    }
}

/// Makes the tables of generation `generation` (not 0).
///
/// # Errors
///
/// When they do not fit into the kernel's maps beside those of the generation before.
pub fn compile(policy: &Policy, resolved: &Resolved, generation: u32, clock: Clock) -> Result<Compiled, CompileError> {
    if resolved.rules.len() > MAX_RULES {
        return Err(CompileError::TooManyRules { rules: resolved.rules.len() });
    }
    let guarded = CgroupPath::parse(&policy.guard.cgroup)
        .map_err(|why| CompileError::Cgroup { path: policy.guard.cgroup.clone(), why })?;
    // A rule that matches nothing is in no table and, above all, in no set of open dimensions.
    let rules: Vec<(usize, &ResolvedRule)> =
        resolved.rules.iter().enumerate().filter(|(_, rule)| counts(rule, &clock)).collect();
    let mut tables = [Table::default(), Table::default()];
    let [users, groups] = &mut tables;
    let (mut exes, mut ports) = (Table::default(), Table::default());
    let mut cgroups = CgroupTree::new(generation);
    let (mut audit, mut raw_senders, mut relayed) = (RuleSet::EMPTY, RuleSet::EMPTY, RuleSet::EMPTY);
    let relay = policy.relay.as_ref().filter(|relay| relay.way == Way::Redirect);
    let brings = relay.is_some();
    for (index, rule) in &rules {
        let ids = |list: &[super::Named]| list.iter().map(|named| IdKey { generation, id: named.id }).collect();
        let keys = |files: &[super::ExeFile]| {
            files.iter().filter_map(|file| Some(ExeKey { exe: file.id?, generation, _pad: 0 })).collect()
        };
        exes.add(*index, rule.exe.as_deref().map(keys));
        users.add(*index, rule.user.as_deref().map(ids));
        groups.add(*index, rule.group.as_deref().map(ids));
        let port_key = |port: &u16| PortKey { generation, port: u32::from(*port) };
        ports.add(*index, rule.ports.as_ref().map(|ports| ports.iter().map(port_key).collect()));
        cgroups.add(*index, &guarded, rule.cgroup.as_deref())?;
        if rule.audit {
            audit.insert(*index);
        }
        if rule.raw_senders {
            raw_senders.insert(*index);
        }
        if rule.relayed && brings && !rule.raw_senders && !rule.audit {
            relayed.insert(*index);
        }
    }
    let (destination, destination_open) = destination::table(generation, &rules);
    let mut wildcard = [RuleSet::EMPTY; Dimension::ALL.len()];
    for (dimension, open) in [
        (Dimension::Exe, exes.open),
        (Dimension::User, users.open),
        (Dimension::Group, groups.open),
        (Dimension::Cgroup, cgroups.open),
        (Dimension::Destination, destination_open),
        (Dimension::Port, ports.open),
    ] {
        wildcard[dimension as usize] = open;
    }
    let mut flags = 0;
    if policy.guard.local_submission {
        flags |= FLAG_LOCAL_SUBMISSION;
    }
    if policy.guard.refuse_tainted {
        flags |= FLAG_REFUSE_TAINTED;
    }
    if policy.guard.forwarded {
        flags |= FLAG_FORWARDED;
    }
    let header = PolicyHeader {
        generation,
        mode: policy.guard.mode.abi(),
        refuse_errno: policy.guard.refuse_with.errno(),
        flags,
        wildcard,
        audit,
        raw_senders,
        relayed,
        relay: relay.map(relay_addresses).unwrap_or_default(),
        expiry: expiry_groups(&rules, &clock),
    };
    let compiled = Compiled {
        header,
        ports: port_bitmap(&policy.guard.ports),
        exe: exes.finish(),
        user: users.finish(),
        group: groups.finish(),
        cgroup: cgroups.edges,
        destination,
        port: ports.finish(),
        inside: policy.guard.inside.clone(),
        lan: lan::lan(policy, generation),
        rule_names: resolved.rules.iter().map(|rule| rule.name.clone()).collect(),
        next_expiry: rules.iter().filter_map(|(_, rule)| rule.expires).min(),
    };
    check_sizes(&compiled)?;
    Ok(compiled)
}

/// Where connections are brought: the first address of each family that the relay listens at.
fn relay_addresses(relay: &crate::relay::Settings) -> [RelayAt; 2] {
    let first = |is_v4: bool| relay.listen.iter().find(|at| at.is_ipv4() == is_v4);
    [true, false].map(|is_v4| first(is_v4).map_or_else(RelayAt::default, |at| RelayAt::new(*at)))
}

fn counts(rule: &ResolvedRule, clock: &Clock) -> bool {
    rule.problem.is_none() && rule.expires.is_none_or(|end| end > clock.wall)
}

/// One dimension that is looked up whole.
struct Table<K> {
    open: RuleSet,
    entries: Vec<(K, RuleSet)>,
    at: HashMap<K, usize>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { open: RuleSet::EMPTY, entries: Vec::new(), at: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash> Table<K> {
    /// Adds a rule with the keys it names; `None` leaves the dimension open, no keys match nothing.
    fn add(&mut self, index: usize, keys: Option<Vec<K>>) {
        let Some(keys) = keys else {
            self.open.insert(index);
            return;
        };
        for key in keys {
            let at = *self.at.entry(key).or_insert_with(|| {
                self.entries.push((key, RuleSet::EMPTY));
                self.entries.len() - 1
            });
            self.entries[at].1.insert(index);
        }
    }

    /// The entries. A look-up that finds one does not ask for the open rules, so each has them in it.
    fn finish(&mut self) -> Vec<(K, RuleSet)> {
        let entries = std::mem::take(&mut self.entries);
        entries.into_iter().map(|(key, rules)| (key, rules.or(self.open))).collect()
    }
}

/// The tree of cgroup names. Its nodes are walked one after another and the open rules added at the end, so unlike
/// other entries they have only rules of their own in them.
struct CgroupTree {
    generation: u32,
    open: RuleSet,
    edges: Vec<(CgroupKey, CgroupNode)>,
    at: HashMap<CgroupKey, usize>,
}

impl CgroupTree {
    fn new(generation: u32) -> Self {
        Self { generation, open: RuleSet::EMPTY, edges: Vec::new(), at: HashMap::new() }
    }

    fn add(&mut self, index: usize, guarded: &CgroupPath, cgroups: Option<&[CgroupPath]>) -> Result<(), CompileError> {
        let Some(cgroups) = cgroups else {
            self.open.insert(index);
            return Ok(());
        };
        for cgroup in cgroups {
            let whole = guarded.join(cgroup);
            // The sub-tree may come from the command line, and the two together may be too deep.
            let path = whole.to_string();
            CgroupPath::parse(&path).map_err(|why| CompileError::Cgroup { path, why })?;
            match self.walk(&whole) {
                Some(at) => self.edges[at].1.rules.insert(index),
                None => self.open.insert(index),
            }
        }
        Ok(())
    }

    /// The last edge of a path, made where it is not there; none for the root.
    fn walk(&mut self, path: &CgroupPath) -> Option<usize> {
        let (mut node, mut last) = (0, None);
        for text in path.names() {
            let mut name = [0; CGROUP_NAME_LEN];
            name[..text.len()].copy_from_slice(text.as_bytes());
            let key = CgroupKey { generation: self.generation, node, name };
            let at = *self.at.entry(key).or_insert(self.edges.len());
            if at == self.edges.len() {
                let next = u32::try_from(at).unwrap_or(u32::MAX - 1) + 1;
                self.edges.push((key, CgroupNode { node: next, _pad: 0, rules: RuleSet::EMPTY }));
            }
            node = self.edges[at].1.node;
            last = Some(at);
        }
        last
    }
}

/// The ends of the rules in the kernel's clock, the soonest first. What comes after the last group ends with it, early
/// rather than late; before that the policy has been compiled anew.
fn expiry_groups(rules: &[(usize, &ResolvedRule)], clock: &Clock) -> [ExpiryGroup; EXPIRY_GROUPS] {
    let mut ends: Vec<(Timestamp, usize)> =
        rules.iter().filter_map(|(index, rule)| Some((rule.expires?, *index))).collect();
    ends.sort_unstable();
    let mut groups = [ExpiryGroup::default(); EXPIRY_GROUPS];
    let (mut used, mut last) = (0, None);
    for (end, index) in ends {
        if last != Some(end) && used < EXPIRY_GROUPS {
            let left = end.as_nanosecond().saturating_sub(clock.wall.as_nanosecond());
            groups[used].deadline = clock.boot.saturating_add(u64::try_from(left).unwrap_or(u64::MAX));
            used += 1;
            last = Some(end);
        }
        groups[used - 1].rules.insert(index);
    }
    groups
}

fn port_bitmap(ports: &BTreeSet<u16>) -> Box<[u64; PORT_WORDS]> {
    let mut words = Box::new([0; PORT_WORDS]);
    for port in ports {
        words[usize::from(*port) / 64] |= 1 << (port % 64);
    }
    words
}

fn check_sizes(compiled: &Compiled) -> Result<(), CompileError> {
    for (name, what, wanted) in [
        ("PR_EXE", "executables", compiled.exe.len()),
        ("PR_USER", "users", compiled.user.len()),
        ("PR_GROUP", "groups", compiled.group.len()),
        ("PR_CGROUP", "units and cgroups", compiled.cgroup.len()),
        ("PR_DEST", "destinations", compiled.destination.len()),
        ("PR_PORT", "ports", compiled.port.len()),
        ("PR_LAN_FROM", "LAN sources", compiled.lan.from.len()),
        ("PR_LAN_MAC", "MAC addresses", compiled.lan.mac.len()),
        ("PR_LAN_VLAN", "VLANs", compiled.lan.vlan.len()),
        ("PR_LAN_TO", "destinations of LAN hosts", compiled.lan.to.len()),
        ("PR_LAN_PORT", "ports of LAN hosts", compiled.lan.port.len()),
    ] {
        let limit = MAPS.iter().find(|map| map.name == name).map_or(0, |map| map.entries as usize / 2);
        if wanted > limit {
            return Err(CompileError::TableFull { what, wanted, limit });
        }
    }
    Ok(())
}
