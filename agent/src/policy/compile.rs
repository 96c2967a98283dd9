//! From resolved rules to kernel tables.
//!
//! Every value of a table already includes the rules that leave its dimension open, because a key that is found
//! replaces that set; and a prefix includes the rules of every shorter one that covers it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use portreeve_abi::{
    CGROUP_NAME_LEN, CgroupKey, CgroupNode, DestKey, Dimension, EXPIRY_GROUPS, ExeId, ExeKey, ExpiryGroup,
    FLAG_LOCAL_SUBMISSION, FLAG_REFUSE_TAINTED, IdKey, MAPS, MAX_RULES, MODE_ENFORCE, MODE_OBSERVE, PORT_WORDS,
    PolicyHeader, PortKey, RuleSet,
};
use portreeve_decide::{Tables, mapped};
use thiserror::Error;

use super::model::Policy;
use super::resolve::{Resolved, ResolvedRule};
use crate::clock::Clock;

/// Why a policy has no tables.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CompileError {
    /// Too many rules once each mail server is one.
    #[error("{0} rules, with each mail server of an mta counted, are more than {MAX_RULES}; join some")]
    Rules(usize),
    /// A table is full. Half of it, because two policies are in it for a moment.
    #[error("the policy needs {needed} entries in {table}, which has room for {room}; name fewer, or wider ones")]
    Table {
        /// The map.
        table: &'static str,
        /// What the policy needs.
        needed: usize,
        /// What there is.
        room: usize,
    },
    /// A name that fits into no key.
    #[error("the cgroup name {0} is too long; name the cgroup above it")]
    Name(String),
}

/// The tables of one generation.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// What holds as a whole.
    pub header: PolicyHeader,
    /// The bitmap of guarded ports.
    pub ports: Vec<u64>,
    /// By executable.
    pub exe: Vec<(ExeKey, RuleSet)>,
    /// By user.
    pub user: Vec<(IdKey, RuleSet)>,
    /// By group.
    pub group: Vec<(IdKey, RuleSet)>,
    /// The tree of cgroup names.
    pub cgroup: Vec<(CgroupKey, CgroupNode)>,
    /// By destination: the prefix length counts the generation's 32 bits too.
    pub destination: Vec<(u32, DestKey, RuleSet)>,
    /// By port.
    pub port: Vec<(PortKey, RuleSet)>,
    /// The rules' names, by number.
    pub rule_names: Vec<String>,
    /// When the next rule ends, and the tables want to be made anew.
    pub next_expiry: Option<Timestamp>,
}

impl Default for Compiled {
    /// The tables of no policy: nothing is guarded, and nothing allowed.
    fn default() -> Self {
        Self {
            header: PolicyHeader::default(),
            ports: vec![0; PORT_WORDS],
            exe: Vec::new(),
            user: Vec::new(),
            group: Vec::new(),
            cgroup: Vec::new(),
            destination: Vec::new(),
            port: Vec::new(),
            rule_names: Vec::new(),
            next_expiry: None,
        }
    }
}

/// Makes the tables for a generation.
///
/// # Errors
///
/// When the policy does not fit into the maps.
pub fn compile(policy: &Policy, resolved: &Resolved, generation: u32, clock: Clock) -> Result<Compiled, CompileError> {
    let rules = &resolved.rules;
    if rules.len() > MAX_RULES {
        return Err(CompileError::Rules(rules.len()));
    }
    // A rule that has ended stays, so that numbers and names agree, and matches nothing.
    let live = |rule: &&ResolvedRule| rule.expires.is_none_or(|end| end > clock.wall);
    let mut compiled = Compiled::default();
    compiled.header = header(policy, rules, generation, &clock);
    compiled.rule_names = rules.iter().map(|rule| rule.name.clone()).collect();
    compiled.next_expiry = rules.iter().filter(live).filter_map(|rule| rule.expires).min();
    for port in &policy.guard.ports {
        compiled.ports[usize::from(port >> 6)] |= 1 << (port & 63);
    }
    let wildcard = compiled.header.wildcard;
    let sets = |pick: &dyn Fn(&ResolvedRule) -> Option<Vec<ExeId>>, dimension: Dimension| table(rules, pick, wildcard[dimension as usize]);
    let exes = sets(&|rule| Some(rule.exe.as_ref()?.iter().filter_map(|(_, exe)| *exe).collect()), Dimension::Exe);
    compiled.exe = exes.into_iter().map(|(exe, set)| (ExeKey { exe, generation, _pad: 0 }, set)).collect();
    let users = table(rules, &|rule| rule.users.clone(), wildcard[Dimension::User as usize]);
    compiled.user = users.into_iter().map(|(id, set)| (IdKey { generation, id }, set)).collect();
    let groups = table(rules, &|rule| rule.groups.clone(), wildcard[Dimension::Group as usize]);
    compiled.group = groups.into_iter().map(|(id, set)| (IdKey { generation, id }, set)).collect();
    let ports = table(rules, &|rule| rule.ports.clone(), wildcard[Dimension::Port as usize]);
    compiled.port = ports.into_iter().map(|(port, set)| (PortKey { generation, port: port.into() }, set)).collect();
    compiled.destination = destinations(rules, generation, wildcard[Dimension::Destination as usize]);
    compiled.cgroup = cgroups(rules, generation)?;
    fits(&compiled)?;
    Ok(compiled)
}

