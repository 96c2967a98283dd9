//! The table of destinations: the longest prefix that covers an address, with the rules of the shorter ones in it.

use std::collections::BTreeMap;

use ipnet::IpNet;
use portreeve_abi::{DestKey, RuleSet};

use super::super::network::{ALL_IPV4, table_form, truncated};
use super::super::resolve::ResolvedRule;

/// A prefix length of the table counts the generation as well.
pub(super) const GENERATION_BITS: u32 = 32;

/// Entries, and the rules that leave the destination open.
pub(super) fn table(generation: u32, rules: &[(usize, &ResolvedRule)]) -> (Vec<(u32, DestKey, RuleSet)>, RuleSet) {
    prefixes(generation, rules.iter().map(|(index, rule)| (*index, rule.to.clone())))
}

/// The rules of the longest prefix that covers an address.
pub(super) fn longest(entries: &[(u32, DestKey, RuleSet)], key: &DestKey) -> Option<RuleSet> {
    let covers = |bits: u32, found: &DestKey| {
        let length = u8::try_from(bits - GENERATION_BITS).unwrap_or(u8::MAX);
        found.generation == key.generation && truncated(key.address, length) == found.address
    };
    let covering = entries.iter().filter(|(bits, found, _)| covers(*bits, found));
    covering.max_by_key(|(bits, _, _)| *bits).map(|(_, _, rules)| *rules)
}

/// Entries of rules with the networks they name, and the rules that name none.
pub(super) fn prefixes(
    generation: u32,
    rules: impl Iterator<Item = (usize, Option<Vec<IpNet>>)>,
) -> (Vec<(u32, DestKey, RuleSet)>, RuleSet) {
    let mut open = RuleSet::EMPTY;
    // By family, because an IPv6 network never means the IPv4 addresses that lie in it in the table's form.
    let (mut v4, mut v6) = (BTreeMap::<(u8, [u8; 16]), RuleSet>::new(), BTreeMap::<(u8, [u8; 16]), RuleSet>::new());
    for (index, networks) in rules {
        let Some(networks) = networks else {
            open.insert(index);
            continue;
        };
        for network in networks {
            let network = super::super::network::normal(network);
            let (address, length) = table_form(&network);
            let family = if matches!(network, IpNet::V4(_)) { &mut v4 } else { &mut v6 };
            family.entry((length, address)).or_default().insert(index);
        }
    }
    let (all_v4, v4_bits) = ALL_IPV4;
    if v6.keys().any(|(length, address)| *length < v4_bits && truncated(all_v4, *length) == *address) {
        v4.entry((v4_bits, all_v4)).or_default();
    }
    let mut entries = Vec::with_capacity(v4.len() + v6.len());
    for (family, shortest) in [(&v4, v4_bits), (&v6, 0)] {
        for (length, address) in family.keys() {
            let covering = (shortest..=*length).filter_map(|short| family.get(&(short, truncated(*address, short))));
            let rules = covering.fold(open, |all, rules| all.or(*rules));
            let key = DestKey { generation: generation.to_ne_bytes(), address: *address };
            entries.push((GENERATION_BITS + u32::from(*length), key, rules));
        }
    }
    (entries, open)
}
