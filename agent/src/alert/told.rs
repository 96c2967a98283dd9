//! What the sinks and the followers are told.

use std::sync::Arc;

use super::{Alert, Occasion};

/// An alert that something has happened to. Never one an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// What happened.
    pub occasion: Occasion,
    /// The alert as it is since.
    pub alert: Arc<Alert>,
}
