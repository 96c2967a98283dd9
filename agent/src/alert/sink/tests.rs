//! The sinks as a whole, against receivers on loopback.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::message::{Message, Summary};
use super::*;
use crate::alert::settings::{SyslogFormat, SyslogTo, Template, Webhook};
use crate::alert::{Destination, State, Who};
use crate::detect::{Evidence, Finding, Kind, Severity, SubjectId};

const PATIENCE: Duration = Duration::from_secs(20);
/// How long the dispatcher gathers in these tests.
const SHORT: Duration = Duration::from_millis(20);

pub(in crate::alert) fn alert(id: u64) -> Alert {
    let time: Timestamp = "2026-01-02T03:04:05.000006Z".parse().unwrap();
    let subject = SubjectId(id);
    let evidence = Evidence {
        walk: 10.5,
        prior: 1.5,
        threshold: 9.2,
        alpha: 0.0001,
        attempts: 14,
        refused: 14,
        destinations: 14,
        ..Evidence::default()
    };
    let who = Who {
        name: "/tmp/.x/sendd of www-data".to_owned(),
        exe: Some("/tmp/.x/sendd".to_owned()),
        user: Some("www-data".to_owned()),
        euid: Some(33),
        unit: Some("php-fpm.service".to_owned()),
        ..Who::default()
    };
    Alert {
        deeds: Vec::new(),
        tree: Vec::new(),
        id,
        subject,
        who,
        severity: Severity::Critical,
        state: State::Open,
        resolution: None,
        opened: time,
        last: time,
        first: time,
        quiet_since: None,
        episodes: 1,
        findings: vec![Finding { time, subject, kind: Kind::FanOut, severity: Severity::Critical, evidence }],
        attempts: 14,
        refused: 14,
        local: 0,
        destinations: vec![Destination { to: "192.0.2.25:25".to_owned(), attempts: 14 }],
        elsewhere: 0,
        worst: None,
        sha256: Some("00".repeat(32)),
        package: None,
        clear: vec!["three answers of known destinations".to_owned()],
        next: vec!["stop php-fpm.service and look at /tmp/.x".to_owned()],
        history: Vec::new(),
    }
}

pub(super) fn notice(occasion: Occasion, alert: Alert) -> Message {
    Message::Notice(Notice { occasion, time: alert.opened, alert: Arc::new(alert) })
}

pub(super) fn summary(alerts: u64) -> Message {
    let notices = (1..=alerts).map(|id| {
        let time = Timestamp::from_second(1_700_000_000 + id as i64 / 100).unwrap();
        Notice { occasion: Occasion::Opened, alert: Arc::new(alert(id)), time }
    });
    Message::Summary(Arc::new(Summary::of(&notices.collect::<Vec<_>>(), 0)))
}

fn sinks(kind: SinkKind, change: impl FnOnce(&mut SinkSettings)) -> Sinks {
    let mut sink = SinkSettings { retry: Duration::from_millis(10), ..SinkSettings::new("it", kind) };
    change(&mut sink);
    let settings =
        Settings { sinks: vec![sink], flood: 10, flood_window: Duration::from_millis(200), ..Settings::default() };
    Sinks::start_gathering(&settings, "mail.example", SHORT)
}

fn file(path: std::path::PathBuf) -> SinkKind {
    SinkKind::File { path, rotate: 1 << 30, keep: 1 }
}

#[track_caller]
fn until(sinks: &Sinks, holds: impl Fn(&SinkStatus) -> bool) -> SinkStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = sinks.status().remove(0);
        if holds(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{status:#?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn webhook(url: String) -> SinkKind {
    SinkKind::Webhook(Webhook {
        url,
        template: Template::Json,
        secret_file: None,
        ca_file: "/nonexistent".into(),
        proxy: None,
        timeout: Duration::from_secs(5),
    })
}

/// An HTTP server that answers one status after the other, the last for ever, and passes on what it got.
fn server(statuses: &'static [u16]) -> (String, Receiver<String>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (sender, bodies) = mpsc::channel();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut length = 0;
            let mut line = String::new();
            while stream.read_line(&mut line).unwrap() > 2 {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let status = statuses[number.min(statuses.len() - 1)];
            write!(stream.get_mut(), "HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            if sender.send(String::from_utf8(body).unwrap()).is_err() {
                return;
            }
        }
    });
    (url, bodies, count)
}

