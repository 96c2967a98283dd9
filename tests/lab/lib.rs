//! The fixture library of the end-to-end tests: everything with a `Drop`.
//!
//! A test reads like a scenario: hosts (network namespaces) joined by wires, a [`Sink`] that plays the mail
//! exchanger, cgroups that mimic a host's units, programs run in them as any user, and real mail servers in roots
//! of their own. Every fixture is a guard whose value exists before its first command, so a test that panics half
//! way leaves nothing behind; what a *killed* test leaves is swept by the next [`Lab::new`]. Fixtures panic with
//! the failing step instead of returning `Result`.
#![expect(
    clippy::unwrap_used,
    reason = "a fixture that cannot be set up fails its test at once"
)]

mod cgroup;
pub mod client;
mod filesystem;
mod host;
mod lab;
mod mount;
pub mod mta;
mod netns;
mod outcome;
mod program;
mod running;
mod sink;
mod smtp;
mod sniffer;
mod spawn;
mod sweep;
pub mod tools;
mod until;

pub use cgroup::{Cgroup, cgroup2_root};
pub use client::{Connect, Report};
pub use filesystem::{Filesystem, Kind};
pub use host::{Host, Wire};
pub use lab::{Lab, require_root};
pub use outcome::Outcome;
pub use program::Program;
pub use running::Running;
pub use sink::{Sink, SinkBuilder};
pub use smtp::Message;
pub use until::{DEADLINE, until};
