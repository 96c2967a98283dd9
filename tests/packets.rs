//! What the packet guard lets through because it should: allowed senders, routed connections, what the policy exempts.

use std::net::IpAddr;

use lab::{Cgroup, Guard, Host, Probe, Scene};

/// A way of a copy of `lab-client`, in a host.
fn say(scene: &Scene, program: &std::path::Path, way: &str, to: IpAddr, host: &Host, cgroup: &Cgroup) -> String {
    let client = scene.lab.program(program).args([way, &to.to_string(), "25"]);
    client.in_host(host).in_cgroup(cgroup).run().must_succeed().stdout.trim().to_owned()
}

/// A copy of `lab-client` that a policy can name, and the rule that does.
fn sanctioned(scene: &Scene, more: &str) -> (std::path::PathBuf, String) {
    let program = scene.lab.dir().join("sanctioned");
    scene.lab.copy_client(&program);
    let rule = format!("[[allow]]\nname = \"ours\"\nexe = \"{}\"\nuser = \"root\"\n{more}\n", program.display());
    (program, rule)
}

#[test]
fn a_rule_for_raw_senders_lets_one_program_have_them_and_connect_nowhere() {
    let scene = Scene::new("rawsenders");
    let (web, own) = (scene.lab.cgroup("web"), scene.lab.cgroup("own"));
    let (program, rule) = sanctioned(&scene, "raw_senders = true");
    let guard = Guard::start(&scene.lab, &rule);
    let probe = Probe::listen(&scene.mx, 25);
    for way in ["packet_bypass", "xdp_tx"] {
        for to in [scene.mx.v4(), scene.mx.v6()] {
            let before = probe.settled();
            assert_eq!(say(&scene, &scene.lab.client(), way, to, &scene.host, &web), "EPERM", "{way} to {to}");
            assert_eq!(probe.settled(), before);
            assert_eq!(say(&scene, &program, way, to, &scene.host, &own), "sent", "{way} to {to}");
            assert!(probe.settled() > before, "{way} to {to}");
        }
    }
    assert_eq!(say(&scene, &program, "plain", scene.mx.v4(), &scene.host, &own), "EPERM");
    let refused = guard.attempts().into_iter().find(|attempt| attempt["reason"] == "raw-sender").unwrap();
    assert_eq!((&refused["protocol"], &refused["destination"]), (&"af_packet".into(), &serde_json::Value::Null));
    let last = guard.command(["attempts"]).must_succeed().stdout;
    assert!(last.contains("af_xdp sender that would pass every packet hook"), "{last}");
}

/// A namespace behind the host, as a container has one: routed, and with its address translated on the way out.
fn container(scene: &Scene) -> Host {
    let inner = scene.lab.host("inner");
    scene.lab.wire(&inner, &scene.host);
    for path in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        scene.host.run("sh", &["-c", &format!("echo 1 > /proc/sys/{path}")]);
    }
    // The second wire's host end.
    inner.ip("-4 route add default via 198.51.100.6");
    inner.ip("-6 route add default via 2001:db8:1::2");
    let masquerade = "add table inet lab; add chain inet lab out { type nat hook postrouting priority srcnat; }; \
                      add rule inet lab out oifname w0a masquerade";
    scene.host.run("nft", &[masquerade]);
    inner
}

#[test]
fn an_allowed_connection_out_of_another_namespace_is_known_at_the_hosts_device() {
    let scene = Scene::new("container");
    let inner = container(&scene);
    let (web, own) = (scene.lab.cgroup("web"), scene.lab.cgroup("own"));
    let (program, rule) = sanctioned(&scene, "");
    for to in [scene.mx.v4(), scene.mx.v6()] {
        assert_eq!(say(&scene, &scene.lab.client(), "plain", to, &inner, &web), "connected", "to {to}, unguarded");
    }
    let guard = Guard::start(&scene.lab, &rule);
    let before = guard.counters()["refused"];
    for way in ["plain", "nonblocking", "tfo_sendto", "mptcp", "io_uring"] {
        for to in [scene.mx.v4(), scene.mx.v6()] {
            assert_eq!(say(&scene, &program, way, to, &inner, &own), "connected", "{way} to {to}");
        }
    }
    assert_eq!(guard.counters()["refused"], before, "{:#?}", guard.attempts().last());
    // Frames of nobody's socket, in the same namespace; after the last words of the connections before.
    let probe = Probe::listen(&scene.mx, 25);
    let last = probe.settled();
    for to in [scene.mx.v4(), scene.mx.v6()] {
        assert_eq!(say(&scene, &scene.lab.client(), "plain", to, &inner, &web), "EPERM");
        say(&scene, &scene.lab.client(), "packet_raw", to, &inner, &web);
    }
    assert_eq!(probe.settled(), last, "{:?}", probe.segments());
}

