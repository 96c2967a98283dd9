//! Leases as a file is read: one an address, and what could not be read is counted.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Lease, MOST_LEASES, Parsed};

/// The leases so far.
#[derive(Debug, Default)]
pub(super) struct Table {
    places: HashMap<IpAddr, usize>,
    leases: Vec<Option<Lease>>,
    bad_lines: u64,
    first_bad: Option<u64>,
    left_out: u64,
}

impl Table {
    /// Keeps a lease in the place of an earlier one of its address.
    pub(super) fn put(&mut self, lease: Lease) {
        let address = lease.address;
        let place = self.places.get(&address).and_then(|place| self.leases.get_mut(*place));
        if let Some(place) = place {
            *place = Some(lease);
        } else if self.leases.len() < MOST_LEASES {
            self.places.insert(address, self.leases.len());
            self.leases.push(Some(lease));
        } else {
            self.left_out += 1;
        }
    }

    /// The address is not leased any more.
    pub(super) fn remove(&mut self, address: IpAddr) {
        if let Some(place) = self.places.get(&address).and_then(|place| self.leases.get_mut(*place)) {
            *place = None;
        }
    }

    /// A line could not be read.
    pub(super) fn bad(&mut self, line: u64) {
        self.bad_lines += 1;
        self.first_bad.get_or_insert(line);
    }

    /// All that the file says.
    pub(super) fn parsed(self) -> Parsed {
        let Self { leases, bad_lines, first_bad, left_out, places: _ } = self;
        Parsed { leases: leases.into_iter().flatten().collect(), bad_lines, first_bad, left_out }
    }
}
