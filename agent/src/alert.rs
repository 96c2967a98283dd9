//! Alerts: what was found, kept until somebody has dealt with it, and told to whoever should know.

mod model;
mod narrowest;
pub mod response;

pub use model::{Alert, CHANGES, Change, DESTINATIONS, Destination, FINDINGS, Occasion, Resolution, State, Who};
pub use narrowest::{Narrowest, NoRule, Wishes, narrowest};
