//! The store against what disks and kills do. Those that mount a file system need root.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command as Child, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rusqlite::Connection;

use super::file::{File, FileError};
use super::schema::STEPS;
use super::*;
use crate::alert::State;
use crate::alert::examples::{self, at};
use crate::detect::Severity;

/// An alert of a number, for the store.
fn alert(id: u64) -> Alert {
    Alert { id, subject: SubjectId(id), ..examples::alert() }
}

fn save(alert: Alert) -> Save {
    Save { alert: Arc::new(alert), changed: true, partial: false }
}

fn started(folder: &Path) -> (Store, Vec<StoreEvent>) {
    let mut store = Store::new(folder, Keep::default());
    let events = store.start();
    (store, events)
}

fn loaded(events: Vec<StoreEvent>) -> Vec<Alert> {
    events
        .into_iter()
        .flat_map(|event| match event {
            StoreEvent::Loaded(alerts, _) => alerts,
            StoreEvent::Recalled(_) | StoreEvent::Forgotten(_) | StoreEvent::Anew => Vec::new(),
        })
        .collect()
}

fn wait(answer: oneshot::Receiver<Outcome>) -> Outcome {
    answer.blocking_recv().unwrap_or_else(|_| Err("broken off".to_owned()))
}

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !holds() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_was_saved_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, events) = started(folder.path());
    assert!(loaded(events).is_empty());
    assert_eq!(store.numbers().0, 1);
    wait(store.save_now(save(alert(1)))).unwrap();
    let mode = fs::metadata(store.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
    let grown = Alert { attempts: 99, ..alert(1) };
    store.save(Save { changed: false, ..save(grown.clone()) });
    assert!(store.end(Duration::from_secs(5)));
    assert!(!folder.path().join("alerts.sqlite-wal").exists(), "not closed");
    let (mut store, events) = started(folder.path());
    assert_eq!(loaded(events), std::slice::from_ref(&grown));
    assert_eq!(store.numbers().0, 2, "numbers are not skipped by an end in order");
    assert_eq!(store.read(1).blocking_recv().unwrap(), Ok(Some(grown.clone())));
    assert_eq!(store.read(2).blocking_recv().unwrap(), Ok(None));
    assert!(store.end(Duration::from_secs(5)));
    // And for somebody who only looks, with and without a writer beside.
    let seen = glimpse(folder.path()).unwrap();
    assert_eq!(seen.read(1).unwrap(), Some(grown.clone()));
    let (_store, _) = started(folder.path());
    assert_eq!(glimpse(folder.path()).unwrap().list(&Filter::default(), u64::MAX).unwrap().alerts, [grown]);
    assert!(glimpse(Path::new("/nonexistent")).unwrap_err().contains("there is no store"));
}

#[test]
fn changes_are_a_record_that_is_only_added_to() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = started(folder.path());
    let one = alert(1);
    wait(store.save_now(save(one.clone()))).unwrap();
    // Once more, as after an outage of which nobody knows what it has written: nothing comes twice.
    wait(store.save_now(save(one.clone()))).unwrap();
    let db = Connection::open(store.path()).unwrap();
    let count: u32 = db.query_row("SELECT count(*) FROM changes", [], |row| row.get(0)).unwrap();
    assert_eq!(count as usize, one.history.len());
    let who: String =
        db.query_row("SELECT who FROM changes WHERE what = 'acknowledged'", [], |row| row.get(0)).unwrap();
    assert_eq!(who, "root");
    let error = db.execute("UPDATE changes SET who = 'nobody'", []).unwrap_err().to_string();
    assert!(error.contains("the record of changes is not changed"), "{error}");
}

