//! The detector: attempts in, findings out. No clock and no I/O: time comes in with the attempts.

mod detector;
mod finding;
mod id;
mod observation;
mod settings;

pub use detector::Detector;
pub use finding::{Evidence, Finding, Kind, Severity, Weighed};
pub use id::SubjectId;
pub use observation::{Observation, Outcome, Signs};
pub use settings::Settings;
