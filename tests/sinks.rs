//! Alerts, told to real receivers: rsyslogd, journald, an HTTPS server, Postfix.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use lab::mta::{Mta, Package};
use lab::{DEADLINE, Host, HttpsServer, Journald, Lab, Rsyslogd, Sink, until};
use portreeve::alert::{Alert, Occasion, SinkStatus, Sinks};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(10);

/// An alert about a program of a web site, as the detector finds it.
fn alert(id: u64) -> Arc<Alert> {
    let time = "2026-01-02T03:04:05.000006Z";
    let subject = format!("{id:016x}");
    let alert = json!({
        "id": id, "subject": subject, "severity": "critical", "state": "open", "resolution": null,
        "who": {
            "name": "/tmp/.x/sendd of www-data", "exe": "/tmp/.x/sendd", "script": null, "user": "www-data",
            "euid": 33, "unit": "php-fpm.service", "container": null, "address": null,
        },
        "opened": time, "last": time, "first": time, "quiet_since": null, "episodes": 1,
        "findings": [{
            "time": time, "subject": subject, "kind": "fan-out", "severity": "critical",
            "evidence": {
                "walk": 10.5, "prior": 1.5, "threshold": 9.2, "alpha": 0.0001, "tests_today": 1,
                "signs": [{"sign": "temporary_folder", "weight": 1.5}], "attempts": 14, "refused": 14, "local": 0,
                "programs": 1, "destinations": 14, "against": 14, "in_favour": 0, "first": time, "to_clear": 3,
            },
        }],
        "attempts": 14 + id, "refused": 14, "local": 0,
        "destinations": [{"to": "192.0.2.25:25", "attempts": 14}], "elsewhere": 0, "worst": null,
        "sha256": null, "package": null, "clear": ["three answers of known destinations"],
        "next": ["stop php-fpm.service and look at /tmp/.x"], "history": [],
    });
    Arc::new(serde_json::from_value(alert).unwrap())
}

/// The sinks of a policy with these `[[alert.sink]]` tables, in the network of a host.
#[track_caller]
fn sinks(host: &Host, tables: &str) -> Sinks {
    let text = format!("[[allow]]\nmta = \"auto\"\n{tables}");
    let loaded = portreeve::policy::load_text("/etc/portreeve/portreeve.toml".as_ref(), text);
    assert!(loaded.diagnostics.is_empty(), "{:#?}", loaded.diagnostics);
    host.enter(|| Sinks::start(&loaded.policy.unwrap().alert, "host.example"))
}

/// Waits for a sink.
#[track_caller]
fn wait(sinks: &Sinks, name: &str, holds: impl Fn(&SinkStatus) -> bool) -> SinkStatus {
    until(name, DEADLINE, || {
        let status = sinks.status().into_iter().find(|status| status.name == name).unwrap();
        if holds(&status) { Ok(status) } else { Err(Box::new(status)) }
    })
}

