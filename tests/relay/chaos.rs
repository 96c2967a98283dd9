//! Many clients at once, and an upstream that breaks at random: afterwards the books must balance.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};

use crate::stage::{Stage, Talk};
use crate::upstream::{At, Fault};

const CLIENTS: usize = 8;
const EACH: usize = 150;
const SHORT: &str =
    "[relay.timeouts]\nconnect = \"1s\"\ncommand = \"1s\"\ndata = \"1s\"\nblock = \"1s\"\nend = \"1s\"\n";

/// Sends one message until it is taken, as a mail server does, with everything else at random.
fn sends(host: &lab::Host, id: &str, random: &mut rand::rngs::ChaCha8Rng, tries: &AtomicUsize) {
    loop {
        tries.fetch_add(1, Ordering::Relaxed);
        let mut talk = Talk::connect(host);
        talk.expect("220");
        if attempt(&mut talk, id, random) {
            return;
        }
    }
}

fn attempt(talk: &mut Talk, id: &str, random: &mut rand::rngs::ChaCha8Rng) -> bool {
    let mut yes = |line: &str, begin: char| {
        talk.try_send(format!("{line}\r\n").as_bytes());
        let reply = talk.reply();
        assert!(reply.is_empty() || reply.starts_with([begin, '4']), "{line}: {reply}");
        reply.starts_with(begin)
    };
    if !yes("EHLO client.example", '2') || !yes(&format!("MAIL FROM:<{id}@x.example>"), '2') {
        return false;
    }
    if !yes("RCPT TO:<b@y.example>", '2') || !yes("DATA", '3') {
        return false;
    }
    let text =
        format!("Message-ID: <{id}@x.example>\r\n\r\n{}", ".. and so on\r\n".repeat(random.random_range(0..2000)));
    // Now and then the client is the one that breaks off.
    if random.random_range(0..20) == 0 {
        talk.try_send(&text.as_bytes()[..text.len() / 2]);
        return false;
    }
    talk.try_send(text.as_bytes());
    talk.try_send(b".\r\n");
    let reply = talk.reply();
    assert!(reply.is_empty() || reply.starts_with(['2', '4']), "{reply}");
    reply.starts_with('2')
}

#[test]
fn whatever_breaks_at_random_each_message_arrives_and_twice_only_where_the_record_says_it_may() {
    let stage = Stage::with("relay-chaos", "", SHORT);
    let (over, tries) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (host, tries) = (&stage.host, &tries);
                scope.spawn(move || {
                    let mut random = rand::rngs::ChaCha8Rng::seed_from_u64(client as u64);
                    (0..EACH).for_each(|number| sends(host, &format!("c{client}-{number}"), &mut random, tries));
                })
            })
            .collect();
        let (up, over) = (&stage.up, &over);
        scope.spawn(move || {
            let mut random = rand::rngs::ChaCha8Rng::seed_from_u64(99);
            while !over.load(Ordering::Relaxed) {
                let at = At::ALL[random.random_range(0..At::ALL.len())];
                let fault = [Fault::Close, Fault::Nonsense, Fault::Stall, Fault::Says("451 4.3.0 up: no\r\n")];
                let fault = fault[random.random_range(0..fault.len())];
                up.fail(Some((at, fault)));
                std::thread::sleep(Duration::from_millis(random.random_range(1..30)));
                up.fail(None);
                std::thread::sleep(Duration::from_millis(random.random_range(0..30)));
            }
        });
        clients.into_iter().for_each(|client| client.join().unwrap());
        over.store(true, Ordering::Relaxed);
    });
    let mut arrived: BTreeMap<String, usize> = BTreeMap::new();
    for taken in stage.up.taken() {
        let text = String::from_utf8_lossy(taken.behind_trace()).into_owned();
        let id = text.strip_prefix("Message-ID: <").unwrap().split('@').next().unwrap().to_owned();
        assert!(taken.from.contains(&format!("<{id}@")), "envelope and message belong together");
        *arrived.entry(id).or_default() += 1;
    }
    assert_eq!(arrived.len(), CLIENTS * EACH, "each has arrived");
    let records = stage.records(CLIENTS * EACH);
    let mut may: BTreeMap<&str, usize> = BTreeMap::new();
    for record in records.iter().filter(|record| record["possible_duplicate"] == true) {
        *may.entry(record["from"].as_str().unwrap().split('@').next().unwrap()).or_default() += 1;
    }
    for (id, times) in &arrived {
        let allowed = 1 + may.get(id.as_str()).copied().unwrap_or(0);
        assert!(*times <= allowed, "{id} has arrived {times} times, and the record says {allowed}");
    }
    let tries = tries.load(Ordering::Relaxed);
    assert!(tries > CLIENTS * EACH, "something has broken: {tries} attempts");
}
