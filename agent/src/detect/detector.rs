//! The detector.

use super::{Finding, Observation, Settings};

/// Judges subjects by their attempts.
#[derive(Debug)]
pub struct Detector {
    settings: Settings,
}

impl Detector {
    /// A detector that has seen nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Takes an attempt, and says what it shows. Most show nothing, and cost no allocation.
    pub fn observe(&mut self, observation: &Observation) -> Vec<Finding> {
        let _not_yet = (&self.settings, observation);
        Vec::new()
    }
}
