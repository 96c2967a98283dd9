use std::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::alert::examples::{at, attempt, finding};
use crate::alert::{CHANGES, DESTINATIONS, FINDINGS};
use crate::detect::Kind;

const BOT: SubjectId = SubjectId(1);

fn book() -> Book {
    let mut book = Book::with_room(100);
    book.numbers(1, 1_000_000);
    book
}

fn found(book: &mut Book, seconds: i64, kind: Kind, severity: Severity) -> Vec<Told> {
    let findings = [finding(BOT, kind, severity, seconds, 3)];
    book.attempt(BOT, &attempt(seconds, "192.0.2.1:25"), &findings, Vec::new)
}

fn occasions(told: &[Told]) -> Vec<Occasion> {
    told.iter().map(|told| told.occasion).collect()
}

fn seen(book: &mut Book, seconds: i64) {
    assert_eq!(book.attempt(BOT, &attempt(seconds, "192.0.2.1:25"), &[], || panic!("nothing opens")), []);
}

#[test]
fn an_alert_opens_grows_and_is_told_once() {
    let mut book = book();
    seen(&mut book, 0);
    assert_eq!(occasions(&found(&mut book, 5, Kind::FanOut, Severity::Warning)), [Occasion::Opened]);
    for n in 6..1006 {
        seen(&mut book, n);
    }
    assert_eq!(found(&mut book, 1006, Kind::FanOut, Severity::Warning), []);
    assert_eq!(occasions(&found(&mut book, 1007, Kind::Hammer, Severity::Notice)), [Occasion::Worse]);
    assert_eq!(occasions(&found(&mut book, 1008, Kind::FanOut, Severity::Critical)), [Occasion::Worse]);
    let alert = book.get(1).unwrap();
    assert_eq!((alert.attempts, alert.refused, alert.local), (3 + 1003, 3 + 1003, 0));
    assert_eq!((alert.first, alert.opened, alert.last), (at(-10), at(5), at(1008)));
    assert_eq!((alert.severity, alert.episodes), (Severity::Critical, 1));
    assert_eq!(alert.worst.as_ref().unwrap().time, at(1008));
    let what: Vec<&str> = alert.history.iter().map(|change| change.what.as_str()).collect();
    assert_eq!(what, ["opened", "worse", "worse"]);
}

#[test]
fn the_destinations_begin_with_the_attempts_that_are_still_known() {
    let mut book = book();
    let decisive = attempt(5, "192.0.2.9:25");
    let earlier = [attempt(3, "192.0.2.1:25"), attempt(4, "192.0.2.1:25"), decisive.clone()];
    let findings = [finding(BOT, Kind::FanOut, Severity::Critical, 5, 20)];
    book.attempt(BOT, &decisive, &findings, || earlier.into_iter().map(Arc::new).collect());
    let alert = book.get(1).unwrap();
    let to: Vec<_> = alert.destinations.iter().map(|d| (d.to.as_str(), d.attempts)).collect();
    assert_eq!(to, [("192.0.2.1:25", 2), ("192.0.2.9:25", 1)]);
    assert_eq!((alert.attempts, alert.elsewhere), (20, 17));
}

#[test]
fn local_mail_and_allowed_attempts_are_told_apart() {
    let mut book = book();
    found(&mut book, 0, Kind::LocalPath, Severity::Warning);
    let local = Attempt { verdict: "allow".into(), reason: "local".into(), ..attempt(1, "127.0.0.1:25") };
    let allowed = Attempt { verdict: "allow".into(), reason: "rule".into(), ..attempt(2, "192.0.2.1:25") };
    let observed = Attempt { verdict: "observe".into(), ..attempt(3, "192.0.2.1:25") };
    for other in [local, allowed, observed] {
        book.attempt(BOT, &other, &[], Vec::new);
    }
    let alert = book.get(1).unwrap();
    assert_eq!((alert.attempts, alert.refused, alert.local), (6, 4, 1));
}

