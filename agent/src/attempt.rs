//! The record of an attempt, and the stream of them.

mod observe;
mod record;

pub(crate) use record::text;
pub(crate) use record::verdict_word;
pub use record::{Attempt, Parent, Recorder, RuleNames};

pub use crate::journal::KEPT;
use crate::journal::{Journal, Timed};

/// The attempts.
pub type Store = Journal<Attempt>;

impl Timed for Attempt {
    fn time(&self) -> jiff::Timestamp {
        self.time
    }
}
