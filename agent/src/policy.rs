//! The policy: from TOML to checked rules, to what they name on this host, to kernel tables.
//!
//! [`load`] reads and checks the text, [`resolve`] looks up what the rules name, [`compile`] makes the tables. No step
//! stops at its first finding.

mod compile;
mod diagnostic;
mod host;
mod load;
mod model;
mod mta;
mod reader;
mod resolve;
mod units;

pub use compile::{CompileError, Compiled, compile};
pub use diagnostic::{Diagnostic, Place, Severity};
pub use host::{ExeFile, Learn, SystemHost};
pub use load::{Loaded, load};
pub use model::{GuardSection, Policy, Rule};
pub use resolve::{Resolved, ResolvedRule, resolve};
pub use units::unit_path;

#[cfg(test)]
mod tests;
