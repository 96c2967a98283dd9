//! Who is behind an attempt: what the event says, and what procfs and the user database add.

mod cgroup;
mod process;
mod users;

pub use cgroup::{Container, Place, place};
pub use process::{Details, Processes, is_interpreter};
pub use users::Users;
