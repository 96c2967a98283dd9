//! From the policy file to the tables of the kernel, in three steps that share no state.
//!
//! [`load`] reads and checks the text, [`resolve`] looks up on a [`Host`] what the text names, and [`compile`] turns
//! the result into tables. Each step goes on as far as it can, so that one run shows everything there is to mend.

mod check;
mod compile;
mod diagnostic;
pub mod edit;
mod gateway;
mod host;
mod load;
mod model;
mod mta;
mod network;
mod overlap;
mod parse;
mod pattern;
mod resolve;
mod respond;
mod unit;

pub use check::{Checked, check};
pub use compile::{CompileError, Compiled, CompiledLan, compile};
pub use diagnostic::{Diagnostic, Located, Place, Severity, Sources};
pub use gateway::{Answer, Gateway, LanRule, MOST_SOURCES, NamedHost, parse_vlan, vlan_text};
pub use host::{ExeFile, ExeProblem, Host, Learn, SystemHost, UnitPlace, Weakness};
pub use load::{Loaded, load, load_changed, load_text};
pub use model::{Account, CgroupPath, Guard, Mode, MtaChoice, Policy, Refusal, Rule, UnitChoice};
pub use mta::{MTAS, Mta, Users};
pub use parse::keys;
pub use pattern::matches;
pub use resolve::{Named, Resolved, ResolvedRule, resolve, unit_path};
pub use respond::Respond;

#[cfg(test)]
mod tests;
