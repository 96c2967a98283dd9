use super::*;
use crate::attempt::Parent;
use crate::subject::place;

fn attempt() -> Attempt {
    Attempt {
        verdict: "deny".into(),
        reason: "no-rule".into(),
        hook: "connect4".into(),
        protocol: "tcp".into(),
        destination: Some("192.0.2.25:25".parse().unwrap()),
        pid: 71,
        tid: 72,
        comm: "sender".into(),
        exe: Some("/opt/sender".into()),
        euid: 33,
        user: Some("www-data".into()),
        ..Attempt::default()
    }
}

fn below(cgroup: &str) -> Attempt {
    let found = place(cgroup);
    Attempt { cgroup: cgroup.into(), unit: found.unit, container: found.container, ..attempt() }
}

fn parent(comm: &str, exe: Option<&str>) -> Parent {
    Parent { pid: 7, uid: 0, comm: comm.into(), exe: exe.map(str::to_owned) }
}

#[test]
fn a_new_scope_session_or_name_in_memory_is_no_new_subject() {
    let same = [
        ["/system.slice/run-r0123456789abcdef0123456789abcdef.scope", "/system.slice/run-rfedcba98.scope"],
        ["/system.slice/run-p12-i99.scope", "/system.slice/run-p7-i3.scope"],
        [
            "/system.slice/sshd@1-192.0.2.1:22-198.51.100.7:4711.service",
            "/system.slice/sshd@2-192.0.2.1:22-198.51.100.8:9.service",
        ],
        ["/user.slice/user-33.slice/session-7.scope", "/user.slice/user-33.slice/session-8.scope"],
        [
            "/user.slice/user-33.slice/session-7.scope",
            "/user.slice/user-33.slice/user@33.service/app.slice/mine.service",
        ],
    ];
    for [one, other] in same {
        assert_eq!(below(one).subject(), below(other).subject(), "{one} {other}");
        assert_eq!(below(one).owner(), below(other).owner(), "{one} {other}");
    }
    let memory = |name: &str| Attempt { exe: Some(name.into()), exe_in_memory: true, ..attempt() };
    assert_eq!(memory("/memfd:a").subject(), memory("/memfd:b").subject());
}

#[test]
fn executable_script_user_unit_and_container_make_a_subject() {
    let id = "0123456789abcdef".repeat(4);
    let others = [
        attempt(),
        Attempt { exe: Some("/opt/sender2".into()), ..attempt() },
        Attempt { script: Some("/opt/sender".into()), exe: None, ..attempt() },
        Attempt { script: Some("/srv/a.php".into()), ..attempt() },
        Attempt { euid: 34, ..attempt() },
        Attempt { euid: 0, ..attempt() },
        below("/system.slice/cron.service"),
        below("/system.slice/apache2.service"),
        below("/user.slice/user-33.slice/session-7.scope"),
        below(&format!("/system.slice/docker-{id}.scope")),
        below(&format!("/system.slice/libpod-{id}.scope")),
    ];
    for (at, one) in others.iter().enumerate() {
        assert_eq!(others.iter().filter(|other| other.subject() == one.subject()).count(), 1, "row {at}");
    }
    let other_pid = Attempt { pid: 1234, tid: 1234, comm: "x".into(), ..attempt() };
    assert_eq!(other_pid.subject(), attempt().subject());
}

