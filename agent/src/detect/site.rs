//! Which destinations are one.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// Addresses, as what they are the same destination by.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sites {
    /// Networks that count as one, by their first and last address as IPv6 writes it; sorted, none within another of the
    /// same site.
    networks: Vec<(u128, u128, u32)>,
}

impl Sites {
    /// The policy's sites, each a name with its networks.
    pub(super) fn new(sites: &[(String, Vec<IpNet>)]) -> Self {
        let mut networks: Vec<(u128, u128, u32)> = (0..)
            .zip(sites)
            .flat_map(|(site, (_, networks))| networks.iter().map(move |network| (network, site)))
            .map(|(network, site)| (number(network.network()), number(network.broadcast()), site))
            .collect();
        networks.sort_unstable();
        Self { networks }
    }

    /// The hash of the destination that an address belongs to: its site, else its /24 or /48, as blocks are handed out to
    /// one organisation (RFC 6177 §2 for IPv6).
    pub(super) fn of(&self, address: IpAddr) -> u64 {
        let number = number(address);
        let after = self.networks.partition_point(|(first, _, _)| *first <= number);
        // The nearest network before it may end before it, and a larger one hold it; sites are few.
        let site = self.networks[..after].iter().rev().find(|(_, last, _)| number <= *last);
        match site {
            Some((_, _, site)) => mix(u64::from(*site) | 1 << 63),
            None if is_v4(number) => mix((number as u64 & 0xffff_ffff) >> 8),
            None => mix((number >> 80) as u64 | 1 << 62),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn is_v4(number: u128) -> bool {
    Ipv6Addr::from_bits(number).to_ipv4_mapped().is_some()
}

/// Spreads a number over all bits: the finalizer of splitmix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number
/// Generators", OOPSLA 2014). It needs no key: whoever finds addresses that collide has them taken for one destination,
/// and there are cheaper ways to visit one destination.
pub(super) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites() -> Sites {
        let networks = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        Sites::new(&[
            ("one".into(), networks(&["198.51.100.0/24", "192.0.0.0/8", "2001:db8::/32"])),
            ("two".into(), networks(&["203.0.113.128/25"])),
        ])
    }

    #[test]
    fn a_prefix_is_one_destination_and_a_site_with_many_is_one_too() {
        let sites = sites();
        let same = |a: &str, b: &str| sites.of(a.parse().unwrap()) == sites.of(b.parse().unwrap());
        assert!(same("10.1.2.3", "10.1.2.250"));
        assert!(same("10.1.2.3", "::ffff:10.1.2.9"));
        assert!(!same("10.1.2.3", "10.1.3.3"));
        assert!(same("2a00:1:2:3::1", "2a00:1:2:4::9"));
        assert!(!same("2a00:1:2:3::1", "2a00:1:3:3::1"));
        assert!(same("198.51.100.7", "2001:db8:77::1"));
        assert!(same("198.51.100.7", "192.77.0.1"));
        assert!(!same("203.0.113.1", "203.0.113.200"));
        assert!(same("203.0.113.130", "203.0.113.200"));
    }
}
