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

/// Something that hammers connect() until it is told to end.
struct Hammer {
    run: Running,
    stop: PathBuf,
    log: PathBuf,
}

impl Hammer {
    fn start(scene: &Scene, cgroup: &Cgroup) -> Self {
        Self::at(scene, &scene.lab.client(), &scene.mx.v4().to_string(), cgroup)
    }

    fn at(scene: &Scene, program: &Path, to: &str, cgroup: &Cgroup) -> Self {
        let (stop, log) = (scene.lab.scratch("stop"), scene.lab.scratch("hammer"));
        let arguments = ["hammer", to, "25", "50000000", &stop.display().to_string()].map(str::to_owned);
        let program = scene.lab.program(program.to_owned()).args(arguments);
        Self { run: program.in_host(&scene.host).in_cgroup(cgroup).spawn(&log), stop, log }
    }

    /// Ends it, and counts its calls, all of which must have had one outcome.
    #[track_caller]
    fn all(mut self, outcome: &str) -> u64 {
        assert!(self.run.runs(), "nothing was hammering at the end: {:?}", std::fs::read_to_string(&self.log));
        std::fs::write(&self.stop, "").unwrap();
        assert_eq!(self.run.wait(), 0);
        let said = std::fs::read_to_string(&self.log).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        let [line] = lines.as_slice() else { panic!("more than one outcome: {said}") };
        let (what, times) = line.rsplit_once(' ').unwrap();
        assert_eq!(what, outcome, "{said}");
        times.parse().unwrap()
    }
}

