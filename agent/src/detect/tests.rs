//! The detector as a whole. How good it is, `cargo xtask bench detect` measures.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::bounded::Entry;
use super::*;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
/// 2026-01-01.
const START: i64 = 1_767_225_600 * SECOND;

fn attempt(time: i64, subject: u64, to: u32) -> Observation {
    Observation {
        time: START + time,
        subject: SubjectId(subject),
        owner: SubjectId::default(),
        thread: 0,
        address: IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001_u32.wrapping_add(to << 8))),
        domain: 0,
        outcome: Outcome::Refused,
        signs: Signs::default(),
    }
}

fn detector() -> Detector {
    Detector::new(Settings::default())
}

/// The tests that find something, and after how many attempts.
fn found(detector: &mut Detector, attempts: impl IntoIterator<Item = Observation>) -> Vec<(usize, Kind)> {
    let mut found = Vec::new();
    for (number, attempt) in attempts.into_iter().enumerate() {
        found.extend(detector.observe(&attempt).into_iter().map(|finding| (number + 1, finding.kind)));
    }
    found
}

#[test]
fn a_bot_that_meets_a_new_destination_each_time_is_found_at_the_fifth() {
    let bot = (0..40).map(|n| attempt(i64::from(n) * 3 * SECOND, 1, n as u32));
    assert_eq!(found(&mut detector(), bot), [(5, Kind::FanOut)], "and said once in an episode");
}

#[test]
fn one_that_shows_itself_is_found_earlier_and_signs_alone_are_nothing() {
    let signs = Signs::DELETED.with(Signs::TEMPORARY);
    let bot = |n: u32, to| Observation { signs, ..attempt(i64::from(n) * SECOND, 1, to) };
    assert_eq!(found(&mut detector(), (0..9).map(|n| bot(n, n))), [(4, Kind::FanOut)]);
    assert_eq!(found(&mut detector(), (0..99).map(|n| bot(n, n % 2))), []);
}

#[test]
fn a_script_of_roots_is_excused_three_destinations_and_no_more() {
    let signs = Signs::ROOT_SCRIPT.with(Signs::INTERPRETER);
    let program = |n: u32, to| Observation { signs, ..attempt(i64::from(n) * SECOND, 1, to) };
    // A report to seven domains, every hour.
    assert_eq!(found(&mut detector(), (0..24 * 7).map(|n| program(n / 7 * 3600 + n % 7, n % 7))), []);
    let mut detector = detector();
    let findings: Vec<Finding> = (0..40).flat_map(|n| detector.observe(&program(n, n))).collect();
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    let evidence = &finding.evidence;
    assert_eq!((finding.kind, finding.severity, evidence.destinations), (Kind::FanOut, Severity::Critical, 8));
    assert!((evidence.prior + 9.6).abs() < 1e-9, "{}", evidence.prior);
    assert_eq!(evidence.signs.iter().map(|sign| sign.weight).collect::<Vec<_>>(), [0.2, -9.8]);
}

#[test]
fn what_a_policy_takes_away_for_such_a_script_is_bounded_with_all_the_rest() {
    let mut settings = Settings::default();
    settings.weights.fill(-9.8);
    let signs = Signs::ROOT_SCRIPT.with(Signs::PACKAGED).with(Signs::REGULAR);
    let found_at = |signs| {
        let bot = (0..40).map(move |n| Observation { signs, ..attempt(i64::from(n) * 1000 * SECOND, 1, n as u32) });
        found(&mut Detector::new(settings.clone()), bot.take(16)).first().copied()
    };
    assert_eq!(found_at(signs), Some((8, Kind::FanOut)));
    assert_eq!(found_at(Signs::PACKAGED), Some((6, Kind::FanOut)), "5 nats without it");
}

#[test]
fn one_attempt_without_the_sign_ends_the_excuse() {
    let bot = (0..40).map(|n| {
        let signs = Signs::ROOT_SCRIPT.when(n != 5);
        Observation { signs, ..attempt(i64::from(n) * SECOND, 1, n as u32) }
    });
    assert_eq!(found(&mut detector(), bot), [(6, Kind::FanOut)]);
}

