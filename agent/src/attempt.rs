//! The record of an attempt, and the stream of them.

mod record;
mod store;

pub(crate) use record::text;
pub use record::{Attempt, Parent, Recorder};
pub use store::{KEPT, Store};