#[test]
fn a_server_that_recovers_gets_the_notice() {
    let (url, bodies, _) = server(&[500, 503, 429, 200]);
    let sinks = sinks(webhook(url), |_| {});
    sinks.tell(Occasion::Opened, &Arc::new(alert(7)));
    let status = until(&sinks, |status| status.delivered == 1);
    assert_eq!((status.retried, status.dead, status.queued, status.dropped), (3, 0, 0, 0));
    assert!(status.last_error.unwrap().ends_with("answered 429"));
    let body: serde_json::Value = serde_json::from_str(&bodies.iter().nth(3).unwrap()).unwrap();
    assert_eq!(
        (&body["occasion"], &body["alert"]["id"], &body["host"]),
        (&"opened".into(), &7.into(), &"mail.example".into())
    );
}

#[test]
fn a_server_that_says_no_is_asked_once() {
    let (url, _bodies, count) = server(&[404]);
    let sinks = sinks(webhook(url), |_| {});
    sinks.tell(Occasion::Opened, &Arc::new(alert(7)));
    let status = until(&sinks, |status| status.dead == 1);
    assert_eq!((status.retried, status.delivered, count.load(Ordering::SeqCst)), (0, 0, 1));
}

#[test]
fn a_server_that_never_recovers_costs_nobody_time_and_what_is_lost_is_counted() {
    // A port where nobody listens, once the listener is gone.
    let url = format!("http://{}/", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let sink = SinkSettings { queue: 3, retry: Duration::from_secs(1000), ..SinkSettings::new("it", webhook(url)) };
    let settings = Settings { sinks: vec![sink], flood: 10_000, ..Settings::default() };
    let sinks = Sinks::start_gathering(&settings, "mail.example", SHORT);
    // More than the dispatcher's own queue holds as well.
    let many = INCOMING as u64 + 1000;
    let start = Instant::now();
    for id in 1..=many {
        sinks.tell(Occasion::Opened, &Arc::new(alert(id)));
    }
    assert!(start.elapsed() < Duration::from_secs(2), "tell() took {:?}", start.elapsed());
    // One at work and three in the queue.
    let status = until(&sinks, |status| status.dropped == many - 4 && status.last_error.is_some());
    assert_eq!((status.queued, status.delivered, status.dead), (4, 0, 0));
    let start = Instant::now();
    let status = sinks.stop(Duration::from_millis(100)).remove(0);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!((status.queued, status.dead), (0, 4), "{status:#?}");
}

#[test]
fn the_tries_come_to_an_end() {
    let url = format!("http://{}/", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let sinks = sinks(webhook(url.clone()), |sink| sink.tries = 4);
    sinks.tell(Occasion::Opened, &Arc::new(alert(1)));
    let status = until(&sinks, |status| status.dead == 1);
    assert_eq!((status.retried, status.queued), (3, 0));
    let error = status.last_error.unwrap();
    assert!(error.starts_with(&format!("cannot post to {}:", url.trim_end_matches('/'))), "{error}");
}

#[test]
fn a_thousand_at_once_are_one_message_and_ten_are_ten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alerts.jsonl");
    let sinks = sinks(file(path.clone()), |_| {});
    for id in 1..=10 {
        sinks.tell(Occasion::Opened, &Arc::new(alert(id)));
    }
    until(&sinks, |status| status.delivered == 10);
    std::thread::sleep(Duration::from_millis(300));
    for id in 1..=1000 {
        sinks.tell(Occasion::Opened, &Arc::new(alert(id)));
    }
    let status = sinks.stop(PATIENCE).remove(0);
    assert_eq!((status.delivered, status.dead, status.dropped), (11, 0, 0));
    let text = std::fs::read_to_string(&path).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["alerts"]), (&"summary".into(), &1000.into()));
    assert_eq!((&last["by_severity"]["critical"], last["table"].as_array().unwrap().len()), (&1000.into(), 20));
}

