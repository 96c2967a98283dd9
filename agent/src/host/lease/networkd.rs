//! The leases of systemd-networkd's DHCP server: sd-dhcp-server-lease.c of systemd 256, which is the first to keep them.
//!
//! One file an interface, `/var/lib/systemd/network/dhcp-server-lease/INTERFACE`, replaced as a whole. The files below
//! `/run/systemd/netif/leases` are no such leases but those that the machine itself has been given.

use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::table::Table;
use super::{Lease, Parsed, hexadecimal, host_name, mac_of_client_id};
use crate::host::Mac;

/// `ARPHRD_ETHER`, include/uapi/linux/if_arp.h.
const ETHERNET: u8 = 1;

/// What is read of a lease; systemd 257 adds the card's address, the client identifier has it in most others.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    address: [u8; 4],
    #[serde(default)]
    client_id: Vec<u8>,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    hardware_address_type: Option<u8>,
    #[serde(default)]
    hardware_address: Option<Vec<u8>>,
    /// Microseconds since 1970. That of the running clock, `ExpirationUSec`, means nothing without it.
    #[serde(default, rename = "ExpirationRealtimeUSec")]
    expires: Option<i64>,
}

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut table = Table::default();
    let entries = match serde_json::from_slice(bytes) {
        Ok(Value::Object(mut file)) => match file.remove("Leases") {
            Some(Value::Array(entries)) => entries,
            Some(_) | None => Vec::new(),
        },
        Ok(Value::Array(entries)) => entries,
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) | Err(_) => {
            table.bad(1);
            Vec::new()
        }
    };
    for (number, entry) in (1..).zip(entries) {
        match serde_json::from_value(entry) {
            Ok(entry) => table.put(lease(&entry)),
            Err(_) => table.bad(number),
        }
    }
    table.parsed()
}

fn lease(entry: &Entry) -> Lease {
    let mut lease = Lease::of(IpAddr::V4(Ipv4Addr::from(entry.address)));
    let ethernet = entry.hardware_address_type.is_none_or(|kind| kind == ETHERNET);
    let own = entry.hardware_address.as_deref().filter(|_| ethernet).and_then(Mac::from_bytes);
    lease.mac = own.or_else(|| mac_of_client_id(&entry.client_id));
    lease.client_id = hexadecimal(&entry.client_id);
    lease.name = entry.hostname.as_deref().and_then(|name| host_name(name.as_bytes()));
    lease.expires = entry.expires.and_then(|micros| Timestamp::from_microsecond(micros).ok());
    lease
}
