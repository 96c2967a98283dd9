//! Every way to open a TCP connection, over each address family: refused from who is not sanctioned, allowed to who is.

use std::net::IpAddr;

use lab::{Guard, Host, Scene, Sink};

/// Every way of `lab-client` that opens a TCP connection, and whether it goes to IPv4 only.
const WAYS: [(&str, bool); 19] = [
    ("plain", false),
    ("nonblocking", false),
    ("bound", false),
    ("tfo_sendto", false),
    ("tfo_connect", false),
    ("mapped", true),
    ("mapped_tfo_sendto", true),
    ("mapped_tfo_connect", true),
    ("mptcp", false),
    ("mptcp_nonblocking", false),
    ("mptcp_tfo_sendto", false),
    ("mptcp_mapped", true),
    ("io_uring", false),
    ("io_uring_async", false),
    ("io_uring_sqpoll", false),
    ("io_uring_mapped", true),
    ("reconnect", false),
    ("thread_after_leader", false),
    ("new_netns", false),
];

/// What a way gives, by `lab-client` in a unit.
fn connect(scene: &Scene, way: &str, to: IpAddr, unit: &str) -> String {
    let cgroup = scene.lab.cgroup(unit);
    let client = scene.lab.program(scene.lab.client()).args([way, &to.to_string(), "25"]);
    client.in_host(&scene.host).in_cgroup(&cgroup).run().must_succeed().stdout.trim().to_owned()
}

/// Each way with each address it can go to.
fn rows(scene: &Scene) -> impl Iterator<Item = (&'static str, IpAddr)> + use<> {
    let (v4, v6) = (scene.mx.v4(), scene.mx.v6());
    WAYS.into_iter().flat_map(move |(way, v4_only)| {
        let addresses = if v4_only { vec![v4] } else { vec![v4, v6] };
        addresses.into_iter().map(move |to| (way, to))
    })
}

#[test]
fn every_way_is_refused_without_a_rule_and_leaves_no_packet() {
    let scene = Scene::new("refused");
    let mut unsupported = Vec::new();
    // The same ways first, without the guard: a refusal proves something only if they get through.
    for (way, to) in rows(&scene) {
        let said = connect(&scene, way, to, "web");
        if way == "mptcp_tfo_sendto" && said == "EOPNOTSUPP" {
            // Before Linux 6.2 MPTCP has no Fast Open, and nothing that could be refused.
            unsupported.push(way);
            continue;
        }
        assert_eq!(said, "connected", "{way} to {to}, unguarded");
    }
    let guard = Guard::start(&scene.lab, "");
    let (accepted, segments) = (scene.sink.accepted(), settled(&scene.mx));
    let mut refused = 0;
    for (way, to) in rows(&scene).filter(|(way, _)| !unsupported.contains(way)) {
        let before = guard.counters();
        assert_eq!(connect(&scene, way, to, "web"), "EPERM", "{way} to {to}, guarded");
        let after = guard.counters();
        assert_eq!(after["refused"], before["refused"] + 1, "{way} to {to} was not counted once");
        for other in ["allowed", "observed"] {
            assert_eq!(after[other], before[other], "{way} to {to} counted as {other}");
        }
        refused += 1;
    }
    assert_eq!(scene.sink.accepted(), accepted);
    assert_eq!(scene.mx.segments_in(), segments, "something left in spite of the refusal");
    assert_eq!(guard.counters()["refused"], refused);
    // Datagrams to the port are not TCP.
    assert_eq!(connect(&scene, "udp", scene.mx.v4(), "web"), "connected");
    assert_eq!(guard.counters()["refused"], refused);
    guard.detach();
    assert_eq!(connect(&scene, "plain", scene.mx.v4(), "web"), "connected", "detach alone opens the port");
}

#[test]
fn every_way_is_open_to_the_sanctioned_program_alone() {
    let scene = Scene::new("allowed");
    let client = scene.lab.client();
    let policy = format!("[[allow]]\nname = \"ours\"\nexe = \"{}\"\nuser = \"root\"\n", client.display());
    let guard = Guard::start(&scene.lab, &policy);
    for (way, to) in rows(&scene) {
        let before = guard.counters();
        let said = connect(&scene, way, to, "mail");
        if way == "mptcp_tfo_sendto" && said == "EOPNOTSUPP" {
            continue;
        }
        assert_eq!(said, "connected", "{way} to {to}");
        let after = guard.counters();
        assert_eq!(after["allowed"], before["allowed"] + 1, "{way} to {to} was not counted once");
        assert_eq!(after["refused"], before["refused"], "{way} to {to} counted as refused too");
    }
    let last = guard.attempts().pop().unwrap();
    assert_eq!((&last["verdict"], &last["rule"]), (&"allow".into(), &"ours".into()), "{last}");
    // A copy is another program.
    let copy = scene.lab.dir().join("copy");
    scene.lab.copy_client(&copy);
    let outcome = scene
        .lab
        .program(copy)
        .args(["plain", &scene.mx.v4().to_string(), "25"])
        .in_host(&scene.host)
        .in_cgroup(scene.lab.cgroup_root())
        .run();
    assert_eq!(outcome.stdout.trim(), "EPERM");
}