#[test]
fn an_alert_that_memory_has_in_part_is_gone_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = started(folder.path());
    wait(store.save_now(save(Alert { state: State::Resolved, ..alert(1) }))).unwrap();
    let new = Alert { first: at(9000), last: at(9000), attempts: 2, ..alert(1) };
    for attempts in [2, 3] {
        let part = Alert { attempts, ..new.clone() };
        wait(store.save_now(Save { partial: true, ..save(part) })).unwrap();
    }
    let whole = store.read(1).blocking_recv().unwrap().unwrap().unwrap();
    assert_eq!((whole.attempts, whole.episodes, whole.state), (alert(1).attempts + 3, 2, new.state));
    let recalled = store.events();
    assert!(matches!(&recalled[..], [StoreEvent::Recalled(old)] if old.state == State::Resolved), "{recalled:?}");
}

#[test]
fn a_list_comes_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = started(folder.path());
    let template = alert(1);
    for id in 1..=1200 {
        let state = if id % 2 == 0 { State::Resolved } else { State::Open };
        store.save(save(Alert { id, state, subject: SubjectId(id), ..template.clone() }));
    }
    // Only what has a place in the queue can be waited for.
    until("a place in the queue for all", || {
        store.catch_up();
        store.behind.is_empty()
    });
    let (mut before, mut ids) = (Some(u64::MAX), Vec::new());
    while let Some(from) = before {
        let Ok(page) = store.list(&Filter::default(), from).blocking_recv() else { continue };
        let page = page.unwrap();
        ids.extend(page.alerts.iter().map(|alert| alert.id));
        before = page.before;
    }
    assert_eq!(ids, (1..=1200).rev().filter(|id| id % 2 == 1).collect::<Vec<_>>());
}

#[test]
fn an_empty_and_an_older_file_are_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = store_path(folder.path());
    fs::write(&path, "").unwrap();
    let mut file = File::open(&path).unwrap();
    file.write([(&alert(1), true)].into_iter()).unwrap();
    file.close();
    let next = [STEPS[0], "ALTER TABLE alerts ADD COLUMN reporter TEXT; UPDATE alerts SET reporter = 'x'"];
    let file = File::open_with(&path, &next).unwrap();
    assert_eq!(file.read(1).unwrap(), Some(alert(1)));
    file.close();
    let db = Connection::open(&path).unwrap();
    let (version, reporter): (i64, String) = db
        .query_row("SELECT user_version, reporter FROM pragma_user_version, alerts", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!((version, reporter.as_str()), (2, "x"));
    drop(db);
    // For this version that file is of a later one.
    let before = fs::read(&path).unwrap();
    assert!(matches!(File::open(&path).unwrap_err(), FileError::Newer { found: 2, .. }));
    let (mut store, _) = started(folder.path());
    let why = store.broken().unwrap();
    assert!(why.contains("was written by a later version of portreeve") && why.contains("is left alone"), "{why}");
    assert_eq!(wait(store.save_now(save(alert(7)))).unwrap_err(), why);
    assert_eq!(fs::read(&path).unwrap(), before, "touched");
}

#[test]
fn a_step_that_fails_leaves_the_file_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = store_path(folder.path());
    File::open(&path).unwrap().close();
    let wrong = [STEPS[0], "CREATE TABLE half (x); CREATE TABLE alerts (x)"];
    assert!(File::open_with(&path, &wrong).unwrap_err().to_string().contains("cannot bring up to date"));
    let db = Connection::open(&path).unwrap();
    let (version, half): (i64, i64) = db
        .query_row(
            "SELECT user_version, (SELECT count(*) FROM sqlite_schema WHERE name = 'half') FROM pragma_user_version",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert_eq!((version, half), (1, 0));
}

