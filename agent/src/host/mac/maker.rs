//! Who has made a network card, out of the table that build/makers.rs writes.

use super::Mac;

/// The blocks, nine bytes each.
static BLOCKS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/makers.blocks"));
/// The makers' names, each ended by a new line.
static NAMES: &str = include_str!(concat!(env!("OUT_DIR"), "/makers.names"));
/// How many bits the blocks of the registries have (MA-S and IAB, MA-M, MA-L), the smallest blocks first: a big one may
/// be divided.
const BITS: [u32; 3] = [36, 28, 24];

/// The maker of the smallest registered block that an address is in.
pub(super) fn maker(mac: Mac) -> Option<&'static str> {
    let (blocks, _) = BLOCKS.as_chunks::<9>();
    let [a, b, c, d, e, f] = mac.0;
    let number = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    let place = BITS.iter().find_map(|bits| {
        let prefix = number >> (48 - bits) << (36 - bits);
        let [_, _, key @ ..] = (prefix << 8 | u64::from(*bits)).to_be_bytes();
        let found = blocks.binary_search_by(|[a, b, c, d, e, f, ..]| [*a, *b, *c, *d, *e, *f].cmp(&key)).ok()?;
        let [.., x, y, z] = blocks.get(found)?;
        usize::try_from(u32::from_be_bytes([0, *x, *y, *z])).ok()
    })?;
    NAMES.get(place..)?.lines().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole_and_sorted_and_small() {
        let (blocks, rest) = BLOCKS.as_chunks::<9>();
        assert!(blocks.is_sorted() && rest.is_empty());
        assert!(blocks.len() > 50_000, "{}", blocks.len());
        assert!(BLOCKS.len() + NAMES.len() < 2 << 20, "{} and {} bytes", BLOCKS.len(), NAMES.len());
        for [.., x, y, z] in blocks {
            let place = u32::from_be_bytes([0, *x, *y, *z]) as usize;
            assert!(place == 0 || NAMES.as_bytes()[place - 1] == b'\n');
        }
    }
}
