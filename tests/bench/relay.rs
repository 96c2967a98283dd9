//! What the relay costs: messages a second with Postfix's smtp-source and smtp-sink, straight, through a plain TCP proxy and
//! through Portreeve; and what an idle session takes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use lab::mta::{Mta, Package};
use lab::{DEADLINE, Guard, Host, Lab, Root, Running, until};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::figures::{median, percentile, section};

/// Where smtp-sink, HAProxy and the relay listen.
const SINK: u16 = 2525;
const PROXY: u16 = 2526;
const RELAY: u16 = 10_025;
/// How often each way is taken, in turn.
const ROUNDS: usize = 5;
/// Sessions, bytes of a message, and how many messages.
const LOADS: [(u32, u32, u32); 7] = [
    (1, 4 << 10, 1000),
    (20, 4 << 10, 6000),
    (200, 4 << 10, 6000),
    (1, 64 << 10, 1000),
    (20, 64 << 10, 4000),
    (200, 64 << 10, 4000),
    (4, 10 << 20, 40),
];
const IDLE: usize = 5000;

/// The ways that mail takes.
const WAYS: [(&str, u16); 3] = [("direct", SINK), ("HAProxy", PROXY), ("Portreeve", RELAY)];

/// Measures and prints.
pub(crate) fn measure() {
    // For the idle sessions, of which each program here has both ends or one.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let lab = Lab::new("bench-relay");
    let host = lab.host("host");
    let cgroup = lab.cgroup("system.slice/postfix.service");
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    // Its root has smtp-source and smtp-sink; the server itself idles.
    let postfix = Mta::start_to(&lab, Package::Postfix, &host, &cgroup, nowhere, "");
    let sink = postfix.program("/usr/sbin/smtp-sink").args(["-u", "nobody", "-m", "8000"]);
    let _sink = sink.args([format!("127.0.0.1:{SINK}"), "4096".to_owned()]).spawn(&lab.scratch("sink"));
    let root = Root::new(&lab, "haproxy", &["haproxy"]);
    let _proxy = proxy(&lab, &host, &root);
    let guard = Guard::start(
        &lab,
        &format!(
            "[[allow]]\nname = \"none\"\nexe = \"/usr/bin/true\"\nuser = 1\n[relay]\nmode = \"relayhost\"\nlisten = \"127.0.0.1:{RELAY}\"\nname = \
             \"relay.example\"\n[[relay.upstream]]\nhost = \"127.0.0.1\"\nport = {SINK}\ntls = \"none\"\n"
        ),
    );
    for (_, port) in WAYS {
        until("all to listen", DEADLINE, || if connects(&host, port) { Ok(()) } else { Err(port) });
    }
    for (one_session, title) in
        [(false, "each message in a session of its own"), (true, "all messages in as few sessions")]
    {
        section(&format!("messages a second, {title} (median of {ROUNDS}; p99 of the rounds' times a message)"));
        println!("{:>8} {:>9}   direct  HAProxy  Portreeve  beside HAProxy", "sessions", "bytes");
        for (sessions, bytes, messages) in LOADS {
            load(&postfix, (sessions, bytes, messages), one_session);
        }
    }
    idle(&host, &guard);
}

/// HAProxy as a plain TCP proxy, with as many threads as the relay has.
fn proxy(lab: &Lab, host: &Host, root: &Root) -> Running {
    root.write(
        "/etc/haproxy/haproxy.cfg",
        &format!(
            "global\n nbthread 2\n maxconn 4000\ndefaults\n mode tcp\n timeout connect 10s\n timeout client 10m\n timeout server \
             10m\nfrontend in\n bind 127.0.0.1:{PROXY}\n default_backend out\nbackend out\n server sink 127.0.0.1:{SINK}\n"
        ),
    );
    root.write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    let haproxy = root.program("/usr/sbin/haproxy").args(["-db", "-f", "/etc/haproxy/haproxy.cfg"]);
    haproxy.in_host(host).spawn(&lab.scratch("haproxy"))
}

fn connects(host: &Host, port: u16) -> bool {
    host.enter(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
}

fn load(postfix: &Mta<'_>, (sessions, bytes, messages): (u32, u32, u32), one_session: bool) {
    let mut times: [Vec<f64>; WAYS.len()] = Default::default();
    for round in 0..=ROUNDS {
        for ((_, port), times) in WAYS.iter().zip(&mut times) {
            let source = postfix.program("/usr/sbin/smtp-source");
            let mut words: Vec<String> =
                ["-s", &sessions.to_string(), "-m", &messages.to_string(), "-l", &bytes.to_string()]
                    .map(str::to_owned)
                    .to_vec();
            if one_session {
                words.push("-d".to_owned());
            }
            words.push(format!("127.0.0.1:{port}"));
            let start = Instant::now();
            source.args(words).run().must_succeed();
            // The first round warms up.
            if round > 0 {
                times.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let rates = times.each_ref().map(|times| f64::from(messages) / median(times.iter().copied()));
    let slowest = times.each_ref().map(|times| percentile(times.iter().copied(), 99.0) * 1000.0 * f64::from(sessions));
    let [direct, proxy, relay] = rates;
    let share = 100.0 * relay / proxy;
    let bar = match (bytes, share >= 85.0) {
        (4096, true) => ", bar 85 %: met",
        (4096, false) => ", bar 85 %: missed",
        _ => "",
    };
    let each = slowest.map(|time| format!("{:.2}", time / f64::from(messages)));
    println!(
        "{sessions:>8} {bytes:>9} {direct:>8.0} {proxy:>8.0} {relay:>10.0}  {share:>5.0} %{bar}   (ms a message: {})",
        each.join(", ")
    );
}

/// What a session takes that has said EHLO and no more, with its upstream's.
fn idle(host: &Host, guard: &Guard) {
    section("idle sessions");
    let memory = || guard.status()["memory_kib"].as_u64().unwrap();
    let before = memory();
    let sessions: Vec<TcpStream> = (0..IDLE).map(|_| hello(host)).collect();
    until("all sessions", Duration::from_secs(30), || {
        let active = guard.status()["relay"]["active"].as_u64().unwrap();
        if active == IDLE as u64 { Ok(()) } else { Err(active) }
    });
    let after = memory();
    let each = (after.saturating_sub(before)) as f64 / IDLE as f64;
    let met = if each <= 64.0 { "met" } else { "missed" };
    println!(
        "{} held: {before} KiB before, {after} KiB with them, {each:.1} KiB each; bar 64 KiB: {met}",
        sessions.len()
    );
}

fn hello(host: &Host) -> TcpStream {
    let stream = host.enter(|| TcpStream::connect((Ipv4Addr::LOCALHOST, RELAY)).unwrap());
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    lines.next().unwrap().unwrap();
    (&stream).write_all(b"EHLO client.example\r\n").unwrap();
    while lines.next().unwrap().unwrap().as_bytes()[3] == b'-' {}
    stream
}