#[test]
fn rsyslogd_reads_it_by_every_way_and_a_flood_is_one_message() {
    let lab = Lab::new("rsyslogd");
    let host = lab.host("host");
    let mut rsyslogd = Rsyslogd::start(&lab, &host);
    let tables = format!(
        "[[alert.sink]]\nkind = \"syslog\"\nname = \"udp\"\nhost = \"127.0.0.1\"\n\
         [[alert.sink]]\nkind = \"syslog\"\nname = \"tcp\"\nhost = \"127.0.0.1\"\nprotocol = \"tcp\"\nretry = \"1s\"\n\
         [[alert.sink]]\nkind = \"syslog\"\nname = \"local\"\npath = \"{}\"\nfacility = \"local3\"\nformat = \"rfc5424\"\n\
         [[alert.sink]]\nkind = \"syslog\"\nname = \"devlog\"\npath = \"{}\"\n",
        rsyslogd.socket("plain").display(),
        rsyslogd.socket("devlog").display(),
    );
    let sinks = sinks(&host, &tables);
    let arrived = |rsyslogd: &Rsyslogd<'_>, count: usize| {
        until("messages at rsyslogd", DEADLINE, || {
            let messages = rsyslogd.messages();
            if messages.len() >= count { Ok(messages) } else { Err((messages, sinks.status(), rsyslogd.said())) }
        })
    };

    sinks.tell(Occasion::Opened, &alert(7));
    let messages = arrived(&rsyslogd, 4);
    println!("{}", messages.join("\n"));
    for (input, facility) in [("imudp", "daemon"), ("imtcp", "daemon"), ("imuxsock", "local3")] {
        let start = format!("{input}|{facility}.crit|host.example|portreeve|opened|[portreeve@32473 event=\"alert\"");
        let message = messages.iter().find(|message| message.starts_with(&start));
        let message = message.unwrap_or_else(|| panic!("no {start}: {messages:#?}"));
        assert!(message.contains(" exe=\"/tmp/.x/sendd\" user=\"www-data\" unit=\"php-fpm.service\""), "{message}");
        assert!(message.contains("|alert 7 opened: critical: /tmp/.x/sendd of www-data (fan-out; 21 att"), "{message}");
    }
    // The older form has no structured data; the daemon adds the host by itself.
    let old = messages.iter().find(|message| message.starts_with("imuxsock|daemon.crit|")).unwrap();
    assert!(old.contains("|portreeve|-|-| alert 7 opened: critical: /tmp/.x/sendd"), "{old}");

    // A daemon that is gone for a while gets by TCP what was told meanwhile.
    rsyslogd.stop();
    sinks.tell(Occasion::Worse, &alert(7));
    wait(&sinks, "tcp", |status| status.retried > 0);
    rsyslogd.launch();
    wait(&sinks, "tcp", |status| status.delivered == 2);
    let late = until("the late message", DEADLINE, || {
        let messages = rsyslogd.messages();
        messages.iter().find(|line| line.starts_with("imtcp") && line.contains("|worse|")).cloned().ok_or(messages)
    });
    assert!(late.contains("alert 7 worse:"), "{late}");

    // A thousand bots.
    let before = rsyslogd.messages().len();
    for id in 1..=1000 {
        sinks.tell(Occasion::Opened, &alert(id));
    }
    let status = sinks.stop(PATIENCE);
    assert!(status.iter().all(|status| status.dead == 0 || status.name != "tcp"), "{status:#?}");
    let summaries = until("the summary", DEADLINE, || {
        let messages = rsyslogd.messages().split_off(before);
        let summaries: Vec<String> = messages.iter().filter(|line| line.contains("1000 alerts")).cloned().collect();
        if summaries.iter().any(|line| line.starts_with("imtcp")) { Ok(summaries) } else { Err(messages) }
    });
    let by_tcp: Vec<&String> = summaries.iter().filter(|line| line.starts_with("imtcp")).collect();
    assert_eq!(by_tcp.len(), 1, "{summaries:#?}");
    assert!(by_tcp[0].contains("|summary|[portreeve@32473 event=\"summary\" severity=\"critical\" notices=\"1000\""));
}

