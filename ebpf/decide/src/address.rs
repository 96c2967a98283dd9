//! Addresses as 16 bytes, IPv4 in its mapped form.

/// An IPv4 address in its IPv4-mapped form (RFC 4291 §2.5.5.2), so that both spellings get one verdict.
#[must_use]
#[inline(always)]
pub fn mapped(v4: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]]
}

/// Whether a `connect()` to this address ends on this host's own loopback.
///
/// 127.0.0.0/8 (RFC 1122 §3.2.1.3) and ::1 (RFC 4291 §2.5.3), and the unspecified addresses: the kernel replaces
/// 0.0.0.0 by an address of its own (`ip_route_output_key_hash_rcu`, net/ipv4/route.c) and :: by the loopback
/// (`tcp_v6_connect`, net/ipv6/tcp_ipv6.c).
#[must_use]
#[inline(always)]
pub fn is_local(address: &[u8; 16]) -> bool {
    let high = u64::from_be_bytes([
        address[0], address[1], address[2], address[3], address[4], address[5], address[6], address[7],
    ]);
    let low = u64::from_be_bytes([
        address[8],
        address[9],
        address[10],
        address[11],
        address[12],
        address[13],
        address[14],
        address[15],
    ]);
    if high != 0 {
        return false;
    }
    let v4_any = low == 0x0000_ffff_0000_0000;
    let v4_loopback = low >> 24 == 0x00ff_ff7f;
    low <= 1 || v4_any || v4_loopback
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_local_in_every_spelling() {
        for v4 in [[127, 0, 0, 1], [127, 255, 255, 255], [127, 0, 0, 0], [0, 0, 0, 0]] {
            assert!(is_local(&mapped(v4)), "{v4:?}");
        }
        assert!(is_local(&[0; 16]));
        let mut one = [0; 16];
        one[15] = 1;
        assert!(is_local(&one));
    }

    #[test]
    fn neighbours_of_the_loopback_are_not_local() {
        for v4 in [[126, 255, 255, 255], [128, 0, 0, 0], [0, 0, 0, 1], [10, 0, 0, 1]] {
            assert!(!is_local(&mapped(v4)), "{v4:?}");
        }
        let mut two = [0; 16];
        two[15] = 2;
        assert!(!is_local(&two));
        // ::127.0.0.1, the deprecated IPv4-compatible form, is no loopback address.
        let mut compatible = [0; 16];
        compatible[12] = 127;
        compatible[15] = 1;
        assert!(!is_local(&compatible));
        // 1::ffff:127.0.0.1
        let mut high = mapped([127, 0, 0, 1]);
        high[1] = 1;
        assert!(!is_local(&high));
    }
}
