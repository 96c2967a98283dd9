//! Networks as people write them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// What a text that should be a network is instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadNetwork {
    pub(super) what: String,
    pub(super) mend: String,
}

/// Reads an address or a network; IPv4-mapped IPv6 networks become the IPv4 networks they are.
pub(super) fn parse(text: &str) -> Result<IpNet, BadNetwork> {
    let bad = |what: String, mend: &str| Err(BadNetwork { what, mend: mend.to_owned() });
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        let mend = "write an address or a network in numbers, as in \"192.0.2.10\", \"192.0.2.0/24\" or \"2001:db8::/32\"; \
                    names are not looked up";
        return bad(format!("\"{text}\" is no network"), mend);
    };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let length = match prefix.map(|prefix| prefix.parse::<u8>().ok().filter(|_| !prefix.starts_with('+'))) {
        None => longest,
        Some(Some(length)) if length <= longest => length,
        Some(_) => {
            let mend = format!("write a prefix length from 0 to {longest} after the slash, not a netmask");
            return bad(format!("\"{text}\" has no usable prefix length"), &mend);
        }
    };
    // The length was compared with the longest there is.
    let Ok(network) = IpNet::new(address, length) else {
        return bad(format!("\"{text}\" is no network"), "shorten the prefix");
    };
    if network.trunc() != network {
        return Err(BadNetwork {
            what: format!("\"{text}\" is an address inside a network, with bits set beyond the prefix"),
            mend: format!("write \"{}\" for the network or \"{address}\" for the one host", network.trunc()),
        });
    }
    Ok(normal(network))
}

/// An IPv4-mapped network in its IPv4 form.
pub(super) fn normal(network: IpNet) -> IpNet {
    if let IpNet::V6(v6) = network
        && v6.prefix_len() >= 96
        && let Some(v4) = v6.network().to_ipv4_mapped()
        && let Ok(v4) = Ipv4Net::new(v4, v6.prefix_len() - 96)
    {
        return IpNet::V4(v4);
    }
    network
}

/// A network as the kernel's table has it: 16 bytes and the prefix length in them.
pub(super) fn table_form(network: &IpNet) -> ([u8; 16], u8) {
    match network {
        IpNet::V4(v4) => (v4.network().to_ipv6_mapped().octets(), 96 + v4.prefix_len()),
        IpNet::V6(v6) => (v6.network().octets(), v6.prefix_len()),
    }
}

/// All IPv4 addresses, in the kernel's table.
pub(super) const ALL_IPV4: ([u8; 16], u8) = (Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets(), 96);

/// The first bits of an address, the rest zero.
pub(super) fn truncated(address: [u8; 16], length: u8) -> [u8; 16] {
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    Ipv6Addr::from_bits(u128::from_be_bytes(address) & mask).octets()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_in_every_spelling() {
        for (text, means) in [
            ("192.0.2.10", "192.0.2.10/32"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:192.0.2.10", "192.0.2.10/32"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), means);
        }
    }

    #[test]
    fn host_bits_are_an_error_that_says_what_was_probably_meant() {
        let bad = parse("192.0.2.10/24").unwrap_err();
        assert!(bad.mend.contains("\"192.0.2.0/24\" for the network or \"192.0.2.10\""), "{}", bad.mend);
    }

    #[test]
    fn what_is_no_network_is_an_error() {
        for text in [
            "mail.example.org",
            "10.0.0.0/33",
            "10.0.0.0/255.0.0.0",
            "10.0.0/8",
            "::/129",
            "",
            "/",
            "1.2.3.4/+8",
            "::1%lo",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn truncating_keeps_the_first_bits() {
        assert_eq!(truncated([0xff; 16], 0), [0; 16]);
        assert_eq!(truncated([0xff; 16], 128), [0xff; 16]);
        assert_eq!(truncated([0xff; 16], 12)[..3], [0xff, 0xf0, 0]);
    }
}
