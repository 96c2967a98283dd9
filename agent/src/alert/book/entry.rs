//! One alert while it is in memory.

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::Timestamp;

use super::PORTREEVE;
use super::destinations::Destinations;
use crate::alert::{Alert, Change, FINDINGS, Occasion, State, Who, advice};
use crate::attempt::Attempt;
use crate::detect::{Finding, Kind, Severity, SubjectId};

/// An alert that grows. Its destinations are counted beside it, and written into it when somebody asks for it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) alert: Alert,
    destinations: Destinations,
    /// How bad the finding at the worst moment was.
    worst: (Severity, f64),
    /// The store has more of it, from before it left memory.
    pub(super) partial: bool,
    /// It is among those that have grown since they were saved.
    pub(super) grown: bool,
    /// It is among those whose state has changed since they were saved.
    pub(super) changed: bool,
}

impl Entry {
    /// A new alert. The finding has counted the attempts before it, this one included; `earlier` are those of which the
    /// destinations are still known.
    pub(super) fn open(
        id: u64,
        subject: SubjectId,
        attempt: &Attempt,
        findings: &[&Finding],
        earlier: &[Arc<Attempt>],
    ) -> Self {
        let most = |count: fn(&Finding) -> u64| findings.iter().map(|finding| count(finding)).max().unwrap_or(0);
        let first = findings.iter().filter_map(|finding| finding.evidence.first).min();
        let mut destinations = Destinations::default();
        // This attempt may be among them already.
        let before = earlier.iter().map(|earlier| &**earlier).filter(|earlier| *earlier != attempt);
        for known in before.chain([attempt]) {
            if let Some(to) = known.destination {
                destinations.count(to);
            }
        }
        let by_user = findings.iter().all(|finding| finding.kind == Kind::ManyPrograms);
        let alert = Alert {
            deeds: Vec::new(),
            tree: Vec::new(),
            id,
            subject,
            who: if by_user { Who::programs_of(attempt) } else { Who::of(attempt) },
            severity: Severity::Notice,
            state: State::Open,
            resolution: None,
            opened: attempt.time,
            last: attempt.time,
            first: first.unwrap_or(attempt.time).min(attempt.time),
            quiet_since: None,
            episodes: 1,
            findings: Vec::new(),
            attempts: most(|f| f.evidence.attempts).max(destinations.listed()).max(1),
            refused: most(|f| f.evidence.refused),
            local: most(|f| f.evidence.local),
            destinations: Vec::new(),
            elsewhere: 0,
            worst: None,
            sha256: None,
            package: None,
            clear: Vec::new(),
            next: Vec::new(),
            history: Vec::new(),
        };
        let worst = (Severity::Notice, f64::NEG_INFINITY);
        let mut entry = Self { alert, destinations, worst, partial: false, grown: false, changed: false };
        entry.take(attempt, findings);
        entry.by_itself(attempt.time, "opened", Some(entry.found_words()));
        entry
    }

    /// An alert that was kept.
    pub(super) fn kept(alert: Alert) -> Self {
        let worst = worst_of(&alert.findings);
        let destinations = Destinations::from_list(&alert.destinations);
        Self { alert, destinations, worst, partial: false, grown: false, changed: false }
    }

    /// Counts an attempt.
    pub(super) fn count(&mut self, attempt: &Attempt) {
        let alert = &mut self.alert;
        alert.attempts += 1;
        alert.refused += u64::from(attempt.verdict != "allow");
        alert.local += u64::from(attempt.reason == "local");
        alert.last = alert.last.max(attempt.time);
        if let Some(to) = attempt.destination {
            self.destinations.count(to);
        }
    }

    /// Takes what was found at an attempt that is counted already; says what is to be told of it, if anything.
    pub(super) fn found(&mut self, attempt: &Attempt, findings: &[&Finding]) -> Option<Occasion> {
        let (severity, tests) = (self.alert.severity, self.alert.tests());
        let back = self.alert.state == State::Resolved || self.alert.quiet_since.is_some();
        self.take(attempt, findings);
        let alert = &mut self.alert;
        if back {
            let before = match (alert.resolution.take(), alert.quiet_since.take()) {
                (Some(resolution), _) => format!("; it was resolved as {resolution}"),
                (None, Some(quiet)) => format!("; it was quiet from {} on", quiet.strftime("%Y-%m-%dT%H:%M:%SZ")),
                (None, None) => String::new(),
            };
            alert.state = State::Open;
            alert.episodes = alert.episodes.saturating_add(1);
            let words = self.found_words() + &before;
            self.by_itself(attempt.time, "reopened", Some(words));
            return Some(Occasion::Reopened);
        }
        if alert.severity > severity || alert.tests() != tests {
            let words = self.found_words();
            self.by_itself(attempt.time, "worse", Some(words));
            return Some(Occasion::Worse);
        }
        None
    }

