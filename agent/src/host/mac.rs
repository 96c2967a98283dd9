//! An Ethernet address, and who has made the card.

mod maker;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A MAC address: six bytes in the order in which they are sent (IEEE 802, EUI-48).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mac(pub [u8; 6]);

/// A text is no MAC address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is no MAC address; write six bytes, as in 00:1b:21:0a:0b:0c")]
pub struct MacError {
    /// The text.
    pub text: String,
}

impl Mac {
    /// The address in the bytes of a message; `None` for the addresses of links that are not Ethernet, and for all zeroes,
    /// which stands for none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 6] = bytes.try_into().ok()?;
        (bytes != [0; 6]).then_some(Self(bytes))
    }

    /// Whether the address was given by the host's own software: the second bit of the first byte. Telephones and laptops
    /// make such addresses at random, one a network; containers and virtual machines have one each.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.0[0] & 2 != 0
    }

    /// Whether it is the address of a group, all hosts' (broadcast) too: the first bit of the first byte. No host sends from
    /// such an address.
    #[must_use]
    pub fn is_multicast(&self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    /// Reads `aa:bb:cc:dd:ee:ff`, `aa-bb-cc-dd-ee-ff` and `aabb.ccdd.eeff`, in upper or lower case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || MacError { text: text.chars().take(64).collect() };
        let (separator, digits) = match text.as_bytes().get(2) {
            Some(b':') => (':', 2),
            Some(b'-') => ('-', 2),
            Some(_) | None => ('.', 4),
        };
        let mut hex = String::with_capacity(12);
        for group in text.split(separator) {
            if group.len() != digits || !group.bytes().all(|byte| byte.is_ascii_hexdigit()) || hex.len() >= 12 {
                return Err(error());
            }
            hex.push_str(group);
        }
        if hex.len() != 12 {
            return Err(error());
        }
        let number = u64::from_str_radix(&hex, 16).map_err(|_not_hexadecimal| error())?;
        let [_, _, bytes @ ..] = number.to_be_bytes();
        Ok(Self(bytes))
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Who has made the card with this address, by the IEEE's registries (MA-L, MA-M, MA-S, IAB) as they were when the crate
/// `oui-data` was published. `None` for a block that nobody has registered in the open, and for an address that the host's
/// own software has given: it would only be a maker's by accident.
#[must_use]
pub fn vendor(mac: &Mac) -> Option<&'static str> {
    if mac.is_local() || mac.is_multicast() { None } else { maker::maker(*mac) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mac(text: &str) -> Mac {
        text.parse().unwrap()
    }

    #[test]
    fn the_three_ways_to_write_one_are_read_and_one_is_written() {
        for text in ["00:1b:21:0A:0b:0c", "00-1B-21-0a-0b-0c", "001b.210a.0b0c"] {
            assert_eq!(mac(text), Mac([0, 0x1b, 0x21, 0x0a, 0x0b, 0x0c]), "{text}");
        }
        assert_eq!(mac("001B.210A.0B0C").to_string(), "00:1b:21:0a:0b:0c");
        assert_eq!(serde_json::to_string(&mac("001b.210a.0b0c")).unwrap(), "\"00:1b:21:0a:0b:0c\"");
    }

    #[test]
    fn what_is_none_is_told() {
        let more = "00:1b:21:0a:0b:0c:0d";
        for text in
            ["", "001b210a0b0c", "00:1b:21:0a:0b", more, "00:1b-21:0a:0b:0c", "0:1b:21:0a:0b:0c0", "00:1b:21:0a:0b:+c"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
        assert!("x".parse::<Mac>().unwrap_err().to_string().contains("write six bytes"));
        assert_eq!((Mac::from_bytes(&[0; 6]), Mac::from_bytes(&[1; 20])), (None, None));
    }

    #[test]
    fn bits_tell_own_and_group_addresses() {
        assert!(mac("02:42:ac:11:00:02").is_local() && !mac("00:1b:21:00:00:01").is_local());
        assert!(mac("01:00:5e:00:00:01").is_multicast() && mac("ff:ff:ff:ff:ff:ff").is_multicast());
        assert!(!mac("da:a1:19:00:00:01").is_multicast());
    }

    #[test]
    fn the_maker_is_that_of_the_smallest_registered_block() {
        assert_eq!(vendor(&mac("00:1b:21:00:00:01")), Some("Intel Corporate"));
        // 70:b3:d5 is one of the blocks that the IEEE divides into 36-bit ones.
        assert_eq!(vendor(&mac("70:b3:d5:e7:4f:81")), Some("Exfrontier Co., Ltd."));
        assert_eq!(vendor(&mac("da:a1:19:00:00:01")), None, "made at random");
        assert_eq!(vendor(&mac("01:00:5e:00:00:01")), None);
    }

    proptest! {
        #[test]
        fn every_address_is_read_as_written(bytes: [u8; 6]) {
            prop_assert_eq!(Mac(bytes).to_string().parse::<Mac>(), Ok(Mac(bytes)));
            let shown = vendor(&Mac(bytes)).unwrap_or_default();
            prop_assert!(!shown.contains('\n'));
        }

        #[test]
        fn no_text_breaks_the_reader(text in ".{0,40}") {
            if let Ok(mac) = text.parse::<Mac>() {
                prop_assert_eq!(mac.to_string().parse::<Mac>(), Ok(mac));
            }
        }
    }
}
