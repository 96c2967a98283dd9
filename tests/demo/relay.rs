//! A mail server whose mail goes by way of a filtering service, without a line of its settings changed.

use lab::mta::{Mta, Package};
use lab::{DEADLINE, Guard, Lab, Sink, until};

use crate::{command, said, step};

/// Where the filtering service listens: a guarded port as well.
const SERVICE: u16 = 587;
/// How many recipients a sender may have.
const LIMIT: usize = 3;

/// The whole scenario; whether everything came out as it should.
pub(crate) fn show() -> bool {
    step("\"host\" sends mail, \"out\" is the Internet: a mail exchanger on port 25, a filtering service on port 587.");
    let lab = Lab::new("demo");
    let (host, out) = (lab.host("host"), lab.host("out"));
    lab.wire(&host, &out);
    let (exchanger, service) = (Sink::listen(&out, 25), Sink::listen(&out, SERVICE));
    step("On host, Debian's Postfix, which sends everything straight to the exchanger.");
    let unit = lab.cgroup("system.slice/postfix@-.service");
    let postfix = Mta::start(&lab, Package::Postfix, &host, &unit, out.v4());
    postfix.submit("shop@host.example", "customer@mx.example", "Before");
    exchanger.wait_for_messages(1, DEADLINE);
    said("one message has gone there");

    step("Now Portreeve guards both ports, with this policy:");
    let policy = format!(
        "[guard]\nports = [25, {SERVICE}]\n\n[[allow]]\nname = \"mail server\"\nmta  = \"postfix\"\nroot = \"{}\"\n\n[relay]\n\n\
         [[relay.upstream]]\nhost = \"{}\"\nport = {SERVICE}\ntls  = \"none\"\n\n[[relay.limit]]\nper = \"sender\"\nrecipients = {LIMIT}\n\
         every = \"1h\"\nrefuse = \"hold\"\n",
        postfix.root().display(),
        out.v4()
    );
    policy.lines().for_each(said);
    let mut guard = Guard::start(&lab, &policy);

    step("Postfix sends another one, to the exchanger as far as it knows.");
    postfix.submit("shop@host.example", "customer@mx.example", "Your order");
    let filtered = service.wait_for_messages(1, DEADLINE).len();
    said(&format!(
        "the filtering service has {filtered}; the exchanger has met nobody new: {}",
        exchanger.accepted() == 1
    ));

    step(&format!("A stolen account sends through Postfix, to more than the {LIMIT} recipients a sender may have."));
    for number in 0..=LIMIT {
        postfix.submit("stolen@host.example", &format!("victim{number}@mx.example"), "Buy!");
    }
    service.wait_for_messages(1 + LIMIT, DEADLINE);
    let held = until("the rest to be held", DEADLINE, || {
        let queued = postfix.queued();
        let held = guard.status()["relay"]["messages"]["deferred"].as_u64().unwrap_or(0)
            + guard.status()["relay"]["messages"]["held"].as_u64().unwrap_or(0);
        if queued == 1 && held >= 1 { Ok(queued) } else { Err((queued, guard.status()["relay"].clone())) }
    });
    said(&format!("{held} is held in Postfix's own queue; nobody gets a report about it"));

    step("The agent is killed, and with it the relay. Postfix tries to send.");
    guard.kill();
    let reached = (exchanger.accepted(), service.accepted());
    postfix.submit("shop@host.example", "customer@mx.example", "Meanwhile");
    let waits = until("the message to wait", DEADLINE, || {
        let queued = postfix.queued();
        if queued == held + 1 { Ok(queued) } else { Err(queued) }
    });
    let leaked = (exchanger.accepted(), service.accepted()) != reached;
    said(&format!("{waits} messages wait in its queue; anything got out: {}", if leaked { "YES" } else { "no" }));

    step("The agent is back.");
    guard.resume();
    let delivered = until("the message that waited", DEADLINE, || {
        postfix.flush();
        let messages = service.messages();
        let there = messages.iter().filter(|message| message.data.contains("Subject: Meanwhile")).count();
        if there >= 1 { Ok(there) } else { Err(messages.len()) }
    });
    said(&format!("the filtering service has it, {}", if delivered == 1 { "once" } else { "TWICE" }));

    command(&guard, &["mail"]);
    command(&guard, &["attempts"]);
    command(&guard, &["status"]);
    println!();
    let proved = filtered == 1 && exchanger.accepted() == 1 && held == 1 && !leaked && delivered == 1;
    if proved {
        println!(
            "Proved: all of Postfix's mail went by way of the filtering service, and none of it when the relay was gone; a \
             stolen account was held at {LIMIT} recipients; nothing was lost or sent twice."
        );
    } else {
        println!(
            "NOT proved: {filtered} filtered, {} connections to the exchanger, {held} held, leaked: {leaked}, {delivered} \
             delivered of what waited.",
            exchanger.accepted()
        );
    }
    proved
}
