//! The detector and the counters over one model's subjects.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use portreeve::detect::{Detector, Finding, Kind, Observation, Settings, SubjectId};

use super::counters::{COUNTERS, Count};
use super::model::Model;
use super::world::World;

/// What became of one subject.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// The first finding.
    pub(crate) found: Option<Found>,
    /// How many findings there were in all.
    pub(crate) findings: usize,
    /// Which counters went off.
    pub(crate) alarms: [bool; COUNTERS.len()],
    /// How many attempts it made.
    pub(crate) attempts: usize,
}

/// A finding, and what came before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// Which test.
    pub(crate) kind: Kind,
    /// Distinct destinations, as the detector counts them: by prefix, provider and domain.
    pub(crate) destinations: u32,
    /// Distinct addresses.
    pub(crate) addresses: usize,
    /// Seconds since the first attempt.
    pub(crate) seconds: f64,
}

/// One model's subjects, all in one detector, as users share a host: what they do is put in the order of time.
pub(crate) fn judge(model: &Model, world: &World, seed: u64, mix: &mut Vec<Observation>) -> Vec<Verdict> {
    let mut whose: HashMap<SubjectId, usize> = HashMap::new();
    let mut all: Vec<(Observation, usize)> = Vec::new();
    let mut subjects: Vec<Subject> = Vec::new();
    for number in 0..model.subjects {
        let actor = model.subject(world, seed, number);
        let at = subjects.len();
        whose.extend(actor.subjects().map(|subject| (subject, at)));
        all.extend(actor.trace.iter().map(|observation| (*observation, at)));
        subjects.push(Subject::new(actor.trace.first().map_or(0, |first| first.time)));
    }
    all.sort_by_key(|(observation, _)| observation.time);

    let mut detector = Detector::new(Settings::default());
    for (observation, at) in &all {
        if let Some(subject) = subjects.get_mut(*at) {
            subject.take(observation);
        }
        for finding in detector.observe(observation) {
            // A finding about a user whose programs are looked at together is about whoever owns them.
            let about = whose.get(&finding.subject).copied().unwrap_or(*at);
            if let Some(subject) = subjects.get_mut(about) {
                subject.found(&finding, observation.time);
            }
        }
    }
    mix.extend(all.into_iter().map(|(observation, _)| observation));
    subjects.into_iter().map(Subject::verdict).collect()
}

/// What is kept of a subject meanwhile.
struct Subject {
    began: i64,
    met: HashSet<IpAddr>,
    counts: Vec<Count>,
    verdict: Verdict,
}

impl Subject {
    fn new(began: i64) -> Self {
        let counts = COUNTERS.iter().map(Count::new).collect();
        Self { began, met: HashSet::new(), counts, verdict: Verdict::default() }
    }

    fn take(&mut self, observation: &Observation) {
        self.verdict.attempts += 1;
        if self.verdict.found.is_none() {
            self.met.insert(observation.address);
        }
        for count in &mut self.counts {
            count.take(observation);
        }
    }

    fn found(&mut self, finding: &Finding, time: i64) {
        self.verdict.findings += 1;
        let seconds = (time - self.began) as f64 / 1e6;
        let (destinations, addresses) = (finding.evidence.destinations, self.met.len());
        self.verdict.found.get_or_insert(Found { kind: finding.kind, destinations, addresses, seconds });
    }

    fn verdict(mut self) -> Verdict {
        for (alarm, count) in self.verdict.alarms.iter_mut().zip(&self.counts) {
            *alarm = count.alarmed();
        }
        self.verdict
    }
}