#[test]
fn a_subject_goes_quiet_and_comes_back_only_when_it_is_found_again() {
    let mut book = book();
    found(&mut book, 0, Kind::FanOut, Severity::Critical);
    book.acknowledge(1, "ann", None, at(1)).unwrap();
    assert_eq!(book.tick(at(3599), 3600), []);
    assert_eq!(occasions(&book.tick(at(3600), 3600)), [Occasion::Quiet]);
    assert_eq!(book.tick(at(3601), 3600), []);
    assert_eq!(book.get(1).unwrap().quiet_since, Some(at(0)));
    seen(&mut book, 4000);
    assert_eq!(book.get(1).unwrap().quiet_since, Some(at(0)));
    assert_eq!(occasions(&found(&mut book, 4001, Kind::FanOut, Severity::Warning)), [Occasion::Reopened]);
    let alert = book.get(1).unwrap();
    assert_eq!((alert.state, alert.episodes, alert.quiet_since), (State::Open, 2, None));
    assert_eq!(alert.severity, Severity::Critical);
}

#[test]
fn a_resolved_subject_comes_back_with_its_history() {
    let mut book = book();
    found(&mut book, 0, Kind::FanOut, Severity::Warning);
    let told = book.resolve(1, Resolution::SpamBot, "ann", Some("cleaned".into()), at(10)).unwrap();
    assert_eq!((told.occasion, told.alert.resolution), (Occasion::Resolved, Some(Resolution::SpamBot)));
    seen(&mut book, 20);
    assert_eq!(book.get(1).unwrap().state, State::Resolved);
    assert_eq!(book.tick(at(90_000), 3600), [], "what is resolved is not told to be quiet");
    assert_eq!(occasions(&found(&mut book, 90_001, Kind::FanOut, Severity::Warning)), [Occasion::Reopened]);
    let alert = book.get(1).unwrap();
    assert_eq!((alert.state, alert.resolution, alert.episodes, alert.attempts), (State::Open, None, 2, 5));
    let what: Vec<&str> = alert.history.iter().map(|change| change.what.as_str()).collect();
    assert_eq!(what, ["opened", "resolved as spam-bot", "reopened"]);
    assert_eq!(alert.history[1].note.as_deref(), Some("cleaned"));
    assert!(alert.history[2].note.as_deref().unwrap().contains("it was resolved as spam-bot"));
}

#[test]
fn what_cannot_be_done_is_said_in_a_sentence() {
    let mut book = book();
    assert_eq!(
        book.acknowledge(9, "ann", None, at(0)).unwrap_err().to_string(),
        "there is no alert 9; `portreeve alerts --all` lists them"
    );
    found(&mut book, 0, Kind::FanOut, Severity::Warning);
    book.resolve(1, Resolution::Test, "ann", None, at(1)).unwrap();
    let again = book.resolve(1, Resolution::SpamBot, "bob", None, at(2)).unwrap_err().to_string();
    assert_eq!(again, "alert 1 is already resolved as test; it opens again by itself if the subject comes back");
    assert_eq!(book.acknowledge(1, "bob", None, at(2)).unwrap_err().to_string(), again);
    let rule = Change { time: at(3), who: "ann".into(), what: "allowed by rule \"mailer\"".into(), note: None };
    assert_eq!(book.allowed(1, rule).unwrap().alert.resolution, Some(Resolution::Allowed));
}

#[test]
fn a_user_of_many_programs_has_an_alert_beside_the_programs() {
    let mut book = book();
    let user = SubjectId(2);
    for n in 0..3 {
        let findings = [finding(user, Kind::ManyPrograms, Severity::Critical, n, 8)];
        book.attempt(BOT, &attempt(n, "192.0.2.1:25"), &findings, || panic!("not of this subject"));
    }
    let alert = book.get(book.of_subject(user).unwrap()).unwrap();
    assert_eq!((alert.attempts, alert.who.exe.as_deref()), (10, None));
    assert_eq!(alert.who.name, "the programs of www-data in apache2.service");
    assert_eq!(book.of_subject(BOT), None);
}