fn header(policy: &Policy, rules: &[ResolvedRule], generation: u32, clock: &Clock) -> PolicyHeader {
    let guard = &policy.guard;
    let mut header = PolicyHeader {
        generation,
        mode: if guard.observe { MODE_OBSERVE } else { MODE_ENFORCE },
        refuse_errno: guard.refuse_with as i32 as u32,
        ..PolicyHeader::default()
    };
    if guard.local_submission {
        header.flags |= FLAG_LOCAL_SUBMISSION;
    }
    if guard.refuse_tainted {
        header.flags |= FLAG_REFUSE_TAINTED;
    }
    let mut ends: BTreeMap<u64, RuleSet> = BTreeMap::new();
    for (index, rule) in rules.iter().enumerate() {
        if rule.audit {
            header.audit.insert(index);
        }
        if let Some(end) = rule.expires {
            if end <= clock.wall {
                continue;
            }
            let left = end.duration_since(clock.wall).as_nanos().clamp(0, i128::from(u64::MAX)) as u64;
            ends.entry(clock.boot.saturating_add(left).max(1)).or_default().insert(index);
        }
        let open = [
            rule.exe.is_none(),
            rule.users.is_none(),
            rule.groups.is_none(),
            rule.cgroups.is_none(),
            rule.to.is_none(),
            rule.ports.is_none(),
        ];
        for (set, open) in header.wildcard.iter_mut().zip(open) {
            if open {
                set.insert(index);
            }
        }
    }
    for (place, (deadline, set)) in ends.into_iter().enumerate() {
        // More ends than places: the later ones share the last place's, which is earlier than their own. The agent
        // renews the tables at every end, so that this shows only when it is gone for long, and then it refuses.
        let group = &mut header.expiry[place.min(EXPIRY_GROUPS - 1)];
        *group = ExpiryGroup {
            deadline: if group.deadline == 0 { deadline } else { group.deadline },
            rules: group.rules.or(set),
        };
    }
    header
}

/// For each value that a rule names, the rules that name it and those that leave the dimension open.
fn table<K: Ord>(
    rules: &[ResolvedRule],
    values: &dyn Fn(&ResolvedRule) -> Option<Vec<K>>,
    open: RuleSet,
) -> BTreeMap<K, RuleSet>
where
    K: Clone,
{
    let mut table: BTreeMap<K, RuleSet> = BTreeMap::new();
    for (index, rule) in rules.iter().enumerate() {
        for value in values(rule).into_iter().flatten() {
            table.entry(value).or_insert(open).insert(index);
        }
    }
    table
}

/// A network as the programs see it: 128 bits, IPv4 mapped.
fn prefix(net: &IpNet) -> (u8, [u8; 16]) {
    match net.trunc().addr() {
        IpAddr::V4(v4) => (96 + net.prefix_len(), mapped(v4.octets())),
        IpAddr::V6(v6) => (net.prefix_len(), v6.octets()),
    }
}