#[test]
fn frames_of_nobody_pass_where_the_policy_says_so() {
    let scene = Scene::new("forwarded");
    let web = scene.lab.cgroup("web");
    let probe = Probe::listen(&scene.mx, 25);
    let guard = Guard::start(&scene.lab, "");
    for to in [scene.mx.v4(), scene.mx.v6()] {
        say(&scene, &scene.lab.client(), "tun", to, &scene.host, &web);
    }
    assert_eq!(probe.settled(), 0);
    let attempt = guard.attempts().into_iter().find(|attempt| attempt["reason"] == "forwarded").unwrap();
    assert_eq!((&attempt["hook"], &attempt["interface"]), (&"frame".into(), &"w0a".into()), "{attempt}");
    guard.write_policy("[guard]\nforwarded = \"pass\"\n");
    guard.reload();
    for to in [scene.mx.v4(), scene.mx.v6()] {
        say(&scene, &scene.lab.client(), "tun", to, &scene.host, &web);
    }
    assert!(probe.settled() >= 2);
    // A packet of a socket of this host is not one of nobody.
    let before = probe.settled();
    say(&scene, &scene.lab.client(), "packet_raw", scene.mx.v4(), &scene.host, &web);
    say(&scene, &scene.lab.client(), "raw_syn", scene.mx.v4(), &scene.host, &web);
    assert_eq!(probe.settled(), before, "{:?}", probe.segments().last());
}

#[test]
fn observe_lets_packets_pass_and_records_them() {
    let scene = Scene::new("observed");
    let web = scene.lab.cgroup("web");
    let probe = Probe::listen(&scene.mx, 25);
    let guard = Guard::start(&scene.lab, "[guard]\nmode = \"observe\"\n");
    for way in ["raw_syn", "packet_raw", "packet_bypass", "hdrincl_tiny", "v6_chain"] {
        let to = if way.starts_with("v6") { scene.mx.v6() } else { scene.mx.v4() };
        let (seen, observed) = (probe.settled(), guard.counters()["observed"]);
        assert_eq!(say(&scene, &scene.lab.client(), way, to, &scene.host, &web), "sent", "{way}");
        assert!(probe.settled() > seen, "{way} did not pass");
        assert!(guard.counters()["observed"] > observed, "{way} was not recorded");
    }
    assert_eq!(guard.counters()["refused"], 0);
}

#[test]
fn ports_that_a_reload_adds_are_guarded_for_connections_that_are_there() {
    let scene = Scene::new("added");
    let _sink = lab::Sink::listen(&scene.mx, 587);
    let web = scene.lab.cgroup("web");
    let guard = Guard::start(&scene.lab, "");
    let (go, log) = (scene.lab.dir().join("go"), scene.lab.dir().join("log"));
    let arguments =
        ["connected_before", &scene.mx.v4().to_string(), "587", &go.display().to_string()].map(str::to_owned);
    let client = scene.lab.program(scene.lab.client()).args(arguments);
    let mut client = client.in_host(&scene.host).in_cgroup(&web).spawn(&log);
    let said = || std::fs::read_to_string(&log).unwrap();
    lab::until("the connection", lab::DEADLINE, || if said().contains("connected") { Ok(()) } else { Err(said()) });
    guard.write_policy("[guard]\nports = [25, 587]\n");
    guard.reload();
    std::fs::write(&go, "").unwrap();
    assert_eq!(client.wait(), 0);
    assert!(said().trim().ends_with("ECONNABORTED"), "{}", said());
    assert_eq!(guard.counters()["refused"], 1);
}

/// Changes port 2525 into 25 on the way out of the host, for packets of its own.
fn translate(scene: &Scene) {
    for (protocol, family, to) in
        [("ipv4", "ip", scene.mx.v4().to_string()), ("ipv6", "ip6", format!("[{}]", scene.mx.v6()))]
    {
        let rules = format!(
            "add table inet lab; add chain inet lab out {{ type nat hook output priority -100; }}; \
             add rule inet lab out meta nfproto {protocol} tcp dport 2525 dnat {family} to {to}:25"
        );
        scene.host.run("nft", &[&rules]);
    }
}

