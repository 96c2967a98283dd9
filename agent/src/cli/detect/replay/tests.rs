use std::net::IpAddr;

use super::*;
use crate::attempt::Attempt;
use crate::detect::{Evidence, Kind, Severity};

fn replayed(expected: &[&str], summary: bool) -> Replayed<Vec<u8>> {
    let expected: Vec<IpNet> = expected.iter().map(|network| network.parse().unwrap()).collect();
    let settings = Settings { expected: expected.clone(), ..Settings::default() };
    Replayed {
        detector: Detector::new(settings),
        expected,
        out: Vec::new(),
        summary: summary.then(Summary::default),
        progress: Progress::new(),
    }
}

const JSON: &str = "{\"ts\":1795514400.5,\"id.orig_h\":\"10.0.0.7\",\"id.resp_h\":\"192.0.2.25\",\"id.resp_p\":25,\"proto\":\"tcp\"}\n";

#[test]
fn hosts_that_are_expected_to_send_are_not_judged() {
    for (expected, judged) in [(vec!["10.0.0.0/24"], 0), (vec!["10.0.1.0/24"], 1), (vec![], 1)] {
        let mut replayed = replayed(&expected, true);
        let trace = Trace::new("t", JSON.as_bytes(), None, &[]);
        assert_eq!(replayed.trace(trace).ok().map(|tally| tally.attempts), Some(1));
        let total = Tally { attempts: 1, ..Tally::default() };
        let text = replayed.summary.unwrap().text(&total);
        assert!(text.starts_with(&format!("{judged} attempts of {judged} subjects")), "{text}");
    }
}

#[test]
fn a_finding_is_a_line_with_the_subject_in_full() {
    let attempt = Attempt {
        verdict: "deny".into(),
        destination: Some("192.0.2.25:25".parse().unwrap()),
        pid: 7,
        exe: Some("/tmp/x".into()),
        euid: 33,
        ..Attempt::default()
    };
    let line = serde_json::to_string(&attempt).unwrap();
    let sighting = Trace::new("t", line.as_bytes(), None, &[]).next().unwrap().unwrap();
    let finding = Finding {
        time: jiff::Timestamp::from_second(1_795_514_400).unwrap(),
        subject: SubjectId(0xab),
        kind: Kind::FanOut,
        severity: Severity::Critical,
        evidence: Evidence { destinations: 5, ..Evidence::default() },
    };
    let line = serde_json::to_value(Line::of(&finding, &sighting)).unwrap();
    assert_eq!(line["time"], "2026-11-24T10:00:00Z");
    assert_eq!((&line["kind"], &line["severity"]), (&"fan-out".into(), &"critical".into()));
    assert_eq!(line["subject"]["id"], "00000000000000ab");
    assert_eq!((&line["subject"]["exe"], &line["subject"]["euid"]), (&"/tmp/x".into(), &33.into()));
    assert_eq!((&line["evidence"]["destinations"], line.get("label")), (&5.into(), None));
}

#[test]
fn a_policy_brings_its_ports_and_one_that_does_not_check_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.toml");
    let args = |ports: &[u16]| Replay {
        files: vec!["-".into()],
        format: super::super::Kind::Auto,
        ports: ports.to_vec(),
        expected: vec!["10.0.0.25/32".parse().unwrap()],
        config: Some(path.clone()),
        summary: false,
    };
    std::fs::write(&path, "[guard]\nports = [25, 587]\n").unwrap();
    let (found, ports) = settings(&args(&[])).unwrap();
    assert_eq!(ports, [25, 587]);
    assert!(found.expected.iter().any(|network| network.contains(&IpAddr::from([10, 0, 0, 25]))));
    assert_eq!(settings(&args(&[465])).unwrap().1, [465]);
    std::fs::write(&path, "[guard]\nports = [0]\n").unwrap();
    assert_eq!(settings(&args(&[])), None);
}
