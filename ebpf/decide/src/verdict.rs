//! From tables, a process and a destination to a verdict.

use portreeve_abi::{
    CGROUP_DEPTH, CGROUP_NAME_LEN, CgroupKey, CgroupNode, DestKey, Dimension, ExeId, ExeKey, FLAG_FORWARDED,
    FLAG_LOCAL_SUBMISSION, FLAG_REFUSE_TAINTED, IdKey, MODE_ENFORCE, MODE_OBSERVE, PolicyHeader, PortKey, RULE_LOCAL,
    RULE_NONE, Reason, RuleSet, Verdict,
};

use crate::is_local;

/// A compiled policy, of one generation, that can be asked.
pub trait Tables {
    /// The header; `None` when no policy is in force.
    fn header(&self) -> Option<&PolicyHeader>;
    /// The rules that name this executable, and those that leave it open.
    fn exe(&self, key: &ExeKey) -> Option<RuleSet>;
    /// The rules that name this user, and those that leave it open.
    fn user(&self, key: &IdKey) -> Option<RuleSet>;
    /// The rules that name this group, and those that leave it open.
    fn group(&self, key: &IdKey) -> Option<RuleSet>;
    /// The child of a node of the cgroup tree.
    fn cgroup(&self, key: &CgroupKey) -> Option<CgroupNode>;
    /// The rules of the longest prefix that covers the address, those of shorter prefixes included.
    fn destination(&self, key: &DestKey) -> Option<RuleSet>;
    /// The rules that name this port, and those that leave it open.
    fn port(&self, key: &PortKey) -> Option<RuleSet>;
}

/// The names of the cgroups a process is in.
pub trait CgroupNames {
    /// Writes the name of the process's cgroup at `level` (1 is a child of the root), NUL-terminated and the rest
    /// zero; false when the process is not that deep or the name cannot be read or is too long.
    fn name(&self, level: u32, name: &mut [u8; CGROUP_NAME_LEN]) -> bool;
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The executable.
    pub exe: ExeId,
    /// The effective user as the host's user namespace numbers it.
    pub euid: u32,
    /// The effective group, likewise.
    pub egid: u32,
    /// [`portreeve_abi::Taint`] bits.
    pub taint: u32,
}

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The destination, IPv4 in its mapped form.
    pub address: [u8; 16],
    /// The destination port, host order.
    pub port: u16,
}

/// A verdict and what it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The rule that decided, [`RULE_NONE`] or [`RULE_LOCAL`].
    pub rule: u32,
    /// The policy's generation, 0 without one.
    pub generation: u32,
    /// The errno a refused caller gets, positive; 0 leaves it to the kernel (EPERM).
    pub errno: u32,
}

impl Decision {
    /// Whether the attempt may go on.
    #[must_use]
    #[inline(always)]
    pub fn passes(&self) -> bool {
        // The closed form: whatever is not one of the three is refused.
        matches!(self.verdict, Verdict::Allow | Verdict::Observe | Verdict::Local)
    }
}

/// The verdict for an attempt to a guarded port.
///
/// The error of `identity` says why nobody could be found behind the attempt. `now` is CLOCK_BOOTTIME in nanoseconds.
#[inline(always)]
pub fn judge<T: Tables, C: CgroupNames>(
    tables: &T,
    identity: Result<&Identity, Reason>,
    cgroups: &C,
    flow: &Flow,
    now: u64,
) -> Decision {
    let Some(header) = tables.header() else {
        return Decision { verdict: Verdict::Deny, reason: Reason::NoPolicy, rule: RULE_NONE, generation: 0, errno: 0 };
    };
    if header.flags & FLAG_LOCAL_SUBMISSION != 0 && is_local(&flow.address) {
        return decision(header, Verdict::Local, Reason::Local, RULE_LOCAL);
    }
    let identity = match identity {
        Ok(identity) => identity,
        Err(reason) => return refused(header, reason, RULE_NONE),
    };
    let rules = matched(tables, header, identity, cgroups, flow, now).without(header.raw_senders);
    if let Some(rule) = rules.without(header.audit).lowest() {
        if header.flags & FLAG_REFUSE_TAINTED != 0 && identity.taint != 0 {
            return refused(header, Reason::Tainted, rule);
        }
        return decision(header, Verdict::Allow, Reason::Rule, rule);
    }
    match rules.lowest() {
        Some(rule) => decision(header, Verdict::Observe, Reason::AuditRule, rule),
        None => refused(header, Reason::NoRule, RULE_NONE),
    }
}

