//! The fixture library of the end-to-end tests: everything with a `Drop`.
//!
//! A test reads like a scenario: hosts (network namespaces) joined by wires, a [`Sink`] that plays the mail
//! exchanger, cgroups that mimic a host's units, programs run in them as any user, the agent under test
//! ([`Guard`]), and real mail servers in roots of their own ([`mta`]). Every fixture is a guard whose value exists
//! before its first command, so a test that panics half way leaves nothing behind; what a *killed* test leaves is
//! swept by the next [`Lab::new`]. Fixtures panic with the failing step instead of returning `Result`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a fixture that cannot be set up fails its test at once, and says why"
)]

mod cgroup;
mod debs;
mod filesystem;
pub mod gateway;
mod guard;
mod host;
mod lab;
mod mount;
pub mod mta;
mod netns;
mod probe;
mod program;
mod receiver;
mod root;
mod scene;
mod sink;
mod skip;
mod sweep;
mod tap;
mod until;

pub use cgroup::{Cgroup, cgroup2_root};
pub use filesystem::{Filesystem, Kind};
pub use gateway::Gateway;
pub use guard::{Guard, portreeve};
pub use host::Host;
pub use lab::{Lab, require_root};
pub use probe::{Probe, Segment, connects_from};
pub use program::{Outcome, Program, Running};
pub use receiver::{HttpsServer, Journald, Rsyslogd, certificates};
pub use root::Root;
pub use scene::Scene;
pub use sink::{Message, Sink};
pub use skip::skip;
pub use tap::{Received, Tap, Tun};
pub use until::{DEADLINE, until};