#[test]
fn old_and_many_are_deleted_and_those_that_go_on_never() {
    let folder = tempfile::tempdir().unwrap();
    let path = store_path(folder.path());
    let mut file = File::open(&path).unwrap();
    let day = |n: i64| at(n * 86_400);
    let kind = |id: u64, state, quiet: bool, severity, days: i64| Alert {
        state,
        severity,
        last: day(days),
        quiet_since: quiet.then(|| day(days)),
        ..alert(id)
    };
    let few = [
        kind(1, State::Resolved, false, Severity::Critical, 1),
        kind(2, State::Resolved, false, Severity::Critical, 50),
        kind(3, State::Open, true, Severity::Critical, 1),
        kind(4, State::Open, false, Severity::Notice, 1),
    ];
    file.write(few.iter().map(|alert| (alert, true))).unwrap();
    let keep = Keep { age: 30 * 86_400, bytes: u64::MAX };
    assert_eq!(file.retain(keep, day(60)).unwrap(), [1, 3]);
    let many: Vec<Alert> = (10..2010)
        .map(|id| match id % 4 {
            0 => kind(id, State::Resolved, false, Severity::Critical, 100 + id as i64),
            1 => kind(id, State::Open, true, Severity::Notice, 100),
            2 => kind(id, State::Acknowledged, true, Severity::Critical, 100),
            _ => kind(id, State::Open, false, Severity::Notice, 100),
        })
        .collect();
    file.write(many.iter().map(|alert| (alert, false))).unwrap();
    let size = |path| fs::metadata(path).unwrap().len();
    let full = size(&path);
    // Some of the resolved: the oldest.
    let gone = file.retain(Keep { age: u64::MAX, bytes: full - full / 10 }, day(200)).unwrap();
    assert!(!gone.is_empty() && gone.iter().all(|id| *id == 2 || (id % 4 == 0 && *id < 1200)), "{gone:?}");
    // All that may go.
    let gone = file.retain(Keep { age: u64::MAX, bytes: 0 }, day(200)).unwrap();
    let rank = |id: &u64| id % 4;
    assert!(gone.is_sorted_by_key(rank), "first the resolved, then the quiet ones, the milder first");
    let page = file.list(&Filter { all: true, ..Filter::default() }, u64::MAX).unwrap();
    assert!(page.alerts.iter().all(|alert| alert.state == State::Open && alert.quiet_since.is_none()));
    let changes: i64 = Connection::open(&path)
        .unwrap()
        .query_row("SELECT count(*) FROM changes WHERE alert NOT IN (SELECT id FROM alerts)", [], |row| row.get(0))
        .unwrap();
    assert_eq!(changes, 0);
    file.close();
    assert!(size(&path) < full / 2, "the file has not shrunk: {} of {full}", size(&path));
}

#[test]
fn a_damaged_file_is_set_aside_and_the_alerts_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = started(folder.path());
    for id in 1..200 {
        store.save(save(alert(id)));
    }
    assert!(store.end(Duration::from_secs(10)));
    let path = store_path(folder.path());
    let mut bytes = fs::read(&path).unwrap();
    for page in bytes.chunks_mut(4096).skip(2) {
        page[..64].fill(0xa5);
    }
    fs::write(&path, &bytes).unwrap();
    let (mut store, events) = started(folder.path());
    assert!(matches!(events[0], StoreEvent::Anew), "{events:?}");
    assert!(store.broken().is_none());
    // The numbers go on even so.
    assert!(store.numbers().0 >= 200, "{:?}", store.numbers());
    wait(store.save_now(save(alert(200)))).unwrap();
    assert!(store.end(Duration::from_secs(5)));
    let aside: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.starts_with("alerts.sqlite.broken-") && name.ends_with('Z'))
        .collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(fs::read(folder.path().join(&aside[0])).unwrap(), bytes);
    // What is no database at all fares the same.
    fs::write(&path, "not a database, for longer than a hundred bytes ".repeat(99)).unwrap();
    let (store, _) = started(folder.path());
    assert!(store.broken().is_none());
    assert!(
        store.numbers().0 > 1_000_000_000,
        "unknown numbers begin above all that can have been: {:?}",
        store.numbers()
    );
}

#[test]
fn a_file_that_somebody_removes_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = started(folder.path());
    wait(store.save_now(save(alert(1)))).unwrap();
    let until_then = store.numbers().1;
    fs::remove_file(store.path()).unwrap();
    wait(store.save_now(save(alert(2)))).unwrap();
    assert!(store.events().iter().any(|event| matches!(event, StoreEvent::Anew)));
    assert!(store.end(Duration::from_secs(5)));
    let seen = glimpse(folder.path()).unwrap();
    assert_eq!(seen.read(2).unwrap().map(|alert| alert.id), Some(2));
    assert!(until_then > 2);
    let (store, _) = started(folder.path());
    assert!(store.numbers().0 > 2);
}

