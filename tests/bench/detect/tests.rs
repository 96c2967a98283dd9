use std::collections::HashSet;

use portreeve::detect::{Observation, Outcome, Signs, SubjectId};
use portreeve::trace::Trace;

use super::actor::Actor;
use super::counters::Count;
use super::model::Model;
use super::*;

fn model(name: &str) -> &'static Model {
    MODELS.iter().find(|model| model.name == name).unwrap()
}

/// Some subjects of a model.
fn some<'w>(world: &'w World, name: &str) -> Vec<Actor<'w>> {
    (0..8).map(|number| model(name).subject(world, TUNING, number)).collect()
}

fn met(actor: &Actor<'_>) -> usize {
    actor.trace.iter().map(|observation| observation.address).collect::<HashSet<_>>().len()
}

/// Seconds from the first attempt to the last.
fn span(actor: &Actor<'_>) -> f64 {
    (actor.trace.last().unwrap().time - actor.trace[0].time) as f64 / 1e6
}

#[test]
fn a_seed_gives_the_same_trace_and_another_seed_another() {
    let (world, same, other) = (World::new(1), World::new(1), World::new(2));
    for model in &MODELS {
        let trace = |world, seed| model.subject(world, seed, 3).trace;
        assert!(!trace(&world, 1).is_empty(), "{}", model.name);
        assert_eq!(trace(&world, 1), trace(&same, 1), "{}", model.name);
        assert_ne!(trace(&world, 1), trace(&other, 2), "{}", model.name);
        assert!(trace(&world, 1).is_sorted_by_key(|observation| observation.time), "{}", model.name);
    }
}

#[test]
fn no_two_subjects_are_one() {
    let world = World::new(TUNING);
    for model in &MODELS {
        let actors = (0..8).map(|number| model.subject(&world, TUNING, number));
        let mut seen = HashSet::new();
        for actor in actors {
            let own: HashSet<SubjectId> = actor.subjects().collect();
            assert!(own.iter().all(|subject| seen.insert(*subject)), "{}", model.name);
            assert!(actor.trace.iter().all(|observation| own.contains(&observation.subject)), "{}", model.name);
        }
    }
}

#[test]
fn bots_that_fan_out_meet_many_and_the_others_few() {
    let world = World::new(TUNING);
    for model in MODELS.iter().filter(|model| model.sort == Sort::FansOut) {
        for number in 0..8 {
            let actor = model.subject(&world, TUNING, number);
            assert!(met(&actor) >= 30, "{} {number}: {}", model.name, met(&actor));
        }
    }
    let most = [
        ("one-relay hammer", 1),
        ("PHPMailer to a smart host", 4),
        ("monitoring probe", 3),
        ("newsletter software", 2),
        ("migration to a new smart host", 4),
        ("resolver failover", 12),
        ("broken daemon", 1),
        ("local path", 1),
        ("application with a local server", 1),
    ];
    for (name, most) in most {
        assert!(some(&world, name).iter().all(|actor| (1..=most).contains(&met(actor))), "{name}");
    }
}

#[test]
fn rates_are_those_of_the_models() {
    let world = World::new(TUNING);
    let gap = |actor: &Actor<'_>| span(actor) / (actor.trace.len() - 1) as f64;
    for actor in some(&world, "slow snowshoe") {
        assert!((500.0..700.0).contains(&gap(&actor)) && span(&actor) > 2.9 * 86_400.0, "{}", gap(&actor));
    }
    for actor in some(&world, "one-relay hammer") {
        assert!((0.045..1.1).contains(&gap(&actor)), "{}", gap(&actor));
    }
    for actor in some(&world, "unsanctioned MTA in a container") {
        assert!(span(&actor) > 28.0 * 86_400.0);
        // Up to five addresses of one message's exchangers in one go, by one process.
        let goes = actor.trace.chunk_by(|one, next| one.thread == next.thread);
        assert!(goes.into_iter().all(|go| go.len() <= 5 && go[go.len() - 1].time - go[0].time < 10_000));
        assert!(met(&actor) > 20);
    }
    for actor in some(&world, "newsletter software") {
        let times: Vec<i64> = actor.trace.iter().map(|observation| observation.time).collect();
        let within_an_hour =
            |(at, first): (usize, &i64)| times[at..].partition_point(|time| time - first < 3_600_000_000);
        let most = times.iter().enumerate().map(within_an_hour);
        assert!((200..=2 * 510).contains(&most.max().unwrap()));
    }
}

