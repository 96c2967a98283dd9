//! The kernel's verdict over compiled tables, against a matcher written straight from what a rule means.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use nix::errno::Errno;
use portreeve_abi::{CGROUP_NAME_LEN, ExeId, RULE_LOCAL, RULE_NONE, Reason, Verdict};
use portreeve_decide::{CgroupNames, Decision, Flow, Identity, judge};
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use super::super::{
    CgroupPath, CompileError, Compiled, ExeFile, Guard, Mode, Named, Policy, Refusal, Resolved, ResolvedRule, compile,
};
use crate::clock::Clock;

const GENERATION: u32 = 5;
const BOOT: u64 = 77_000_000_000;
const WALL: Timestamp = Timestamp::constant(1_900_000_000, 0);

const CGROUPS: [&str; 10] = [
    "/system.slice",
    "/system.slice/a.service",
    "/system.slice/a.service/worker",
    "/system.slice/b.service",
    "/user.slice",
    "/user.slice/user-1.slice",
    "/user.slice/user-1.slice/x.scope",
    // The same names on other levels.
    "/user.slice/a.service",
    "/a.service",
    "/user-1.slice",
];
const NETWORKS: [&str; 17] = [
    "0.0.0.0/0",
    "0.0.0.0/1",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "127.0.0.0/8",
    "192.0.2.25/32",
    "::/0",
    // Shorter prefixes of which the mapped IPv4 addresses are, bit by bit, a part.
    "::/1",
    "::/64",
    "::fffe:0:0/95",
    "8000::/1",
    "2001:db8::/32",
    "2001:db8:1::/48",
    "2001:db8:1::25/128",
    "::1/128",
];
const ADDRESSES: [&str; 18] = [
    "10.1.2.3",
    "10.1.2.4",
    "10.1.3.3",
    "10.2.0.1",
    "11.0.0.1",
    "192.0.2.25",
    "203.0.113.1",
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "::",
    "::1",
    "::2",
    "::fffe:10.1.2.3",
    "2001:db8::1",
    "2001:db8:1::25",
    "2001:db8:1::26",
    "fe80::1",
];
/// Seconds from when the tables are made. Fewer than the kernel has expiry groups, so that every end is exact.
const ENDS: [i64; 7] = [-1000, -1, 0, 1, 10, 20, 1_000_000_000];

/// What one rule means.
#[derive(Clone, Debug, Default)]
struct Meaning {
    exe: Option<Vec<u64>>,
    user: Option<Vec<u32>>,
    group: Option<Vec<u32>>,
    cgroup: Option<Vec<&'static str>>,
    to: Option<Vec<&'static str>>,
    ports: Option<Vec<u16>>,
    ends: Option<i64>,
    audit: bool,
}

impl Meaning {
    fn resolved(&self) -> ResolvedRule {
        ResolvedRule {
            exe: each(&self.exe, |exe| exe_file(Some(exe_id(*exe)))),
            user: each(&self.user, |id| named(*id)),
            group: each(&self.group, |id| named(*id)),
            cgroup: each(&self.cgroup, |path| CgroupPath::parse(path).unwrap()),
            to: each(&self.to, |network| network.parse().unwrap()),
            ports: self.ports.as_ref().map(|ports| ports.iter().copied().collect()),
            expires: self.ends.map(later),
            audit: self.audit,
            ..ResolvedRule::default()
        }
    }

    /// The rule that leaves nothing open and names what this attempt is.
    fn just(attempt: &Attempt, guarded: &str, ends: Option<i64>, audit: bool) -> Self {
        let below = attempt.cgroup.strip_prefix(guarded.trim_end_matches('/')).filter(|below| below.starts_with('/'));
        Self {
            exe: Some(vec![attempt.exe]),
            user: Some(vec![attempt.user]),
            group: Some(vec![attempt.group]),
            cgroup: Some(below.into_iter().collect()),
            to: Some(vec!["0.0.0.0/0", "::/0"]),
            ports: Some(vec![attempt.port]),
            ends,
            audit,
        }
    }

