//! The record of an attempt, and the stream of them.

mod observe;
mod record;
mod store;

pub(crate) use record::text;
pub(crate) use record::verdict_word;
pub use record::{Attempt, Parent, Recorder, RuleNames};
pub use store::{KEPT, Store};