#[test]
fn journald_keeps_every_field() {
    let lab = Lab::new("journald");
    let host = lab.host("host");
    let journald = Journald::start(&lab);
    // The journal also reads /dev/log, which is this socket of it.
    let devlog = journald.socket().with_file_name("dev-log");
    let tables = format!(
        "[[alert.sink]]\nkind = \"journald\"\npath = \"{}\"\n[[alert.sink]]\nkind = \"syslog\"\npath = \"{}\"\n",
        journald.socket().display(),
        devlog.display(),
    );
    let sinks = sinks(&host, &tables);
    sinks.tell(Occasion::Opened, &alert(7));
    let entry = until("the entry", DEADLINE, || journald.entries("PORTREEVE_ALERT_ID=7").pop().ok_or(sinks.status()));
    for (field, value) in [
        ("PRIORITY", "2"),
        ("SYSLOG_IDENTIFIER", "portreeve"),
        ("PORTREEVE_SEVERITY", "critical"),
        ("PORTREEVE_OCCASION", "opened"),
        ("PORTREEVE_KIND", "fan-out"),
        ("PORTREEVE_EXE", "/tmp/.x/sendd"),
        ("PORTREEVE_USER", "www-data"),
        ("PORTREEVE_UNIT", "php-fpm.service"),
        ("MESSAGE", "alert 7 opened: critical: /tmp/.x/sendd of www-data (fan-out; 21 attempts)"),
        ("_TRANSPORT", "journal"),
    ] {
        assert_eq!(entry[field], value, "{field}: {entry:#}");
    }

    let message = entry["MESSAGE"].clone();
    until("the entry by syslog", DEADLINE, || {
        let entries = journald.entries("_TRANSPORT=syslog");
        let good = entries.iter().any(|entry| {
            let parts = (&entry["SYSLOG_IDENTIFIER"], &entry["PRIORITY"], &entry["MESSAGE"]);
            parts == (&"portreeve".into(), &"2".into(), &message)
        });
        if good { Ok(()) } else { Err(entries) }
    });

    // A program that writes an entry of its own by its name, with a line break.
    let mut bad = Alert::clone(&alert(8));
    bad.who.exe = Some("/tmp/x\nPORTREEVE_ALERT_ID=9".to_owned());
    sinks.tell(Occasion::Opened, &Arc::new(bad));
    let entry = until("the entry", DEADLINE, || journald.entries("PORTREEVE_ALERT_ID=8").pop().ok_or(sinks.status()));
    assert_eq!(entry["PORTREEVE_EXE"], "/tmp/x\nPORTREEVE_ALERT_ID=9");
    assert!(journald.entries("PORTREEVE_ALERT_ID=9").is_empty());

    for id in 1..=1000 {
        sinks.tell(Occasion::Opened, &alert(id));
    }
    assert_eq!(sinks.stop(PATIENCE)[0].dead, 0);
    let summary = until("the summary", DEADLINE, || journald.entries("PORTREEVE_EVENT=summary").pop().ok_or(()));
    assert_eq!((&summary["PORTREEVE_ALERTS"], &summary["PRIORITY"]), (&"1000".into(), &"2".into()));
    let text = summary["MESSAGE"].as_str().unwrap();
    println!("{text}");
    assert!(text.contains("   1000  critical      1014        14  /tmp/.x/sendd") && text.ends_with("and 980 more\n"));
}

