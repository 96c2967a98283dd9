//! Who is behind an attempt: what the event says, and what procfs and the user database add.

mod cgroup;
pub mod digest;
mod local_mta;
mod package;
mod process;
mod session;
mod surroundings;
mod tree;
mod users;
mod writable;

pub use cgroup::{Container, Place, place};
pub use local_mta::LocalMta;
pub use package::{Owner, Packages};
pub use process::{Details, Processes};
pub(crate) use process::{names_plainly, script};
pub use session::gone as session_gone;
pub use surroundings::{About, Facts, Surroundings};
pub use tree::{Kinship, Member, tree};
pub use users::Users;
pub use writable::{file_below, only_root_writes, temporary, world_writable};
