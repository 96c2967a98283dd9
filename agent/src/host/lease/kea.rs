//! Kea's memfile: the CSV files of `csv_lease_file4.cc` and `csv_lease_file6.cc` (Kea 2.6).
//!
//! The first line names the columns, and versions differ in them, so that they are found by name. The file is a journal: a
//! later line of an address takes the place of an earlier one. No field is quoted; a comma within one is written `&#x2c`
//! (`CSVRow::escapeCharacters`). Where the journal and its older parts are read as one text, a further header begins a part.

use std::net::IpAddr;

use jiff::Timestamp;

use super::table::Table;
use super::{Lease, Parsed, client_id, host_name, lines};
use crate::host::Mac;

/// `Lease::STATE_DEFAULT` and `Lease::STATE_REGISTERED` (RFC 9686): the host has the address. Declined (1), expired and
/// reclaimed (2), and released (3) leases are nobody's.
const HELD: [&[u8]; 2] = [b"0", b"4"];
/// `Lease::TYPE_PD`: what is leased is a prefix, and the address in it no host's.
const PREFIX: &[u8] = b"2";
/// `Lease::INFINITY_LFT`: a lease without end, in seconds.
const WITHOUT_END: u64 = u32::MAX as u64;

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut table = Table::default();
    let mut columns = None;
    for (number, line) in lines(bytes) {
        if line.is_empty() {
            continue;
        }
        if is_header(line) {
            columns = Columns::of(line);
            continue;
        }
        let Some(row) = columns.as_ref().and_then(|columns| columns.row(line)) else {
            table.bad(number);
            continue;
        };
        match row {
            Row::Held(lease) => table.put(lease),
            Row::Free(address) => table.remove(address),
            Row::Prefix => {}
        }
    }
    table.parsed()
}

/// Whether a line names the columns.
pub(super) fn is_header(line: &[u8]) -> bool {
    line.starts_with(b"address,hwaddr,") || line.starts_with(b"address,duid,")
}

/// Where the columns are.
struct Columns {
    mac: Option<usize>,
    client_id: Option<usize>,
    lifetime: usize,
    expire: usize,
    lease_type: Option<usize>,
    name: Option<usize>,
    state: Option<usize>,
}

enum Row {
    Held(Lease),
    Free(IpAddr),
    Prefix,
}

impl Columns {
    fn of(header: &[u8]) -> Option<Self> {
        let names: Vec<&[u8]> = header.split(|byte| *byte == b',').collect();
        let find = |name: &str| names.iter().position(|found| *found == name.as_bytes());
        Some(Self {
            mac: find("hwaddr"),
            client_id: find("client_id").or_else(|| find("duid")),
            lifetime: find("valid_lifetime")?,
            expire: find("expire")?,
            lease_type: find("lease_type"),
            name: find("hostname"),
            state: find("state"),
        })
    }

    fn row(&self, line: &[u8]) -> Option<Row> {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b',').collect();
        let field = |place: Option<usize>| place.and_then(|place| fields.get(place)).copied().unwrap_or_default();
        let number = |place: usize| std::str::from_utf8(fields.get(place)?).ok()?.parse::<u64>().ok();
        let address: IpAddr = std::str::from_utf8(fields.first()?).ok()?.parse().ok()?;
        let (lifetime, expire) = (number(self.lifetime)?, number(self.expire)?);
        if field(self.lease_type) == PREFIX {
            return Some(Row::Prefix);
        }
        // A lease that was deleted is written down once more with no lifetime. The oldest files know no state.
        let held = self.state.is_none_or(|state| HELD.contains(&field(Some(state))));
        if lifetime == 0 || !held {
            return Some(Row::Free(address));
        }
        let mut lease = Lease::of(address);
        lease.mac = std::str::from_utf8(field(self.mac)).ok().and_then(|mac| mac.parse::<Mac>().ok());
        lease.client_id = std::str::from_utf8(field(self.client_id)).ok().and_then(client_id);
        lease.name = host_name(&unescaped(field(self.name)));
        let ends = i64::try_from(expire).ok().and_then(|expire| Timestamp::from_second(expire).ok());
        lease.expires = ends.filter(|_| lifetime != WITHOUT_END);
        Some(Row::Held(lease))
    }
}

/// A field with its escapes, `&#x` and two hexadecimal digits, undone.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = rest.strip_prefix(b"&#x").and_then(|rest| rest.get(..2));
        let escaped = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        plain.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { rest.get(5..).unwrap_or_default() } else { after };
    }
    plain
}