    fn matches(&self, guarded: &str, attempt: &Attempt) -> bool {
        let beneath = |path: &&str| {
            let whole = format!("{}{}", guarded.trim_end_matches('/'), path.trim_end_matches('/'));
            let rest = attempt.cgroup.strip_prefix(&whole);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let inside = |network: &&str| network.parse::<IpNet>().unwrap().contains(&attempt.address());
        one(&self.exe, |exe| *exe == attempt.exe)
            && one(&self.user, |user| *user == attempt.user)
            && one(&self.group, |group| *group == attempt.group)
            && one(&self.cgroup, beneath)
            && one(&self.to, inside)
            && one(&self.ports, |port| *port == attempt.port)
            && self.ends.is_none_or(|end| end > attempt.after)
    }
}

/// A list that was not given asks for nothing.
fn one<T>(list: &Option<Vec<T>>, holds: impl Fn(&T) -> bool) -> bool {
    list.as_ref().is_none_or(|list| list.iter().any(holds))
}

fn each<T, U>(list: &Option<Vec<T>>, made: impl Fn(&T) -> U) -> Option<Vec<U>> {
    Some(list.as_ref()?.iter().map(made).collect())
}

fn named(id: u32) -> Named {
    Named { id, name: id.to_string() }
}

fn exe_file(id: Option<ExeId>) -> ExeFile {
    ExeFile { path: "/x".into(), id, set_user: None, weaknesses: vec![] }
}

/// Ids that differ in one field each, so that a comparison that leaves one out is found.
fn exe_id(number: u64) -> ExeId {
    let base = ExeId { ino: 7, ctime_sec: 7, ctime_nsec: 7, dev: 7, generation: 7, _pad: 0 };
    match number {
        0 => base,
        1 => ExeId { ino: 8, ..base },
        2 => ExeId { ctime_sec: 8, ..base },
        3 => ExeId { ctime_nsec: 8, ..base },
        4 => ExeId { dev: 8, ..base },
        _ => ExeId { generation: 8, ..base },
    }
}

fn later(seconds: i64) -> Timestamp {
    WALL + SignedDuration::from_secs(seconds)
}

#[derive(Clone, Debug)]
struct Attempt {
    exe: u64,
    user: u32,
    group: u32,
    cgroup: &'static str,
    to: &'static str,
    port: u16,
    taint: u32,
    nobody: bool,
    after: i64,
}

impl Default for Attempt {
    fn default() -> Self {
        Self { exe: 0, user: 0, group: 0, cgroup: "/", to: "10.1.2.3", port: 25, taint: 0, nobody: false, after: 0 }
    }
}

impl Attempt {
    fn address(&self) -> IpAddr {
        self.to.parse().unwrap()
    }