#[test]
fn a_script_of_roots_is_excused_nothing_in_the_other_tests() {
    let run = |signs| {
        let gaps = [300_i64, 700, 1900, 100, 900].into_iter().cycle();
        let mut all = Vec::new();
        let hammer = gaps.take(3000).scan(0, |time, gap| {
            *time += gap * 1000;
            Some(Observation { signs, ..attempt(*time, 1, 1) })
        });
        all.extend(found(&mut detector(), hammer));
        let retries = (0_u32..800).map(|n| Observation { signs, ..attempt(i64::from(n) * MINUTE, 1, n / 4) });
        all.extend(found(&mut detector(), retries).into_iter().filter(|(_, kind)| *kind == Kind::Persistent));
        let local = (0_u32..9000).map(|n| Observation {
            signs,
            outcome: Outcome::Local,
            ..attempt(i64::from(n) * SECOND, 1, 0)
        });
        all.extend(found(&mut detector(), local));
        let programs = (0_u32..9).map(|n| Observation {
            signs,
            owner: SubjectId(5),
            ..attempt(i64::from(n) * SECOND, 100 + u64::from(n), n)
        });
        all.extend(found(&mut detector(), programs));
        all
    };
    let kinds: Vec<Kind> = run(Signs::ROOT_SCRIPT).into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, [Kind::Hammer, Kind::Persistent, Kind::LocalPath, Kind::ManyPrograms]);
    assert_eq!(run(Signs::ROOT_SCRIPT), run(Signs::default()));
}

#[test]
fn a_slow_bot_is_found_over_hours_all_the_same() {
    let bot = (0..6).map(|n| attempt(i64::from(n) * 50 * MINUTE, 1, n as u32));
    assert_eq!(found(&mut detector(), bot), [(5, Kind::FanOut)]);
}

#[test]
fn a_program_that_retries_one_smart_host_for_a_month_is_cleared() {
    let program = (0..30 * 24 * 12).map(|n| attempt(i64::from(n) * 5 * MINUTE, 1, 7));
    assert_eq!(found(&mut detector(), program), []);
}

#[test]
fn knocking_at_one_door_between_victims_buys_three_times_and_no_more() {
    let mut bot = Vec::new();
    for n in 0..20 {
        bot.push(attempt(i64::from(2 * n) * MINUTE, 1, 1000));
        bot.push(attempt(i64::from(2 * n + 1) * MINUTE, 1, n as u32));
    }
    let found = found(&mut detector(), bot);
    assert_eq!(found[0].1, Kind::FanOut);
    assert!(found[0].0 <= 16, "{found:?}");
}

#[test]
fn retrying_every_victim_does_not_help_for_long() {
    let mut bot = Vec::new();
    for n in 0_i64..200 {
        for retry in 0..4 {
            bot.push(attempt((n * 4 + retry) * MINUTE, 1, n as u32));
        }
    }
    let found = found(&mut detector(), bot);
    assert!(found.iter().any(|(_, kind)| *kind == Kind::Persistent), "{found:?}");
}

#[test]
fn a_mail_exchanger_with_five_addresses_is_one_observation() {
    let mut server = Vec::new();
    for message in 0_u32..3 {
        for address in 0..5 {
            let time = i64::from(message) * 90 * MINUTE + i64::from(address) * 500;
            server.push(Observation { thread: 9, ..attempt(time, 1, message * 100 + address) });
        }
    }
    assert_eq!(found(&mut detector(), server.clone()), []);
    // The same from threads of their own is a bot.
    let bot = server.into_iter().enumerate().map(|(n, o)| Observation { thread: n as u32, ..o });
    assert!(!found(&mut detector(), bot).is_empty());
}

#[test]
fn the_addresses_of_one_domain_or_one_provider_are_one_destination() {
    let pool = (0..30).map(|n| Observation { domain: 77, ..attempt(i64::from(n) * MINUTE, 1, n as u32) });
    assert_eq!(found(&mut detector(), pool), []);
    let google = ["64.233.160.1", "74.125.1.1", "142.250.1.1", "172.217.4.1", "173.194.1.1", "209.85.200.1"];
    let provider = google.iter().cycle().take(60).enumerate();
    let provider =
        provider.map(|(n, a)| Observation { address: a.parse().unwrap(), ..attempt(n as i64 * MINUTE, 1, 0) });
    assert_eq!(found(&mut detector(), provider), []);
}

