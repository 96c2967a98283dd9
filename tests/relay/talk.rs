//! The conversation: what is offered, in what order answers come, what a client may not do.

use lab::{DEADLINE, until};
use nix::sys::signal::Signal;

use crate::stage::{Stage, Talk, policy};
use crate::upstream::{At, Fault};

const MESSAGE: &[u8] = b"Subject: x\r\nMessage-ID: <1@x.example>\r\n\r\nx\r\n";

#[test]
fn what_is_offered_is_what_the_upstream_has_and_the_relay_passes_on() {
    let stage = Stage::new("relay-offers");
    let mut talk = stage.talk();
    let offered = talk.ask("EHLO client.example", "250-relay.example\r\n");
    let mut lines: Vec<&str> = offered.lines().skip(1).map(|line| &line[4..]).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["8BITMIME", "DSN", "ENHANCEDSTATUSCODES", "PIPELINING", "SIZE 52428800", "SMTPUTF8"]);
    // The client's own name goes on, and its parameters as they are.
    talk.ask("mail from:<ä@x.example> SIZE=10 BODY=8BITMIME SMTPUTF8 ENVID=q+2B", "250 2.1.0 up-sender ok\r\n");
    talk.ask("RCPT TO:<b@y.example> NOTIFY=SUCCESS ORCPT=rfc822;b@y.example", "250 2.1.5 up-rcpt ok\r\n");
    talk.ask("RSET", "250");
    let heard = stage.up.heard();
    assert_eq!(
        heard,
        [
            "EHLO client.example",
            "mail from:<ä@x.example> SIZE=10 BODY=8BITMIME SMTPUTF8 ENVID=q+2B",
            "RCPT TO:<b@y.example> NOTIFY=SUCCESS ORCPT=rfc822;b@y.example",
            "RSET"
        ]
    );
    for (line, answer) in [
        ("MAIL FROM:<a@x> BODY=BINARYMIME", "555 5.5.4"),
        ("MAIL FROM:<a@x> AUTH=<>", "555 5.5.4"),
        ("MAIL FROM:<a@x> SIZE=52428801", "552 5.3.4"),
        ("BDAT 10 LAST", "500"),
        ("ETRN x", "500"),
        ("XFORWARD NAME=x", "502"),
        ("STARTTLS", "454"),
        ("RCPT TO:<b@y>", "503"),
        ("DATA", "503"),
        ("VRFY root", "252"),
    ] {
        talk.ask(line, answer);
    }
    drop(talk);
    stage.up.offer(&[]);
    let mut talk = stage.talk();
    assert_eq!(talk.ask("EHLO client.example", "250"), "250-relay.example\r\n250 PIPELINING\r\n");
    talk.ask("MAIL FROM:<a@x> BODY=8BITMIME", "555");
}

#[test]
fn pipelined_commands_are_answered_in_order_each_by_whom_it_concerns() {
    let stage = Stage::new("relay-pipe");
    for offers in [&["PIPELINING"][..], &[]] {
        stage.up.offer(offers);
        let mut talk = stage.hello();
        talk.send(
            b"MAIL FROM:<a@x>\r\nRCPT TO:<nobody@y>\r\nNOOP\r\nRCPT TO:<b@y>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\n\
              MAIL FROM:<c@x>\r\nRCPT TO:<nobody@y>\r\nDATA\r\nRSET\r\nMAIL FROM:<d@x>\r\nQUIT\r\n",
        );
        let answers: Vec<String> =
            std::iter::repeat_with(|| talk.reply()).take_while(|reply| !reply.is_empty()).collect();
        assert_eq!(
            answers,
            [
                "250 2.1.0 up-sender ok\r\n",
                "550-5.1.1 up: not here\r\n550 5.1.1 up: really\r\n",
                "250 2.0.0 Ok\r\n",
                "250 2.1.5 up-rcpt ok\r\n",
                "354 up: go on\r\n",
                "250 2.0.0 up: taken as 42\r\n",
                "250 2.1.0 up-sender ok\r\n",
                "550-5.1.1 up: not here\r\n550 5.1.1 up: really\r\n",
                "554 5.5.1 up: no valid recipients\r\n",
                "250 ok\r\n",
                "250 2.1.0 up-sender ok\r\n",
                "221 2.0.0 Bye\r\n",
            ]
        );
    }
    assert_eq!(stage.up.taken().len(), 2);
    // The answer to one message is not taken for the next one's.
    stage.up.offer(&["PIPELINING"]);
    let mut talk = stage.hello();
    talk.send(b"MAIL FROM:<refused@x>\r\nRSET\r\nMAIL FROM:<b@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n");
    for begin in ["550 5.7.1 up", "250", "250 2.1.0 up", "250 2.1.5 up", "354"] {
        talk.expect(begin);
    }
    talk.send(MESSAGE);
    talk.send(b".\r\n");
    talk.expect("250 2.0.0 up");
}

