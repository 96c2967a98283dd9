//! Every way around connect(): what goes through without the guard, and that nothing does with it.
//!
//! A probe at the far end is the judge: it counts what a receiver might take for TCP to the port, whatever it is wrapped
//! in. Each way is tried without the guard first, so that a refusal proves something.

use std::net::IpAddr;
use std::path::PathBuf;

use lab::{Cgroup, Guard, Probe, Scene, connects_from, until};

/// Which addresses a way goes to.
#[derive(Clone, Copy, PartialEq)]
enum Over {
    V4,
    V6,
    Both,
}

use Over::{Both, V4, V6};

/// Ways that send packets by themselves, past the kernel's connections.
const PACKETS: [(&str, Over); 43] = [
    ("raw_syn", Both),
    ("raw_data", Both),
    ("raw_ack", Both),
    ("raw_tunnel", Both),
    ("raw_gre", Both),
    ("hdrincl", V4),
    ("hdrincl_icmp_socket", V4),
    ("hdrincl_options", V4),
    ("hdrincl_fragments", V4),
    ("hdrincl_tiny", V4),
    ("hdrincl_overlap", V4),
    ("v6_destopts", V6),
    ("v6_hopbyhop", V6),
    ("v6_chain", V6),
    ("v6_long_chain", V6),
    ("v6_routing", V6),
    ("v6_ah", V6),
    ("v6_atomic_fragment", V6),
    ("v6_fragments", V6),
    ("v6_tiny", V6),
    ("v6_fragment_chain", V6),
    ("packet_raw", Both),
    ("packet_dgram", Both),
    ("packet_vlan", Both),
    ("packet_qinq", Both),
    ("packet_priority_tag", Both),
    ("packet_three_tags", Both),
    ("packet_says_arp", Both),
    ("packet_says_nothing", Both),
    ("packet_fragments", Both),
    ("packet_options", Both),
    ("packet_vnet_hdr", Both),
    ("packet_checksum", Both),
    ("packet_mpls", Both),
    ("packet_tx_ring", Both),
    ("packet_v6_chain", V6),
    ("packet_snap", Both),
    ("packet_bypass", Both),
    ("packet_loopback", Both),
    ("xdp_tx", Both),
    ("tun", Both),
    ("tap", Both),
    ("repair", Both),
];

/// Ways that come to connect() in disguise.
const DISGUISES: [&str; 4] = ["new_userns", "exec_memfd", "argv0", "comm"];

fn run(scene: &Scene, way: &str, to: IpAddr, cgroup: &Cgroup) -> String {
    let client = scene.lab.program(scene.lab.client()).args([way, &to.to_string(), "25"]);
    let outcome = client.in_host(&scene.host).in_cgroup(cgroup).run();
    assert_eq!(outcome.code, 0, "{way} to {to}: {outcome:#?}");
    outcome.stdout.trim().to_owned()
}

/// The addresses of a way.
fn addresses(scene: &Scene, over: Over) -> Vec<IpAddr> {
    let all = [(scene.mx.v4(), V4), (scene.mx.v6(), V6)];
    all.into_iter().filter(|(_, family)| over == Both || over == *family).map(|(to, _)| to).collect()
}

#[test]
fn no_packet_of_ones_own_making_gets_through() {
    let scene = Scene::new("packets");
    let cgroup = scene.lab.cgroup("web");
    // So that checksums are written before the wire, as with devices that cannot write them.
    scene.host.run("ethtool", &["-K", "w0a", "tx", "off"]);
    let probe = Probe::listen(&scene.mx, 25);
    let rows: Vec<(&str, IpAddr)> =
        PACKETS.iter().flat_map(|(way, over)| addresses(&scene, *over).into_iter().map(|to| (*way, to))).collect();
    for (way, to) in &rows {
        let before = probe.settled();
        let said = run(&scene, way, *to, &cgroup);
        assert!(probe.settled() > before, "{way} to {to}, unguarded: {said}, and nothing came");
    }
    let guard = Guard::start(&scene.lab, "");
    let mut through = Vec::new();
    for (way, to) in &rows {
        let (seen, before) = (probe.settled(), guard.counters()["refused"]);
        let said = run(&scene, way, *to, &cgroup);
        let after = guard.counters()["refused"];
        if probe.settled() != seen {
            through.push(format!("{way} to {to}: {said}; {:?}", probe.segments().last()));
        } else if after == before {
            through.push(format!("{way} to {to}: {said}; stopped and not counted"));
        }
    }
    assert!(through.is_empty(), "{through:#?}");
}