#[test]
fn a_flood_that_cannot_be_written_leaves_memory_bounded() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(store_path(folder.path())).unwrap();
    let (mut store, _) = started(folder.path());
    assert!(store.broken().unwrap().contains("cannot open"), "{:?}", store.broken());
    let one = Arc::new(alert(1));
    for id in 0..60_000 {
        let severity = if id % 3 == 0 { Severity::Critical } else { Severity::Notice };
        wait_for(&mut store.behind, save(Alert { id, severity, ..Alert::clone(&one) }), &store.health);
        assert!(store.behind.len() <= WAITING);
    }
    assert_eq!(store.lost() + store.behind.len() as u64, 60_000);
    // As many severe ones as there is room for.
    let severe = store.behind.values().filter(|save| save.alert.severity == Severity::Critical).count();
    assert!(severe > WAITING * 9 / 10, "{severe}");
}

/// What the next test kills: writes until it is killed, and says each alert that it was told is on disk.
#[test]
fn child_that_writes_alerts() {
    let Some(folder) = std::env::var_os("PORTREEVE_TEST_STORE") else { return };
    let (mut store, _) = started(Path::new(&folder));
    let mut numbers = store.numbers();
    let mut out = std::io::stdout();
    writeln!(out, "\nfrom {}", numbers.0).unwrap();
    let template = alert(1);
    let mut version = 0;
    loop {
        version += 1;
        let id = numbers.0;
        let mut alert = Alert { id, subject: SubjectId(id), attempts: version, ..template.clone() };
        // Some that only grow, and are not waited for.
        for attempts in 0..3 {
            alert.attempts = version * 10 + attempts;
            store.save(Save { changed: false, ..save(alert.clone()) });
        }
        alert.attempts = version * 10 + 9;
        wait(store.save_now(save(alert.clone()))).unwrap();
        writeln!(out, "{id} {}", alert.attempts).unwrap();
        if version % 3 == 0 {
            numbers.0 += 1;
            if numbers.0 >= numbers.1 {
                numbers.1 = store.numbers().1;
                assert!(numbers.0 < numbers.1);
            }
        }
    }
}

#[test]
fn whatever_was_told_as_done_is_there_after_a_kill_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let mut told: BTreeMap<u64, u64> = BTreeMap::new();
    for round in 0..50u64 {
        let mut child = Child::new(std::env::current_exe().unwrap())
            .args(["--exact", "alert::store::tests::child_that_writes_alerts", "--nocapture", "--test-threads=1"])
            .env("PORTREEVE_TEST_STORE", folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
        // From the middle of the start to long after it.
        std::thread::sleep(Duration::from_micros(20_000 + round * round * 60));
        child.kill().unwrap();
        child.wait().unwrap();
        let lines = reader.join().unwrap();
        for line in &lines {
            if let Some(from) = line.strip_prefix("from ").and_then(|from| from.parse::<u64>().ok()) {
                assert!(told.last_key_value().is_none_or(|(last, _)| from > *last), "number {from} is given again");
            } else if let Some((id, attempts)) = line.split_once(' ')
                && let (Ok(id), Ok(attempts)) = (id.parse(), attempts.parse())
            {
                told.insert(id, attempts);
            }
        }
        let file = File::open(&store_path(folder.path())).unwrap();
        for (id, attempts) in &told {
            let kept = file.read(*id).unwrap().unwrap_or_else(|| panic!("alert {id} was on disk and is gone"));
            assert!(kept.attempts >= *attempts, "alert {id}: {} attempts of {attempts}", kept.attempts);
            assert_eq!(kept.history.len(), alert(1).history.len());
        }
        drop(file);
        let db = Connection::open(store_path(folder.path())).unwrap();
        let check: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
        let changes: u32 = db.query_row("SELECT count(DISTINCT alert) FROM changes", [], |row| row.get(0)).unwrap();
        assert!(changes as usize >= told.len(), "{changes} of {}", told.len());
    }
    assert!(told.len() > 50, "too few writes to show anything: {}", told.len());
}

