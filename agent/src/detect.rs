//! The detector: attempts in, findings out. No clock and no I/O: time comes in with the attempts.

mod bounded;
mod detector;
mod finding;
mod hypotheses;
mod id;
mod judge;
mod memory;
mod observation;
mod rhythm;
mod settings;
mod site;
mod snapshot;
mod subject;
#[cfg(test)]
mod tests;
mod walk;

pub use detector::Detector;
pub use finding::{Evidence, Finding, Kind, Severity, Weighed};
pub use id::SubjectId;
pub use observation::{Observation, Outcome, Signs};
pub use settings::Settings;
pub use snapshot::SnapshotError;
