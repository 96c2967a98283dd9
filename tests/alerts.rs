//! Real bots and real programs that are only set up wrongly, side by side under the guard: alerts for the bots alone,
//! and what an administrator does with them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "alerts/life.rs"]
mod life;
#[path = "alerts/programs.rs"]
mod programs;

use std::collections::BTreeSet;
use std::time::Duration;

use lab::{DEADLINE, Guard, Lab, until};
use programs::{BENIGN, BOTS, Programs};
use serde_json::Value;

/// All alerts.
fn alerts(guard: &Guard) -> Vec<Value> {
    let listed = guard.command(["alerts", "--all", "--json"]).must_succeed();
    listed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Whom an alert or an attempt is about: the script, else the executable, by the path within the programs' root.
fn about(who: &Value) -> String {
    let path = [&who["script"], &who["exe"], &who["name"]].into_iter().find_map(Value::as_str).unwrap();
    path.rsplit_once("/root/")
        .filter(|(lab, _)| lab.contains("portreeve-test"))
        .map_or(path.to_owned(), |(_, inside)| format!("/{inside}"))
}

fn found(guard: &Guard) -> BTreeSet<String> {
    alerts(guard).iter().map(|alert| about(&alert["who"])).collect()
}

#[test]
fn exactly_the_bots_are_flagged() {
    let lab = Lab::new("bots");
    let host = lab.host("host");
    let guard = Guard::start(&lab, "");
    let programs = Programs::new(&lab, &host);
    // It goes on while the others come and go.
    let _running = (programs.daemon(), programs.cron());
    for program in BENIGN.iter().chain(BOTS) {
        programs.run(program);
    }
    let expected: BTreeSet<String> = BOTS.iter().map(|bot| bot.about.to_owned()).collect();
    until("an alert for every bot", DEADLINE, || {
        let found = found(&guard);
        if expected.is_subset(&found) { Ok(()) } else { Err(found) }
    });
    // Every benign program has tried often enough to be told from a bot.
    let (exe, least) = programs::DAEMON;
    until("the daemon's attempts", DEADLINE, || {
        let count = guard.attempts().iter().filter(|attempt| about(attempt) == exe).count();
        if count >= least { Ok(()) } else { Err(count) }
    });
    // cron begins at a full minute.
    let (script, least) = programs::JOB;
    until("the job's attempts", Duration::from_secs(90), || {
        let count = guard.attempts().iter().filter(|attempt| about(attempt) == script).count();
        if count >= least { Ok(()) } else { Err(count) }
    });
    let attempts = guard.attempts();
    for program in BENIGN {
        let count = attempts.iter().filter(|attempt| about(attempt) == program.about).count();
        assert!(count >= 15, "{} has tried {count} times only", program.about);
    }
    assert_eq!(found(&guard), expected);
    for alert in alerts(&guard) {
        assert_eq!((&alert["severity"], &alert["state"]), (&"critical".into(), &"open".into()), "{alert:#}");
        assert!(!alert["findings"].as_array().unwrap().is_empty() && alert["worst"].is_object(), "{alert:#}");
    }
    // The same attempts, replayed, say the same.
    let recorded = lab.scratch("attempts");
    std::fs::write(&recorded, guard.command(["attempts", "--json"]).must_succeed().stdout).unwrap();
    let replayed = guard.command(["detect", "replay", recorded.to_str().unwrap()]).must_succeed().stdout;
    let subjects = |text: &str| -> BTreeSet<String> {
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["subject"]["id"].to_string()).collect()
    };
    let live: BTreeSet<String> = alerts(&guard).iter().map(|alert| alert["subject"].to_string()).collect();
    assert_eq!(subjects(&replayed), live);
}
