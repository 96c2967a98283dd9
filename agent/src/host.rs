//! Who the hosts behind a gateway are: their cards, their leases, their names, and the interfaces that they are behind.
//!
//! What a file or a message says is read by pure functions; [`lease::LeaseReader`], [`Changes`] and [`behind`] are the edges that
//! touch the system, each for a thread that may wait. [`Names`] puts together what they tell, and waits for nothing.

mod changes;
mod container;
mod guests;
pub mod lease;
mod link;
mod mac;
mod names;
mod neighbour;
mod netlink;
pub mod reverse;
#[cfg(test)]
mod testing;

pub use changes::{Change, Changes, follow};
pub use container::{Behind, BehindKind, behind};
pub use guests::guests;
pub use link::{Link, Vlan, links};
pub use mac::{Mac, MacError, vendor};
pub use names::{Claims, HostName, Listed, Names, Source};
pub use neighbour::{Learned, Neighbour, Reach, learned, neighbours};
pub use netlink::RouteError;
