//! Connections that the kernel brings to the relay: of programs that know nothing of it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "relay/upstream.rs"]
#[expect(dead_code, reason = "the relay's own tests need more of it")]
mod upstream;

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use lab::{Cgroup, DEADLINE, Guard, Host, Lab, Outcome, Sink, until};
use serde_json::Value;

use upstream::Upstream;

/// Where the relay listens.
const RELAY: u16 = 10_025;
/// Where the filtering service listens, a guarded port as well.
const SERVICE: u16 = 587;

/// What a mail server does, in a few lines: sends a message to an address, and says whom it has been talking to.
const SEND: &str = "
import socket, smtplib, sys
to, source = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
family = socket.AF_INET6 if ':' in to else socket.AF_INET
sock = socket.socket(family, socket.SOCK_STREAM)
if source: sock.bind((source, 0))
sock.settimeout(20)
sock.connect((to, 25))
print(sock.getpeername()[0], sock.getpeername()[1], sock.getpeername()[:2] == socket.socket.getpeername(sock)[:2])
mail = smtplib.SMTP()
mail.sock, mail.file = sock, None
code, greeting = mail.getreply()
mail.ehlo('host.example')
mail.sendmail('a@host.example', ['b@mx.example'], b'Subject: brought\\r\\n\\r\\n.\\r\\n..\\r\\nx\\r\\n')
mail.quit()
";

struct Scene {
    guard: Guard,
    service: Upstream,
    exchanger: Sink,
    cgroup: Cgroup,
    host: Host,
    mx: Host,
    lab: Lab,
}

/// A policy that lets Python of a user send, through the relay. `rule` are more keys of the rule, `relay` of `[relay]`.
fn policy(mx: &Host, rule: &str, relay: &str) -> String {
    let python = std::fs::canonicalize("/usr/bin/python3").unwrap();
    format!(
        "[guard]\nports = [25, {SERVICE}]\n[[allow]]\nname = \"mail\"\nexe = \"{}\"\nuser = \"root\"\n{rule}\n\
         [relay]\nmode = \"redirect\"\nname = \"relay.example\"\n{relay}\n[[relay.upstream]]\nhost = \"{}\"\nport = {SERVICE}\ntls = \"none\"\n",
        python.display(),
        mx.v4()
    )
}

impl Scene {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let (host, mx) = (lab.host("host"), lab.host("mx"));
        lab.wire(&host, &mx);
        let (service, exchanger) = (Upstream::listen(&mx, SERVICE), Sink::listen(&mx, 25));
        let cgroup = lab.cgroup("system.slice/mta.service");
        let guard = Guard::start(&lab, &policy(&mx, "", ""));
        Self { guard, service, exchanger, cgroup, host, mx, lab }
    }

    fn send(&self, to: &str, source: Option<&str>) -> Outcome {
        let program = self.lab.program("/usr/bin/python3").args(["-c", SEND, to]).args(source);
        program.in_host(&self.host).in_cgroup(&self.cgroup).run()
    }

    fn change(&self, rule: &str, relay: &str) {
        self.guard.write_policy(&policy(&self.mx, rule, relay));
        self.guard.reload();
    }

    /// The last attempt's reason.
    #[track_caller]
    fn reason(&self) -> String {
        self.guard.attempts().last().map(|attempt| attempt["reason"].as_str().unwrap().to_owned()).unwrap_or_default()
    }

    #[track_caller]
    fn refused(&self, to: &str, with: &str) {
        let outcome = self.send(to, None);
        assert!(outcome.code != 0 && outcome.stderr.contains(with), "{to}: {outcome:#?}");
    }
}

fn mapped(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_string(),
        IpAddr::V6(address) => address.to_string(),
    }
}