    /// Ends the episode when there was no attempt for so many seconds.
    pub(super) fn quieten(&mut self, now: Timestamp, quiet: i64) -> bool {
        let alert = &mut self.alert;
        if alert.state == State::Resolved
            || alert.quiet_since.is_some()
            || alert.last.as_second() > now.as_second() - quiet
        {
            return false;
        }
        alert.quiet_since = Some(alert.last);
        self.by_itself(now, "quiet", None);
        true
    }

    /// The alert as it is now.
    pub(super) fn now(&self) -> Arc<Alert> {
        let mut alert = self.alert.clone();
        alert.destinations = self.destinations.list();
        alert.elsewhere = alert.attempts.saturating_sub(self.destinations.listed());
        Arc::new(alert)
    }

    /// How much it matters that it stays in memory: what goes on before what is quiet, that before what is resolved.
    pub(super) fn importance(&self) -> (bool, bool, Severity, Timestamp) {
        let alert = &self.alert;
        (alert.state != State::Resolved, alert.quiet_since.is_none(), alert.severity, alert.last)
    }

    fn take(&mut self, attempt: &Attempt, findings: &[&Finding]) {
        let alert = &mut self.alert;
        for finding in findings {
            alert.severity = alert.severity.max(finding.severity);
            let rank = rank(finding);
            if alert.worst.is_none() || compare(rank, self.worst) == Ordering::Greater {
                self.worst = rank;
                alert.worst = Some(attempt.clone());
            }
            push(&mut alert.findings, (*finding).clone());
        }
        advise(alert);
    }

    fn found_words(&self) -> String {
        let tests: Vec<&str> = self.alert.tests().into_iter().map(Kind::name).collect();
        format!("{}, {}", self.alert.severity, tests.join(" and "))
    }

    fn by_itself(&mut self, time: Timestamp, what: &str, note: Option<String>) {
        self.alert.note(Change { time, who: PORTREEVE.to_owned(), what: what.to_owned(), note });
    }
}

/// Writes the advice anew.
pub(super) fn advise(alert: &mut Alert) {
    let clear = advice::clear(alert);
    let next = advice::next(alert);
    (alert.clear, alert.next) = (clear, next);
}

/// An alert that has left memory, found again meanwhile: `new` goes on from `old`.
pub(in crate::alert) fn continued(old: &Alert, new: &Alert) -> Alert {
    let mut alert = new.clone();
    alert.severity = old.severity.max(new.severity);
    alert.opened = old.opened.min(new.opened);
    alert.first = old.first.min(new.first);
    alert.last = old.last.max(new.last);
    alert.episodes = old.episodes.saturating_add(new.episodes);
    alert.findings.clear();
    for finding in old.findings.iter().chain(&new.findings) {
        push(&mut alert.findings, finding.clone());
    }
    // Where the finding has counted the old attempts too, they are not counted twice.
    let overlap = new.first <= old.last;
    let both = |old: u64, new: u64| if overlap { old.max(new) } else { old + new };
    alert.attempts = both(old.attempts, new.attempts);
    alert.refused = both(old.refused, new.refused);
    alert.local = both(old.local, new.local);
    if compare(worst_of(&old.findings), worst_of(&new.findings)) == Ordering::Greater {
        alert.worst.clone_from(&old.worst);
    }
    alert.sha256 = new.sha256.clone().or_else(|| old.sha256.clone());
    alert.package = new.package.clone().or_else(|| old.package.clone());
    alert.history.clear();
    for change in old.history.iter().chain(&new.history) {
        alert.note(change.clone());
    }
    alert.elsewhere = alert.attempts.saturating_sub(alert.destinations.iter().map(|d| d.attempts).sum());
    advise(&mut alert);
    alert
}

/// Adds a finding. When there are too many, the oldest goes of which there is a later one by the same test, so that no
/// test is forgotten.
fn push(findings: &mut Vec<Finding>, finding: Finding) {
    findings.push(finding);
    if findings.len() > FINDINGS {
        let old = (0..findings.len()).find(|i| findings[i + 1..].iter().any(|later| later.kind == findings[*i].kind));
        findings.remove(old.unwrap_or(0));
    }
}

fn rank(finding: &Finding) -> (Severity, f64) {
    (finding.severity, finding.evidence.walk + finding.evidence.prior - finding.evidence.threshold)
}

fn worst_of(findings: &[Finding]) -> (Severity, f64) {
    let ranks = findings.iter().map(rank);
    ranks.max_by(|a, b| compare(*a, *b)).unwrap_or((Severity::Notice, f64::NEG_INFINITY))
}

fn compare(a: (Severity, f64), b: (Severity, f64)) -> Ordering {
    a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
}
