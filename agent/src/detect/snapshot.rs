//! The detector's state as bytes, so that an agent that starts again goes on where the one before it was.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::bounded::{Bounded, Entry};
use super::subject::{Owner, Subject};
use super::{Detector, Settings};

/// Of the layout of what follows; another one is not read.
const VERSION: u32 = 1;

/// Why a state cannot be gone on with.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SnapshotError {
    /// It is none, or cut.
    #[error("the detector's state is no such state, or cut: {0}")]
    Broken(#[from] postcard::Error),
    /// It comes from another version.
    #[error("the detector's state is of version {0}; this is version {VERSION}")]
    Version(u32),
}

#[derive(Serialize, Deserialize)]
struct Snapshot<S, O> {
    version: u32,
    latest: i64,
    evicted: (u64, u64),
    subjects: S,
    owners: O,
}

impl Detector {
    /// The state, without the settings.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let subjects: Vec<&Subject> = self.subjects.in_order().collect();
        let owners: Vec<&Owner> = self.owners.in_order().collect();
        let evicted = (self.subjects.evicted, self.owners.evicted);
        // Only a type that serde cannot count the elements of would fail.
        postcard::to_stdvec(&Snapshot { version: VERSION, latest: self.latest, evicted, subjects, owners })
            .unwrap_or_default()
    }

    /// A detector that goes on from a state. Where the settings have room for fewer subjects now, the least interesting are
    /// left out.
    ///
    /// # Errors
    ///
    /// When the bytes are no state of this version.
    pub fn load(settings: Settings, state: &[u8]) -> Result<Self, SnapshotError> {
        let (version, _) = postcard::take_from_bytes::<u32>(state)?;
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        let snapshot: Snapshot<Vec<Subject>, Vec<Owner>> = postcard::from_bytes(state)?;
        let mut detector = Self::new(settings);
        fill(&mut detector.subjects, snapshot.subjects);
        fill(&mut detector.owners, snapshot.owners);
        detector.latest = snapshot.latest;
        (detector.subjects.evicted, detector.owners.evicted) = snapshot.evicted;
        Ok(detector)
    }
}

/// The entries come from the least to the most interesting.
fn fill<T: Entry>(table: &mut Bounded<T>, entries: Vec<T>) {
    for entry in entries {
        let (key, used) = (entry.key(), entry.used());
        let (place, _) = table.at(key, used, u32::MAX, || entry);
        table.used(place);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Observation, Outcome, Signs, SubjectId};
    use super::*;

    /// Signs are bits of a number of fixed width: one more of them changes no layout.
    #[test]
    fn a_state_from_before_a_sign_is_read_and_one_with_it_kept() {
        let mut detector = Detector::new(Settings::default());
        let seen = |signs| Observation {
            time: 1_767_225_600_000_000,
            subject: SubjectId(1),
            owner: SubjectId::default(),
            thread: 0,
            address: [192, 0, 2, 25].into(),
            domain: 0,
            outcome: Outcome::Refused,
            signs,
        };
        detector.observe(&seen(Signs::INTERPRETER));
        let before = detector.save();
        detector.observe(&seen(Signs::INTERPRETER.with(Signs::ROOT_SCRIPT)));
        let after = detector.save();
        for (state, signs) in [(before, Signs::INTERPRETER), (after, Signs::INTERPRETER.with(Signs::ROOT_SCRIPT))] {
            let loaded = Detector::load(Settings::default(), &state).unwrap();
            assert_eq!(loaded.subjects.in_order().map(|subject| subject.signs).collect::<Vec<_>>(), [signs.0]);
            assert_eq!(loaded.save(), state);
        }
    }

    #[test]
    fn what_is_no_state_is_refused() {
        let state = Detector::new(Settings::default()).save();
        assert!(Detector::load(Settings::default(), &state).is_ok());
        assert!(matches!(Detector::load(Settings::default(), &state[..2]), Err(SnapshotError::Broken(_))));
        assert_eq!(Detector::load(Settings::default(), &[9]).err(), Some(SnapshotError::Version(9)));
    }
}