#[test]
fn another_agent_takes_over_without_an_open_moment() {
    let scene = Scene::new("takeover");
    let web = scene.lab.cgroup("web");
    let mut guard = Guard::start(&scene.lab, "");
    let hammer = Hammer::start(&scene, &web);
    let first = guard.pid();
    for round in 0..3 {
        assert_eq!(guard.take_over(&[]), 0, "round {round}: the first agent did not end in order\n{}", guard.log());
    }
    assert_ne!(guard.pid(), first);
    assert_eq!(hammer.all("EPERM"), guard.counters()["refused"]);
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
    let hammer = Hammer::start(&scene, &web);
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
    let total = hammer.all("EPERM");
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

/// Waits until an alarm says something, and all is well again.
#[track_caller]
fn repaired(guard: &Guard, words: &str) -> String {
    until(&format!("the alarm \"{words}\""), lab::DEADLINE, || {
        let status = status(guard);
        let alarms = status["alarms"].as_array().unwrap();
        let said = alarms.iter().filter_map(|alarm| alarm["what"].as_str()).find(|what| what.contains(words));
        match said {
            Some(said) if status["state"] == "guarding" => Ok(said.to_owned()),
            _ => Err(format!("{status:#}")),
        }
    })
}

#[test]
fn all_pins_may_go_and_nothing_opens() {
    let scene = Scene::new("folder");
    let web = scene.lab.cgroup("web");
    let mut guard = Guard::start(&scene.lab, "");
    let hammer = Hammer::start(&scene, &web);
    until("some refusals", lab::DEADLINE, || if guard.counters()["refused"] > 100 { Ok(()) } else { Err(()) });
    let names = links(&guard);
    std::fs::remove_dir_all(pins(&guard)).unwrap();
    repaired(&guard, "packet: its pin is gone; it was put back");
    repaired(&guard, "the table PR_TOTALS: its pin is gone; it was put back");
    until("the pins", lab::DEADLINE, || if links(&guard) == names { Ok(()) } else { Err(links(&guard)) });
    // What is pinned again is what is attached: the next agent takes it over, counters and all.
    guard.kill();
    guard.resume();
    assert_eq!(hammer.all("EPERM"), guard.counters()["refused"]);
    assert_eq!(scene.sink.accepted(), 0);
}

#[test]
fn a_program_that_is_detached_is_attached_again() {
    let scene = Scene::new("detached");
    let web = scene.lab.cgroup("web");
    let guard = Guard::start(&scene.lab, "");
    let others = ["exec", "fork", "exit", "lsm", "reach", "bpf"];
    for name in links(&guard).iter().filter(|name| !name.starts_with("next") && !others.contains(&name.as_str())) {
        let pin = pins(&guard).join("links").join(name);
        let done = std::process::Command::new("bpftool").args(["link", "detach", "pinned"]).arg(&pin).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        // Of devices there are two, and each has its alarm.
        let alarm = if let Some(device) = name.strip_prefix("frame-") {
            let device = if device.ends_with("-1") { "lo" } else { "w0a" };
            repaired(&guard, &format!("frame: it is gone from {device}; it was put back"))
        } else {
            repaired(&guard, &format!("{name}: it is detached; it was put back"))
        };
        if guard.lacks("bpf").is_none() {
            assert!(alarm.contains("bpf() was called by") && alarm.contains("bpftool["), "{alarm}");
        }
    }
    // Before tcx the filters of devices are no links.
    if guard.means("frame").starts_with("clsact") {
        scene.host.run("tc", &["qdisc", "del", "dev", "w0a", "clsact"]);
        repaired(&guard, "frame: it is gone from w0a; it was put back");
    }
    let probe = Probe::listen(&scene.mx, 25);
    for way in ["plain", "packet_raw", "packet_bypass", "raw_syn"] {
        let client = scene.lab.program(scene.lab.client()).args([way, &scene.mx.v4().to_string(), "25"]);
        client.in_host(&scene.host).in_cgroup(&web).run().must_succeed();
    }
    assert_eq!(probe.settled(), 0);
}

#[test]
fn what_was_taken_away_while_no_agent_ran_is_said() {
    let scene = Scene::new("meanwhile");
    let mut guard = Guard::start(&scene.lab, "");
    guard.kill();
    std::fs::remove_file(pins(&guard).join("links").join("connect6")).unwrap();
    guard.resume();
    repaired(&guard, "connect6: it was taken away while no agent ran; it was put back");
    guard.kill();
    guard.resume();
    assert!(guard.status()["alarms"].as_array().unwrap().is_empty(), "{:#}", guard.status()["alarms"]);
}

#[test]
fn a_policy_that_somebody_writes_over_is_put_in_force_again() {
    let scene = Scene::new("tampered");
    let web = scene.lab.cgroup("web");
    let guard = Guard::start(&scene.lab, "");
    let layout = format!("v{}", guard.status()["abi_version"]);
    let map = pins(&guard).join(layout).join("PR_ACTIVE");
    assert!(map.exists());
    // A generation that nobody has written: everything is refused until the agent looks.
    let arguments = "key 0 0 0 0 value 99 0 0 0 0 0 0 0";
    let mut update = std::process::Command::new("bpftool");
    update.args(["map", "update", "pinned"]).arg(&map).args(arguments.split(' '));
    assert!(update.status().unwrap().success());
    repaired(&guard, "policy: somebody has written to its tables; it was put in force again");
    assert_eq!(scene.plain(&scene.lab.client(), &web, (0, 0)), "EPERM");
    assert_eq!(guard.attempts().last().unwrap()["reason"], "no-rule");
}

#[test]
fn what_is_allowed_goes_on_while_agents_take_over() {
    let scene = Scene::new("goes-on");
    let own = scene.lab.cgroup("own");
    let program = scene.lab.dir().join("sanctioned");
    scene.lab.copy_client(&program);
    let rule = format!("[[allow]]\nexe = \"{}\"\nuser = \"root\"\n", program.display());
    let _local = lab::Sink::listen(&scene.host, 25);
    let mut guard = Guard::start(&scene.lab, &rule);
    // Mail for the loopback has no verdict in its sockets: every packet of it is judged.
    let (v4, v6) = (scene.mx.v4().to_string(), scene.mx.v6().to_string());
    let hammers = [(&program, v4.as_str()), (&program, v6.as_str()), (&scene.lab.client(), "127.0.0.1")];
    let hammers = hammers.map(|(program, to)| Hammer::at(&scene, program, to, &own));
    for version in ["903", "904", "905"] {
        assert_eq!(guard.take_over(&["--map-version", version]), 0, "{}", guard.log());
    }
    let [v4, v6, local] = hammers.map(|hammer| hammer.all("connected"));
    let counters = guard.counters();
    assert_eq!((counters["refused"], counters["dropped"]), (0, 0), "{:#?}", guard.attempts().last());
    assert_eq!((counters["allowed"], counters["local"]), (v4 + v6, local));
}

#[test]
fn a_device_that_moves_to_another_namespace_stays_guarded() {
    let scene = Scene::new("moves");
    let web = scene.lab.cgroup("web");
    let guard = Guard::start(&scene.lab, "");
    let other = scene.lab.host("other");
    scene.host.ip("link add moved type veth peer name stays");
    until("the device", lab::DEADLINE, || {
        let by = guard.means("frame");
        if by.contains("moved") { Ok(()) } else { Err(by) }
    });
    // A process of the guarded part makes the namespace one that is looked at.
    let inside = scene.lab.program("/bin/sleep").args(["60"]).in_host(&other).in_cgroup(&web);
    let _inside = inside.spawn(&scene.lab.scratch("log"));
    scene.host.ip(&format!("link set moved netns {}", other.path().display()));
    other.ip("addr add 203.0.113.1/24 dev moved");
    other.ip("link set moved up");
    scene.host.ip("addr add 203.0.113.2/24 dev stays");
    scene.host.ip("link set stays up");
    let name = format!("frame-{}-", other.inode());
    let by_link = guard.means("frame").starts_with("tcx");
    until("its new place", lab::DEADLINE, || {
        let place = if by_link {
            links(&guard).iter().filter(|link| link.starts_with(&name)).count() > 1
        } else {
            other.run("tc", &["filter", "show", "dev", "moved", "egress"]).contains("pr_frame")
        };
        if place && guard.lacks("frame").is_none() { Ok(()) } else { Err((links(&guard), guard.hook("frame"))) }
    });
    let probe = Probe::listen(&scene.host, 25);
    let client = scene.lab.program(scene.lab.client()).args(["packet_raw", "203.0.113.2", "25"]);
    client.in_host(&other).in_cgroup(&web).run().must_succeed();
    assert_eq!(probe.settled(), 0, "{:?}", probe.segments());
    assert_eq!(guard.counters()["refused"], 1);
    assert!(guard.status()["alarms"].as_array().unwrap().is_empty(), "{:#}", guard.status()["alarms"]);
}

#[test]
fn devices_that_come_later_are_guarded() {
    let scene = Scene::new("devices");
    let web = scene.lab.cgroup("web");
    let guard = Guard::start(&scene.lab, "");
    let other = scene.lab.host("other");
    scene.lab.wire(&scene.host, &other);
    let probe = Probe::listen(&other, 25);
    until("the new device", lab::DEADLINE, || {
        let by = guard.means("frame");
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
        let by = guard.means("frame");
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
    // The kernel lets go of them when the last that may run them has ended.
    until("the programs to go", lab::DEADLINE, || {
        let left = std::process::Command::new("bpftool").args(["prog", "show"]).output().unwrap();
        let left = String::from_utf8_lossy(&left.stdout).into_owned();
        if left.contains(" name pr_") { Err(left) } else { Ok(()) }
    });
    for device in ["w0a", "lo"] {
        assert!(!scene.host.run("tc", &["qdisc", "show", "dev", device]).contains("clsact"), "{device}");
    }
}
