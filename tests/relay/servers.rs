//! Debian's mail servers in front of the relay and behind it.

use std::net::{Ipv4Addr, SocketAddr};

use lab::mta::{Mta, Package};
use lab::{Cgroup, DEADLINE, Guard, Host, Lab, until};

use crate::stage::{RELAY, Talk, policy};
use crate::upstream::{At, Fault, Upstream};

/// A mail server that is told to send everything to the relay.
struct Sending {
    up: Upstream,
    guard: Guard,
    host: Host,
    cgroup: Cgroup,
    lab: Lab,
}

impl Sending {
    fn new(name: &str, more: &str, tables: &str) -> Self {
        let lab = Lab::new(name);
        let host = lab.host("host");
        let cgroup = lab.cgroup("system.slice/mta.service");
        let up = Upstream::listen(&host, crate::stage::UP);
        let guard = Guard::start(&lab, &policy(more, tables));
        Self { up, guard, host, cgroup, lab }
    }

    fn mta(&self, package: Package, more: &str) -> Mta<'_> {
        let relay = SocketAddr::from((Ipv4Addr::LOCALHOST, RELAY));
        Mta::start_to(&self.lab, package, &self.host, &self.cgroup, relay, more)
    }

    #[track_caller]
    fn arrived(&self, count: usize, mta: &Mta<'_>) -> Vec<crate::upstream::Taken> {
        until("messages at the upstream", DEADLINE, || {
            let taken = self.up.taken();
            if taken.len() >= count { Ok(taken) } else { Err((taken.len(), mta.log())) }
        })
    }

    fn messages(&self) -> serde_json::Value {
        self.guard.status()["relay"]["messages"].clone()
    }
}

/// Through the relay, with an upstream that fails at each point in turn: once there, or still queued and then there.
fn sends_all(package: Package) {
    let scene = Sending::new(
        &format!("relay-{}", package.mta()),
        "",
        "[relay.timeouts]\nconnect = \"1s\"\ncommand = \"1s\"\ndata = \"1s\"\nblock = \"1s\"\nend = \"1s\"\n",
    );
    let mta = scene.mta(package, "");
    mta.submit("root@host.example", "postmaster@mx.example", "first");
    let taken = scene.arrived(1, &mta).remove(0);
    assert!(String::from_utf8_lossy(taken.behind_trace()).contains("Subject: first"));
    let mut count = 1;
    for (at, fault) in [
        (At::Greeting, Fault::Close),
        (At::Ehlo, Fault::Nonsense),
        (At::Mail, Fault::Says("451 4.7.1 up: not now\r\n")),
        (At::Rcpt, Fault::Close),
        (At::Data, Fault::Stall),
        (At::End, Fault::Says("452 4.3.1 up: full\r\n")),
    ] {
        scene.up.fail(Some((at, fault)));
        let subject = format!("with {at:?}");
        mta.submit("root@host.example", "postmaster@mx.example", &subject);
        until("the server to have tried", DEADLINE, || {
            let messages = scene.messages();
            let deferred = messages["deferred"].as_u64().unwrap() + messages["refused"].as_u64().unwrap();
            let failures = scene.guard.status()["relay"]["upstreams"][0]["failures"].as_u64().unwrap();
            if deferred + failures >= count as u64 { Ok(()) } else { Err((messages, mta.log())) }
        });
        assert_eq!((scene.up.taken().len(), mta.queued()), (count, 1), "{at:?}: {}", mta.log());
        scene.up.fail(None);
        count += 1;
        until("the queue to be sent", DEADLINE, || {
            mta.flush();
            let taken = scene.up.taken();
            if taken.len() == count { Ok(()) } else { Err((taken.len(), mta.log())) }
        });
        until("the queue to be empty", DEADLINE, || if mta.queued() == 0 { Ok(()) } else { Err(mta.queued()) });
        assert_eq!(scene.up.taken().len(), count, "none twice");
    }
}

#[test]
fn postfix_sends_through_the_relay_and_loses_nothing() {
    sends_all(Package::Postfix);
}

#[test]
fn exim_sends_through_the_relay_and_loses_nothing() {
    sends_all(Package::Exim);
}

#[test]
fn opensmtpd_sends_through_the_relay_and_loses_nothing() {
    sends_all(Package::OpenSmtpd);
}

/// What becomes of a message that the relay refuses behind Postfix's queue: no report reaches whom it was forged for.
#[test]
fn a_refused_message_behind_postfixs_queue_makes_no_report_to_the_forged_sender() {
    let limit = "[[relay.limit]]\nper = \"sender\"\nrecipients = 1\nrefuse = \"reject\"";
    let scene = Sending::new("relay-storm", "", limit);
    let mta = scene.mta(Package::Postfix, "");
    mta.submit("forged@victim.example", "b@mx.example", "within the limit");
    scene.arrived(1, &mta);
    mta.submit("forged@victim.example", "b@mx.example", "beyond");
    until("the report to be dropped", DEADLINE, || {
        let messages = scene.messages();
        let done = messages["rejected"] == 1 && messages["discarded"] == 1;
        if done { Ok(()) } else { Err((messages, mta.log())) }
    });
    until("the queue to be empty", DEADLINE, || if mta.queued() == 0 { Ok(()) } else { Err(mta.log()) });
    assert_eq!(scene.up.taken().len(), 1);
}