#[test]
fn those_that_follow_a_flood_are_gathered_as_well_and_a_lone_one_later_is_told_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alerts.jsonl");
    let sinks = sinks(file(path.clone()), |_| {});
    let tell = |ids: std::ops::RangeInclusive<u64>| {
        ids.for_each(|id| sinks.tell(Occasion::Opened, &Arc::new(alert(id))));
    };
    // More than ten within the window, though no more than nine at a time.
    tell(1..=9);
    until(&sinks, |status| status.delivered == 9);
    tell(10..=18);
    until(&sinks, |status| status.delivered == 10);
    tell(19..=20);
    until(&sinks, |status| status.delivered == 11);
    std::thread::sleep(Duration::from_millis(900));
    tell(21..=21);
    until(&sinks, |status| status.delivered == 12);
    let text = std::fs::read_to_string(&path).unwrap();
    let events: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(events[9..], ["summary", "summary", "alert"]);
}

#[test]
fn a_sink_gets_what_it_wants_and_the_severe_one_is_not_hidden_by_others_flood() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alerts.jsonl");
    let sinks = sinks(file(path.clone()), |sink| {
        sink.min_severity = Severity::Critical;
        sink.on = vec![Occasion::Opened];
    });
    for id in 1..=500 {
        let severity = if id == 250 { Severity::Critical } else { Severity::Warning };
        sinks.tell(Occasion::Opened, &Arc::new(Alert { severity, ..alert(id) }));
        sinks.tell(Occasion::Resolved, &Arc::new(alert(id)));
    }
    let status = sinks.stop(PATIENCE).remove(0);
    assert_eq!(status.delivered, 1);
    let line: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!((&line["event"], &line["alert"]["id"]), (&"alert".into(), &250.into()));
}

#[test]
fn stopping_delivers_what_is_queued() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing/alerts.jsonl");
    let sinks = sinks(file(path.clone()), |_| {});
    for id in 1..=5 {
        sinks.tell(Occasion::Opened, &Arc::new(alert(id)));
    }
    until(&sinks, |status| status.retried > 0);
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    // In the background, as a reload does it, while the sinks of the new policy already work.
    sinks.retire(PATIENCE);
    let deadline = Instant::now() + PATIENCE;
    let lines = || std::fs::read_to_string(&path).unwrap_or_default().lines().count();
    while lines() < 5 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(lines(), 5);
}

#[test]
fn a_server_that_hangs_is_left_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sinks = sinks(webhook(format!("http://{}/", listener.local_addr().unwrap())), |_| {});
    sinks.tell(Occasion::Opened, &Arc::new(alert(1)));
    let (_hung, _) = listener.accept().unwrap();
    let start = Instant::now();
    assert_eq!(sinks.stop(Duration::from_millis(50)).remove(0).delivered, 0);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn syslog_goes_by_datagram_and_by_counted_octets() {
    let told = |kind: SinkKind| {
        let sinks = sinks(kind, |_| {});
        sinks.tell(Occasion::Opened, &Arc::new(alert(7)));
        sinks
    };
    let syslog = |to| SinkKind::Syslog { to, format: SyslogFormat::Rfc5424, facility: 3 };
    let check = |message: &[u8]| {
        let (header, data, _) = syslog::tests::read(std::str::from_utf8(message).unwrap()).unwrap();
        assert_eq!((header[0].as_str(), data["alert_id"].as_str()), ("<26>1", "7"));
    };
    let mut buffer = [0; 4096];

    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(PATIENCE)).unwrap();
    let sinks = told(syslog(SyslogTo::Udp("127.0.0.1".to_owned(), udp.local_addr().unwrap().port())));
    let length = udp.recv(&mut buffer).unwrap();
    check(&buffer[..length]);
    drop(sinks);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let unix = UnixDatagram::bind(&path).unwrap();
    unix.set_read_timeout(Some(PATIENCE)).unwrap();
    let sinks = told(syslog(SyslogTo::Local(path)));
    let length = unix.recv(&mut buffer).unwrap();
    check(&buffer[..length]);
    drop(sinks);

    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let sinks = told(syslog(SyslogTo::Tcp("127.0.0.1".to_owned(), tcp.local_addr().unwrap().port())));
    let mut all = Vec::new();
    // The first connection breaks: the message must come again.
    drop(tcp.accept().unwrap());
    tcp.accept().unwrap().0.read_to_end(&mut all).unwrap();
    let text = String::from_utf8(all).unwrap();
    let (length, message) = text.split_once(' ').unwrap();
    assert_eq!(length.parse::<usize>().unwrap(), message.len());
    check(message.as_bytes());
    assert_eq!(until(&sinks, |status| status.delivered == 1).retried, 1);
}

