//! Rules that other rules leave nothing to do.

use super::diagnostic::{Diagnostic, Severity, Sources};
use super::resolve::{Named, ResolvedRule};

/// A warning for each rule that never decides, and for each pair that partly says the same.
pub(super) fn findings(sources: &Sources, rules: &[ResolvedRule]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut warn = |rule: &ResolvedRule, what: String, mend: &str| {
        found.push(sources.diagnostic(Severity::Warning, rule.place, what, mend.to_owned()));
    };
    let counting: Vec<(usize, &ResolvedRule)> =
        rules.iter().enumerate().filter(|(_, rule)| rule.problem.is_none()).collect();
    for (index, rule) in &counting {
        // Rules for raw senders and rules for connections are never asked together.
        let others =
            counting.iter().filter(|(_, other)| other.source != rule.source && other.raw_senders == rule.raw_senders);
        if let Some((_, other)) = others.clone().find(|(at, other)| decides_for(*at, other, *index, rule)) {
            let other = named(sources, other);
            let what = format!("the rule \"{}\" never decides: {other} matches all it matches", rule.name);
            warn(rule, what, "take it out, or put it first if it says more");
            continue;
        }
        // A rule for a part, followed by one for the whole, is how exceptions are written.
        let partly = others
            .clone()
            .find(|(at, other)| at < index && other.audit == rule.audit && meets(other, rule) && !covers(rule, other));
        if let Some((_, other)) = partly {
            let other = named(sources, other);
            let what = format!("the rule \"{}\" overlaps {other}, which decides where both match", rule.name);
            warn(rule, what, "nothing has to change; records will name the first of the two");
        }
    }
    found
}

fn named(sources: &Sources, rule: &ResolvedRule) -> String {
    format!("\"{}\" at {}", rule.name, sources.line(rule.place))
}

/// Whether `first`, at index `at`, decides wherever `second`, at index `index`, matches.
fn decides_for(at: usize, first: &ResolvedRule, index: usize, second: &ResolvedRule) -> bool {
    // Rules that allow are asked before those that only observe.
    let asked_before = match (first.audit, second.audit) {
        (false, true) => true,
        (true, false) => false,
        (false, false) | (true, true) => at < index,
    };
    let lasts = first.expires.is_none_or(|end| second.expires.is_some_and(|other| other <= end));
    asked_before && lasts && covers(first, second)
}

/// Whether `wide` matches everything that `narrow` matches.
fn covers(wide: &ResolvedRule, narrow: &ResolvedRule) -> bool {
    each(&wide.exe, &narrow.exe, |a, b| a.path == b.path)
        && each(&wide.user, &narrow.user, same)
        && each(&wide.group, &narrow.group, same)
        && each(&wide.cgroup, &narrow.cgroup, |a, b| b.is_within(a))
        && match (&wide.ports, &narrow.ports) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(wide), Some(narrow)) => narrow.is_subset(wide),
        }
        && each(&wide.to, &narrow.to, |a, b| a.contains(b))
}

/// Whether something can match both.
fn meets(a: &ResolvedRule, b: &ResolvedRule) -> bool {
    any(&a.exe, &b.exe, |a, b| a.path == b.path)
        && any(&a.user, &b.user, same)
        && any(&a.group, &b.group, same)
        && any(&a.cgroup, &b.cgroup, |a, b| a.is_within(b) || b.is_within(a))
        && match (&a.ports, &b.ports) {
            (Some(a), Some(b)) => !a.is_disjoint(b),
            (None, _) | (_, None) => true,
        }
        && any(&a.to, &b.to, |a, b| a.contains(b) || b.contains(a))
}

fn same(a: &Named, b: &Named) -> bool {
    a.id == b.id
}

fn each<T>(wide: &Option<Vec<T>>, narrow: &Option<Vec<T>>, covers: impl Fn(&T, &T) -> bool) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => narrow.iter().all(|b| wide.iter().any(|a| covers(a, b))),
    }
}

fn any<T>(a: &Option<Vec<T>>, b: &Option<Vec<T>>, meets: impl Fn(&T, &T) -> bool) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.iter().any(|a| b.iter().any(|b| meets(a, b))),
        (None, _) | (_, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(source: usize, user: Option<u32>, to: Option<&str>, audit: bool) -> ResolvedRule {
        ResolvedRule {
            name: source.to_string(),
            source,
            user: user.map(|id| vec![Named { id, name: id.to_string() }]),
            to: to.map(|network| vec![network.parse().unwrap()]),
            audit,
            ..ResolvedRule::default()
        }
    }

    fn whats(rules: &[ResolvedRule]) -> Vec<String> {
        findings(&Sources::default(), rules).into_iter().map(|found| found.what).collect()
    }

    #[test]
    fn a_rule_behind_a_wider_one_never_decides() {
        let found = whats(&[rule(0, Some(1), None, false), rule(1, Some(1), Some("10.0.0.0/8"), false)]);
        assert!(found.len() == 1 && found[0].starts_with("the rule \"1\" never decides: \"0\""), "{found:?}");
        assert_eq!(whats(&[rule(0, Some(1), Some("10.0.0.0/8"), false), rule(1, Some(1), None, false)]), [""; 0]);
        assert_eq!(whats(&[rule(0, Some(1), None, false), rule(1, Some(2), None, false)]), [""; 0]);
    }

    #[test]
    fn a_rule_that_only_observes_decides_nothing_an_allowing_one_matches() {
        let found = whats(&[rule(0, Some(1), Some("10.0.0.0/8"), true), rule(1, Some(1), None, false)]);
        assert!(found.len() == 1 && found[0].starts_with("the rule \"0\" never decides"), "{found:?}");
        assert_eq!(whats(&[rule(0, Some(1), None, true), rule(1, Some(1), None, false)]).len(), 1);
        assert_eq!(whats(&[rule(0, None, None, true), rule(1, Some(1), None, false)]), [""; 0]);
    }

    #[test]
    fn a_rule_that_ends_leaves_the_rest_to_the_one_behind_it() {
        let mut first = rule(0, Some(1), None, false);
        first.expires = Some("2030-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(whats(&[first.clone(), rule(1, Some(1), None, false)]), [""; 0]);
        let mut second = rule(1, Some(1), None, false);
        second.expires = Some("2029-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(whats(&[first, second]).len(), 1);
    }

    #[test]
    fn rules_that_partly_say_the_same_overlap() {
        let found = whats(&[rule(0, None, Some("10.0.0.0/8"), false), rule(1, Some(1), None, false)]);
        assert!(found.len() == 1 && found[0].contains("overlaps"), "{found:?}");
        assert_eq!(whats(&[rule(0, None, Some("0.0.0.0/0"), false), rule(1, Some(1), Some("::/0"), false)]), [""; 0]);
    }
}
