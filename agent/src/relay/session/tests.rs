//! Sessions with filters that no policy has.

use std::path::Path;
use std::sync::Mutex;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::super::engine::{Engine, Lasting};
use super::super::filter::{Answer, Chain, Filter, Refusal, Verdict};
use super::super::origin::Way;
use super::super::record::Counters;
use super::super::server::Phase;
use super::super::settings::{Action, Settings, Tls, UpstreamSettings};
use super::super::upstream::Upstreams;
use super::*;
use crate::journal::Journal;

/// Refuses what has the word "spam" anywhere, tags everything else.
#[derive(Debug)]
struct Whole;

impl Filter for Whole {
    fn name(&self) -> &str {
        "whole"
    }

    fn points(&self) -> &[Point] {
        &[Point::End]
    }

    fn wants_message(&self) -> bool {
        true
    }

    fn look<'a>(&'a self, _point: Point, seen: Seen<'a>) -> Answer<'a> {
        Answer::Later(Box::pin(async move {
            let spool = seen.message.unwrap();
            let mut text = Vec::new();
            while text.len() < usize::try_from(spool.len()).unwrap() {
                text.extend(spool.read(text.len() as u64).await.unwrap());
            }
            if memchr::memmem::find(&text, b"spam").is_some() {
                let text = "it is spam".to_owned();
                return Verdict::Refuse(Refusal { action: Action::Reject, code: 550, detail: "7.1", text });
            }
            Verdict::Tag { field: "X-Portreeve-Score", value: "0".to_owned() }
        }))
    }
}

fn engine(folder: &Path, port: u16) -> Engine {
    let upstream = UpstreamSettings {
        host: "127.0.0.1".to_owned(),
        port,
        tls: Tls::None,
        tls_name: None,
        ca_file: None,
        auth_file: None,
        priority: 1,
    };
    let settings = Settings { upstreams: vec![upstream], max_size: 1 << 20, ..Settings::default() };
    let lasting = Lasting {
        records: Mutex::new(Journal::open(folder, "mail")),
        counters: Counters::default(),
        guard: Arc::default(),
        door: None,
        rules: Mutex::default(),
        spool: folder.to_owned(),
    };
    Engine {
        name: "relay.example".to_owned(),
        upstreams: Upstreams::load(&settings, None).unwrap(),
        chain: Chain::of(vec![Arc::new(Whole)]),
        guard: Arc::default(),
        acceptor: None,
        lasting: Arc::new(lasting),
        settings,
    }
}

/// An upstream for one session: all that it hears.
async fn upstream(listener: TcpListener) -> String {
    let (stream, _) = listener.accept().await.unwrap();
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    writer.write_all(b"220 up\r\n").await.unwrap();
    let (mut heard, mut data) = (String::new(), false);
    while let Some(line) = lines.next_line().await.unwrap() {
        heard.push_str(&line);
        heard.push('\n');
        let answer: &[u8] = match line.as_str() {
            "." => b"250 taken\r\n",
            _ if data => b"",
            "DATA" => b"354 go on\r\n",
            "QUIT" => break,
            _ => b"250 ok\r\n",
        };
        data = (data || line == "DATA") && line != ".";
        writer.write_all(answer).await.unwrap();
    }
    heard
}

/// What a client hears that says all this at once, and what the upstream heard.
async fn talk(says: String) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let up = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let engine = Arc::new(engine(folder.path(), up.local_addr().unwrap().port()));
    let heard = tokio::spawn(upstream(up));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let phase = watch::channel(Phase::Running);
    let origin = Origin { peer, way: Way::Relayhost, destination: None, subject: None, rule: None };
    let mut session = Session::new(engine, origin, stream, phase.1);
    let serving = tokio::spawn(async move {
        session.run().await;
        session.finish().await;
    });
    client.write_all(says.as_bytes()).await.unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    serving.await.unwrap();
    (answers, heard.await.unwrap())
}

const BEGIN: &str = "EHLO c.example\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n";

#[tokio::test]
async fn a_filter_that_wants_the_whole_message_has_it_before_the_upstream_gets_any() {
    let body = "a line of the message\r\n".repeat(20_000);
    let (answers, heard) = talk(format!("{BEGIN}Subject: x\r\n\r\n..\r\n{body}.\r\nQUIT\r\n")).await;
    assert!(answers.ends_with("354 go on\r\n250 taken\r\n221 2.0.0 Bye\r\n"), "{answers}");
    let (_, message) = heard.split_once("DATA\n").unwrap();
    let (trace, message) = message.split_once("X-Portreeve-Score: 0\n").unwrap();
    assert!(trace.starts_with("Received: from c.example"));
    assert_eq!(message, format!("Subject: x\n\n..\n{}.\nQUIT\n", body.replace('\r', "")));
}

#[tokio::test]
async fn what_it_refuses_never_reaches_the_upstream_and_the_session_goes_on() {
    let body = "spam\r\n".repeat(20_000);
    let (answers, heard) = talk(format!("{BEGIN}{body}.\r\n{}x\r\n.\r\nQUIT\r\n", &BEGIN[16..])).await;
    assert!(answers.contains("550 5.7.1 portreeve: it is spam ("), "{answers}");
    assert!(answers.ends_with("250 taken\r\n221 2.0.0 Bye\r\n"), "{answers}");
    assert!(!heard.contains("spam") && heard.contains("\nRSET\n"), "{heard}");
}

#[tokio::test]
async fn a_whole_message_that_is_too_large_or_broken_is_refused_as_one_that_passes() {
    let (answers, heard) = talk(format!("{BEGIN}{}.\r\nQUIT\r\n", "x\r\n".repeat(400_000))).await;
    assert!(answers.contains("552 5.3.4") && answers.ends_with("221 2.0.0 Bye\r\n"), "{answers}");
    assert!(!heard.contains("DATA"), "{heard}");
    let (answers, heard) = talk(format!("{BEGIN}x\n.\nMAIL FROM:<c@x>\r\n.\r\nNOOP\r\n")).await;
    assert!(answers.contains("554 5.6.0") && !answers.contains("2.0.0"), "{answers}");
    assert!(!heard.contains("DATA") && !heard.contains("c@x"), "{heard}");
}