#[test]
fn a_socket_that_was_something_else_before_is_judged_for_what_it_does_now() {
    let scene = Scene::new("reused");
    let (web, own) = (scene.lab.cgroup("web"), scene.lab.cgroup("own"));
    translate(&scene);
    let (program, rule) =
        sanctioned(&scene, &format!("to = [\"{}\", \"{}\"]\nports = [26]", scene.mx.v4(), scene.mx.v6()));
    let _allowed = lab::Sink::listen(&scene.mx, 26);
    let again = |program: &std::path::Path, way: &str, to: IpAddr, more: &[&str], cgroup: &Cgroup| {
        let port = to.to_string();
        let arguments = [way, &port, "2525"].into_iter().chain(more.iter().copied()).map(str::to_owned);
        let client = scene.lab.program(program.to_owned()).args(arguments);
        let said = client.in_host(&scene.host).in_cgroup(cgroup).run().must_succeed().stdout;
        said.split_whitespace().last().unwrap().to_owned()
    };
    let all = [
        (scene.lab.client(), "plain", &[][..], &web),
        (scene.lab.client(), "child_reused", &[][..], &web),
        (program, "allowed_reused", &["26"][..], &own),
    ];
    for (program, way, more, cgroup) in &all {
        for to in [scene.mx.v4(), scene.mx.v6()] {
            assert_eq!(again(program, way, to, more, cgroup), "connected", "{way} to {to}, unguarded");
        }
    }
    let guard = Guard::start(&scene.lab, &format!("[guard]\nports = [25, 26]\n{rule}"));
    let probe = Probe::listen(&scene.mx, 25);
    for (program, way, more, cgroup) in all.iter().filter(|(_, way, ..)| *way != "plain") {
        for to in [scene.mx.v4(), scene.mx.v6()] {
            let before = guard.counters()["refused"];
            assert_eq!(again(program, way, to, more, cgroup), "stopped", "{way} to {to}");
            assert_eq!(guard.counters()["refused"], before + 1, "{way} to {to}");
        }
    }
    assert_eq!(probe.settled(), 0, "{:?}", probe.segments());
}

/// A bridge with a namespace behind it, as container engines make them.
fn bridged(scene: &Scene, bridge: &str) -> Host {
    let inner = scene.lab.host("inner");
    scene.host.ip(&format!("link add {bridge} type bridge"));
    scene.host.ip(&format!("link set {bridge} up"));
    scene.host.ip(&format!("addr add 203.0.113.1/24 dev {bridge}"));
    scene.host.ip("link add port0 type veth peer name eth0");
    scene.host.ip(&format!("link set eth0 netns {}", inner.path().display()));
    scene.host.ip(&format!("link set port0 master {bridge} up"));
    inner.ip("addr add 203.0.113.2/24 dev eth0");
    inner.ip("link set eth0 up");
    inner.ip("route add default via 203.0.113.1");
    scene.host.run("sh", &["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
    scene.mx.ip(&format!("route add 203.0.113.0/24 via {}", scene.host.v4()));
    inner
}

#[test]
fn mail_that_comes_in_for_a_container_is_let_in_and_the_hosts_own_frames_are_not() {
    let scene = Scene::new("inwards");
    let web = scene.lab.cgroup("web");
    let inner = bridged(&scene, "docker7");
    let server = lab::Sink::listen(&inner, 25);
    let to: IpAddr = "203.0.113.2".parse().unwrap();
    let come = || {
        let arguments = ["plain", "203.0.113.2", "25"].map(str::to_owned);
        let client = scene.lab.program(scene.lab.client()).args(arguments).in_host(&scene.mx);
        client.run().must_succeed().stdout.trim().to_owned()
    };
    assert_eq!(come(), "connected", "unguarded");
    let guard = Guard::start(&scene.lab, "");
    assert_eq!(come(), "connected");
    server.wait_for(2);
    assert_eq!(guard.counters()["refused"], 0, "{:#?}", guard.attempts());
    let means = guard.means("frame");
    assert!(means.contains("own sockets on docker7, port0"), "{means}");
    // What a program of the host puts on it is judged all the same, and so is what leads out.
    let probe = Probe::listen(&inner, 25);
    say(&scene, &scene.lab.client(), "packet_raw", to, &scene.host, &web);
    assert_eq!(probe.settled(), 0, "{:?}", probe.segments());
    assert_eq!(guard.counters()["refused"], 1);
    // Once it leads out as well it is a device like any other, and what comes in for the container would have to be allowed.
    scene.host.ip("link add link w0a name up0 type macvlan mode bridge");
    scene.host.ip("link set up0 master docker7");
    lab::until("the bridge to be a device like any other", lab::DEADLINE, || {
        let by = guard.means("frame");
        if by.contains("lead inwards") { Err(by) } else { Ok(()) }
    });
    assert!(guard.status()["alarms"].as_array().unwrap().is_empty(), "{:#}", guard.status()["alarms"]);
}