#[test]
fn disguises_do_not_make_a_program_the_sanctioned_one() {
    let scene = Scene::new("masks");
    let cgroup = scene.lab.cgroup("web");
    for (way, to) in DISGUISES.iter().flat_map(|way| addresses(&scene, Both).into_iter().map(move |to| (way, to))) {
        assert_eq!(run(&scene, way, to, &cgroup), "connected", "{way} to {to}, unguarded");
    }
    let guard = Guard::start(&scene.lab, "");
    let probe = Probe::listen(&scene.mx, 25);
    for (way, to) in DISGUISES.iter().flat_map(|way| addresses(&scene, Both).into_iter().map(move |to| (way, to))) {
        let before = guard.counters()["refused"];
        assert_eq!(run(&scene, way, to, &cgroup), "EPERM", "{way} to {to}");
        assert_eq!(guard.counters()["refused"], before + 1, "{way} to {to}");
    }
    assert_eq!(probe.settled(), 0);
}

#[test]
fn connections_older_than_the_guard_are_ended_and_those_of_the_sanctioned_program_are_not() {
    let scene = Scene::new("before");
    let (web, mail) = (scene.lab.cgroup("web"), scene.lab.cgroup("mail"));
    let sanctioned = scene.lab.dir().join("sanctioned");
    scene.lab.copy_client(&sanctioned);
    let go = scene.lab.dir().join("go");
    let start = |program: &std::path::Path, cgroup: &Cgroup, to: IpAddr, log: &std::path::Path| {
        let arguments = ["connected_before", &to.to_string(), "25", &go.display().to_string()].map(str::to_owned);
        let program = scene.lab.program(program.to_owned()).args(arguments);
        program.in_host(&scene.host).in_cgroup(cgroup).spawn(log)
    };
    let mut running = Vec::new();
    let mut logs = Vec::new();
    for (index, to) in [scene.mx.v4(), scene.mx.v6()].into_iter().enumerate() {
        for (name, program, cgroup) in [("bot", scene.lab.client(), &web), ("server", sanctioned.clone(), &mail)] {
            let log = scene.lab.dir().join(format!("{name}-{index}"));
            running.push(start(&program, cgroup, to, &log));
            logs.push((name, log));
        }
    }
    let said = |log: &std::path::Path| std::fs::read_to_string(log).unwrap_or_default();
    for (name, log) in &logs {
        until(&format!("{name} to connect"), lab::DEADLINE, || match said(log).contains("connected") {
            true => Ok(()),
            false => Err(said(log)),
        });
    }
    let policy = format!("[[allow]]\nname = \"server\"\nexe = \"{}\"\nuser = \"root\"\n", sanctioned.display());
    let guard = Guard::start(&scene.lab, &policy);
    assert_eq!(guard.counters()["refused"], 2, "each refused connection is one attempt");
    let attempt = guard.attempts().into_iter().find(|attempt| attempt["hook"] == "existing").unwrap();
    assert_eq!(attempt["exe"], scene.lab.client().display().to_string(), "{attempt}");
    std::fs::write(&go, "").unwrap();
    for (client, (name, log)) in running.iter_mut().zip(&logs) {
        client.wait();
        let words = said(log);
        let words: Vec<&str> = words.split_whitespace().collect();
        match *name {
            "server" => assert_eq!(words, ["connected", "passed"], "{}", guard.log()),
            // Destroyed: ECONNABORTED; the SIGPIPE of a write after it is EPIPE.
            _ => assert_eq!(words.last(), Some(&"ECONNABORTED"), "{name}: {words:?}"),
        }
    }
}

