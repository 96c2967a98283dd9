//! dnsmasq's lease file, as lease.c of dnsmasq 2.90 writes it.
//!
//! A line is a lease: when it ends (seconds since 1970, 0 for never), the card's address, the address, the name or `*`, the
//! client identifier or `*`. After the line `duid …`, the server's own, the leases are those of IPv6: the second field is the
//! IAID then, with a `T` before it for a temporary address, and the last one the DUID.

use std::net::IpAddr;

use jiff::Timestamp;

use super::table::Table;
use super::{Lease, Parsed, client_id, host_name, lines};
use crate::host::Mac;

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut table = Table::default();
    for (number, line) in lines(bytes) {
        if line.is_empty() || line.starts_with(b"duid ") {
            continue;
        }
        match lease(line) {
            Some(lease) => table.put(lease),
            None => table.bad(number),
        }
    }
    table.parsed()
}

/// Whether a file that begins with this line is dnsmasq's.
pub(super) fn is_line(line: &[u8]) -> bool {
    line.starts_with(b"duid ") || lease(line).is_some()
}

fn lease(line: &[u8]) -> Option<Lease> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let &[ends, card, address, name, client] = fields.as_slice() else { return None };
    let ends: i64 = std::str::from_utf8(ends).ok()?.parse().ok()?;
    let address: IpAddr = std::str::from_utf8(address).ok()?.parse().ok()?;
    let mut lease = Lease::of(address);
    if address.is_ipv4() {
        // A card that is not one of Ethernet has its type before the address, as in `06-…`.
        lease.mac = std::str::from_utf8(card).ok().and_then(|card| card.parse::<Mac>().ok());
    } else {
        let iaid = card.strip_prefix(b"T").unwrap_or(card);
        if iaid.is_empty() || !iaid.iter().all(u8::is_ascii_digit) {
            return None;
        }
    }
    lease.name = Some(name).filter(|name| *name != b"*").and_then(host_name);
    lease.client_id = std::str::from_utf8(client).ok().and_then(client_id);
    lease.expires = Some(ends).filter(|ends| *ends != 0).and_then(|ends| Timestamp::from_second(ends).ok());
    Some(lease)
}
