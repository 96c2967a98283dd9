//! Whom something is held against, as a number.

use std::fmt;
use std::hash::Hasher as _;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use siphasher::sip::SipHasher13;

/// The number of a subject: a hash over what it is (SipHash-1-3, Aumasson & Bernstein 2012).
///
/// The key is fixed, so that a replay gives the same numbers everywhere. Whoever makes two subjects of theirs collide
/// only has them judged as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectId(pub u64);

impl SubjectId {
    /// The number of a subject that is made of parts. Each is hashed with its end, so that none can pass for another.
    pub fn of<'p>(parts: impl IntoIterator<Item = &'p str>) -> Self {
        let mut hash = SipHasher13::new();
        for part in parts {
            hash.write(part.as_bytes());
            hash.write_u8(0xff);
        }
        Self(hash.finish())
    }

    /// The number of a host whose programs are not known: of a capture, or behind a frame.
    #[must_use]
    pub fn of_host(address: IpAddr) -> Self {
        let mut hash = SipHasher13::new();
        hash.write(b"host\xff");
        match address.to_canonical() {
            IpAddr::V4(address) => hash.write(&address.octets()),
            IpAddr::V6(address) => hash.write(&address.octets()),
        }
        Self(hash.finish())
    }
}

impl fmt::Display for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for SubjectId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

impl Serialize for SubjectId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_u64(self.0) }
    }
}

impl<'de> Deserialize<'de> for SubjectId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            u64::deserialize(deserializer).map(Self)
        }
    }
}
