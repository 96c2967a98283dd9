//! The life of an alert, by the commands an administrator types.

use std::time::Duration;

use lab::{Cgroup, DEADLINE, Guard, Lab, Program, Scene, until};
use serde_json::Value;

use super::alerts;

/// A bot that goes on until it is stopped, in a folder of the lab.
const BOT: &str = "import itertools, socket, time
for victim in itertools.count():
    try: socket.create_connection((f'10.9.{victim % 250}.25', 25), 5)
    except OSError: time.sleep(0.03)
";

#[track_caller]
fn show(guard: &Guard, id: u64) -> Value {
    serde_json::from_str(&guard.command(["alerts", "show", &id.to_string(), "--json"]).must_succeed().stdout).unwrap()
}

/// The letter of a process's state: proc_pid_stat(5).
fn state(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

/// The kernel's own count of what was refused.
fn refused(guard: &Guard) -> u64 {
    guard.subjects().iter().map(|subject| subject["refused"].as_u64().unwrap()).sum()
}

fn bot(lab: &Lab, cgroup: &Cgroup) -> Program {
    let script = lab.dir().join("bot.py");
    std::fs::write(&script, BOT).unwrap();
    lab.program("/usr/bin/python3").args([&script]).in_cgroup(cgroup).as_user(33, 33)
}

#[test]
fn a_bot_is_stopped_counted_once_over_a_kill_let_go_on_and_resolved() {
    let lab = Lab::new("life");
    let host = lab.host("host");
    let web = lab.cgroup("system.slice/web.service");
    let mut guard = Guard::start(&lab, "[[respond]]\naction = \"stop\"\n");
    let running = bot(&lab, &web).in_host(&host).spawn(&lab.scratch("bot-log"));
    until("the bot to stand still", DEADLINE, || match state(running.pid()) {
        'T' => Ok(()),
        other => Err((other, guard.log())),
    });
    let first = until("a count that the kernel has as well", DEADLINE, || {
        let (alert, counted) = (show(&guard, 1), refused(&guard));
        if alert["attempts"] == counted { Ok(counted) } else { Err((alert["attempts"].clone(), counted)) }
    });
    assert_eq!(show(&guard, 1)["deeds"][0]["action"], "stop");
    until("what was found out beside it", DEADLINE, || {
        let alert = show(&guard, 1);
        let known = alert["sha256"].is_string() && !alert["tree"].as_array().unwrap().is_empty();
        if known { Ok(()) } else { Err(alert) }
    });
    guard.command(["alerts", "ack", "1", "--note", "on it"]).must_succeed();

    // Nothing is lost by a kill, and nothing counted twice.
    guard.kill();
    guard.resume();
    let alert = show(&guard, 1);
    assert_eq!((&alert["attempts"], &alert["state"]), (&first.into(), &"acknowledged".into()), "{alert:#}");
    assert_eq!(alert["history"].as_array().unwrap().last().unwrap()["who"], "root");
    assert_eq!(state(running.pid()), 'T', "stopped is stopped, also without an agent");

    guard.command(["alerts", "undo", "1"]).must_succeed();
    until("the bot to go on", DEADLINE, || {
        let counted = refused(&guard);
        if counted > first + 40 { Ok(()) } else { Err(counted) }
    });
    assert_ne!(state(running.pid()), 'T', "after an undo it is left alone");
    drop(running);
    guard.command(["alerts", "resolve", "1", "--as", "spam-bot", "--note", "mended"]).must_succeed();
    assert_eq!(guard.command(["alerts", "--json"]).must_succeed().stdout, "");
    assert_eq!(show(&guard, 1)["resolution"], "spam-bot");
    // Whoever comes back reopens it, with all that was, and is stopped again.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(guard.command(["alerts", "ack", "1"]).code, 1, "a resolved alert is not acknowledged");
    assert_eq!(guard.command(["alerts", "show", "77"]).code, 1);
}

#[test]
fn an_alert_becomes_the_narrowest_rule_that_lets_it_send() {
    let scene = Scene::new("allow");
    let unit = scene.lab.cgroup("system.slice/mailer.service");
    // The policy says what is guarded, as an administrator's does: cgroups of rules are below that.
    let before = format!("# Ours.\n[guard]\ncgroup = \"{}\" # the lab\n", scene.lab.cgroup_root().name());
    let guard = Guard::start(&scene.lab, &before);
    let mx = scene.mx.v4().to_string();
    let curl = |to: &str| {
        let url = format!("smtp://{to}/host.example");
        let arguments = ["-sS", "-m5", "--mail-from", "a@host.example", "--mail-rcpt", "b@mx.example", "-T-", &url];
        let program = scene.lab.program("/usr/bin/curl").args(arguments).in_host(&scene.host).in_cgroup(&unit);
        program.as_user(33, 33).input("Subject: x\r\n\r\nx\r\n").run()
    };
    for n in 0..8 {
        curl(&format!("10.8.{n}.25"));
        std::thread::sleep(Duration::from_millis(20));
    }
    curl(&mx);
    let id = until("the alert", DEADLINE, || match &alerts(&guard)[..] {
        [alert] => Ok(alert["id"].as_u64().unwrap()),
        other => Err(other.to_vec()),
    });
    until("all attempts in it", DEADLINE, || {
        let alert = show(&guard, id);
        if alert["attempts"] == 9 { Ok(()) } else { Err(alert) }
    });
    assert_eq!(scene.sink.accepted(), 0);
    let policy = guard.policy().display().to_string();
    let allow = |more: &[&str]| {
        let id = id.to_string();
        guard.command(["alerts", "allow", &id, "--config", &policy].into_iter().chain(more.iter().copied()))
    };
    let dry = allow(&["--dry-run"]).must_succeed();
    assert!(dry.stdout.contains("+exe = \"/usr/bin/curl\""), "{}", dry.stdout);
    assert_eq!(scene.sink.accepted(), 0);
    allow(&["--yes", "--note", "ticket 7"]).must_succeed();
    let text = std::fs::read_to_string(guard.policy()).unwrap();
    assert!(text.starts_with(&before), "{text}");
    assert!(text.contains("ticket 7") && text.contains("user = \"www-data\"") && text.contains(&mx), "{text}");
    let alert = show(&guard, id);
    assert_eq!((&alert["state"], &alert["resolution"]), (&"resolved".into(), &"allowed".into()));
    curl(&mx);
    let asked = ["explain", "--exe", "/usr/bin/curl", "--user", "33", "--unit", "mailer.service", "--to", &mx];
    let explained = guard.command(asked).stdout;
    assert_eq!(scene.sink.accepted(), 1, "it may send now: {text}\n{explained}\n{:?}", scene.sink.messages());
    curl("10.8.99.25");
    let last = guard.attempts().pop().unwrap();
    assert_eq!((&last["destination"], &last["verdict"]), (&"10.8.99.25:25".into(), &"deny".into()), "and nowhere else");
}

#[test]
fn a_mailer_that_turns_to_the_local_server_is_counted_and_never_refused() {
    let scene = Scene::new("local");
    let web = scene.lab.cgroup("system.slice/web.service");
    let guard = Guard::start(&scene.lab, "");
    for _ in 0..30 {
        let program = scene.lab.program(scene.lab.client()).args(["plain", "127.0.0.1", "25"]);
        program.in_host(&scene.host).in_cgroup(&web).as_user(33, 33).run().must_succeed();
    }
    until("the hand-overs", DEADLINE, || {
        let subjects = guard.subjects();
        let local: u64 = subjects.iter().map(|subject| subject["local"].as_u64().unwrap()).sum();
        if local == 30 { Ok(()) } else { Err(subjects) }
    });
    assert_eq!(guard.counters()["refused"], 0);
    assert_eq!(alerts(&guard), Vec::<Value>::new(), "one busy stretch is no break from a past");
}
