//! Whom a policy allows at all, wherever to.

use portreeve_abi::{Dimension, RuleSet};
use portreeve_decide::{CgroupNames, Flow, Identity, Tables as _, satisfied};

use super::Compiled;

/// What a rule says of who, not of where to.
const WHO: [Dimension; 4] = [Dimension::Exe, Dimension::User, Dimension::Group, Dimension::Cgroup];

impl Compiled {
    /// Whether a rule allows such a process something, tainted or not, at this moment of CLOCK_BOOTTIME. Rules that only
    /// observe, or let a program have raw senders, do not count.
    #[must_use]
    pub fn sanctions(&self, identity: &Identity, cgroups: &impl CgroupNames, now: u64) -> bool {
        let Some(header) = self.header() else { return false };
        let ended = header.expiry.iter().filter(|group| group.deadline != 0 && group.deadline <= now);
        let not = ended.fold(header.audit.or(header.raw_senders), |not, group| not.or(group.rules));
        // Where to is not asked; the flow is of no account in these dimensions.
        let flow = Flow { address: [0; 16], port: 0 };
        let rules = WHO
            .into_iter()
            .map(|dimension| satisfied(self, header, dimension, identity, cgroups, &flow))
            .reduce(RuleSet::and);
        rules.is_some_and(|rules| !rules.without(not).is_empty())
    }
}