#[test]
fn a_socket_handed_in_from_outside_the_guarded_part_is_no_way_out() {
    let scene = Scene::new("handed");
    let (inside, outside) = (scene.lab.cgroup("guarded"), scene.lab.cgroup("free"));
    let probe = Probe::listen(&scene.mx, 25);
    let mut guard = None;
    for guarded in [false, true] {
        if guarded {
            guard = Some(Guard::start_on(&scene.lab, &inside, ""));
        }
        for to in addresses(&scene, Both) {
            for connected in [false, true] {
                let socket = scene.lab.scratch("socket");
                let mut give = vec!["hand".to_owned(), to.to_string(), "25".to_owned(), socket.display().to_string()];
                if connected {
                    give.push("connected".to_owned());
                }
                let log = scene.lab.scratch("log");
                let _hand = scene
                    .lab
                    .program(scene.lab.client())
                    .args(give)
                    .in_host(&scene.host)
                    .in_cgroup(&outside)
                    .spawn(&log);
                until("the socket to be offered", lab::DEADLINE, || if socket.exists() { Ok(()) } else { Err(()) });
                let take = ["take", &to.to_string(), "25", &socket.display().to_string()].map(str::to_owned);
                let take = scene.lab.program(scene.lab.client()).args(take);
                let said = take.in_host(&scene.host).in_cgroup(&inside).run().must_succeed().stdout;
                let passed = said.trim() == "passed";
                assert_eq!(passed, !guarded, "to {to}, connected before: {connected}: {said}");
            }
        }
    }
    drop(guard);
    assert!(probe.seen() > 0);
}

#[test]
fn a_process_that_moves_takes_its_socket_nowhere() {
    let scene = Scene::new("moved");
    let (inside, outside) = (scene.lab.cgroup("guarded"), scene.lab.cgroup("free"));
    let moved = |from: &Cgroup, to: &Cgroup, mx: IpAddr, connected: bool| {
        let mut arguments =
            vec!["move_cgroup".to_owned(), mx.to_string(), "25".to_owned(), to.path().display().to_string()];
        if connected {
            arguments.push("connected".to_owned());
        }
        let client = scene.lab.program(scene.lab.client()).args(arguments);
        client.in_host(&scene.host).in_cgroup(from).run().must_succeed().stdout.trim().to_owned()
    };
    let to = scene.mx.v4();
    assert_eq!(moved(&outside, &inside, to, false), "passed", "unguarded");
    let guard = Guard::start_on(&scene.lab, &inside, "");
    for to in addresses(&scene, Both) {
        assert_eq!(moved(&inside, &outside, to, false), "EPERM", "made inside, used outside, to {to}");
        for connected in [false, true] {
            let said = moved(&outside, &inside, to, connected);
            assert_ne!(said, "passed", "made outside (connected: {connected}), used inside, to {to}");
        }
        // Outside all along: not guarded.
        assert_eq!(moved(&outside, &outside, to, false), "passed", "outside, to {to}");
    }
    drop(guard);
}

#[test]
fn replies_of_servers_on_this_host_are_not_touched() {
    let scene = Scene::new("replies");
    let server = lab::Sink::listen(&scene.host, 25);
    let other = lab::Sink::listen(&scene.host, 8025);
    let guard = Guard::start(&scene.lab, "[guard]\nports = [25, 26]\n");
    let from_mx = |way: &str, to: IpAddr, port: &str| {
        let outsider = scene.lab.program(scene.lab.client()).args([way, &to.to_string(), port]).in_host(&scene.mx);
        outsider.run().must_succeed().stdout.trim().to_owned()
    };
    for to in [scene.host.v4(), scene.host.v6()] {
        assert_eq!(from_mx("plain", to, "25"), "connected");
        // A client out there whose own port is a guarded one: its server here answers to it.
        assert!(connects_from(&scene.mx, 26, (to, 8025).into()), "from port 26 to {to}");
    }
    server.wait_for(2);
    other.wait_for(2);
    assert_eq!(guard.counters()["refused"], 0, "{:#?}", guard.attempts());
}

