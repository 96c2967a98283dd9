//! What a replay has found, for people.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use crate::detect::{Evidence, Finding, Kind, Severity, SubjectId};
use crate::trace::{Sighting, Tally};

/// How many subjects are counted and scored one by one. Those beyond are only judged: a trace has no end.
const SUBJECTS: usize = 1 << 20;
/// How many findings are kept for the table, the first ones.
const ROWS: usize = 10_000;

/// What is kept of a replay.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// Attempts of hosts that were expected to send.
    pub(super) expected: u64,
    subjects: HashMap<SubjectId, Subject>,
    labelled: bool,
    rows: Vec<(String, Finding)>,
    findings: u64,
    overflow: bool,
    /// Whom the findings are about: subjects, and owners whose programs are looked at together.
    found: HashSet<SubjectId>,
}

/// What is known of a subject for the score.
#[derive(Clone, Copy, Debug, Default)]
struct Subject {
    bot: bool,
    owner: SubjectId,
}

impl Summary {
    /// Takes an attempt and what was found by it.
    pub(super) fn take(&mut self, sighting: &Sighting, findings: &[Finding]) {
        self.labelled |= sighting.label.is_some();
        let room = self.subjects.len() < SUBJECTS || self.subjects.contains_key(&sighting.observation.subject);
        if room {
            let subject = self.subjects.entry(sighting.observation.subject).or_default();
            subject.bot |= sighting.label.as_deref().is_some_and(is_bot);
            subject.owner = sighting.observation.owner;
        } else {
            self.overflow = true;
        }
        for finding in findings {
            self.findings += 1;
            if self.found.len() < SUBJECTS {
                self.found.insert(finding.subject);
            }
            if self.rows.len() < ROWS {
                self.rows.push((sighting.source.who().name, finding.clone()));
            }
        }
    }

    /// The whole text.
    pub(super) fn text(&self, total: &Tally) -> String {
        let mut text = String::new();
        for (subject, rows) in self.by_subject() {
            let severity = rows.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Notice);
            line(&mut text, &format!("{:<8}  {subject}", severity.name()));
            for finding in rows {
                let time = finding.time.strftime("%Y-%m-%dT%H:%M:%SZ");
                line(&mut text, &format!("  {time}  {:<13}  {}", finding.kind.name(), words(finding)));
            }
        }
        if self.findings > self.rows.len() as u64 {
            line(&mut text, &format!("… and {} more findings", self.findings - self.rows.len() as u64));
        }
        if !text.is_empty() {
            text.push('\n');
        }
        self.totals(total, &mut text);
        if self.labelled {
            self.score(&mut text);
        }
        text
    }

    /// Findings by subject, in the order of each one's first.
    fn by_subject(&self) -> Vec<(&str, Vec<&Finding>)> {
        let mut at: HashMap<(SubjectId, &str), usize> = HashMap::new();
        let mut subjects: Vec<(&str, Vec<&Finding>)> = Vec::new();
        for (name, finding) in &self.rows {
            let place = *at.entry((finding.subject, name)).or_insert(subjects.len());
            match subjects.get_mut(place) {
                Some((_, rows)) => rows.push(finding),
                None => subjects.push((name, vec![finding])),
            }
        }
        subjects
    }

    fn totals(&self, total: &Tally, text: &mut String) {
        let found = self.subjects.iter().filter(|(id, subject)| self.is_found(**id, subject)).count();
        let more = if self.overflow { "more than " } else { "" };
        line(
            text,
            &format!(
                "{} attempts of {more}{} subjects; {} findings about {found} of them",
                total.attempts - self.expected,
                self.subjects.len(),
                self.findings
            ),
        );
        let notes = [
            (self.expected, "attempts of hosts that are expected to send, not judged"),
            (total.elsewhere, "connections to other ports or by other protocols, passed over"),
            (total.lost, "attempts were too many to be written down, as the trace says"),
            (total.unreadable, "lines could not be read and were skipped"),
        ];
        for (number, what) in notes.into_iter().filter(|(number, _)| *number > 0) {
            line(text, &format!("{number} {what}"));
        }
        for fault in &total.faults {
            line(text, &format!("  {fault}"));
        }
    }

    fn is_found(&self, id: SubjectId, subject: &Subject) -> bool {
        self.found.contains(&id) || self.found.contains(&subject.owner)
    }

    /// How good it was, over subjects.
    fn score(&self, text: &mut String) {
        let count = |bot: bool, found: bool| {
            let alike =
                |(id, subject): &(&SubjectId, &Subject)| subject.bot == bot && self.is_found(**id, subject) == found;
            self.subjects.iter().filter(alike).count()
        };
        let (hits, missed, wrong, right) =
            (count(true, true), count(true, false), count(false, true), count(false, false));
        line(text, &format!("\nby the trace's labels: {hits} of {} bots found", hits + missed));
        line(text, &format!("                       {wrong} of {} others found", wrong + right));
        let share = |part: usize, of: usize| {
            if of == 0 { "-".to_owned() } else { format!("{:.4}", part as f64 / of as f64) }
        };
        line(text, &format!("recall {}, precision {}", share(hits, hits + missed), share(hits, hits + wrong)));
    }
}

/// Whether a label means a bot: CTU-13's `flow=From-Botnet-…`, `bot` and `bot:…` of our own traces, `Malicious` of
/// IoT-23's. What goes *to* a bot is not from one.
fn is_bot(label: &str) -> bool {
    label.contains("From-Botnet") || label == "bot" || label.starts_with("bot:") || label.starts_with("Malicious")
}

