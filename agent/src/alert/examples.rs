//! Alerts, attempts and findings made by hand, for tests.

use jiff::{SignedDuration, Timestamp};

use super::{Alert, Book};
use crate::attempt::{Attempt, Parent};
use crate::detect::{Evidence, Finding, Kind, Severity, SubjectId, Weighed};

/// So many seconds after the example's beginning.
pub(crate) fn at(seconds: i64) -> Timestamp {
    let start: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
    start + SignedDuration::from_secs(seconds)
}

/// A refused attempt of a spam bot.
pub(crate) fn attempt(seconds: i64, to: &str) -> Attempt {
    Attempt {
        time: at(seconds),
        verdict: "deny".into(),
        reason: "no-rule".into(),
        rule: None,
        severity: "notice".into(),
        generation: 3,
        hook: "connect4".into(),
        destination: Some(to.parse().unwrap()),
        source: None,
        protocol: "tcp".into(),
        interface: None,
        tcp_flags: Vec::new(),
        pid: 4711,
        tid: 4711,
        started: Some(at(-30)),
        comm: "sendd".into(),
        exe: Some("/tmp/.x/sendd".into()),
        exe_inode: 131_077,
        exe_device: 2049,
        exe_deleted: false,
        exe_in_memory: false,
        cmdline: vec!["./sendd".into(), "-c".into(), "list.txt".into()],
        script: None,
        cwd: Some("/tmp/.x".into()),
        uid: 33,
        euid: 33,
        gid: 33,
        egid: 33,
        user: Some("www-data".into()),
        login_uid: None,
        session: None,
        cgroup: "/system.slice/apache2.service".into(),
        cgroup_id: 77,
        unit: Some("apache2.service".into()),
        container: None,
        netns: 4_026_531_840,
        socket: 9000 + u64::try_from(seconds).unwrap_or_default(),
        taint: Vec::new(),
        parents: vec![
            Parent { pid: 4690, uid: 33, comm: "sh".into(), exe: None },
            Parent { pid: 812, uid: 33, comm: "apache2".into(), exe: None },
            Parent { pid: 640, uid: 0, comm: "apache2".into(), exe: None },
            Parent { pid: 1, uid: 0, comm: "systemd".into(), exe: None },
        ],
        truncated: Vec::new(),
        ..Attempt::default()
    }
}

/// What a test has found about a subject that had made so many attempts.
pub(crate) fn finding(subject: SubjectId, kind: Kind, severity: Severity, seconds: i64, attempts: u64) -> Finding {
    Finding {
        time: at(seconds),
        subject,
        kind,
        severity,
        evidence: Evidence {
            programs: 1,
            walk: 6.9,
            prior: 3.2,
            threshold: 9.7,
            alpha: 6.1e-5,
            tests_today: 1,
            signs: vec![
                Weighed { sign: "temporary_folder".into(), weight: 2.0 },
                Weighed { sign: "web_parent".into(), weight: 1.2 },
            ],
            attempts,
            refused: attempts,
            local: 0,
            destinations: 5,
            against: 5,
            in_favour: 1,
            first: Some(at(-10)),
            to_clear: 12,
        },
    }
}

/// The alert of a spam bot below a web server: 40 attempts at 9 destinations, one of them hammered, acknowledged.
pub(crate) fn alert() -> Alert {
    let subject = SubjectId::of(["example"]);
    let mut book = Book::default();
    book.numbers(17, 100);
    for n in 0..40 {
        let to = if n % 3 == 0 { "198.51.100.25:25".to_owned() } else { format!("203.0.113.{}:25", n % 8 + 1) };
        let findings = match n {
            5 => vec![finding(subject, Kind::FanOut, Severity::Critical, n, 6)],
            _ => Vec::new(),
        };
        let earlier = || (0..5).map(|m| std::sync::Arc::new(attempt(m, &format!("203.0.113.{}:25", m + 1)))).collect();
        book.attempt(subject, &attempt(n, &to), &findings, earlier);
    }
    let sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned();
    book.identify(17, Some(sha256), None);
    book.acknowledge(17, "root", Some("looking at it".into()), at(600)).unwrap();
    Alert::clone(&book.get(17).unwrap())
}