#[test]
fn no_list_grows_without_end_and_no_test_is_forgotten() {
    let mut book = book();
    found(&mut book, 0, Kind::Hammer, Severity::Warning);
    for n in 1..500 {
        found(&mut book, n * 100, Kind::FanOut, Severity::Warning);
        book.tick(at(n * 100 + 50), 10);
        let elsewhere = attempt(n * 100 + 60, &format!("192.0.2.{}:{n}", n % 200));
        book.attempt(BOT, &elsewhere, &[], Vec::new);
    }
    let alert = book.get(1).unwrap();
    assert_eq!(
        (alert.findings.len(), alert.history.len(), alert.destinations.len()),
        (FINDINGS, CHANGES, DESTINATIONS)
    );
    assert_eq!(alert.tests(), [Kind::FanOut, Kind::Hammer]);
    assert_eq!(alert.history[0].what, "opened");
    let listed: u64 = alert.destinations.iter().map(|d| d.attempts).sum();
    assert_eq!(listed + alert.elsewhere, alert.attempts);
}

#[test]
fn a_flood_of_subjects_leaves_memory_bounded_and_the_worst_in_it() {
    let mut book = Book::default();
    book.numbers(1, u64::MAX);
    let (mut saved, started) = (HashSet::new(), std::time::Instant::now());
    for n in 0..100_000u64 {
        let severity = if n % 20 == 0 { Severity::Critical } else { Severity::Notice };
        let findings = [finding(SubjectId(n), Kind::FanOut, severity, 0, 3)];
        let told = book.attempt(SubjectId(n), &attempt(0, "192.0.2.1:25"), &findings, Vec::new);
        assert_eq!(occasions(&told), [Occasion::Opened]);
        assert!(book.entries.len() <= MOST);
        saved.extend(book.to_save(0).into_iter().map(|save| save.alert.id));
    }
    assert_eq!((saved.len(), book.entries.len() + book.left()), (100_000, 100_000));
    let critical = book.entries.values().filter(|entry| entry.alert.severity == Severity::Critical).count();
    assert_eq!(critical, 5000, "a severe one has left before a mild one");
    assert_eq!(book.tally().filter(|(_, severity)| *severity == Severity::Critical).count(), 5000);
    // Ten times what it takes on a slow machine in a debug build.
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn a_flood_of_attempts_without_findings_opens_and_asks_nothing() {
    let mut book = book();
    let one = attempt(0, "192.0.2.1:25");
    let started = std::time::Instant::now();
    for n in 0..1_000_000 {
        assert!(book.attempt(SubjectId(n), &one, &[], || panic!("asked")).is_empty());
    }
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    assert!(book.to_save(usize::MAX).is_empty() && book.entries.is_empty());
}

#[test]
fn one_that_has_left_memory_goes_on_under_its_number() {
    let mut book = book();
    found(&mut book, 0, Kind::FanOut, Severity::Critical);
    book.resolve(1, Resolution::Misconfigured, "ann", None, at(5)).unwrap();
    for n in 100..200 {
        let findings = [finding(SubjectId(n), Kind::FanOut, Severity::Notice, 10, 3)];
        book.attempt(SubjectId(n), &attempt(10, "192.0.2.1:25"), &findings, Vec::new);
    }
    let kept = book.to_save(usize::MAX).into_iter().find(|save| save.alert.id == 1).unwrap();
    assert!(book.get(1).is_none() && book.left_matching(&Filter { all: true, ..Filter::default() }));
    let mut again = finding(BOT, Kind::Hammer, Severity::Warning, 9000, 2);
    again.evidence.first = Some(at(8999));
    let told = book.attempt(BOT, &attempt(9000, "192.0.2.7:25"), &[again], Vec::new);
    assert_eq!(
        (told[0].occasion, told[0].alert.id, told[0].alert.severity),
        (Occasion::Reopened, 1, Severity::Critical)
    );
    assert!(book.to_save(0).iter().any(|save| save.partial));
    book.recall(Alert::clone(&kept.alert));
    let whole = book.get(1).unwrap();
    assert_eq!((whole.attempts, whole.episodes, whole.opened), (3 + 2, 2, at(0)));
    assert_eq!(whole.tests(), [Kind::FanOut, Kind::Hammer]);
    let what: Vec<&str> = whole.history.iter().map(|change| change.what.as_str()).collect();
    assert_eq!(what, ["opened", "resolved as misconfigured", "reopened"]);
    book.forget(&[1]);
    assert!(book.get(1).is_some(), "it goes on and stays");
}

#[test]
fn growth_is_given_to_the_store_as_it_asks_and_changes_at_once() {
    let mut book = book();
    found(&mut book, 0, Kind::FanOut, Severity::Warning);
    assert_eq!(book.to_save(0).len(), 1);
    seen(&mut book, 1);
    seen(&mut book, 2);
    assert!(book.to_save(0).is_empty());
    let saves = book.to_save(10);
    assert_eq!((saves.len(), saves[0].changed, saves[0].alert.attempts), (1, false, 5));
    assert!(book.to_save(10).is_empty());
    seen(&mut book, 3);
    book.acknowledge(1, "ann", None, at(4)).unwrap();
    assert_eq!(book.to_save(10).iter().map(|save| save.changed).collect::<Vec<_>>(), [true]);
    assert!(book.to_save(10).is_empty(), "saved twice");
}

/// What may happen to a subject.
#[derive(Clone, Debug)]
enum Event {
    Attempt(u8),
    Found(Kind, Severity),
    Wait(i64),
    Acknowledge,
    Resolve,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let one = prop_oneof![
        8 => (0u8..40).prop_map(Event::Attempt),
        3 => (0..Kind::ALL.len(), 0..Severity::ALL.len())
            .prop_map(|(kind, severity)| Event::Found(Kind::ALL[kind], Severity::ALL[severity])),
        1 => (1i64..10_000).prop_map(Event::Wait),
        1 => Just(Event::Acknowledge),
        1 => Just(Event::Resolve),
    ];
    proptest::collection::vec(one, 0..60)
}

fn play(book: &mut Book, clock: &Cell<i64>, events: &[Event]) {
    for event in events {
        clock.set(clock.get() + 1);
        let now = clock.get();
        let (before, known) = (book.get(1), book.of_subject(BOT).is_some());
        match event {
            Event::Attempt(to) => {
                book.attempt(BOT, &attempt(now, &format!("192.0.2.{to}:25")), &[], Vec::new);
            }
            Event::Found(kind, severity) => {
                let told = found(book, now, *kind, *severity);
                assert_eq!(told.first().map(|told| told.occasion) == Some(Occasion::Opened), !known);
            }
            Event::Wait(seconds) => {
                clock.set(now + seconds);
                book.tick(at(clock.get()), 3600);
            }
            Event::Acknowledge => drop(book.acknowledge(1, "ann", None, at(now))),
            Event::Resolve => drop(book.resolve(1, Resolution::Test, "ann", None, at(now))),
        }
        if let (Some(before), Some(after)) = (before, book.get(1)) {
            let counted = u64::from(matches!(event, Event::Attempt(_) | Event::Found(..)));
            assert_eq!(after.attempts, before.attempts + counted);
            assert!(after.severity >= before.severity && after.episodes >= before.episodes);
            assert!(after.last >= before.last && after.first == before.first && after.opened == before.opened);
        }
    }
}

proptest! {
    #[test]
    fn severity_only_rises_and_every_attempt_counts_once(events in events()) {
        play(&mut book(), &Cell::new(0), &events);
    }

    #[test]
    fn a_book_that_was_kept_and_loaded_goes_on_as_the_whole(events in events(), split in 0usize..60) {
        let (mut whole, mut first, mut second) = (book(), book(), book());
        play(&mut whole, &Cell::new(0), &events);
        let (one, two) = events.split_at(split.min(events.len()));
        let clock = Cell::new(0);
        play(&mut first, &clock, one);
        let kept = first.to_save(usize::MAX);
        let texts: Vec<String> = kept.iter().map(|save| serde_json::to_string(&*save.alert).unwrap()).collect();
        second.load(texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect(), Vec::new());
        play(&mut second, &clock, two);
        prop_assert_eq!(whole.get(1), second.get(1));
    }
}