#[test]
fn a_hammer_is_found_and_a_daemon_that_reconnects_every_second_is_not() {
    let gaps = [300_i64, 700, 1900, 100, 900].into_iter().cycle();
    let bot = gaps.take(6000).scan(0, |time, gap| {
        *time += gap * 1000;
        Some(attempt(*time, 1, 1))
    });
    let found_bot = found(&mut detector(), bot);
    assert_eq!(found_bot.iter().map(|(_, kind)| *kind).collect::<Vec<_>>(), [Kind::Hammer]);
    let daemon = (0..86_400).map(|n| attempt(n * SECOND, 1, 1));
    assert_eq!(found(&mut detector(), daemon), []);
    let batches = (0..24 * 500).map(|n| attempt((n / 500) * 60 * MINUTE + (n % 500) * 100_000, 1, 1));
    assert_eq!(found(&mut detector(), batches), [], "500 newsletters an hour");
}

#[test]
fn a_new_program_for_each_mail_is_its_users_doing() {
    let bot =
        (0..9).map(|n| Observation { owner: SubjectId(5), ..attempt(i64::from(n) * SECOND, 100 + n as u64, n as u32) });
    let mut detector = detector();
    let found: Vec<Finding> = bot.flat_map(|attempt| detector.observe(&attempt)).collect();
    assert_eq!((found[0].kind, found[0].subject), (Kind::ManyPrograms, SubjectId(5)));
    assert!(found[0].evidence.programs <= 6, "{found:?}");
}

#[test]
fn local_mail_is_held_against_the_subjects_own_past() {
    let mail = |minutes: i64, n: i64| Observation { outcome: Outcome::Local, ..attempt(minutes * MINUTE + n, 1, 0) };
    let mut detector = detector();
    // A shop that hands over 15 mails in every ten minutes, and 300 on one evening.
    let days = (0..14 * 144).flat_map(|ten| (0..15).map(move |n| mail(ten * 10, n * SECOND)));
    assert_eq!(found(&mut detector, days), []);
    let evening = (0..2).flat_map(|ten| (0..150).map(move |n| mail(14 * 1440 + ten * 10, n * SECOND)));
    assert_eq!(found(&mut detector, evening), []);
    // Half an hour of far more is a peak, whatever the signs.
    let peak = (0..4).flat_map(|ten| (0..700).map(move |n| mail(15 * 1440 + ten * 10, n * SECOND / 2)));
    let peak = peak.map(|one| Observation { signs: Signs::WEB_PARENT.with(Signs::TEMPORARY), ..one });
    assert_eq!(found(&mut Detector::load(Settings::default(), &detector.save()).unwrap(), peak), []);
    let bot = (0..18).flat_map(|ten| (0..700).map(move |n| mail(16 * 1440 + ten * 10, n * SECOND / 2)));
    let found = found(&mut detector, bot);
    assert_eq!(found.iter().map(|(_, kind)| *kind).collect::<Vec<_>>(), [Kind::LocalPath]);
}

#[test]
fn what_a_rule_allows_is_held_against_nobody() {
    let scanner =
        (0..5000).map(|n| Observation { outcome: Outcome::Allowed, ..attempt(i64::from(n) * SECOND, 1, n as u32) });
    assert_eq!(found(&mut detector(), scanner), []);
}

#[test]
fn a_finding_says_its_numbers() {
    let mut detector = detector();
    let bot = (0..5).map(|n| Observation { signs: Signs::WEB_PARENT, ..attempt(i64::from(n) * SECOND, 1, n as u32) });
    let finding = bot.flat_map(|attempt| detector.observe(&attempt)).next().unwrap();
    let evidence = finding.evidence;
    assert_eq!((finding.severity, evidence.against, evidence.in_favour), (Severity::Critical, 4, 0));
    assert_eq!((evidence.destinations, evidence.refused, evidence.tests_today), (5, 5, 1));
    assert!((evidence.alpha - 2.5e-5).abs() < 1e-9, "half of the day's errors, half of them for its first test");
    assert!(evidence.walk + evidence.prior >= evidence.threshold);
    assert_eq!(evidence.signs, [Weighed { sign: "web_parent".into(), weight: 0.3 }]);
    assert_eq!(evidence.to_clear, 12);
}