#[test]
fn an_https_server_believes_what_is_signed_and_is_believed_by_its_certificate() {
    let lab = Lab::new("https");
    let host = lab.host("host");
    let server = HttpsServer::start(&lab, &host, 8443);
    let secret = |text: &str| {
        let path = lab.scratch("secret");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (right, wrong) = (secret(HttpsServer::SECRET), secret("guessed"));
    let hook = |name: &str, secret: &str, rest: &str| {
        format!(
            "[[alert.sink]]\nkind = \"webhook\"\nname = \"{name}\"\nurl = \"https://127.0.0.1:8443/{name}\"\n\
             secret_file = \"{secret}\"\nretry = \"1s\"\n{rest}\n"
        )
    };
    let authority = format!("ca_file = \"{}\"\n", server.authority().display());
    let tables = [
        hook("right", &right, &authority),
        hook("wrong", &wrong, &authority),
        // With the authorities of the system, which do not know this one.
        hook("stranger", &right, "tries = 2"),
    ];
    let sinks = sinks(&host, &tables.concat());
    sinks.tell(Occasion::Opened, &alert(7));

    let status = wait(&sinks, "right", |status| status.delivered == 1);
    assert_eq!((status.retried, status.dead), (1, 0), "{status:#?}");
    let answers: Vec<_> = server.requests().into_iter().filter(|request| request["path"] == "/right").collect();
    assert_eq!(answers.iter().map(|answer| answer["status"].as_u64().unwrap()).collect::<Vec<_>>(), [503, 204]);
    assert_eq!(answers[1]["type"], "application/json");
    let body = &answers[1]["body"];
    assert_eq!(
        (&body["event"], &body["occasion"], &body["host"]),
        (&"alert".into(), &"opened".into(), &"host.example".into())
    );
    assert_eq!(&body["alert"], &serde_json::to_value(&*alert(7)).unwrap());

    let status = wait(&sinks, "wrong", |status| status.dead == 1);
    assert_eq!((status.retried, status.delivered), (0, 0));
    assert_eq!(status.last_error.unwrap(), "https://127.0.0.1:8443 answered 401");

    let status = wait(&sinks, "stranger", |status| status.dead == 1);
    assert_eq!(status.delivered, 0);
    assert!(status.last_error.unwrap().contains("UnknownIssuer"));
    assert!(!server.requests().iter().any(|request| request["path"] == "/stranger"));
}

#[test]
fn postfix_sends_the_mails_of_an_alert_as_one_thread() {
    let lab = Lab::new("mail");
    let (host, mx) = (lab.host("host"), lab.host("mx"));
    lab.wire(&host, &mx);
    let exchanger = Sink::listen(&mx, 25);
    let cgroup = lab.cgroup("system.slice/postfix.service");
    let mut postfix = Mta::start(&lab, Package::Postfix, &host, &cgroup, mx.v4());
    let sinks = sinks(
        &host,
        "[[alert.sink]]\nkind = \"email\"\nto = [\"postmaster@mx.example\", \"ops@mx.example\"]\nretry = \"1s\"\n",
    );
    sinks.tell(Occasion::Opened, &alert(7));
    let first = exchanger.wait_for_messages(1, DEADLINE).remove(0);
    println!("{}", first.data);
    assert!(first.from.starts_with("MAIL FROM:<portreeve@host.example>"), "{}", first.from);
    assert_eq!(first.to.len(), 2);
    let header = |data: &str, name: &str| {
        let lines: Vec<String> = data.lines().take_while(|line| !line.is_empty()).map(str::to_owned).collect();
        // A header may go on in the next line (RFC 5322 §2.2.3).
        let all = lines.join("\n").replace("\n ", " ").replace("\n\t", " ");
        let line =
            all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim).map(str::to_owned));
        line.unwrap_or_else(|| panic!("no {name}: {data}"))
    };
    assert_eq!(header(&first.data, "Auto-Submitted"), "auto-generated");
    assert_eq!(header(&first.data, "Subject"), "[host.example] critical: /tmp/.x/sendd of www-data (alert 7)");
    for line in [
        "Alert 7 is new.",
        "  192.0.2.25:25",
        "  - stop php-fpm.service and look at /tmp/.x",
        "    portreeve alerts show 7",
    ] {
        assert!(first.data.contains(line), "no \"{line}\": {}", first.data);
    }

    let id = header(&first.data, "Message-ID");
    sinks.tell(Occasion::Worse, &alert(7));
    let second = exchanger.wait_for_messages(2, DEADLINE).remove(1);
    assert_eq!((header(&second.data, "In-Reply-To"), header(&second.data, "References")), (id.clone(), id.clone()));
    assert!(header(&second.data, "Message-ID") != id && header(&second.data, "Subject").starts_with("Re: "));
    // An upgrade of Postfix.
    postfix.restart();
    sinks.tell(Occasion::Reopened, &alert(7));
    exchanger.wait_for_messages(3, DEADLINE);
    let status = sinks.stop(PATIENCE).remove(0);
    assert_eq!((status.delivered, status.dead), (3, 0), "{status:#?}");
}