/// A small file system of its own, seen by this thread and those it starts, gone with them.
fn small_disk(folder: &Path) {
    assert!(nix::unistd::geteuid().is_root(), "this test mounts a file system: run it as root");
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount::<str, str, str, str>(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None).unwrap();
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some("size=2m")).unwrap();
}

/// Fills it to the last byte.
fn fill(folder: &Path) {
    let mut file = OpenOptions::new().append(true).create(true).open(folder.join("filler")).unwrap();
    let mut size = 65_536;
    while size > 0 {
        if file.write_all(&vec![0; size]).is_err() {
            size /= 2;
        }
    }
}

#[test]
fn on_a_full_disk_alerts_go_on_and_come_to_disk_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    small_disk(folder);
    let (mut store, _) = started(folder);
    wait(store.save_now(save(alert(1)))).unwrap();
    fill(folder);
    let mut id = 1;
    let why = loop {
        id += 1;
        assert!(id < 5000, "the disk does not get full");
        if let Err(why) = wait(store.save_now(save(alert(id)))) {
            break why;
        }
    };
    assert!(why.contains("full") && why.contains("alerts.sqlite"), "{why}");
    assert_eq!(store.broken(), Some(why));
    for more in 1..=20 {
        store.save(save(alert(id + more)));
    }
    assert!(wait(store.save_now(save(alert(id + 21)))).is_err());
    fs::remove_file(folder.join("filler")).unwrap();
    until("the disk works again", || store.broken().is_none());
    assert!(store.end(Duration::from_secs(5)));
    let seen = glimpse(folder).unwrap();
    for id in 1..=id + 21 {
        assert!(seen.read(id).unwrap().is_some(), "alert {id} is not on disk");
    }
    // An agent that starts on a full disk knows what is there all the same, and says that it cannot write.
    drop(seen);
    fill(folder);
    let (mut store, events) = started(folder);
    assert_eq!(loaded(events).len() as u64, id + 21);
    assert!(store.broken().is_some());
    assert!(wait(store.save_now(save(alert(id + 22)))).is_err());
    fs::remove_file(folder.join("filler")).unwrap();
    until("the disk works again", || store.broken().is_none());
    assert!(store.numbers().0 > id + 21, "{:?}", store.numbers());
    umount2(folder, MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn on_a_disk_that_becomes_read_only_alerts_go_on_too() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    small_disk(folder);
    let (mut store, _) = started(folder);
    wait(store.save_now(save(alert(1)))).unwrap();
    assert!(store.end(Duration::from_secs(5)));
    let again = |flags| mount::<str, Path, str, str>(None, folder, None, MsFlags::MS_REMOUNT | flags, None).unwrap();
    again(MsFlags::MS_RDONLY);
    let (mut store, events) = started(folder);
    assert_eq!(loaded(events), [alert(1)]);
    assert!(wait(store.save_now(save(alert(2)))).unwrap_err().contains("cannot open"), "{:?}", store.broken());
    again(MsFlags::empty());
    until("the disk works again", || store.broken().is_none());
    assert_eq!(wait(store.save_now(save(alert(3)))), Ok(()));
    assert!(store.end(Duration::from_secs(5)));
    let listed = glimpse(folder).unwrap().list(&Filter::default(), u64::MAX).unwrap();
    assert_eq!(listed.alerts.iter().map(|alert| alert.id).collect::<Vec<_>>(), [3, 2, 1]);
    umount2(folder, MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn numbers_are_set_apart_faster_than_a_flood_uses_them() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = started(folder.path());
    let template = alert(1);
    let mut numbers = store.numbers();
    for _ in 0..40 {
        let (_, before) = numbers;
        wait(store.save_now(save(Alert { id: before - 1, ..template.clone() }))).unwrap();
        numbers = store.numbers();
        assert!(numbers.0 == before && numbers.1 > before, "{numbers:?} after {before}");
    }
    assert!(numbers.1 > 1_000_000, "{numbers:?}");
}
