//! Who the hosts behind a gateway are: their cards, their leases, their names, and the interfaces that they are behind.
//!
//! What a file or a message says is read by pure functions; [`lease::LeaseReader`], [`Changes`] and [`named`] are the edges that
//! touch the system, each for a thread that may wait. [`Names`] puts together what they tell, and waits for nothing.

mod changes;
mod container;
pub mod lease;
mod link;
mod mac;
mod names;
mod neighbour;
mod netlink;
#[cfg(test)]
mod testing;

pub use changes::{Change, Changes, follow};
pub use container::{Behind, BehindKind, named};
pub use link::{Link, Vlan, links};
pub use mac::{Mac, MacError, vendor};
pub use names::{Claims, HostName, Listed, Names, Source};
pub use neighbour::{Neighbour, Reach, neighbours};
pub use netlink::RouteError;
