//! What is read of `[[alert.sink]]`, and what is said of its faults.

use super::super::super::tests::parse_text;
use super::*;

fn sinks(text: &str) -> (Vec<SinkSettings>, Vec<String>) {
    let parsed = parse_text(text);
    let found = parsed.diagnostics.iter();
    let found = found.map(|found| format!("{}:{} {}", found.line, found.column, found.what)).collect();
    (parsed.alert.unwrap_or_default().sinks, found)
}

fn one(text: &str) -> SinkSettings {
    let (mut sinks, found) = sinks(&format!("[[alert.sink]]\n{text}\n"));
    assert_eq!((found, sinks.len()), (Vec::new(), 1), "{text}");
    sinks.remove(0)
}

/// What is wrong with a sink, which is one thing.
fn fault(text: &str) -> String {
    let (_, mut found) = sinks(&format!("[[alert.sink]]\n{text}\n"));
    assert_eq!(found.len(), 1, "{text}: {found:#?}");
    found.remove(0)
}

#[test]
fn each_kind_has_its_defaults() {
    let journald = one("kind = \"journald\"");
    assert_eq!((journald.name.as_str(), journald.on.len()), ("journald", 7));
    assert_eq!(journald.kind, SinkKind::Journald { socket: JOURNAL.into() });
    assert_eq!((journald.tries, journald.retry, journald.queue), (10, Duration::from_secs(5), 256));
    let syslog = one("kind = \"syslog\"").kind;
    assert_eq!(
        syslog,
        SinkKind::Syslog { to: SyslogTo::Local(SYSLOG.into()), format: SyslogFormat::Rfc3164, facility: 3 }
    );
    let syslog = one("kind = \"syslog\"\nhost = \"::1\"\nprotocol = \"tcp\"\nfacility = \"local7\"").kind;
    assert_eq!(
        syslog,
        SinkKind::Syslog { to: SyslogTo::Tcp("::1".to_owned(), 514), format: SyslogFormat::Rfc5424, facility: 23 }
    );
    let file = one("kind = \"file\"\npath = \"/x\"").kind;
    assert_eq!(file, SinkKind::File { path: "/x".into(), rotate: 10 << 20, keep: 5 });
    let hook = one("kind = \"webhook\"\nurl = \"https://a.example/b\"\nsecret_file = \"/s\"\non = \"opened\"");
    assert_eq!(hook.on, [Occasion::Opened]);
    let SinkKind::Webhook(hook) = hook.kind else { panic!("{hook:?}") };
    assert_eq!((hook.template, hook.ca_file.as_os_str()), (Template::Json, CERTIFICATES.as_ref()));
    let email = one("kind = \"email\"\nto = \"root@example.org\"\nmin_severity = \"critical\"");
    assert_eq!((email.min_severity, email.on.len()), (Severity::Critical, 4));
    let command = one("kind = \"command\"\nprogram = \"/p\"\narguments = []\nname = \"pager\"\ntimeout = \"2m\"");
    assert_eq!(command.name, "pager");
    let expected = SinkKind::Command { program: "/p".into(), arguments: Vec::new(), timeout: Duration::from_secs(120) };
    assert_eq!(command.kind, expected);
}

#[test]
fn a_plain_url_needs_a_word_or_loopback() {
    let hook = |rest: &str| format!("kind = \"webhook\"\nsecret_file = \"/s\"\n{rest}");
    assert_eq!(fault(&hook("url = \"http://a.example/\"")), "4:7 \"url\" goes to a.example unencrypted");
    for url in ["http://127.0.0.1:8080/x", "http://[::1]/", "http://localhost/"] {
        one(&hook(&format!("url = \"{url}\"")));
    }
    one(&hook("url = \"http://a.example/\"\nplain = true"));
    for url in ["a.example/x", "ftp://a.example/", "/x", "https://"] {
        assert_eq!(fault(&hook(&format!("url = \"{url}\""))), "4:7 \"url\" is no address of an HTTP server");
    }
}

#[test]
fn each_fault_is_one_sentence_with_its_place() {
    for (text, expected) in [
        ("name = \"x\"", "1:1 this sink does not say what it is"),
        ("kind = \"jornald\"", "2:8 \"jornald\" is no value of \"kind\""),
        ("kind = \"webhook\"\nsecret_file = \"/s\"", "1:1 this sink has no \"url\""),
        ("kind = \"webhook\"\nurl = \"https://a.example/\"", "1:1 this webhook has no \"secret_file\""),
        (
            "kind = \"webhook\"\ntemplate = \"slack\"\nurl = \"https://a.example/\"\nproxy = \"x://y\"",
            "5:9 \"x://y\" is no proxy",
        ),
        (
            "kind = \"syslog\"\npath = \"/dev/log\"\nhost = \"a.example\"",
            "4:8 a syslog sink has either \"path\" or \"host\"",
        ),
        ("kind = \"syslog\"\nport = 514", "3:8 \"port\" without \"host\" means nothing"),
        ("kind = \"syslog\"\nhost = \"a.example:514\"", "3:8 \"a.example:514\" is no host"),
        ("kind = \"syslog\"\nhost = \"a\"\nport = 0", "4:8 \"port\" is no number from 1 to 65535"),
        ("kind = \"file\"", "1:1 this sink has no \"path\""),
        ("kind = \"file\"\npath = \"x\"", "3:8 \"x\" is no absolute path"),
        (
            "kind = \"file\"\npath = \"/x\"\nurl = \"https://a.example/\"",
            "4:1 a sink of the kind \"file\" has no \"url\"",
        ),
        ("kind = \"file\"\npath = \"/x\"\nrotate = \"10MB\"", "4:10 \"10MB\" is no size"),
        ("kind = \"email\"", "1:1 this sink has no \"to\""),
        ("kind = \"email\"\nto = \"root\"", "3:6 \"root\" is no mail address"),
        (
            "kind = \"email\"\nto = \"a@b.c\"\nhost = \"mx.example\"",
            "4:8 mail goes to mx.example unencrypted, and the guard refuses it unless a rule allows the agent",
        ),
        ("kind = \"command\"", "1:1 this sink has no \"program\""),
        ("kind = \"journald\"\non = [\"closed\"]", "3:7 \"closed\" is no value of \"on\""),
        ("kind = \"journald\"\ntries = 0", "3:9 \"tries\" is no number from 1 to 1000"),
        ("kind = \"journald\"\nmin_severty = \"x\"", "3:1 unknown key \"min_severty\" in [[alert.sink]]"),
    ] {
        assert_eq!(fault(text), expected, "{text}");
    }
}

#[test]
fn names_are_given_once_and_one_bracket_is_explained() {
    let (_, found) = sinks("[[alert.sink]]\nkind = \"journald\"\n[[alert.sink]]\nkind = \"journald\"\n");
    assert_eq!(found, ["3:1 there are two sinks with the name \"journald\""]);
    let (_, found) = sinks("[alert.sink]\nkind = \"journald\"\n");
    assert!(found.len() == 1 && found[0].ends_with("\"sink\" must be a list of tables"), "{found:?}");
}