#[test]
fn the_refusal_is_what_the_policy_says() {
    let scene = Scene::new("errno");
    let guard = Guard::start(&scene.lab, "");
    for errno in ["EPERM", "EACCES", "ECONNREFUSED", "ENETUNREACH"] {
        guard.write_policy(&format!("[guard]\nrefuse_with = \"{errno}\"\n"));
        guard.reload();
        for to in [scene.mx.v4(), scene.mx.v6()] {
            assert_eq!(connect(&scene, "plain", to, "web"), errno, "to {to}");
        }
    }
    assert_eq!(scene.sink.accepted(), 0);
}

#[test]
fn only_guarded_ports_are_guarded() {
    let scene = Scene::new("ports");
    let (also, never) = (Sink::listen(&scene.mx, 587), Sink::listen(&scene.mx, 26));
    let guard = Guard::start(&scene.lab, "[guard]\nports = [25, \"586-587\"]\n");
    let cgroup = scene.lab.cgroup("web");
    let connect = |port: &str| {
        let program = scene.lab.program(scene.lab.client()).args(["plain", &scene.mx.v4().to_string(), port]);
        program.in_host(&scene.host).in_cgroup(&cgroup).run().must_succeed().stdout.trim().to_owned()
    };
    assert_eq!(connect("25"), "EPERM");
    assert_eq!(connect("587"), "EPERM");
    assert_eq!(connect("26"), "connected");
    assert_eq!(guard.counters()["refused"], 2);
    assert_eq!((also.accepted(), scene.sink.accepted()), (0, 0));
    never.wait_for(1);
}

#[test]
fn the_loopback_is_exempt_unless_the_policy_says_otherwise() {
    let scene = Scene::new("loopback");
    let _local = Sink::listen(&scene.host, 25);
    let guard = Guard::start(&scene.lab, "");
    let all = ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0"];
    for to in all {
        assert_eq!(connect(&scene, "plain", to.parse().unwrap(), "web"), "connected", "to {to}");
    }
    assert_eq!(guard.counters()["local"], all.len() as u64);
    // The host's own other addresses are not its loopback.
    assert_eq!(connect(&scene, "plain", scene.host.v4(), "web"), "EPERM");
    guard.write_policy("[guard]\nlocal_submission = \"deny\"\n");
    guard.reload();
    for to in all {
        assert_eq!(connect(&scene, "plain", to.parse().unwrap(), "web"), "EPERM", "to {to}");
    }
}

#[test]
fn observe_passes_and_records_what_would_have_been_refused() {
    let scene = Scene::new("observe");
    let guard = Guard::start(&scene.lab, "[guard]\nmode = \"observe\"\n");
    assert_eq!(connect(&scene, "plain", scene.mx.v4(), "web"), "connected");
    let counters = guard.counters();
    assert_eq!((counters["observed"], counters["refused"], counters["allowed"]), (1, 0, 0));
    let attempt = lab::until("the record", lab::DEADLINE, || guard.attempts().pop().ok_or(()));
    assert_eq!((&attempt["verdict"], &attempt["reason"]), (&"observe".into(), &"no-rule".into()), "{attempt}");
    guard.command(["mode", "enforce"]).must_succeed();
    assert_eq!(connect(&scene, "plain", scene.mx.v4(), "web"), "EPERM");
    guard.command(["mode", "observe"]).must_succeed();
    assert_eq!(connect(&scene, "plain", scene.mx.v4(), "web"), "connected");
    // What was switched by command is over once the policy is read again.
    guard.write_policy("[guard]\nmode = \"enforce\"\n");
    guard.reload();
    assert_eq!(connect(&scene, "plain", scene.mx.v4(), "web"), "EPERM");
}

/// The segments that have come in once none come any more: connections that were closed are still saying goodbye.
fn settled(host: &Host) -> u64 {
    let mut last = host.segments_in();
    lab::until("quiet on the wire", lab::DEADLINE, || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let now = host.segments_in();
        let quiet = now == last;
        last = now;
        if quiet { Ok(now) } else { Err(now) }
    })
}
