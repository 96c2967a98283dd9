//! The guard over time: taken over by another agent, attacked, followed to new devices, taken away.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use lab::{Cgroup, Guard, Probe, Running, Scene, until};
use nix::sys::signal::Signal;

/// The folder of an instance's pins.
fn pins(guard: &Guard) -> PathBuf {
    Path::new("/sys/fs/bpf/portreeve").join(guard.instance())
}

/// The attached programs, by their pins' names.
fn links(guard: &Guard) -> Vec<String> {
    let entries = std::fs::read_dir(pins(guard).join("links")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// `status --json`, which says by its exit code whether all is well.
fn status(guard: &Guard) -> serde_json::Value {
    serde_json::from_str(&guard.command(["status", "--json"]).stdout).unwrap()
}

/// Something that hammers connect() until it is ended.
fn hammer(scene: &Scene, cgroup: &Cgroup, log: &Path) -> Running {
    let to = scene.mx.v4().to_string();
    let program = scene.lab.program(scene.lab.client()).args(["hammer", &to, "25", "400000"]);
    program.in_host(&scene.host).in_cgroup(cgroup).spawn(log)
}

/// What a hammer that has ended says: nothing but refusals, so many.
fn refusals(log: &Path) -> u64 {
    let said = std::fs::read_to_string(log).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let [line] = lines.as_slice() else { panic!("more than one outcome: {said}") };
    let (outcome, times) = line.rsplit_once(' ').unwrap();
    assert_eq!(outcome, "EPERM", "{said}");
    times.parse().unwrap()
}

#[test]
fn another_agent_takes_over_without_an_open_moment() {
    let scene = Scene::new("takeover");
    let web = scene.lab.cgroup("web");
    let mut guard = Guard::start(&scene.lab, "");
    let log = scene.lab.scratch("hammer");
    let mut run = hammer(&scene, &web, &log);
    let first = guard.pid();
    for round in 0..3 {
        assert_eq!(guard.take_over(&[]), 0, "round {round}: the first agent did not end in order\n{}", guard.log());
    }
    assert_ne!(guard.pid(), first);
    assert_eq!(run.wait(), 0);
    assert_eq!(guard.counters()["refused"], refusals(&log));
    assert_eq!(scene.sink.accepted(), 0);
}

#[test]
fn a_policy_that_does_not_check_does_not_cost_the_agent_that_runs() {
    let scene = Scene::new("takeover-bad");
    let guard = Guard::start(&scene.lab, "");
    let bad = scene.lab.dir().join("bad.toml");
    std::fs::write(&bad, "[guard]\nmode = 5\n").unwrap();
    let second = guard.second(&bad);
    assert_eq!(second.code, 2, "{second:#?}");
    assert!(second.stderr.contains("that is running goes on"), "{}", second.stderr);
    assert_eq!(guard.status()["pid"], guard.pid());
}

#[test]
fn an_upgrade_with_another_map_layout_keeps_the_counters_and_leaves_no_open_moment() {
    let scene = Scene::new("upgrade");
    let web = scene.lab.cgroup("web");
    let mut guard = Guard::start(&scene.lab, "");
    let log = scene.lab.scratch("hammer");
    let mut run = hammer(&scene, &web, &log);
    for version in ["901", "902"] {
        until("some refusals", lab::DEADLINE, || if guard.counters()["refused"] > 100 { Ok(()) } else { Err(()) });
        assert_eq!(guard.take_over(&["--map-version", version]), 0, "{}", guard.log());
    }
    let folders: Vec<String> = std::fs::read_dir(pins(&guard))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with('v'))
        .collect();
    assert_eq!(folders, ["v902"], "the maps of the layouts before are gone");
    assert_eq!(run.wait(), 0);
    let total = refusals(&log);
    assert_eq!(guard.counters()["refused"], total);
    let subjects = guard.subjects();
    assert_eq!((subjects.len(), &subjects[0]["refused"]), (1, &total.into()), "{subjects:?}");
    assert_eq!(scene.sink.accepted(), 0);
}

#[test]
fn a_program_that_is_taken_away_is_put_back_and_raises_an_alarm() {
    let scene = Scene::new("robbed");
    let web = scene.lab.cgroup("web");
    let guard = Guard::start(&scene.lab, "");
    let names = links(&guard);
    let attached = |name: &str| !name.starts_with("next");
    assert!(names.iter().any(|name| name == "packet"), "{names:?}");
    for name in names.iter().filter(|name| attached(name)) {
        let before = status(&guard)["alarms"].as_array().unwrap().len();
        std::fs::remove_file(pins(&guard).join("links").join(name)).unwrap();
        until("the alarm", lab::DEADLINE, || {
            let status = status(&guard);
            let alarms = status["alarms"].as_array().unwrap().len();
            if alarms > before && status["state"] == "guarding" { Ok(()) } else { Err((name.clone(), status)) }
        });
    }
    assert_eq!(links(&guard), names);
    assert_eq!(scene.plain(&scene.lab.client(), &web, (0, 0)), "EPERM");
    let text = guard.command(["status"]).must_succeed().stdout;
    assert!(text.contains("ALARM") && text.contains("connect4: its pin is gone; it was put back"), "{text}");
}

#[test]
fn devices_that_come_later_are_guarded() {
    let scene = Scene::new("devices");
    let web = scene.lab.cgroup("web");
    let guard = Guard::start(&scene.lab, "");
    let other = scene.lab.host("other");
    scene.lab.wire(&scene.host, &other);
    let probe = Probe::listen(&other, 25);
    let by = |status: serde_json::Value| {
        let hooks = status["hooks"].as_array().unwrap().clone();
        let frame = hooks.into_iter().find(|hook| hook["name"] == "frame").unwrap();
        frame["by"].as_str().unwrap().to_owned()
    };
    until("the new device", lab::DEADLINE, || {
        let by = by(guard.status());
        if by.contains("w1a") { Ok(()) } else { Err(by) }
    });
    for way in ["packet_raw", "packet_vlan", "packet_tx_ring"] {
        for to in [other.v4(), other.v6()] {
            let client = scene.lab.program(scene.lab.client()).args([way, &to.to_string(), "25"]);
            client.in_host(&scene.host).in_cgroup(&web).run().must_succeed();
        }
    }
    assert_eq!(probe.settled(), 0, "{:?}", probe.segments());
    assert!(guard.counters()["refused"] >= 6);
    // A device that goes takes its pin along.
    scene.host.ip("link del w1a");
    until("the pin to go", lab::DEADLINE, || {
        let by = by(guard.status());
        if by.contains("w1a") { Err(by) } else { Ok(()) }
    });
}

#[test]
fn detach_leaves_nothing_also_of_a_version_it_does_not_know() {
    let scene = Scene::new("nothing-left");
    let web = scene.lab.cgroup("web");
    let mut guard = Guard::start(&scene.lab, "");
    assert_eq!(scene.plain(&scene.lab.client(), &web, (0, 0)), "EPERM");
    guard.stop(Signal::SIGTERM);
    let folder = pins(&guard);
    // What a later version may pin: maps in another folder, another link.
    std::fs::create_dir(folder.join("v999")).unwrap();
    std::fs::create_dir(folder.join("links").join("more")).unwrap();
    guard.command(["detach"]).must_succeed();
    assert!(!folder.exists());
    assert_eq!(scene.plain(&scene.lab.client(), &web, (0, 0)), "connected");
    let filters = std::process::Command::new("nsenter")
        .arg(format!("--net={}", scene.host.path().display()))
        .args(["tc", "filter", "show", "dev", "w0a", "egress"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&filters.stdout), "", "{filters:?}");
}