#[test]
fn a_simultaneous_open_is_no_way_out() {
    let scene = Scene::new("simultaneous");
    let web = scene.lab.cgroup("web");
    // Another port than the sink's: the far end binds it itself.
    for guarded in [false, true] {
        for (number, to) in addresses(&scene, Both).into_iter().enumerate() {
            let (family, host) = if to.is_ipv4() { ("-4", scene.host.v4()) } else { ("-6", scene.host.v6()) };
            // The first SYN must not be answered by a reset.
            scene.mx.ip(&format!("{family} route add blackhole {host}"));
            let own = 41_000 + number as u16 + if guarded { 10 } else { 0 };
            let (go, log) = (scene.lab.scratch("go"), scene.lab.scratch("log"));
            let arguments = ["syn_sent_before", &to.to_string(), "26", &own.to_string(), &go.display().to_string()];
            let client = scene.lab.program(scene.lab.client()).args(arguments.map(str::to_owned));
            let mut client = client.in_host(&scene.host).in_cgroup(&web).spawn(&log);
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            until("the SYN", lab::DEADLINE, || if said().contains("connecting") { Ok(()) } else { Err(said()) });
            let guard = guarded.then(|| Guard::start(&scene.lab, "[guard]\nports = [26]\n"));
            scene.mx.ip(&format!("{family} route del blackhole {host}"));
            std::fs::write(&go, "").unwrap();
            let opened = connects_from(&scene.mx, 26, (host, own).into());
            assert_eq!(client.wait(), 0);
            assert_eq!(opened, !guarded, "to {to}: {}", said());
            assert_eq!(said().contains("connected"), !guarded, "to {to}: {}", said());
            if let Some(guard) = &guard {
                assert_eq!(guard.counters()["refused"], 1, "to {to}");
            }
        }
    }
}

#[test]
fn a_further_subflow_of_mptcp_is_no_way_out() {
    let scene = Scene::new("subflow");
    let web = scene.lab.cgroup("web");
    let _open = lab::Sink::listen(&scene.mx, 8026);
    for host in [&scene.host, &scene.mx] {
        host.ip("mptcp limits set add_addr_accepted 2 subflows 2");
    }
    // Not one of the wire's own network, of which this would be the broadcast address.
    scene.mx.ip("addr add 203.0.113.9/32 dev w0b");
    scene.host.ip("route add 203.0.113.9/32 dev w0a");
    scene.mx.ip("mptcp endpoint add 203.0.113.9 port 26 signal");
    let probe = Probe::listen(&scene.mx, 26);
    let join = || {
        let arguments = ["mptcp_join", &scene.mx.v4().to_string(), "8026"].map(str::to_owned);
        let client = scene.lab.program(scene.lab.client()).args(arguments);
        client.in_host(&scene.host).in_cgroup(&web).run().must_succeed().stdout.trim().to_owned()
    };
    assert_eq!(join(), "connected");
    let unguarded = probe.settled();
    assert!(unguarded > 0, "no further subflow without the guard");
    let guard = Guard::start(&scene.lab, "[guard]\nports = [26]\n");
    assert_eq!(join(), "connected", "the first subflow goes to a port that is not guarded");
    assert_eq!(probe.settled(), unguarded, "{:?}", probe.segments().last());
    let attempt = guard.attempts().into_iter().find(|attempt| attempt["reason"] == "no-process").unwrap();
    assert_eq!(attempt["destination"], "203.0.113.9:26", "{attempt}");
}