#[test]
fn signs_are_those_of_the_models() {
    let world = World::new(TUNING);
    let signs = |name: &str| some(&world, name)[0].trace[0].signs;
    assert!(signs("dictionary spammer").0 & (Signs::TEMPORARY.0 | Signs::DELETED.0) != 0);
    assert_eq!(signs("Neris-like"), Signs::default());
    assert!(signs("forking web-shell mailer").has(Signs::WEB_PARENT));
    assert!(signs("unsanctioned MTA in a container").has(Signs::MAIL_SERVER));
    assert!(signs("monitoring probe").has(Signs::PACKAGED));
    let with_sign: Vec<&str> =
        MODELS.iter().map(|model| model.name).filter(|name| signs(name).has(Signs::ROOT_SCRIPT)).collect();
    assert_eq!(with_sign, ["bot as a script of root's", "cron mail by direct MX"]);
    for name in ["local path", "application with a local server"] {
        let actors = some(&world, name);
        assert!(actors.iter().flat_map(|actor| &actor.trace).all(|one| one.outcome == Outcome::Local), "{name}");
    }
    let scans = some(&world, "allowed scanner");
    assert!(scans.iter().flat_map(|actor| &actor.trace).all(|observation| observation.outcome == Outcome::Allowed));
}

#[test]
fn a_written_trace_is_read_as_it_was_made() {
    let world = World::new(TUNING);
    for model in &MODELS {
        let actor = model.subject(&world, TUNING, 1);
        let first = &actor.trace[..actor.trace.len().min(50)];
        let text: String = first.iter().map(|one| write::line(model, &actor, one) + "\n").collect();
        let mut trace = Trace::new(model.name, text.as_bytes(), None, &[]);
        for observation in first {
            let sighting = trace.next().unwrap().unwrap();
            assert_eq!(sighting.observation, *observation, "{}", model.name);
            let bot = sighting.label.unwrap().starts_with("bot:");
            assert_eq!(bot, model.sort.is_bot());
        }
    }
}

fn counted(name: &str, times: &[f64], addresses: u8) -> bool {
    let counter = COUNTERS.iter().find(|counter| counter.name.contains(name)).unwrap();
    let mut count = Count::new(counter);
    for (at, time) in times.iter().enumerate() {
        count.take(&Observation {
            time: (time * 1e6) as i64,
            subject: SubjectId(1),
            owner: SubjectId(2),
            thread: 0,
            address: [192, 0, 2, u8::try_from(at).unwrap() % addresses].into(),
            domain: 0,
            outcome: Outcome::Refused,
            signs: Signs::default(),
        });
    }
    count.alarmed()
}

#[test]
fn counters_go_off_at_their_numbers_and_not_before() {
    let every = |number: u32, gap: f64| (0..number).map(|at| f64::from(at) * gap).collect::<Vec<_>>();
    for (name, number, window) in [("BotFlex", 16, 900.0), ("20 in", 21, 60.0), ("CSF", 11, 300.0), ("ET", 10, 120.0)] {
        let gap = window / f64::from(number - 1);
        assert!(counted(name, &every(number, gap), 1), "{name}");
        assert!(!counted(name, &every(number - 1, gap / 10.0), 1), "{name}");
        assert!(!counted(name, &every(200, gap * 1.01), 1), "{name}");
    }
    assert!(counted("ntopng", &every(6, 200.0), 6));
    assert!(!counted("ntopng", &every(200, 1.0), 5));
    assert!(!counted("ntopng", &every(200, 301.0), 200));
}

#[test]
fn what_is_allowed_is_not_counted() {
    let mut count = Count::new(&COUNTERS[2]);
    let world = World::new(TUNING);
    let scanner = model("allowed scanner").subject(&world, TUNING, 0);
    scanner.trace.iter().for_each(|observation| count.take(observation));
    assert!(scanner.trace.len() > 100 && !count.alarmed());
}