#[test]
fn a_million_subjects_do_not_grow_it_and_do_not_drive_out_a_bot() {
    let mut detector = Detector::new(Settings { subjects: 1000, ..Settings::default() });
    let mut number = 1_000;
    let mut churn = |detector: &mut Detector, time: i64| {
        for _ in 0..250_000 {
            number += 1;
            assert_eq!(detector.observe(&attempt(time, number, number as u32 % 7)), []);
        }
    };
    let mut at = None;
    for n in 0..5 {
        if n != 0 {
            churn(&mut detector, i64::from(n) * MINUTE);
        } else {
            detector.observe(&attempt(0, 1, 99));
        }
        let found = detector.observe(&attempt(i64::from(n) * MINUTE, 1, n as u32));
        at = at.or(found.first().map(|_| n));
    }
    assert_eq!(at, Some(4), "the bot is found among a million that come and go");
    assert_eq!(detector.subjects(), 1000);
    assert!(detector.evicted() > 990_000);
    assert!(Detector::bytes_per_subject() <= 512, "{}", Detector::bytes_per_subject());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Saved in the middle and loaded again, it finds what it finds in one go.
    #[test]
    fn a_split_trace_is_judged_as_the_whole(
        steps in prop::collection::vec((0_i64..100, 0_u64..12, 0_u32..30, 0_u8..4), 1..300), at in 0_usize..300
    ) {
        let settings = Settings { subjects: 8, ..Settings::default() };
        let mut time = 0;
        let trace: Vec<Observation> = steps.into_iter().map(|(gap, subject, to, kind)| {
            time += gap * SECOND;
            let outcome = if kind == 0 { Outcome::Local } else { Outcome::Refused };
            Observation { outcome, owner: SubjectId(1 + subject % 3), ..attempt(time, 1 + subject, to) }
        }).collect();
        let (first, second) = trace.split_at(at.min(trace.len()));
        let mut whole = Detector::new(settings.clone());
        let expected: Vec<Finding> = trace.iter().flat_map(|one| whole.observe(one)).collect();
        let mut before = Detector::new(settings.clone());
        let mut found: Vec<Finding> = first.iter().flat_map(|one| before.observe(one)).collect();
        let mut after = Detector::load(settings, &before.save()).unwrap();
        found.extend(second.iter().flat_map(|one| after.observe(one)));
        prop_assert_eq!(found, expected);
        prop_assert_eq!(after.save(), whole.save());
    }

    /// More victims in place of repeats never make a subject look better.
    #[test]
    fn evidence_is_monotone(pattern in prop::collection::vec(any::<bool>(), 2..40), at in 0_usize..40) {
        let trace = |pattern: &[bool]| -> Vec<Observation> {
            pattern.iter().enumerate().map(|(n, new)| attempt(n as i64 * 61 * SECOND, 1, if *new { n as u32 + 1 } else { 0 })).collect()
        };
        let mut worse = pattern.clone();
        if let Some(one) = worse.get_mut(at) { *one = true; }
        let (a, b) = (found(&mut detector(), trace(&pattern)), found(&mut detector(), trace(&worse)));
        if let Some((when, _)) = a.first() {
            prop_assert!(b.first().is_some_and(|(earlier, _)| earlier <= when), "{:?} {:?}", a, b);
        }
    }

    #[test]
    fn no_time_and_no_order_upsets_it(steps in prop::collection::vec((any::<i64>(), any::<u64>(), any::<u32>()), 0..100)) {
        let mut detector = Detector::new(Settings { subjects: 5, ..Settings::default() });
        for (time, subject, to) in steps {
            detector.observe(&Observation { time, ..attempt(0, subject, to & 0xff_ffff) });
        }
    }
}

#[test]
fn interest_is_as_in_the_tests() {
    let subject = subject::Subject::new(1, START);
    assert_eq!(subject.degree(), 0);
}
