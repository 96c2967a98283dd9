//! The detector: what an attempt does to the tests of its subject and its owner.

use super::bounded::Bounded;
use super::hypotheses::Hypotheses;
use super::judge::Judge;
use super::site::Sites;
use super::subject::{Owner, Subject, seconds};
use super::{Finding, Observation, Outcome, Settings, SubjectId};

/// What is not seen for so long is forgotten first, in seconds: a week.
const STALE: u32 = 7 * 86_400;
/// The last moment that a timestamp of the record can be, in microseconds since 1970.
const LATEST: i64 = 253_402_207_200_000_000;

/// Judges subjects by their attempts.
///
/// Its state is bounded: [`Settings::subjects`] times [`Self::bytes_per_subject`], and a quarter as many owners.
#[derive(Debug)]
pub struct Detector {
    settings: Settings,
    hypotheses: Hypotheses,
    sites: Sites,
    pub(super) subjects: Bounded<Subject>,
    pub(super) owners: Bounded<Owner>,
    /// The latest moment seen, in microseconds since 1970.
    pub(super) latest: i64,
}

impl Detector {
    /// A detector that has seen nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let hypotheses = Hypotheses::new(settings.errors_per_subject_day, settings.missed);
        let sites = Sites::new(&settings.sites);
        let subjects = Bounded::new(settings.subjects);
        let owners = Bounded::new(settings.subjects.div_ceil(4));
        Self { settings, hypotheses, sites, subjects, owners, latest: 0 }
    }

    /// Bytes that one subject takes, its share of the table included.
    #[must_use]
    pub const fn bytes_per_subject() -> usize {
        Bounded::<Subject>::bytes_per_entry()
    }

    /// How many subjects are remembered.
    #[must_use]
    pub fn subjects(&self) -> usize {
        self.subjects.len()
    }

    /// How many were forgotten to make room.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.subjects.evicted
    }

    /// The latest moment of all attempts seen, in microseconds since 1970.
    #[must_use]
    pub fn latest(&self) -> i64 {
        self.latest
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes an attempt, and says what it shows. Most show nothing, and cost no allocation.
    pub fn observe(&mut self, observation: &Observation) -> Vec<Finding> {
        if !self.settings.enabled {
            return Vec::new();
        }
        // From 1970 to the year 9999: what lies outside is a broken clock, and must not upset the arithmetic.
        let time = observation.time.clamp(0, LATEST);
        self.latest = self.latest.max(time);
        let (id, now) = (observation.subject.0, seconds(time));
        let (place, _) = self.subjects.at(id, now, STALE, || Subject::new(id, time));
        let subject = self.subjects.entry(place);
        let time = time.max(subject.last);
        let site = self.sites.of(observation.address);
        let mut judge = Judge::new(&self.settings, &self.hypotheses, observation, time, site);
        judge.count(subject);
        match observation.outcome {
            Outcome::Allowed => {}
            Outcome::Local => judge.local(subject),
            Outcome::Refused => {
                if observation.owner != SubjectId::default() {
                    let id = observation.owner.0;
                    let (place, _) = self.owners.at(id, now, STALE, || Owner::new(id, time));
                    judge.owner(self.owners.entry(place), subject);
                    self.owners.used(place);
                }
                judge.refused(subject);
            }
        }
        subject.last = time;
        let findings = judge.findings();
        self.subjects.used(place);
        findings
    }
}