#[test]
fn code_injected_into_the_sanctioned_program_is_its_own_user_still() {
    let scene = Scene::new("injected");
    let web = scene.lab.cgroup("web");
    let sanctioned = scene.lab.dir().join("sanctioned");
    scene.lab.copy_client(&sanctioned);
    let inject = |uid: u32| {
        let arguments = ["ptrace_inject", &scene.mx.v4().to_string(), "25", &sanctioned.display().to_string()];
        let client = scene.lab.program(scene.lab.client()).args(arguments.map(str::to_owned));
        let client = client.in_host(&scene.host).in_cgroup(&web).as_user(uid, uid);
        client.run().must_succeed().stdout.trim().to_owned()
    };
    assert_eq!(inject(1000), "connected", "unguarded");
    let policy = format!("[[allow]]\nname = \"server\"\nexe = \"{}\"\nuser = 4711\n", sanctioned.display());
    let guard = Guard::start(&scene.lab, &policy);
    assert_eq!(inject(1000), "EPERM", "another user's");
    // The server's own user can: the executable is right, the user is right. It is on record.
    assert_eq!(inject(4711), "connected");
    let attempt = until("the record", lab::DEADLINE, || {
        guard.attempts().into_iter().find(|attempt| attempt["verdict"] == "allow").ok_or(())
    });
    assert!(attempt["taint"].to_string().contains("traced"), "{attempt}");
    guard.write_policy(&format!("[guard]\nrefuse_tainted = true\n{policy}"));
    guard.reload();
    assert_eq!(inject(4711), "EPERM", "with refuse_tainted");
}

#[test]
fn a_tracer_that_is_gone_is_remembered() {
    let scene = Scene::new("tracer");
    let web = scene.lab.cgroup("web");
    let sanctioned = scene.lab.dir().join("sanctioned");
    scene.lab.copy_client(&sanctioned);
    let to = scene.mx.v4().to_string();
    let policy = format!("[[allow]]\nname = \"server\"\nexe = \"{}\"\nuser = \"root\"\n", sanctioned.display());
    let guard = Guard::start(&scene.lab, &policy);
    // Once the file is there the sanctioned program connects; the tracer that started it is gone by then.
    let (go, log) = (scene.lab.scratch("go"), scene.lab.scratch("log"));
    let arguments = ["traced_start", &to, "25", &sanctioned.display().to_string(), &go.display().to_string()];
    let tracer = scene.lab.program(scene.lab.client()).args(arguments.map(str::to_owned));
    let mut tracer = tracer.in_host(&scene.host).in_cgroup(&web).spawn(&log);
    let said = || std::fs::read_to_string(&log).unwrap();
    until("the program", lab::DEADLINE, || if said().contains("ready") { Ok(()) } else { Err(said()) });
    std::fs::write(&go, "").unwrap();
    assert_eq!(tracer.wait(), 0);
    assert!(said().contains("connected"), "{}", said());
    let last = || guard.attempts().into_iter().rev().find(|attempt| attempt["verdict"] == "allow").ok_or(());
    let attempt = until("the record", lab::DEADLINE, last);
    assert_eq!(attempt["taint"], serde_json::json!(["traced"]), "{attempt}");
}

#[test]
fn memory_that_another_process_could_write_is_remembered() {
    let scene = Scene::new("memory");
    let web = scene.lab.cgroup("web");
    let sanctioned = scene.lab.dir().join("sanctioned");
    scene.lab.copy_client(&sanctioned);
    let to = scene.mx.v4().to_string();
    let policy = format!("[[allow]]\nname = \"server\"\nexe = \"{}\"\nuser = \"root\"\n", sanctioned.display());
    let mut guard = Guard::start(&scene.lab, &format!("[guard]\nrefuse_tainted = true\n{policy}"));
    if let Some(why) = guard.lacks("reach") {
        return lab::skip("memory_that_another_process_could_write_is_remembered", &why);
    }
    for (what, outcome) in [("nothing", "connected"), ("restart", "connected"), ("write", "EPERM")] {
        let (go, log) = (scene.lab.scratch("go"), scene.lab.scratch("log"));
        let arguments = ["plain_when_told", &to, "25", &go.display().to_string()].map(str::to_owned);
        let server = scene.lab.program(sanctioned.clone()).args(arguments);
        let mut server = server.in_host(&scene.host).in_cgroup(&web).spawn(&log);
        let said = || std::fs::read_to_string(&log).unwrap();
        until("the program", lab::DEADLINE, || if said().contains("ready") { Ok(()) } else { Err(said()) });
        if what == "restart" {
            // An agent that starts looks at the sockets of all processes.
            guard.kill();
            guard.resume();
        }
        if what == "write" {
            let arguments = ["write_memory", &to, "25", &server.pid().to_string()].map(str::to_owned);
            let other = scene.lab.program(scene.lab.client()).args(arguments).in_cgroup(&web).run().must_succeed();
            assert_eq!(other.stdout.trim(), "written");
        }
        std::fs::write(&go, "").unwrap();
        assert_eq!(server.wait(), 0);
        assert!(said().trim().ends_with(outcome), "{what}: {}", said());
    }
}