#[test]
fn one_record_tells_of_a_message_and_not_what_it_says() {
    let stage = Stage::new("relay-record");
    let mut talk = stage.hello();
    talk.ask("MAIL FROM:<a@x.example>", "250");
    talk.ask("RCPT TO:<nobody@y.example>", "550");
    talk.ask("RCPT TO:<b@y.example>", "250");
    talk.ask("DATA", "354");
    talk.send(b"Subject: secret words\r\nMessage-ID: <1@x.example>\r\n\r\nmore secret words\r\n.\r\n");
    talk.expect("250");
    let record = stage.records(1).remove(0);
    assert_eq!(
        (&record["fate"], &record["from"], &record["size"]),
        (&"delivered".into(), &"a@x.example".into(), &71.into())
    );
    assert_eq!((&record["to"][0]["code"], &record["to"][1]["code"]), (&550.into(), &250.into()));
    assert_eq!((&record["message_id"], &record["upstream"]), (&"<1@x.example>".into(), &"127.0.0.1:2525".into()));
    assert_eq!(record["reply"], "250 2.0.0 up: taken as 42");
    let file = std::fs::read_to_string(stage.guard.state().join("mail.jsonl")).unwrap();
    assert!(file.contains("a@x.example") && !file.contains("secret") && !stage.guard.log().contains("secret"));
    let shown = stage.guard.command(["mail"]).must_succeed().stdout;
    assert!(shown.contains("delivered from=<a@x.example> to=<nobody@y.example> to=<b@y.example>"), "{shown}");
    let status = stage.guard.command(["status"]).must_succeed().stdout;
    assert!(status.contains("messages: 1 delivered") && status.contains("upstream 127.0.0.1:2525: well"), "{status}");
}

#[test]
fn what_is_refused_is_rejected_held_or_dropped_as_the_policy_says() {
    for (action, answer, fate) in
        [("reject", "550 5.7.1", "rejected"), ("hold", "451 4.7.1", "held"), ("discard", "250", "discarded")]
    {
        let limit = format!("[[relay.limit]]\nper = \"sender\"\nrecipients = 2\nevery = \"1h\"\nrefuse = \"{action}\"");
        let stage = Stage::with(&format!("relay-{action}"), "", &limit);
        let mut talk = stage.hello();
        for _ in 0..2 {
            assert!(talk.mail("a@x.example", "b@y.example", MESSAGE).starts_with("250"));
        }
        talk.ask("MAIL FROM:<a@x.example>", "250");
        let reply = talk.ask("RCPT TO:<c@y.example>", answer);
        if action == "discard" {
            talk.ask("DATA", "354");
            talk.send(MESSAGE);
            talk.send(b".\r\n");
            talk.expect("250 2.0.0 Ok (");
        } else {
            assert!(reply.contains("more than 2 recipients in 1h for this sender"), "{reply}");
            talk.ask("RSET", "250");
        }
        assert!(talk.mail("other@x.example", "b@y.example", MESSAGE).starts_with("250 2.0.0 up"));
        assert_eq!(stage.up.taken().len(), 3);
        let record = stage.records(4).remove(2);
        assert_eq!((&record["fate"], &record["verdicts"][0]["verdict"]), (&fate.into(), &action.into()), "{record:#}");
    }
}

#[test]
fn a_message_that_is_too_large_or_comes_round_again_goes_no_further() {
    let stage = Stage::with("relay-limits", "max_size = \"2KiB\"\nmax_hops = 5\nmax_recipients = 2", "");
    let mut talk = stage.hello();
    assert!(talk.mail("a@x", "b@y", &b"x\r\n".repeat(1000)).starts_with("552 5.3.4"));
    assert!(talk.mail("a@x", "b@y", &b"Received: by x\r\n".repeat(6)).starts_with("554 5.4.6"));
    let own = b"Received: from x\r\n\tby y (Portreeve) with SMTP\r\n".repeat(5);
    assert!(talk.mail("a@x", "b@y", &own).starts_with("554 5.4.6"));
    talk.ask("MAIL FROM:<a@x>", "250");
    talk.ask("RCPT TO:<b@y>", "250");
    talk.ask("RCPT TO:<c@y>", "250");
    talk.ask("RCPT TO:<d@y>", "451 4.5.3");
    talk.ask("RSET", "250");
    assert_eq!(stage.up.taken(), []);
    assert!(talk.mail("a@x", "b@y", MESSAGE).starts_with("250"));
}

