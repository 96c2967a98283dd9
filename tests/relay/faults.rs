//! Whatever breaks, a message is delivered once or still with the sender.

use std::time::Duration;

use lab::{DEADLINE, until};

use crate::stage::Stage;
use crate::upstream::{At, Fault};

/// Short enough for a test to see a stalled upstream given up.
const SHORT: &str =
    "[relay.timeouts]\nconnect = \"1s\"\ncommand = \"1s\"\ndata = \"1s\"\nblock = \"1s\"\nend = \"1s\"\n";
const MESSAGE: &[u8] = b"Subject: x\r\n\r\nSome text that is longer than a few bytes.\r\n";

/// Sends one message as a mail server would; true if it was told that it has been delivered.
fn sends(stage: &Stage) -> bool {
    let mut talk = stage.talk();
    for line in ["EHLO client.example", "MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>", "DATA"] {
        talk.say(line);
        let reply = talk.reply();
        match reply.as_bytes().first() {
            Some(b'2' | b'3') => {}
            // A mail server tries again after this, and only after this.
            Some(b'4') => return false,
            other => panic!("{line}: {other:?} {reply}"),
        }
    }
    talk.send(MESSAGE);
    talk.send(b".\r\n");
    let reply = talk.reply();
    assert!(reply.starts_with("250 2.0.0 up: taken") || reply.starts_with('4'), "{reply:?}");
    reply.starts_with('2')
}

#[test]
fn an_upstream_that_fails_at_any_point_costs_no_message() {
    let stage = Stage::with("relay-faults", "", SHORT);
    let (mut delivered, mut doubtful) = (0, 0);
    for at in At::ALL {
        for fault in [Fault::Close, Fault::Stall, Fault::Nonsense] {
            let before = stage.up.taken().len();
            stage.up.fail(Some((at, fault)));
            assert!(!sends(&stage), "{at:?} {fault:?}: it is not delivered");
            stage.up.fail(None);
            // The relay has told the truth: the upstream has it only where it was lost after the end.
            let has = stage.up.taken().len() - before;
            assert_eq!(has, usize::from(at == At::End), "{at:?} {fault:?}");
            // The relay cannot know whether the upstream has read it to its end.
            doubtful += usize::from(matches!(at, At::Body | At::End));
            // And the next one goes through.
            until("the upstream is tried again", DEADLINE, || if sends(&stage) { Ok(()) } else { Err(()) });
            delivered += 1;
            assert_eq!(stage.up.taken().len(), before + has + 1);
        }
    }
    let messages = &stage.relay()["messages"];
    assert_eq!(messages["delivered"], delivered);
    assert_eq!(messages["possible_duplicates"], doubtful as u64, "{messages}");
    assert!(stage.up.taken().iter().all(|taken| taken.behind_trace() == MESSAGE));
}

#[test]
fn the_upstreams_own_answers_pass_as_they_are() {
    let stage = Stage::new("relay-own");
    for (at, says) in [
        (At::Mail, "550 5.7.1 up: not you\r\n"),
        (At::Rcpt, "450-4.2.1 up: not now\r\n450 4.2.1 up: later\r\n"),
        (At::Data, "451 4.3.0 up: no\r\n"),
        (At::End, "554 5.7.1 up: spam\r\n"),
    ] {
        stage.up.fail(Some((at, Fault::Says(says))));
        let mut talk = stage.hello();
        let mut last = String::new();
        for line in ["MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>", "DATA", "Subject: x\r\n\r\nx\r\n."] {
            talk.say(line);
            last = talk.reply();
            if !last.starts_with(['2', '3']) {
                break;
            }
        }
        assert_eq!(last, says);
        // The session goes on.
        stage.up.fail(None);
        talk.ask("RSET", "250");
        assert!(talk.mail("c@x.example", "d@y.example", MESSAGE).starts_with("250 2.0.0 up: taken"));
    }
    assert_eq!(stage.up.taken().len(), 4);
    let records = stage.records(7);
    let refused = records.iter().filter(|record| record["fate"] == "refused").count();
    assert_eq!((refused, records.len()), (4, 8), "{records:#?}");
}

#[test]
fn a_client_that_leaves_early_delivers_nothing() {
    let stage = Stage::new("relay-leaves");
    let begin = ["EHLO c.example\r\n", "MAIL FROM:<a@x.example>\r\n", "RCPT TO:<b@y.example>\r\n", "DATA\r\n"];
    for said in 0..=begin.len() {
        let mut talk = stage.talk();
        for line in &begin[..said] {
            talk.send(line.as_bytes());
            talk.reply();
        }
        if said == begin.len() {
            talk.send(b"Subject: x\r\n\r\nhalf a mess");
        }
        talk.hang_up();
    }
    // All sessions with the upstream end as well, so that nothing can come any more.
    until("sessions to end", DEADLINE, || match stage.relay()["active"].as_u64() {
        Some(0) => Ok(()),
        active => Err(active),
    });
    assert_eq!(stage.up.taken(), []);
    assert_eq!(stage.relay()["messages"]["delivered"], 0);
}

#[test]
fn a_client_that_is_gone_when_the_upstream_has_it_is_counted_as_a_possible_duplicate() {
    let stage = Stage::new("relay-rfc1047");
    stage.up.fail(Some((At::End, Fault::Stall)));
    let mut talk = stage.hello();
    talk.data("a@x.example", "b@y.example");
    talk.send(MESSAGE);
    talk.send(b".\r\n");
    until("the upstream to have it", DEADLINE, || if stage.up.taken().len() == 1 { Ok(()) } else { Err(()) });
    talk.hang_up();
    std::thread::sleep(Duration::from_millis(50));
    stage.up.fail(None);
    let record = stage.records(1).remove(0);
    assert_eq!((&record["possible_duplicate"], &record["from"]), (&true.into(), &"a@x.example".into()), "{record:#}");
}

#[test]
fn without_any_upstream_everything_is_put_off_and_a_second_one_takes_over() {
    let stage =
        Stage::with("relay-failover", "", "priority = 1\n[[relay.upstream]]\nhost = \"127.0.0.1\"\nport = 2526");
    stage.up.fail(Some((At::Greeting, Fault::Says("554 not here\r\n"))));
    let mut talk = stage.talk();
    let reply = talk.ask("EHLO c.example", "421 4.4.1 relay.example portreeve: no upstream answers");
    assert!(reply.contains("127.0.0.1:2525: it says 554 not here; 127.0.0.1:2526: "), "{reply}");
    assert_eq!(talk.reply(), "");
    let second = crate::upstream::Upstream::listen(&stage.host, 2526);
    assert!(sends(&stage), "by the second");
    assert_eq!((stage.up.taken().len(), second.taken().len()), (0, 1));
    let upstreams = &stage.relay()["upstreams"];
    assert_eq!((&upstreams[0]["healthy"], &upstreams[1]["healthy"]), (&false.into(), &true.into()), "{upstreams:#}");
}