/// Whether a connection that is allowed is to be brought to the relay: the header with the relay's addresses then.
#[must_use]
#[inline(always)]
pub fn relayed<'t, T: Tables>(tables: &'t T, decision: &Decision) -> Option<&'t PolicyHeader> {
    let header = tables.header()?;
    let allowed = matches!((decision.verdict, decision.reason), (Verdict::Allow, Reason::Rule));
    (allowed && !header.relayed.and(RuleSet::of(decision.rule)).is_empty()).then_some(header)
}

/// Who sends a packet that has no verdict of `connect()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A socket of this host.
    Socket,
    /// No socket of this host: forwarded, bridged or injected.
    Nobody,
}

/// The verdict for a segment to a guarded port, or what might be one (`clear` is false), that no `connect()` vouches
/// for.
///
/// What passes: mail for this host's own loopback by its loopback device (`on_loopback`), where the policy exempts it;
/// frames of nobody, where the policy lets them pass; and everything in observe mode, on record.
#[inline(always)]
pub fn judge_packet<T: Tables>(
    tables: &T,
    sender: Sender,
    clear: bool,
    on_loopback: bool,
    destination: &[u8; 16],
) -> Decision {
    let Some(header) = tables.header() else {
        return Decision { verdict: Verdict::Deny, reason: Reason::NoPolicy, rule: RULE_NONE, generation: 0, errno: 0 };
    };
    if clear && on_loopback && header.flags & FLAG_LOCAL_SUBMISSION != 0 && is_local(destination) {
        return decision(header, Verdict::Local, Reason::Local, RULE_LOCAL);
    }
    match (sender, clear) {
        (Sender::Nobody, _) if header.flags & FLAG_FORWARDED != 0 => {
            decision(header, Verdict::Allow, Reason::Forwarded, RULE_NONE)
        }
        (_, false) => refused(header, Reason::Unclear, RULE_NONE),
        (Sender::Nobody, true) => refused(header, Reason::Forwarded, RULE_NONE),
        (Sender::Socket, true) => refused(header, Reason::NoVerdict, RULE_NONE),
    }
}

/// The verdict for a program that asks for a way of sending which passes every packet hook.
#[inline(always)]
pub fn judge_raw_sender<T: Tables, C: CgroupNames>(
    tables: &T,
    identity: Result<&Identity, Reason>,
    cgroups: &C,
    now: u64,
) -> Decision {
    let Some(header) = tables.header() else {
        return Decision { verdict: Verdict::Deny, reason: Reason::NoPolicy, rule: RULE_NONE, generation: 0, errno: 0 };
    };
    let identity = match identity {
        Ok(identity) => identity,
        Err(reason) => return refused(header, reason, RULE_NONE),
    };
    // Such rules leave destination and port open; any will do.
    let flow = Flow { address: [0; 16], port: 0 };
    let mut rules = satisfied(tables, header, Dimension::Exe, identity, cgroups, &flow).and(header.raw_senders);
    rules = rules.and(satisfied(tables, header, Dimension::User, identity, cgroups, &flow));
    rules = rules.and(satisfied(tables, header, Dimension::Group, identity, cgroups, &flow));
    if !rules.is_empty() {
        rules = rules.and(satisfied(tables, header, Dimension::Cgroup, identity, cgroups, &flow));
    }
    match unexpired(header, rules, now).lowest() {
        Some(rule) if header.flags & FLAG_REFUSE_TAINTED != 0 && identity.taint != 0 => {
            refused(header, Reason::Tainted, rule)
        }
        Some(rule) => decision(header, Verdict::Allow, Reason::Rule, rule),
        None => refused(header, Reason::RawSender, RULE_NONE),
    }
}

