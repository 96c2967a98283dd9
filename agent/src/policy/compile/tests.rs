//! The tables against a matcher that is written straight from what a rule means.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use portreeve_abi::{ExeId, RULE_NONE, Reason, Verdict};
use portreeve_decide::{CgroupNames, Decision, Flow, Identity, judge};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

use super::super::{ExeFile, Mode, Named};
use super::*;

const BOOT: u64 = 1_000_000_000_000;

fn wall() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn clock() -> Clock {
    Clock { boot: BOOT, wall: wall() }
}

fn in_seconds(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn exe(ino: u64) -> ExeFile {
    let id = Some(ExeId { ino, ..ExeId::default() });
    ExeFile { path: format!("/exe{ino}").into(), id, set_user: None, weaknesses: Vec::new() }
}

fn named(id: u32) -> Named {
    Named { id, name: id.to_string() }
}

fn cgroup(path: &str) -> CgroupPath {
    CgroupPath::parse(path).unwrap()
}

fn policy(guarded: &str) -> Policy {
    let mut policy = Policy::default();
    policy.guard.cgroup = guarded.to_owned();
    policy.guard.local_submission = false;
    policy
}

fn resolved(rules: Vec<ResolvedRule>) -> Resolved {
    Resolved { rules, diagnostics: Vec::new() }
}

/// A process's cgroup, name by name.
struct Names(Vec<String>);

impl CgroupNames for Names {
    fn name(&self, level: u32, name: &mut [u8; CGROUP_NAME_LEN]) -> bool {
        let Some(text) = self.0.get(level as usize - 1) else { return false };
        *name = [0; CGROUP_NAME_LEN];
        name[..text.len()].copy_from_slice(text.as_bytes());
        true
    }
}

/// One attempt.
#[derive(Clone, Debug)]
struct Asked {
    exe: u64,
    user: u32,
    group: u32,
    cgroup: CgroupPath,
    to: IpAddr,
    port: u16,
    after: i64,
}

fn ask(compiled: &Compiled, asked: &Asked) -> Decision {
    let address = match asked.to {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let exe = ExeId { ino: asked.exe, ..ExeId::default() };
    let identity = Identity { exe, euid: asked.user, egid: asked.group, taint: 0 };
    let names = Names(asked.cgroup.names().to_vec());
    let now = BOOT + asked.after as u64 * 1_000_000_000;
    judge(compiled, Ok(&identity), &names, &Flow { address, port: asked.port }, now)
}

/// Whether a rule matches, as its text says.
fn naive(rule: &ResolvedRule, guarded: &CgroupPath, asked: &Asked) -> bool {
    // An IPv4-mapped IPv6 address is the IPv4 address.
    let to = asked.to.to_canonical();
    rule.problem.is_none()
        && rule.expires.is_none_or(|end| in_seconds(asked.after) < end)
        && rule.exe.as_ref().is_none_or(|list| list.iter().any(|exe| exe.id.is_some_and(|id| id.ino == asked.exe)))
        && rule.user.as_ref().is_none_or(|list| list.iter().any(|user| user.id == asked.user))
        && rule.group.as_ref().is_none_or(|list| list.iter().any(|group| group.id == asked.group))
        && rule
            .cgroup
            .as_ref()
            .is_none_or(|list| list.iter().any(|cgroup| asked.cgroup.is_within(&guarded.join(cgroup))))
        && rule.to.as_ref().is_none_or(|list| list.iter().any(|network| network.contains(&to)))
        && rule.ports.as_ref().is_none_or(|list| list.contains(&asked.port))
}

fn expected(rules: &[ResolvedRule], guarded: &CgroupPath, asked: &Asked) -> (Verdict, u32) {
    let matching = |audit| rules.iter().position(|rule| rule.audit == audit && naive(rule, guarded, asked));
    match (matching(false), matching(true)) {
        (Some(rule), _) => (Verdict::Allow, rule as u32),
        (None, Some(rule)) => (Verdict::Observe, rule as u32),
        (None, None) => (Verdict::Deny, RULE_NONE),
    }
}

fn paths() -> impl Strategy<Value = CgroupPath> {
    select(vec!["/a", "/b", "/a/b", "/a/b/c", "/b/a", "/a/a"]).prop_map(cgroup)
}

/// Few different bits, so that networks and addresses meet often.
fn addresses() -> impl Strategy<Value = IpAddr> {
    let v4 = (select(vec![0_u8, 10, 127, 192]), 0_u8..2, 0_u8..4).prop_map(|(a, b, d)| Ipv4Addr::new(a, b, 0, d));
    let v6 = (select(vec![0_u16, 1, 0x2001, 0x8000]), 0_u16..2, 0_u16..4)
        .prop_map(|(a, b, h)| Ipv6Addr::new(a, b, 0, 0, 0, select_ffff(b), 0, h));
    prop_oneof![
        v4.clone().prop_map(IpAddr::V4),
        v4.prop_map(|v4| IpAddr::V6(v4.to_ipv6_mapped())),
        v6.prop_map(IpAddr::V6),
    ]
}

/// Every other IPv6 address lies just beside the mapped ones.
fn select_ffff(bit: u16) -> u16 {
    if bit == 0 { 0xffff } else { 0xfffe }
}

fn networks() -> impl Strategy<Value = IpNet> {
    let v6_lengths = select(vec![0_u8, 1, 8, 16, 64, 80, 90, 95, 96, 97, 104, 120, 127, 128]);
    (addresses(), v6_lengths).prop_map(|(address, length)| {
        let length = if address.is_ipv4() { length / 4 } else { length };
        IpNet::new(address, length).unwrap().trunc()
    })
}

fn lists<T: std::fmt::Debug + Clone>(one: impl Strategy<Value = T>) -> impl Strategy<Value = Option<Vec<T>>> {
    prop_oneof![2 => Just(None), 3 => vec(one, 1..3).prop_map(Some), 1 => Just(Some(Vec::new()))]
}

fn rules(ends: impl Strategy<Value = Option<i64>>) -> impl Strategy<Value = ResolvedRule> {
    let exes = lists((0_u64..3).prop_map(exe));
    let ports = prop_oneof![Just(None), btree_set(24_u16..27, 1..3).prop_map(Some)];
    let who = (exes, lists((0_u32..3).prop_map(named)), lists((0_u32..3).prop_map(named)), lists(paths()));
    let problem = prop_oneof![9 => Just(None), 1 => Just(Some("gone".to_owned()))];
    (who, lists(networks()), ports, ends, proptest::bool::weighted(0.2), problem).prop_map(
        |((exe, user, group, cgroup), to, ports, expires, audit, problem)| ResolvedRule {
            exe,
            user,
            group,
            cgroup,
            to,
            ports,
            expires: expires.map(in_seconds),
            audit,
            problem,
            ..ResolvedRule::default()
        },
    )
}

fn asked() -> impl Strategy<Value = Asked> {
    let cgroups = prop_oneof![Just(cgroup("/")), paths(), (paths(), paths()).prop_map(|(a, b)| a.join(&b))];
    let ids = (0_u64..4, 0_u32..4, 0_u32..4);
    (ids, cgroups, addresses(), 23_u16..28, 0_i64..10).prop_map(|((exe, user, group), cgroup, to, port, after)| Asked {
        exe,
        user,
        group,
        cgroup,
        to,
        port,
        after,
    })
}

/// Networks that the text could not have: the parser turns mapped ones into IPv4 before this.
fn normal(mut rule: ResolvedRule) -> ResolvedRule {
    let networks = rule.to.take();
    rule.to = networks.map(|list| list.into_iter().map(super::super::network::normal).collect());
    rule
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tables_decide_as_the_rules_say(
        rules in vec(rules(prop_oneof![Just(None), (-2_i64..5).prop_map(Some)]), 0..12),
        guarded in select(vec!["/", "/a", "/a/b"]),
        asked in vec(asked(), 1..20),
    ) {
        let rules: Vec<ResolvedRule> = rules.into_iter().map(normal).collect();
        let compiled = compile(&policy(guarded), &resolved(rules.clone()), 7, clock()).unwrap();
        for asked in asked {
            let decision = ask(&compiled, &asked);
            prop_assert_eq!((decision.verdict, decision.rule), expected(&rules, &cgroup(guarded), &asked), "{:?}", asked);
        }
    }

    #[test]
    fn with_more_ends_than_the_kernel_tells_apart_nothing_lasts_longer_than_it_should(
        rules in vec(rules((1_i64..40).prop_map(Some)), 9..30),
        asked in vec(asked(), 1..20),
        after in 0_i64..45,
    ) {
        let rules: Vec<ResolvedRule> = rules.into_iter().map(normal).collect();
        let compiled = compile(&policy("/"), &resolved(rules.clone()), 7, clock()).unwrap();
        for asked in asked {
            let asked = Asked { after, ..asked };
            let decision = ask(&compiled, &asked);
            let expected = expected(&rules, &cgroup("/"), &asked);
            if compiled.next_expiry.is_none_or(|end| in_seconds(after) < end) {
                prop_assert_eq!((decision.verdict, decision.rule), expected);
            } else if decision.verdict == Verdict::Allow {
                prop_assert_eq!(expected.0, Verdict::Allow);
            }
        }
    }
}

fn anyone(to: &str) -> ResolvedRule {
    ResolvedRule { to: Some(vec![to.parse().unwrap()]), ..ResolvedRule::default() }
}

fn to(address: &str) -> Asked {
    Asked { exe: 0, user: 0, group: 0, cgroup: cgroup("/"), to: address.parse().unwrap(), port: 25, after: 0 }
}

#[test]
fn all_of_ipv6_is_not_ipv4_and_all_of_ipv4_is_not_ipv6() {
    let v6 = compile(&policy("/"), &resolved(vec![anyone("::/0")]), 7, clock()).unwrap();
    assert_eq!(ask(&v6, &to("2001:db8::1")).verdict, Verdict::Allow);
    assert_eq!(ask(&v6, &to("192.0.2.1")).verdict, Verdict::Deny);
    assert_eq!(ask(&v6, &to("::ffff:192.0.2.1")).verdict, Verdict::Deny);
    let v4 = compile(&policy("/"), &resolved(vec![anyone("0.0.0.0/0")]), 7, clock()).unwrap();
    assert_eq!(ask(&v4, &to("2001:db8::1")).verdict, Verdict::Deny);
    assert_eq!(ask(&v4, &to("::ffff:192.0.2.1")).verdict, Verdict::Allow);
    assert_eq!(ask(&v4, &to("192.0.2.1")).verdict, Verdict::Allow);
}

#[test]
fn an_executable_the_kernel_has_not_named_matches_nothing() {
    let file = ExeFile { id: None, ..exe(0) };
    let rule = ResolvedRule { exe: Some(vec![file]), ..ResolvedRule::default() };
    let compiled = compile(&policy("/"), &resolved(vec![rule]), 7, clock()).unwrap();
    assert_eq!(ask(&compiled, &to("192.0.2.1")).verdict, Verdict::Deny);
}

#[test]
fn nothing_is_decided_without_a_policy() {
    let decision = ask(&Compiled::default(), &to("192.0.2.1"));
    assert_eq!((decision.verdict, decision.reason), (Verdict::Deny, Reason::NoPolicy));
}

#[test]
fn the_header_says_what_the_guard_says() {
    let mut policy = policy("/");
    policy.guard.mode = Mode::Observe;
    policy.guard.refuse_tainted = true;
    policy.guard.ports = BTreeSet::from([1, 25, 64, 65_535]);
    let compiled = compile(&policy, &resolved(Vec::new()), 7, clock()).unwrap();
    assert_eq!((compiled.header.refuse_errno, compiled.header.flags), (1, FLAG_REFUSE_TAINTED));
    assert_eq!(compiled.guarded_ports(), [1, 25, 64, 65_535]);
    assert!(compiled.guards(25) && !compiled.guards(26));
    assert_eq!(ask(&compiled, &to("192.0.2.1")).verdict, Verdict::Observe);
}

#[test]
fn what_does_not_fit_is_refused_as_a_whole() {
    let rules = vec![ResolvedRule::default(); MAX_RULES + 1];
    let error = compile(&policy("/"), &resolved(rules), 7, clock()).unwrap_err();
    assert_eq!(error, CompileError::TooManyRules { rules: 257 });
    let rule = ResolvedRule { user: Some((0..4097).map(named).collect()), ..ResolvedRule::default() };
    let error = compile(&policy("/"), &resolved(vec![rule]), 7, clock()).unwrap_err();
    assert_eq!(error, CompileError::TableFull { what: "users", wanted: 4097, limit: 4096 });
    let deep = "/x".repeat(20);
    let rule = ResolvedRule { cgroup: Some(vec![cgroup(&deep)]), ..ResolvedRule::default() };
    let error = compile(&policy(&deep), &resolved(vec![rule]), 7, clock()).unwrap_err();
    assert!(error.to_string().ends_with("is 40 cgroups deep; 32 are compared"), "{error}");
}

#[test]
fn the_end_of_a_rule_is_in_the_kernels_clock() {
    let rule = ResolvedRule { expires: Some(in_seconds(3)), ..ResolvedRule::default() };
    let ended = ResolvedRule { expires: Some(in_seconds(0)), ..ResolvedRule::default() };
    let compiled = compile(&policy("/"), &resolved(vec![ended, rule]), 7, clock()).unwrap();
    assert_eq!(compiled.header.expiry[0].deadline, BOOT + 3_000_000_000);
    assert_eq!(compiled.header.expiry[1], ExpiryGroup::default());
    assert_eq!(compiled.next_expiry, Some(in_seconds(3)));
    assert!(!compiled.header.expiry[0].rules.contains(0));
}

#[test]
fn whom_a_rule_allows_anything_is_sanctioned() {
    let mta = ResolvedRule { exe: Some(vec![exe(1)]), user: Some(vec![named(7)]), ..anyone("192.0.2.1/32") };
    let audit = ResolvedRule { user: Some(vec![named(8)]), audit: true, ..ResolvedRule::default() };
    let raw = ResolvedRule { user: Some(vec![named(9)]), raw_senders: true, ..ResolvedRule::default() };
    let past = ResolvedRule { user: Some(vec![named(10)]), expires: Some(in_seconds(5)), ..ResolvedRule::default() };
    let unit = ResolvedRule { cgroup: Some(vec![cgroup("/a")]), ..ResolvedRule::default() };
    let compiled = compile(&policy("/"), &resolved(vec![mta, audit, raw, past, unit]), 1, clock()).unwrap();
    let asked = |ino, euid, path, after: u64| {
        let identity = Identity { exe: ExeId { ino, ..ExeId::default() }, euid, egid: 1, taint: 1 };
        compiled.sanctions(&identity, &Names(cgroup(path).names().to_vec()), BOOT + after * 1_000_000_000)
    };
    assert!(asked(1, 7, "/", 0), "wherever to");
    assert!(!asked(1, 6, "/", 0) && !asked(2, 7, "/", 0), "both must be right");
    assert!(!asked(1, 8, "/", 0) && !asked(1, 9, "/", 0), "such rules allow nothing");
    assert!(asked(2, 10, "/", 0) && !asked(2, 10, "/", 6), "until the rule ends");
    assert!(asked(2, 6, "/a/b", 0) && !asked(2, 6, "/b", 0));
    let nobody = Identity { exe: ExeId::default(), euid: 7, egid: 1, taint: 0 };
    assert!(!Compiled::default().sanctions(&nobody, &Names(Vec::new()), BOOT));
}