    fn judge(&self, compiled: &Compiled) -> Decision {
        let address = match self.address() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let identity = Identity { exe: exe_id(self.exe), euid: self.user, egid: self.group, taint: self.taint };
        let identity = if self.nobody { Err(Reason::NoProcess) } else { Ok(&identity) };
        let now = BOOT + self.after as u64 * 1_000_000_000;
        judge(compiled, identity, &Names(self.cgroup), &Flow { address, port: self.port }, now)
    }
}

/// A cgroup path as the kernel sees it, name by name.
pub(super) struct Names(pub(super) &'static str);

impl CgroupNames for Names {
    fn name(&self, level: u32, name: &mut [u8; CGROUP_NAME_LEN]) -> bool {
        let mut names = self.0.split('/').filter(|name| !name.is_empty());
        let Some(text) = names.nth(level as usize - 1) else { return false };
        name.fill(0);
        name[..text.len()].copy_from_slice(text.as_bytes());
        true
    }
}

#[derive(Clone, Debug)]
struct Settings {
    guarded: &'static str,
    observe: bool,
    local_submission: bool,
    refuse_tainted: bool,
}

impl Settings {
    fn policy(&self) -> Policy {
        let guard = Guard {
            mode: if self.observe { Mode::Observe } else { Mode::Enforce },
            refuse_with: Refusal::Eacces,
            local_submission: self.local_submission,
            refuse_tainted: self.refuse_tainted,
            cgroup: self.guarded.to_owned(),
            ..Guard::default()
        };
        Policy { guard, ..Policy::default() }
    }
}

const STRICT: Settings = Settings { guarded: "/", observe: false, local_submission: false, refuse_tainted: false };

fn compiled(settings: &Settings, rules: &[Meaning], generation: u32) -> Result<Compiled, CompileError> {
    let resolved = Resolved { rules: rules.iter().map(Meaning::resolved).collect(), diagnostics: vec![] };
    compile(&settings.policy(), &resolved, generation, Clock { boot: BOOT, wall: WALL })
}

/// What the policy's reference says, sentence by sentence.
fn expected(settings: &Settings, rules: &[Meaning], attempt: &Attempt) -> (Verdict, Reason, u32) {
    let local = attempt.address().is_loopback() || attempt.address().is_unspecified();
    if settings.local_submission && local {
        return (Verdict::Local, Reason::Local, RULE_LOCAL);
    }
    let refused = if settings.observe { Verdict::Observe } else { Verdict::Deny };
    if attempt.nobody {
        return (refused, Reason::NoProcess, RULE_NONE);
    }
    let first = |audit| rules.iter().position(|rule| rule.audit == audit && rule.matches(settings.guarded, attempt));
    match (first(false), first(true)) {
        (Some(rule), _) if settings.refuse_tainted && attempt.taint != 0 => (refused, Reason::Tainted, rule as u32),
        (Some(rule), _) => (Verdict::Allow, Reason::Rule, rule as u32),
        (None, Some(rule)) => (Verdict::Observe, Reason::AuditRule, rule as u32),
        (None, None) => (refused, Reason::NoRule, RULE_NONE),
    }
}

/// Open, or some of a pool; now and then the empty list that is left when nothing a rule names is there.
fn some<T: Clone + std::fmt::Debug + 'static>(pool: &[T], open: u32) -> impl Strategy<Value = Option<Vec<T>>> + use<T> {
    let most = pool.len().min(5);
    prop_oneof![
        open => Just(None),
        12 => subsequence(pool.to_vec(), 1..=most).prop_map(Some),
        1 => Just(Some(Vec::new())),
    ]
}

fn meanings() -> impl Strategy<Value = Meaning> {
    let who = (some(&[0, 1, 2, 3, 4, 5], 8), some(&[0, 1, 2], 12), some(&[0, 1, 2], 20), some(&CGROUPS, 16));
    let end = prop_oneof![3 => Just(None), 2 => select(&ENDS[..]).prop_map(Some)];
    (who, some(&NETWORKS, 10), some(&[25, 465, 587], 20), end, proptest::bool::weighted(0.3)).prop_map(
        |((exe, user, group, cgroup), to, ports, ends, audit)| Meaning {
            exe,
            user,
            group,
            cgroup,
            to,
            ports,
            ends,
            audit,
        },
    )
}

fn attempts() -> impl Strategy<Value = Attempt> {
    let mut cgroups = CGROUPS.to_vec();
    cgroups.extend([
        "/",
        "/system.slice/a.servic",
        "/system.slice/a.service2",
        "/system.slice/b.service/a.service/x/y",
    ]);
    let who = (0_u64..6, 0_u32..4, 0_u32..4, select(cgroups), proptest::bool::weighted(0.05));
    let taint = prop_oneof![2 => Just(0), 1 => 1_u32..16];
    (who, select(&ADDRESSES[..]), select(&[25, 465, 587, 2525][..]), taint, select(&[0, 1, 5, 10, 30][..])).prop_map(
        |((exe, user, group, cgroup, nobody), to, port, taint, after)| Attempt {
            exe,
            user,
            group,
            cgroup,
            to,
            port,
            taint,
            nobody,
            after,
        },
    )
}

fn settings() -> impl Strategy<Value = Settings> {
    let flag = proptest::bool::ANY;
    let guarded = select(&["/", "/user.slice"][..]);
    (guarded, flag, flag, flag).prop_map(|(guarded, observe, local_submission, refuse_tainted)| Settings {
        guarded,
        observe,
        local_submission,
        refuse_tainted,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tables_decide_what_the_rules_mean(
        settings in settings(),
        rules in proptest::collection::vec(meanings(), 0..40),
        attempts in proptest::collection::vec(attempts(), 32),
        narrow in proptest::collection::vec((any::<Index>(), 0..32_usize), 0..4),
    ) {
        let mut rules = rules;
        // By chance few rules name everything and still match.
        for (rule, attempt) in narrow.iter().filter(|_| !rules.is_empty()).collect::<Vec<_>>() {
            let rule = rule.get_mut(&mut rules);
            *rule = Meaning::just(&attempts[*attempt], settings.guarded, rule.ends, rule.audit);
        }
        let compiled = compiled(&settings, &rules, GENERATION).unwrap();
        for attempt in attempts {
            let decision = attempt.judge(&compiled);
            let found = (decision.verdict, decision.reason, decision.rule);
            prop_assert_eq!(found, expected(&settings, &rules, &attempt), "{:?}", attempt);
            prop_assert_eq!((decision.generation, decision.errno), (GENERATION, Errno::EACCES as u32));
            prop_assert_eq!(decision.passes(), decision.verdict != Verdict::Deny);
        }
    }

    #[test]
    fn nothing_passes_without_a_header_the_agent_wrote(
        settings in settings(),
        rules in proptest::collection::vec(meanings(), 0..10),
        attempts in proptest::collection::vec(attempts(), 8),
        mode in prop_oneof![Just(0_u32), 3_u32..],
    ) {
        let none = compiled(&settings, &rules, 0).unwrap();
        let mut broken = compiled(&settings, &rules, GENERATION).unwrap();
        broken.header.mode = mode;
        for attempt in attempts {
            for tables in [&none, &broken, &Compiled::default()] {
                let decision = attempt.judge(tables);
                prop_assert_eq!((decision.verdict, decision.reason), (Verdict::Deny, Reason::NoPolicy));
                prop_assert!(!decision.passes());
            }
        }
    }
}

/// The verdict of a single rule on the default attempt.
fn alone(rule: Meaning) -> Verdict {
    Attempt::default().judge(&compiled(&STRICT, &[rule], GENERATION).unwrap()).verdict
}

#[test]
fn a_list_of_which_nothing_is_there_matches_nothing() {
    assert_eq!(alone(Meaning::default()), Verdict::Allow);
    let none = Meaning::default;
    for rule in [
        Meaning { exe: Some(vec![]), ..none() },
        Meaning { user: Some(vec![]), ..none() },
        Meaning { group: Some(vec![]), ..none() },
        Meaning { cgroup: Some(vec![]), ..none() },
        Meaning { to: Some(vec![]), ..none() },
        Meaning { ports: Some(vec![]), ..none() },
    ] {
        assert_eq!(alone(rule.clone()), Verdict::Deny, "{rule:?}");
    }
}

#[test]
fn an_executable_the_kernel_has_no_name_for_and_a_rule_with_a_problem_match_nothing() {
    let unnamed = ResolvedRule { exe: Some(vec![exe_file(None)]), ..ResolvedRule::default() };
    let broken = ResolvedRule { problem: Some("gone".to_owned()), ..Meaning::default().resolved() };
    for rule in [unnamed, broken] {
        let resolved = Resolved { rules: vec![rule], diagnostics: vec![] };
        let compiled = compile(&STRICT.policy(), &resolved, GENERATION, Clock { boot: BOOT, wall: WALL }).unwrap();
        assert_eq!(Attempt::default().judge(&compiled).reason, Reason::NoRule);
    }
}

#[test]
fn a_rule_that_has_ended_matches_nothing_even_if_it_leaves_nothing_open() {
    let whole = Meaning {
        exe: Some(vec![0]),
        user: Some(vec![0]),
        group: Some(vec![0]),
        cgroup: Some(vec!["/system.slice"]),
        to: Some(vec!["10.0.0.0/8"]),
        ports: Some(vec![25]),
        ends: None,
        audit: false,
    };
    let attempt = Attempt { cgroup: "/system.slice/a.service", ..Attempt::default() };
    for (ends, verdict) in
        [(None, Verdict::Allow), (Some(1), Verdict::Allow), (Some(0), Verdict::Deny), (Some(-1), Verdict::Deny)]
    {
        let compiled = compiled(&STRICT, &[Meaning { ends, ..whole.clone() }], GENERATION).unwrap();
        assert_eq!(attempt.judge(&compiled).verdict, verdict, "{ends:?}");
    }
}

#[test]
fn with_more_ends_than_the_kernel_tells_apart_no_rule_lasts_longer_than_it_says() {
    let rules: Vec<Meaning> =
        (1..=30).map(|end| Meaning { user: Some(vec![end as u32]), ends: Some(end), ..Meaning::default() }).collect();
    let compiled = compiled(&STRICT, &rules, GENERATION).unwrap();
    assert_eq!(compiled.next_expiry, Some(later(1)));
    for user in 1..=30 {
        for after in 0..=31 {
            let passes = Attempt { user, after, ..Attempt::default() }.judge(&compiled).passes();
            assert!(!passes || after < i64::from(user), "user {user} after {after} s");
            assert!(passes || after >= 1, "before the next renewal every rule holds: {user}");
        }
    }
}

#[test]
fn more_rules_than_a_set_has_bits_are_refused_and_the_last_one_counts() {
    let last = |count: u32| {
        (0..count).map(|user| Meaning { user: Some(vec![user]), ..Meaning::default() }).collect::<Vec<_>>()
    };
    let full = compiled(&STRICT, &last(256), GENERATION).unwrap();
    let decision = Attempt { user: 255, ..Attempt::default() }.judge(&full);
    assert_eq!((decision.verdict, decision.rule), (Verdict::Allow, 255));
    let error = compiled(&STRICT, &last(257), GENERATION).unwrap_err();
    assert_eq!(error, CompileError::TooManyRules { rules: 257 });
}

#[test]
fn more_destinations_than_half_the_table_are_refused() {
    let networks = |count: u32| (0..count).map(|n| IpNet::from(IpAddr::from(n.to_be_bytes()))).collect::<Vec<_>>();
    let try_with = |count| {
        let rule = ResolvedRule { to: Some(networks(count)), ..ResolvedRule::default() };
        let resolved = Resolved { rules: vec![rule], diagnostics: vec![] };
        compile(&STRICT.policy(), &resolved, GENERATION, Clock { boot: BOOT, wall: WALL })
    };
    assert!(try_with(16_384).is_ok());
    let error = try_with(16_385).unwrap_err();
    assert_eq!(error, CompileError::TableFull { what: "destinations", wanted: 16_385, limit: 16_384 });
}