#[test]
fn what_a_rule_allows_is_brought_to_the_relay_and_never_knows() {
    let scene = Scene::new("redirect");
    let addresses = [scene.mx.v4().to_string(), scene.mx.v6().to_string(), mapped(scene.mx.v4())];
    for (number, to) in addresses.iter().enumerate() {
        let outcome = scene.send(to, None).must_succeed();
        assert_eq!(outcome.stdout.trim(), format!("{to} 25 True"), "whom it thinks it talks to");
        let taken = scene.service.taken();
        assert_eq!(taken.len(), number + 1);
        assert_eq!(taken[number].behind_trace(), b"Subject: brought\r\n\r\n..\r\n...\r\nx\r\n");
        assert_eq!(scene.reason(), "relayed");
    }
    assert_eq!(scene.exchanger.accepted(), 0, "nothing goes there by itself");
    let listed = scene.guard.command(["mail", "--json"]).must_succeed().stdout;
    let records: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (record, to) in records.iter().zip(&addresses) {
        let to: IpAddr = to.parse().unwrap();
        assert_eq!(record["destination"], SocketAddr::new(to.to_canonical(), 25).to_string(), "{record:#}");
        assert_eq!(record["rule"], "mail", "{record:#}");
        assert!(record["subject"].as_str().unwrap().contains("python3"), "{record:#}");
    }
    assert_eq!(records.len(), 3);
    // From an address of its own.
    scene.send(&addresses[0], Some(&scene.host.v4().to_string())).must_succeed();
    assert_eq!((scene.service.taken().len(), scene.exchanger.accepted()), (4, 0));
}

#[test]
fn nobody_else_gets_anything_from_the_relay() {
    let scene = Scene::new("redirect-others");
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let mut said = String::new();
        let mut stream = scene.host.enter(|| TcpStream::connect((address, RELAY))).unwrap();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.starts_with("421 4.7.1 ") && said.contains("nobody brought you here"), "{said:?}");
    }
    // Who may not send is not brought there either.
    let program = scene.lab.program("/usr/bin/python3").args(["-c", SEND, &scene.mx.v4().to_string()]);
    let outcome = program.in_host(&scene.host).in_cgroup(&scene.cgroup).as_user(33, 33).run();
    assert!(outcome.stderr.contains("PermissionError"), "{outcome:#?}");
    // Nor may the relay's service be reached by others.
    let script = format!("import socket; socket.create_connection(('{}', {SERVICE}), 5)", scene.mx.v4());
    let program = scene.lab.program("/usr/bin/python3").args(["-c", &script]);
    let outcome = program.in_host(&scene.host).in_cgroup(&scene.cgroup).as_user(33, 33).run();
    assert!(outcome.stderr.contains("PermissionError"), "{outcome:#?}");
    assert_eq!((scene.service.taken().len(), scene.exchanger.accepted()), (0, 0));
}

#[test]
fn without_the_relay_nothing_goes_out_and_no_impostor_gets_it() {
    let mut scene = Scene::new("redirect-down");
    let to = [scene.mx.v4().to_string(), scene.mx.v6().to_string()];
    scene.send(&to[0], None).must_succeed();
    scene.guard.kill();
    for to in &to {
        scene.refused(to, "ConnectionRefusedError");
    }
    // Somebody takes the relay's place.
    let impostors: Vec<TcpListener> = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
        .map(|address| scene.host.enter(|| TcpListener::bind((address, RELAY))).unwrap())
        .into();
    for to in &to {
        scene.refused(to, "ConnectionRefusedError");
    }
    for impostor in &impostors {
        impostor.set_nonblocking(true).unwrap();
        assert!(impostor.accept().is_err(), "an impostor was brought a connection");
    }
    drop(impostors);
    assert_eq!((scene.service.taken().len(), scene.exchanger.accepted()), (1, 0));
    scene.guard.resume();
    until("the relay to be back", DEADLINE, || {
        let outcome = scene.send(&to[1], None);
        if outcome.code == 0 { Ok(()) } else { Err(outcome) }
    });
    assert_eq!((scene.service.taken().len(), scene.exchanger.accepted()), (2, 0));
    assert!(scene.guard.counters()["refused"] >= 4);
}

