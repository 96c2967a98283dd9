//! The leases that a DHCP server has given, as it writes them down: which host has which address, and what it calls itself.
//!
//! The name in a lease is the host's own word, and may be any bytes: `host_name` keeps what a name may be made of. A line
//! that cannot be read costs that line alone. Servers that write in place are read while they write: a record that has not
//! been ended is not there yet.

mod dhcpd;
mod dnsmasq;
mod kea;
mod microsoft;
mod networkd;
mod table;
mod watch;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use jiff::Timestamp;
use thiserror::Error;

pub use watch::{LeaseFile, LeaseReader, Report, watch};

use super::Mac;

/// How many leases of one file are kept: ten times the hosts that a gateway is made for.
pub const MOST_LEASES: usize = 100_000;
/// The longest name kept, in bytes: what a domain name may have (RFC 1035 section 2.3.4, less its root).
pub const LONGEST_NAME: usize = 253;
/// The longest client identifier kept, in bytes, as a DUID may have (RFC 8415 section 11.1), and an IAID before it.
const LONGEST_CLIENT_ID: usize = 134;

/// A lease that is, or was, in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: IpAddr,
    /// The card's address. IPv6 leases are by DUID and mostly have none: that in a DUID may be another card's (RFC 8415
    /// section 11), and is not taken for it.
    pub mac: Option<Mac>,
    /// What the host calls itself.
    pub name: Option<String>,
    /// How it identifies itself to the server, as hexadecimal bytes with colons (RFC 2132 section 9.14, RFC 8415 section 11).
    pub client_id: Option<String>,
    /// When it ends; `None` for never, and where the file does not tell in a way that can be understood.
    pub expires: Option<Timestamp>,
}

impl Lease {
    fn of(address: IpAddr) -> Self {
        Self { address, mac: None, name: None, client_id: None, expires: None }
    }
}

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// dnsmasq's `dnsmasq.leases`, libvirt's default network too.
    Dnsmasq,
    /// ISC dhcpd's `dhcpd.leases` and `dhcpd6.leases`.
    Dhcpd,
    /// Kea's memfile, `kea-leases4.csv` and `kea-leases6.csv`.
    Kea,
    /// systemd-networkd's `/var/lib/systemd/network/dhcp-server-lease/INTERFACE`.
    Networkd,
    /// A Microsoft DHCP server's, written by `Get-DhcpServerv4Lease … | Export-Csv`.
    Microsoft,
}

/// The names of the kinds, as a policy writes them.
const KINDS: [(&str, Kind); 5] = [
    ("dnsmasq", Kind::Dnsmasq),
    ("dhcpd", Kind::Dhcpd),
    ("kea", Kind::Kea),
    ("networkd", Kind::Networkd),
    ("microsoft", Kind::Microsoft),
];

impl FromStr for Kind {
    type Err = LeaseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = KINDS.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
        found.ok_or_else(|| LeaseError::Kind { text: text.to_owned() })
    }
}

/// Why there are no leases to be had.
#[derive(Debug, Error)]
pub enum LeaseError {
    /// A name of no kind.
    #[error("{text:?} is no kind of lease file; say dnsmasq, dhcpd, kea, networkd or microsoft")]
    Kind {
        /// The name.
        text: String,
    },
    /// The content is of no known kind.
    #[error("{} looks like no lease file of dnsmasq, dhcpd, kea, networkd or microsoft; say which it is", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the lease file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is too big, or something else than a file.
    #[error("the lease file {} {what}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The leases, in the order in which their addresses first appear; one an address, the last that the file has.
    pub leases: Vec<Lease>,
    /// How many lines could not be read (statements, for dhcpd; leases, for networkd).
    pub bad_lines: u64,
    /// The number of the first of them, counted from one.
    pub first_bad: Option<u64>,
    /// How many leases did not fit ([`MOST_LEASES`]).
    pub left_out: u64,
}

/// Reads the content of a lease file of a kind.
#[must_use]
pub fn parse(kind: Kind, bytes: &[u8]) -> Parsed {
    match kind {
        Kind::Dnsmasq => dnsmasq::parse(bytes),
        Kind::Dhcpd => dhcpd::parse(bytes),
        Kind::Kea => kea::parse(bytes),
        Kind::Networkd => networkd::parse(bytes),
        Kind::Microsoft => microsoft::parse(bytes),
    }
}

/// Whose file it is, by how it begins; `None` where that cannot be told, as of an empty one.
#[must_use]
pub fn detect(bytes: &[u8]) -> Option<Kind> {
    if microsoft::is_one(bytes) {
        return Some(Kind::Microsoft);
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(b"#"))?;
    if kea::is_header(first) {
        Some(Kind::Kea)
    } else if first.starts_with(b"{") || first.starts_with(b"[") {
        Some(Kind::Networkd)
    } else if dnsmasq::is_line(first) {
        Some(Kind::Dnsmasq)
    } else if dhcpd::is_statement(first) {
        Some(Kind::Dhcpd)
    } else {
        None
    }
}

/// The lines of a file that have been ended, with their numbers counted from one.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let lines = bytes.get(..whole).unwrap_or_default().split_inclusive(|byte| *byte == b'\n');
    (1..).zip(lines.map(<[u8]>::trim_ascii))
}

/// A host's name without what no name has in it (RFC 1123 section 2.1, and the underscore that Windows lets through);
/// `None` where nothing is left.
pub(super) fn host_name(bytes: &[u8]) -> Option<String> {
    let kept = |byte: &u8| byte.is_ascii_alphanumeric() || [b'-', b'_', b'.'].contains(byte);
    let name: String = bytes.iter().copied().filter(kept).take(LONGEST_NAME).map(char::from).collect();
    let name = name.trim_matches('.');
    (!name.is_empty()).then(|| name.to_owned())
}

/// A client identifier as hexadecimal bytes with colons.
fn hexadecimal(bytes: &[u8]) -> Option<String> {
    let bytes: Vec<String> = bytes.iter().take(LONGEST_CLIENT_ID).map(|byte| format!("{byte:02x}")).collect();
    (!bytes.is_empty()).then(|| bytes.join(":"))
}

/// A client identifier that is hexadecimal already; anything else is none.
fn client_id(text: &str) -> Option<String> {
    let fits = !text.is_empty() && text.len() <= LONGEST_CLIENT_ID * 3;
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit() || [b':', b'-'].contains(&byte));
    (fits && digits).then(|| text.to_ascii_lowercase())
}

/// A card's address out of a client identifier whose type says that it is one of Ethernet (RFC 2132 section 9.14).
fn mac_of_client_id(bytes: &[u8]) -> Option<Mac> {
    bytes.strip_prefix(&[1]).and_then(Mac::from_bytes)
}

#[cfg(test)]
mod tests;