fn destinations(rules: &[ResolvedRule], generation: u32, open: RuleSet) -> Vec<(u32, DestKey, RuleSet)> {
    let mut nets: BTreeMap<(u8, [u8; 16]), IpNet> = BTreeMap::new();
    for net in rules.iter().flat_map(|rule| rule.to.iter().flatten()) {
        nets.insert(prefix(net), *net);
    }
    // ::/0 means IPv6: without an entry of its own, all of IPv4 would fall under a short IPv6 prefix.
    let v4 = IpNet::from(ipnet::Ipv4Net::default());
    if !nets.is_empty() {
        nets.insert(prefix(&v4), v4);
    }
    nets.into_iter()
        .map(|((bits, address), net)| {
            let mut set = open;
            for (index, rule) in rules.iter().enumerate() {
                if rule.to.iter().flatten().any(|wide| wide.contains(&net)) {
                    set.insert(index);
                }
            }
            (32 + u32::from(bits), DestKey { generation: generation.to_ne_bytes(), address }, set)
        })
        .collect()
}

/// The tree of names: a node for each cgroup on the way to one that a rule names.
fn cgroups(rules: &[ResolvedRule], generation: u32) -> Result<Vec<(CgroupKey, CgroupNode)>, CompileError> {
    let mut tree: BTreeMap<(u32, [u8; CGROUP_NAME_LEN]), CgroupNode> = BTreeMap::new();
    let mut next = 1;
    for (index, rule) in rules.iter().enumerate() {
        for path in rule.cgroups.iter().flatten() {
            let mut parent = 0;
            let mut names = path.split('/').filter(|name| !name.is_empty()).peekable();
            while let Some(text) = names.next() {
                if text.len() > CGROUP_NAME_LEN - 2 {
                    return Err(CompileError::Name(text.to_owned()));
                }
                let mut name = [0; CGROUP_NAME_LEN];
                name[..text.len()].copy_from_slice(text.as_bytes());
                let node = tree.entry((parent, name)).or_insert_with(|| {
                    let node = CgroupNode { node: next, ..CgroupNode::default() };
                    next += 1;
                    node
                });
                if names.peek().is_none() {
                    node.rules.insert(index);
                }
                parent = node.node;
            }
        }
    }
    Ok(tree.into_iter().map(|((node, name), child)| (CgroupKey { generation, node, name }, child)).collect())
}

/// Two generations are in the maps for a moment, so each has half the room.
fn fits(compiled: &Compiled) -> Result<(), CompileError> {
    let needs = [
        ("PR_EXE", compiled.exe.len()),
        ("PR_USER", compiled.user.len()),
        ("PR_GROUP", compiled.group.len()),
        ("PR_CGROUP", compiled.cgroup.len()),
        ("PR_DEST", compiled.destination.len()),
        ("PR_PORT", compiled.port.len()),
    ];
    for (table, needed) in needs {
        let room = MAPS.iter().find(|map| map.name == table).map_or(0, |map| map.entries as usize / 2);
        if needed > room {
            return Err(CompileError::Table { table, needed, room });
        }
    }
    Ok(())
}

impl Compiled {
    /// Whether a port is guarded.
    #[must_use]
    pub fn guards(&self, port: u16) -> bool {
        self.ports[usize::from(port >> 6)] >> (port & 63) & 1 == 1
    }

    /// The guarded ports.
    #[must_use]
    pub fn guarded_ports(&self) -> Vec<u16> {
        (0..=u16::MAX).filter(|port| self.guards(*port)).collect()
    }
}

fn find<K: PartialEq, V: Copy>(table: &[(K, V)], key: &K) -> Option<V> {
    table.iter().find(|(known, _)| known == key).map(|(_, value)| *value)
}

impl Tables for Compiled {
    fn header(&self) -> Option<&PolicyHeader> {
        (self.header.generation != 0).then_some(&self.header)
    }

    fn exe(&self, key: &ExeKey) -> Option<RuleSet> {
        find(&self.exe, key)
    }

    fn user(&self, key: &IdKey) -> Option<RuleSet> {
        find(&self.user, key)
    }

    fn group(&self, key: &IdKey) -> Option<RuleSet> {
        find(&self.group, key)
    }

    fn cgroup(&self, key: &CgroupKey) -> Option<CgroupNode> {
        find(&self.cgroup, key)
    }

    fn destination(&self, key: &DestKey) -> Option<RuleSet> {
        let bits = |address: &[u8; 16]| u128::from_be_bytes(*address);
        self.destination
            .iter()
            .filter(|(length, known, _)| {
                let shift = 160 - length;
                known.generation == key.generation
                    && bits(&known.address).checked_shr(shift) == bits(&key.address).checked_shr(shift)
            })
            .max_by_key(|(length, ..)| *length)
            .map(|(.., set)| *set)
    }

    fn port(&self, key: &PortKey) -> Option<RuleSet> {
        find(&self.port, key)
    }
}