/// Debian's Postfix takes much for an end of a message. It gets nothing of the kind.
#[test]
fn stock_postfix_behind_the_relay_queues_one_message_and_never_what_was_hidden_in_it() {
    let lab = Lab::new("relay-lenient");
    let host = lab.host("host");
    let cgroup = lab.cgroup("system.slice/mta.service");
    // It holds all that it takes.
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let more = "smtpd_recipient_restrictions = static:HOLD, permit_mynetworks\ndefault_transport = hold:\n";
    let postfix = Mta::start_to(&lab, Package::Postfix, &host, &cgroup, nowhere, more);
    let text = policy("", "").replace("port = 2525", "port = 25");
    let guard = Guard::start(&lab, &text);
    let hello = || {
        let mut talk = Talk::connect(&host);
        talk.expect("220");
        talk.ask("EHLO client.example", "250");
        talk
    };
    let direct = || {
        let mut talk = Talk::connect_to(&host, 25);
        talk.expect("220");
        talk.ask("EHLO client.example", "250");
        talk
    };
    let smuggle = |end: &[u8]| {
        let hidden =
            b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<victim@y.example>\r\nDATA\r\nSubject: hidden\r\n\r\nx\r\n.\r\n";
        [b"Subject: outer\r\n\r\nhello", end, hidden].concat()
    };
    let ends: [&[u8]; 7] =
        [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r\r\n", b"\n\n.\r\n", b"\r\r\n.\r\r\n", b"\r\n.\0\r\n"];
    // Without the relay it does come through: the test can fail.
    let mut talk = direct();
    talk.data("a@x.example", "b@y.example");
    talk.send(&smuggle(b"\n.\n"));
    talk.expect("250");
    talk.expect("250");
    let mut queued = queue(&postfix, 2);
    assert_eq!(queued, ["a@x.example", "evil@x.example"]);
    let mut sent = 0;
    for end in ends {
        let message = smuggle(end);
        for cut in 22..22 + end.len() {
            let mut talk = hello();
            talk.data("a@x.example", "b@y.example");
            talk.send(&message[..cut]);
            talk.send(&message[cut..]);
            talk.expect("554 5.6.0");
        }
        // One in, one queued.
        assert!(hello().mail("clean@x.example", "b@y.example", b"Subject: x\r\n\r\n..\r\nx\r\n").starts_with("250"));
        sent += 1;
        queued = queue(&postfix, 2 + sent);
    }
    assert_eq!(queued.iter().filter(|sender| *sender == "clean@x.example").count(), sent);
    assert_eq!(queued.len(), 2 + sent, "{queued:?}");
    drop(guard);
}

/// The senders in Postfix's queue, once there are that many.
#[track_caller]
fn queue(postfix: &Mta<'_>, count: usize) -> Vec<String> {
    until("the queue", DEADLINE, || {
        let listed = postfix.program("/usr/sbin/postqueue").args(["-j"]).run().must_succeed().stdout;
        let mut senders: Vec<String> = listed
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["sender"].as_str().unwrap().to_owned())
            .collect();
        senders.sort();
        if senders.len() >= count { Ok(senders) } else { Err((senders, postfix.log())) }
    })
}

/// In front of the queue: Postfix asks the relay before it takes a message, and goes on with what comes back.
#[test]
fn postfix_asks_the_relay_before_it_takes_a_message() {
    let scene = Sending::new("relay-before", "mode = \"before-queue\"\nmax_size = \"4KiB\"", "");
    scene.up.offer(&["PIPELINING", "8BITMIME", "DSN", "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"]);
    let mta = scene.mta(Package::Postfix, &format!("smtpd_proxy_filter = 127.0.0.1:{RELAY}\n"));
    let mut talk = Talk::connect_to(&scene.host, 25);
    talk.expect("220 host.example");
    talk.ask("EHLO client.example", "250");
    let reply = talk.mail("a@x.example", "b@y.example", b"Subject: in\r\n\r\n..\r\nx\r\n");
    assert_eq!(reply, "250 2.0.0 up: taken as 42\r\n", "{}", mta.log());
    // Who is in front of Postfix has come through.
    let heard = scene.up.heard();
    let forwarded: Vec<&String> = heard.iter().filter(|line| line.starts_with("XFORWARD")).collect();
    assert!(forwarded.iter().any(|line| line.contains(" ADDR=127.0.0.1")), "{heard:?}");
    assert!(forwarded.iter().any(|line| line.contains("HELO=client.example")), "{heard:?}");
    let listed = scene.guard.command(["mail", "--json"]).must_succeed().stdout;
    assert!(listed.contains("\"client\":\"127.0.0.1\"") && listed.contains("before-queue"), "{listed}");
    // What is refused is refused to the client itself, and never queued.
    let large = [&b"Subject: large\r\n\r\n"[..], &b"x\r\n".repeat(3000)].concat();
    let reply = talk.mail("a@x.example", "b@y.example", &large);
    assert!(reply.starts_with("552 5.3.4 portreeve: a message may have 4096 bytes"), "{reply} {}", mta.log());
    scene.up.fail(Some((At::Rcpt, Fault::Says("550 5.1.1 up: nobody\r\n"))));
    talk.ask("MAIL FROM:<a@x.example>", "250");
    talk.ask("RCPT TO:<c@y.example>", "550 5.1.1 up: nobody");
    assert_eq!((scene.up.taken().len(), mta.queued()), (1, 0));
}