#[test]
fn a_rule_may_send_past_the_relay_and_a_policy_without_one_brings_nothing() {
    let scene = Scene::new("redirect-via");
    let to = scene.mx.v4().to_string();
    scene.change("via = \"direct\"", "");
    scene.send(&to, None).must_succeed();
    assert_eq!((scene.service.taken().len(), scene.exchanger.accepted()), (0, 1));
    scene.change("via = \"relay\"", "");
    scene.send(&to, None).must_succeed();
    assert_eq!((scene.service.taken().len(), scene.exchanger.accepted()), (1, 1));
    // An IPv4 listener alone takes those to IPv6 addresses too.
    scene.change("", "listen = \"127.0.0.1:10025\"");
    let outcome = scene.send(&scene.mx.v6().to_string(), None).must_succeed();
    assert!(outcome.stdout.starts_with(&scene.mx.v6().to_string()), "{outcome:?}");
    assert_eq!((scene.service.taken().len(), scene.exchanger.accepted()), (2, 1));
    let whole = policy(&scene.mx, "", "");
    scene.guard.write_policy(&whole[..whole.find("[relay]").unwrap()]);
    scene.guard.reload();
    scene.send(&to, None).must_succeed();
    assert_eq!((scene.service.taken().len(), scene.exchanger.accepted()), (2, 2));
}

/// A connection that was brought and has never arrived leaves nothing behind for whoever has its port next.
#[test]
fn nobody_comes_in_the_name_of_a_connection_that_never_arrived() {
    let scene = Scene::new("redirect-stale");
    let (source, port) = (scene.host.v4().to_string(), 40_123);
    scene.host.run(
        "nft",
        &[&format!(
            "add table inet lost; add chain inet lost in {{ type filter hook input priority 0; }}; \
         add rule inet lost in tcp dport {RELAY} drop"
        )],
    );
    let connect = "import socket, sys\ns = socket.socket()\ns.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
                   s.bind((sys.argv[1], int(sys.argv[2])))\ns.settimeout(float(sys.argv[5]))\n\
                   s.connect((sys.argv[3], int(sys.argv[4])))\nprint(s.recv(99).decode())\n";
    let program = |to: &str, at: u16, patience: &str| {
        let program = scene.lab.program("/usr/bin/python3").args(["-c", connect, &source, &port.to_string(), to]);
        program.args([at.to_string().as_str(), patience]).in_host(&scene.host).in_cgroup(&scene.cgroup)
    };
    let lost = program(&scene.mx.v4().to_string(), 25, "1").run();
    assert!(lost.stderr.contains("timed out"), "{lost:#?}");
    assert_eq!(scene.reason(), "relayed");
    scene.host.run("nft", &["delete table inet lost"]);
    // Not even with the right to send.
    for user in [33, 0] {
        let came = program("127.0.0.1", RELAY, "20").as_user(user, user).run().must_succeed();
        assert!(came.stdout.starts_with("421 4.7.1"), "{came:#?}");
    }
}

/// On a host that is guarded whole the agent is judged like everybody, and its relay goes out all the same.
#[test]
fn the_relay_of_an_agent_that_is_guarded_itself_goes_out_and_survives_a_reload() {
    let scene = Scene::new("redirect-inside");
    scene.cgroup.admit(i32::try_from(scene.guard.pid()).unwrap());
    let to = scene.mx.v4().to_string();
    scene.send(&to, None).must_succeed();
    // In the middle of a message.
    let slow = SEND.replace("mail.sendmail(", "__import__('time').sleep(3)\nmail.sendmail(");
    let program = scene.lab.program("/usr/bin/python3").args(["-c", &slow, &to]);
    let mut running = program.in_host(&scene.host).in_cgroup(&scene.cgroup).spawn(&scene.lab.scratch("slow"));
    until("the session to have begun", DEADLINE, || {
        let sessions = scene.guard.status()["relay"]["upstreams"][0]["sessions"].as_u64().unwrap();
        if sessions == 2 { Ok(()) } else { Err(sessions) }
    });
    scene.change("", "max_recipients = 7");
    assert_eq!(running.wait(), 0, "{}", scene.guard.log());
    assert_eq!((scene.service.taken().len(), scene.exchanger.accepted()), (2, 0));
    assert_eq!(scene.guard.counters()["refused"], 0);
}