#[test]
fn a_report_about_what_was_refused_here_goes_no_further() {
    let stage = Stage::with("relay-bounce", "max_size = \"2KiB\"", "");
    let mut talk = stage.hello();
    let large = [MESSAGE, &b"x\r\n".repeat(1000)].concat();
    assert!(talk.mail("forged@victim.example", "b@y", &large).starts_with("552"));
    let report = |id: &str| format!("Subject: failed\r\n\r\nyour message\r\n\r\nMessage-ID: {id}\r\n").into_bytes();
    assert!(talk.mail("", "forged@victim.example", &report("<1@x.example>")).starts_with("250 2.0.0 Ok ("));
    assert_eq!(stage.up.taken(), []);
    // Other reports pass.
    assert!(talk.mail("", "forged@victim.example", &report("<2@x.example>")).starts_with("250 2.0.0 up"));
    assert!(talk.mail("", "somebody@x.example", &report("<1@x.example>")).starts_with("250 2.0.0 up"));
    assert_eq!(stage.up.taken().len(), 2);
}

#[test]
fn strangers_are_turned_away_and_too_many_are_put_off() {
    let stage = Stage::with("relay-peers", "peers = \"10.0.0.0/8\"", "");
    Talk::connect(&stage.host).expect("554 5.7.1 relay.example portreeve: [127.0.0.1] may not use this relay");
    stage.guard.write_policy(&policy("max_sessions = 1", ""));
    stage.guard.reload();
    let first = stage.talk();
    Talk::connect(&stage.host).expect("421 4.3.2");
    drop(first);
    until("the place to be free", DEADLINE, || {
        let reply = Talk::connect(&stage.host).reply();
        if reply.starts_with("220") { Ok(()) } else { Err(reply) }
    });
}

#[test]
fn when_the_agent_ends_messages_in_progress_are_finished_and_idle_sessions_told() {
    let mut stage = Stage::new("relay-drain");
    let mut idle = stage.hello();
    let mut busy = stage.hello();
    busy.data("a@x.example", "b@y.example");
    busy.send(b"Subject: x\r\n");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(stage.guard.pid()).unwrap());
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    idle.expect("421 4.3.2 relay.example portreeve ends");
    busy.send(b"\r\nthe rest\r\n.\r\n");
    busy.expect("250 2.0.0 up: taken");
    busy.expect("421 4.3.2");
    stage.guard.stop(Signal::SIGTERM);
    assert_eq!(stage.up.taken().len(), 1);
    // And what takes too long is put off.
    stage.guard.write_policy(&policy("", "[relay.timeouts]\ndrain = \"1s\""));
    stage.guard.resume();
    stage.up.fail(Some((At::End, Fault::Stall)));
    let mut slow = stage.hello();
    slow.data("a@x.example", "b@y.example");
    slow.send(b"Subject: y\r\n\r\n.\r\n");
    until("the upstream to have it", DEADLINE, || if stage.up.taken().len() == 2 { Ok(()) } else { Err(()) });
    stage.guard.stop(Signal::SIGTERM);
    slow.expect("421 4.3.2 relay.example portreeve ends; try again");
    let file = std::fs::read_to_string(stage.guard.state().join("mail.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(file.lines().last().unwrap()).unwrap();
    assert_eq!((&last["fate"], &last["possible_duplicate"]), (&"deferred".into(), &true.into()), "{last:#}");
}

#[test]
fn a_relay_that_cannot_listen_leaves_the_guard_and_says_so() {
    let stage = Stage::new("relay-taken");
    let taken = format!("listen = [\"127.0.0.1:{}\"]", stage.up.port);
    let text = policy("", "").replace("listen = \"127.0.0.1:10025\"", &taken);
    stage.guard.write_policy(&text);
    stage.guard.reload();
    let status = stage.guard.status();
    assert_eq!((&status["state"], &status["relay"]["listen"]), (&"guarding".into(), &serde_json::json!([])));
    let shown = stage.guard.command(["status"]).must_succeed().stdout;
    assert!(
        shown.contains("NOT LISTENING") && shown.contains("the relay does not listen at 127.0.0.1:2525"),
        "{shown}"
    );
    // Once it can, it does.
    stage.guard.write_policy(&policy("", ""));
    stage.guard.reload();
    assert!(stage.hello().mail("a@x", "b@y", MESSAGE).starts_with("250"));
}