/// The rules that match in every dimension and have not ended.
#[inline(always)]
pub fn matched<T: Tables, C: CgroupNames>(
    tables: &T,
    header: &PolicyHeader,
    identity: &Identity,
    cgroups: &C,
    flow: &Flow,
    now: u64,
) -> RuleSet {
    let mut rules = satisfied(tables, header, Dimension::Exe, identity, cgroups, flow);
    rules = rules.and(satisfied(tables, header, Dimension::User, identity, cgroups, flow));
    rules = rules.and(satisfied(tables, header, Dimension::Group, identity, cgroups, flow));
    rules = rules.and(satisfied(tables, header, Dimension::Destination, identity, cgroups, flow));
    rules = rules.and(satisfied(tables, header, Dimension::Port, identity, cgroups, flow));
    // The dearest last, and only when it can still matter.
    if !rules.is_empty() {
        rules = rules.and(satisfied(tables, header, Dimension::Cgroup, identity, cgroups, flow));
    }
    unexpired(header, rules, now)
}

/// Those of the rules that have not ended.
#[inline(always)]
fn unexpired(header: &PolicyHeader, mut rules: RuleSet, now: u64) -> RuleSet {
    for group in &header.expiry {
        if group.deadline != 0 && group.deadline <= now {
            rules = rules.without(group.rules);
        }
    }
    rules
}

/// The rules that match in one dimension.
#[inline(always)]
pub fn satisfied<T: Tables, C: CgroupNames>(
    tables: &T,
    header: &PolicyHeader,
    dimension: Dimension,
    identity: &Identity,
    cgroups: &C,
    flow: &Flow,
) -> RuleSet {
    let generation = header.generation;
    let open = header.wildcard[dimension as usize];
    let found = match dimension {
        Dimension::Exe => tables.exe(&ExeKey { exe: identity.exe, generation, _pad: 0 }),
        Dimension::User => tables.user(&IdKey { generation, id: identity.euid }),
        Dimension::Group => tables.group(&IdKey { generation, id: identity.egid }),
        Dimension::Cgroup => Some(cgroup_rules(tables, generation, cgroups).or(open)),
        Dimension::Destination => {
            tables.destination(&DestKey { generation: generation.to_ne_bytes(), address: flow.address })
        }
        Dimension::Port => tables.port(&PortKey { generation, port: u32::from(flow.port) }),
    };
    found.unwrap_or(open)
}

/// Walks the policy's tree of cgroup names from the root down, as far as the process's own cgroups follow it.
#[inline(always)]
fn cgroup_rules<T: Tables, C: CgroupNames>(tables: &T, generation: u32, cgroups: &C) -> RuleSet {
    let mut rules = RuleSet::EMPTY;
    let mut key = CgroupKey { generation, node: 0, name: [0; CGROUP_NAME_LEN] };
    for level in 1..=CGROUP_DEPTH {
        if !cgroups.name(level, &mut key.name) {
            break;
        }
        let Some(child) = tables.cgroup(&key) else { break };
        rules = rules.or(child.rules);
        key.node = child.node;
    }
    rules
}

/// A refusal, or in observe mode the record of what would have been one.
#[inline(always)]
fn refused(header: &PolicyHeader, reason: Reason, rule: u32) -> Decision {
    let verdict = if header.mode == MODE_OBSERVE { Verdict::Observe } else { Verdict::Deny };
    decision(header, verdict, reason, rule)
}

#[inline(always)]
fn decision(header: &PolicyHeader, verdict: Verdict, reason: Reason, rule: u32) -> Decision {
    // A header in neither mode was never written by the agent.
    let known = header.mode == MODE_ENFORCE || header.mode == MODE_OBSERVE;
    let (verdict, reason) = if known { (verdict, reason) } else { (Verdict::Deny, Reason::NoPolicy) };
    Decision { verdict, reason, rule, generation: header.generation, errno: header.refuse_errno }
}