fn line(text: &mut String, line: &str) {
    // Writing into a string does not fail.
    if writeln!(text, "{line}").is_err() {
        text.push('\n');
    }
}

/// The evidence in words.
fn words(finding: &Finding) -> String {
    let Evidence { walk, prior, threshold, attempts, destinations, signs, .. } = &finding.evidence;
    let tried = match finding.kind {
        Kind::FanOut | Kind::ManyPrograms | Kind::Persistent => {
            format!("{destinations} destinations in {attempts} attempts")
        }
        Kind::Hammer => format!("{attempts} attempts at {destinations} destinations"),
        Kind::LocalPath => format!("{} hand-overs of {attempts} attempts", finding.evidence.local),
    };
    let since = finding.evidence.first.map_or_else(String::new, |first| {
        format!(" within {}", duration(finding.time.as_second() - first.as_second()))
    });
    let signs: Vec<&str> = signs.iter().map(|sign| sign.sign.as_str()).collect();
    let signs = if signs.is_empty() { String::new() } else { format!("; signs: {}", signs.join(", ")) };
    format!("{tried}{since}; {:.1} of {threshold:.1} nats{signs}", walk + prior)
}

/// Seconds, as people say them.
fn duration(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        172_800.. => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::detect::{Observation, Outcome, Signs, Weighed};
    use crate::trace::Source;

    fn sighting(host: u8, label: Option<&str>) -> Sighting {
        let from = IpAddr::from([10, 0, 0, host]);
        let observation = Observation {
            time: 1_795_514_400_000_000,
            subject: SubjectId::of_host(from),
            owner: SubjectId::default(),
            thread: 0,
            address: IpAddr::from([192, 0, 2, 25]),
            domain: 0,
            outcome: Outcome::Refused,
            signs: Signs::default(),
        };
        Sighting { observation, source: Source::Host(from), label: label.map(str::to_owned) }
    }

    fn finding(host: u8, kind: Kind, severity: Severity) -> Finding {
        let time = jiff::Timestamp::from_second(1_795_514_400).unwrap();
        let evidence = Evidence {
            walk: 9.0,
            prior: 1.25,
            threshold: 10.2,
            attempts: 7,
            destinations: 5,
            first: Some(jiff::Timestamp::from_second(1_795_514_340).unwrap()),
            signs: vec![Weighed { sign: "deleted".into(), weight: 1.25 }],
            ..Evidence::default()
        };
        Finding { time, subject: SubjectId::of_host(IpAddr::from([10, 0, 0, host])), kind, severity, evidence }
    }

    #[test]
    fn findings_are_told_by_subject_with_totals_and_a_score() {
        let mut summary = Summary::default();
        summary.take(&sighting(1, Some("flow=From-Botnet-V42")), &[finding(1, Kind::FanOut, Severity::Warning)]);
        summary.take(&sighting(2, Some("flow=Background")), &[finding(2, Kind::Hammer, Severity::Notice)]);
        summary.take(&sighting(1, Some("flow=Background")), &[finding(1, Kind::Hammer, Severity::Critical)]);
        summary.take(&sighting(3, Some("flow=To-Botnet-V42")), &[]);
        summary.take(&sighting(4, Some("bot:slow")), &[]);
        let total = Tally { attempts: 5, lines: 6, unreadable: 1, faults: vec!["t:6: no".into()], ..Tally::default() };
        assert_eq!(
            summary.text(&total),
            "critical  the host 10.0.0.1\n  \
             2026-11-24T10:00:00Z  fan-out        5 destinations in 7 attempts within 60 s; 10.2 of 10.2 nats; signs: deleted\n  \
             2026-11-24T10:00:00Z  hammer         7 attempts at 5 destinations within 60 s; 10.2 of 10.2 nats; signs: deleted\n\
             notice    the host 10.0.0.2\n  \
             2026-11-24T10:00:00Z  hammer         7 attempts at 5 destinations within 60 s; 10.2 of 10.2 nats; signs: deleted\n\n\
             5 attempts of 4 subjects; 3 findings about 2 of them\n\
             1 lines could not be read and were skipped\n  t:6: no\n\n\
             by the trace's labels: 1 of 2 bots found\n                       1 of 2 others found\n\
             recall 0.5000, precision 0.5000\n"
        );
    }

    #[test]
    fn what_is_found_about_an_owner_is_found_about_all_of_theirs() {
        let mut summary = Summary::default();
        for host in 1..=3 {
            let mut sighting = sighting(host, Some("bot:forking"));
            sighting.observation.owner = SubjectId(if host == 3 { 8 } else { 7 });
            let finding = Finding { subject: SubjectId(7), ..finding(host, Kind::ManyPrograms, Severity::Warning) };
            summary.take(&sighting, if host == 2 { std::slice::from_ref(&finding) } else { &[] });
        }
        let total = Tally { attempts: 3, ..Tally::default() };
        assert!(summary.text(&total).contains("2 of 3 bots found"), "{}", summary.text(&total));
    }

    #[test]
    fn nothing_found_is_said_in_one_line() {
        let mut summary = Summary::default();
        summary.take(&sighting(1, None), &[]);
        let total = Tally { attempts: 1, ..Tally::default() };
        assert_eq!(summary.text(&total), "1 attempts of 1 subjects; 0 findings about 0 of them\n");
    }
}