#[test]
fn owners_are_users_of_the_host_or_of_a_container() {
    let other_exe = Attempt { exe: Some("/tmp/x".into()), ..attempt() };
    assert_eq!(other_exe.owner(), attempt().owner());
    assert_ne!(Attempt { euid: 34, ..attempt() }.owner(), attempt().owner());
    let (one, two) = ("a1".repeat(32), "b2".repeat(32));
    let docker = |id: &str| below(&format!("/system.slice/docker-{id}.scope"));
    assert_ne!(docker(&one).owner(), docker(&two).owner());
    assert_ne!(docker(&one).owner(), attempt().owner());
    // Rootless: each container of the user's is theirs, and its users are numbers from their range.
    let rootless = |id: &str| {
        below(&format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope/container"))
    };
    assert_eq!(rootless(&one).owner(), Attempt { euid: 1000, ..attempt() }.owner());
    assert_eq!(rootless(&one).owner(), rootless(&two).owner());
}

#[test]
fn a_frame_of_no_process_is_held_against_its_source() {
    let frame = |source: &str| Attempt {
        pid: 0,
        exe: None,
        hook: "frame".into(),
        source: Some(source.parse().unwrap()),
        reason: "forwarded".into(),
        ..attempt()
    };
    assert_eq!(frame("10.0.0.7:4711").subject(), frame("10.0.0.7:4712").subject());
    assert_eq!(frame("10.0.0.7:1").subject(), SubjectId::of_host("10.0.0.7".parse().unwrap()));
    assert_ne!(frame("10.0.0.7:1").subject(), frame("10.0.0.8:1").subject());
    assert_eq!(frame("10.0.0.7:1").owner(), SubjectId::default());
    assert!(!frame("10.0.0.7:1").signs().has(Signs::RAW));
    let packet = Attempt { pid: 0, hook: "packet".into(), ..below("/system.slice/x.service") };
    assert_eq!(packet.host_address(), None);
}

#[test]
fn verdict_and_reason_become_an_outcome() {
    let outcome = |verdict: &str, reason: &str| {
        let attempt = Attempt { verdict: verdict.into(), reason: reason.into(), ..attempt() };
        attempt.observation().map(|seen| seen.outcome)
    };
    assert_eq!(outcome("deny", "no-rule"), Some(Outcome::Refused));
    assert_eq!(outcome("observe", "no-rule"), Some(Outcome::Refused));
    assert_eq!(outcome("observe", "audit-rule"), Some(Outcome::Allowed));
    assert_eq!(outcome("allow", "rule"), Some(Outcome::Allowed));
    assert_eq!(outcome("allow", "relayed"), Some(Outcome::Allowed));
    assert_eq!(outcome("deny", "no-relay"), Some(Outcome::Allowed));
    assert_eq!(outcome("allow", "local"), Some(Outcome::Local));
    assert_eq!(outcome("shrug", "rule"), None);
    assert_eq!(Attempt { destination: None, reason: "raw-sender".into(), ..attempt() }.observation(), None);
}

#[test]
fn each_sign_comes_from_its_own_trace() {
    let php = || Attempt { exe: Some("/usr/bin/php8.2".into()), ..attempt() };
    let smtp = || Attempt { exe: Some("/usr/lib/postfix/sbin/smtp".into()), ..attempt() };
    let rows: [(Attempt, Signs); 29] = [
        (attempt(), Signs(0)),
        (Attempt { exe_deleted: true, ..attempt() }, Signs::DELETED),
        (Attempt { exe_deleted: true, exe_in_memory: true, ..attempt() }, Signs::IN_MEMORY),
        (Attempt { exe: Some("/dev/shm/.x".into()), ..attempt() }, Signs::TEMPORARY),
        (Attempt { script: Some("/tmp/x.pl".into()), ..attempt() }, Signs::TEMPORARY),
        (Attempt { exe: Some("/tmpfs/x".into()), ..attempt() }, Signs(0)),
        (Attempt { exe_world_writable: true, ..attempt() }, Signs::WORLD_WRITABLE),
        (Attempt { package_known: true, ..attempt() }, Signs::NO_PACKAGE),
        (Attempt { package: Some("sender".into()), package_known: true, ..attempt() }, Signs::PACKAGED),
        (Attempt { package: Some("php".into()), ..php() }, Signs::INTERPRETER),
        (Attempt { parents: vec![parent("bash", None)], ..attempt() }, Signs::INTERPRETER),
        (Attempt { parents: vec![parent("x", None), parent("bash", None)], ..attempt() }, Signs(0)),
        (Attempt { parents: vec![parent("run", Some("/usr/bin/python3.11"))], ..attempt() }, Signs::INTERPRETER),
        (Attempt { parents: vec![parent("x", None), parent("php-fpm8.2", None)], ..attempt() }, Signs::WEB_PARENT),
        (Attempt { parents: vec![parent("x", Some("/usr/sbin/apache2"))], ..attempt() }, Signs::WEB_PARENT),
        (Attempt { exe: Some("/usr/sbin/php-fpm8.2".into()), ..attempt() }, Signs::WEB_PARENT),
        (Attempt { parents: vec![parent("node", Some("/usr/bin/java"))], ..attempt() }, Signs::INTERPRETER),
        (Attempt { session_gone: true, ..attempt() }, Signs::SESSION_GONE),
        (Attempt { mta_unused: true, ..attempt() }, Signs::MTA_UNUSED),
        (Attempt { mx_lookups: true, ..attempt() }, Signs::MX_LOOKUPS),
        (Attempt { mx_lookups: true, ..smtp() }, Signs::MAIL_SERVER),
        (Attempt { exe_deleted: true, ..smtp() }, Signs::DELETED),
        (Attempt { taint: vec!["ld_preload".into()], package: Some("postfix".into()), ..smtp() }, Signs::TAINTED),
        (Attempt { taint: vec!["exec_unseen".into(), "ld_library_path".into()], ..attempt() }, Signs(0)),
        (Attempt { protocol: "af_packet".into(), hook: "setsockopt".into(), ..attempt() }, Signs::RAW),
        (Attempt { hook: "packet".into(), reason: "no-verdict".into(), ..attempt() }, Signs::RAW),
        (Attempt { hook: "lan".into(), mac_addresses: 11, ..attempt() }, Signs::MANY_ADDRESSES),
        (Attempt { hook: "lan".into(), mac_addresses: 10, ..attempt() }, Signs(0)),
        (Attempt { hook: "existing".into(), reason: "no-rule".into(), ..attempt() }, Signs(0)),
    ];
    for (at, (attempt, signs)) in rows.iter().enumerate() {
        assert_eq!(attempt.signs(), *signs, "row {at}: {attempt}");
    }
}

#[test]
fn a_script_of_roots_counts_only_where_nothing_speaks_against_it() {
    let perl = || Attempt {
        exe: Some("/usr/bin/perl".into()),
        script: Some("/usr/local/bin/report.pl".into()),
        script_of_root: true,
        package: Some("perl-base".into()),
        package_known: true,
        ..attempt()
    };
    assert_eq!(perl().signs(), Signs::ROOT_SCRIPT.with(Signs::INTERPRETER));
    for (at, attempt) in [
        Attempt { script_of_root: false, ..perl() },
        Attempt { script: None, ..perl() },
        Attempt { exe: Some("/usr/sbin/sender".into()), ..perl() },
        Attempt { package: None, ..perl() },
        Attempt { exe_deleted: true, ..perl() },
        Attempt { exe_in_memory: true, ..perl() },
        Attempt { taint: vec!["ld_preload".into()], ..perl() },
        Attempt { container: below(&format!("/system.slice/docker-{}.scope", "a1".repeat(32))).container, ..perl() },
        Attempt { parents: vec![parent("sh", None), parent("apache2", None)], ..perl() },
        Attempt { pid: 0, ..perl() },
    ]
    .into_iter()
    .enumerate()
    {
        assert!(!attempt.signs().has(Signs::ROOT_SCRIPT), "row {at}");
    }
}

#[test]
fn an_observation_carries_time_thread_destination_and_domain() {
    let seen = Attempt {
        time: "2026-11-24T10:00:00.000001Z".parse().unwrap(),
        destination: Some("[::ffff:192.0.2.25]:25".parse().unwrap()),
        domain: Some("Example.ORG.".into()),
        ..attempt()
    };
    let seen = seen.observation().unwrap();
    assert_eq!((seen.time, seen.thread), (1_795_514_400_000_001, 72));
    assert_eq!(seen.address, "192.0.2.25".parse::<IpAddr>().unwrap());
    assert_eq!(seen.domain, hash_of_domain("example.org"));
    assert_ne!(seen.domain, hash_of_domain("example.net"));
    assert_eq!(attempt().observation().unwrap().domain, 0);
}

#[test]
fn numbers_are_written_as_everybody_writes_them() {
    for number in [0, 7, 10, 33, 65_534, u32::MAX] {
        assert_eq!(decimal(number, &mut [0; 10]), number.to_string());
    }
}

#[test]
fn a_record_from_before_these_fields_is_read() {
    let json = serde_json::to_value(attempt()).unwrap();
    let serde_json::Value::Object(mut old) = json else { panic!("no object") };
    for key in [
        "package",
        "package_known",
        "exe_world_writable",
        "script_of_root",
        "session_gone",
        "mta_unused",
        "mx_lookups",
        "domain",
    ] {
        assert!(old.remove(key).is_some(), "{key}");
    }
    assert_eq!(serde_json::from_value::<Attempt>(old.into()).unwrap(), attempt());
}