#[test]
fn the_journal_gets_an_entry_with_fields() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let journal = UnixDatagram::bind(&path).unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    let sinks = sinks(SinkKind::Journald { socket: path }, |_| {});
    sinks.tell(Occasion::Opened, &Arc::new(alert(7)));
    let mut buffer = [0; 8192];
    let length = journal.recv(&mut buffer).unwrap();
    let fields = journald::tests::read(&buffer[..length]);
    assert_eq!(fields["PORTREEVE_ALERT_ID"], "7");
    assert_eq!(fields["PORTREEVE_EXE"], "/tmp/.x/sendd");
    assert_eq!(
        (fields["PORTREEVE_UNIT"].as_str(), fields["SYSLOG_IDENTIFIER"].as_str()),
        ("php-fpm.service", "portreeve")
    );
    assert_eq!(until(&sinks, |status| status.delivered == 1).dead, 0);
}

/// A mail server of the simplest kind, for one mail.
fn mail_server(reply_to_data: &'static str) -> (u16, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = std::thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        stream.get_mut().write_all(b"220 x ESMTP\r\n").unwrap();
        let (mut all, mut line, mut in_data) = (String::new(), String::new(), false);
        while stream.read_line(&mut line).unwrap() > 0 {
            all += &line;
            let answer = match line.split([' ', ':']).next().unwrap().trim() {
                "." => {
                    in_data = false;
                    reply_to_data
                }
                _ if in_data => "",
                "DATA" => {
                    in_data = true;
                    "354 go on\r\n"
                }
                "QUIT" => return all,
                _ => "250 ok\r\n",
            };
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
            line.clear();
        }
        all
    });
    (port, serve)
}

#[test]
fn mail_goes_to_the_local_mail_server_and_its_no_is_final() {
    let email = |port| SinkKind::Email {
        host: "127.0.0.1".to_owned(),
        port,
        from: None,
        to: vec!["root@example.org".parse().unwrap()],
    };
    let (port, served) = mail_server("250 taken\r\n");
    let taken = sinks(email(port), |_| {});
    taken.tell(Occasion::Opened, &Arc::new(alert(7)));
    assert_eq!(until(&taken, |status| status.delivered == 1).retried, 0);
    drop(taken);
    let dialogue = served.join().unwrap();
    assert!(dialogue.contains("MAIL FROM:<portreeve@mail.example>"), "{dialogue}");
    assert!(dialogue.contains("RCPT TO:<root@example.org>"), "{dialogue}");
    assert!(dialogue.contains("Auto-Submitted: auto-generated"), "{dialogue}");

    let (port, _served) = mail_server("554 no\r\n");
    let refused = sinks(email(port), |_| {});
    refused.tell(Occasion::Opened, &Arc::new(alert(7)));
    let status = until(&refused, |status| status.dead == 1);
    assert!(status.retried == 0 && status.last_error.unwrap().contains("does not take it"));
}