/// Starts a way that says `ready` and goes on once a file is there, which is the second thing returned; the third is what
/// it writes to.
fn waiting(scene: &Scene, way: &str, to: IpAddr, cgroup: &Cgroup) -> (lab::Running, PathBuf, PathBuf) {
    let (go, log) = (scene.lab.scratch("go"), scene.lab.scratch("log"));
    let arguments = [way, &to.to_string(), "25", &go.display().to_string()].map(str::to_owned);
    let client = scene.lab.program(scene.lab.client()).args(arguments);
    let client = client.in_host(&scene.host).in_cgroup(cgroup).spawn(&log);
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    until("the socket", lab::DEADLINE, || if said().contains("ready") { Ok(()) } else { Err(said()) });
    (client, go, log)
}

#[test]
fn a_sender_past_every_hook_that_is_older_than_the_guard_is_put_back_among_the_others() {
    let scene = Scene::new("oldsender");
    let web = scene.lab.cgroup("web");
    let probe = Probe::listen(&scene.mx, 25);
    for guarded in [false, true] {
        for to in addresses(&scene, Both) {
            let (mut client, go, log) = waiting(&scene, "packet_bypass_before", to, &web);
            let before = probe.settled();
            let guard = guarded.then(|| Guard::start(&scene.lab, ""));
            std::fs::write(&go, "").unwrap();
            assert_eq!(client.wait(), 0);
            assert!(std::fs::read_to_string(&log).unwrap().contains(if guarded { "ENOBUFS" } else { "sent" }));
            assert_eq!(probe.settled() > before, !guarded, "to {to}");
            if let Some(guard) = guard {
                assert_eq!(guard.counters()["refused"], 1);
                let alarms = guard.status()["alarms"].to_string();
                assert!(
                    alarms.contains("had a packet socket that passes every packet hook; it was turned back"),
                    "{alarms}"
                );
            }
        }
    }
}

#[test]
fn the_entry_of_32_bit_programs_is_no_way_past_the_setsockopt_hook() {
    let scene = Scene::new("compat");
    let web = scene.lab.cgroup("web");
    let probe = Probe::listen(&scene.mx, 25);
    let to = scene.mx.v4();
    let said = run(&scene, "compat_bypass", to, &web);
    if said != "sent" {
        return lab::skip("the_entry_of_32_bit_programs_is_no_way_past_the_setsockopt_hook", &said);
    }
    assert!(probe.settled() > 0, "unguarded");
    let guard = Guard::start(&scene.lab, "");
    let (seen, before) = (probe.settled(), guard.counters()["refused"]);
    if guard.lacks("lsm").is_none() {
        assert_eq!(run(&scene, "compat_bypass", to, &web), "EPERM");
        assert_eq!(run(&scene, "packet_bypass", to, &web), "EPERM");
        assert_eq!(guard.counters()["refused"], before + 2, "each counted once");
    } else {
        // Where the kernel has no second lock the socket is found within a second or so, and turned back.
        let (mut client, go, _log) = waiting(&scene, "compat_bypass", to, &web);
        until("the alarm", lab::DEADLINE, || {
            let alarms = guard.status()["alarms"].to_string();
            if alarms.contains("it was turned back") { Ok(()) } else { Err(alarms) }
        });
        std::fs::write(&go, "").unwrap();
        assert_eq!(client.wait(), 0);
        assert_eq!(guard.counters()["refused"], before + 1, "as a frame");
    }
    assert_eq!(probe.settled(), seen);
}
