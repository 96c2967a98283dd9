//! Sets of rules as bit vectors (Lakshman & Stiliadis, "High-speed policy-based packet forwarding using efficient
//! multi-dimensional range matching", SIGCOMM 1998).

/// The largest number of rules in a policy.
pub const MAX_RULES: usize = 256;
/// The 64-bit words of a [`RuleSet`].
pub const WORDS: usize = MAX_RULES / 64;
/// In an event: no rule decided.
pub const RULE_NONE: u32 = 0xffff;
/// In an event: the exemption for mail handed to this host's own loopback decided.
pub const RULE_LOCAL: u32 = 0xfffe;

/// A set of rules; bit `i` stands for the policy's rule number `i`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RuleSet(pub [u64; WORDS]);

const _: () = assert!(size_of::<RuleSet>() == 32 && align_of::<RuleSet>() == 8);

impl RuleSet {
    /// The set without members.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// Adds rule `index`; an index of [`MAX_RULES`] or more changes nothing.
    pub fn insert(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    /// The set of one rule, without a loop; empty for a number of [`MAX_RULES`] or more.
    #[must_use]
    #[inline(always)]
    pub fn of(rule: u32) -> Self {
        let bit = 1 << (rule & 63);
        let word = |number: u32| if rule >> 6 == number { bit } else { 0 };
        Self([word(0), word(1), word(2), word(3)])
    }

    /// Whether rule `index` is a member.
    #[must_use]
    pub fn contains(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// The members of either set.
    #[must_use]
    #[inline(always)]
    pub fn or(self, other: Self) -> Self {
        let (a, b) = (self.0, other.0);
        Self([a[0] | b[0], a[1] | b[1], a[2] | b[2], a[3] | b[3]])
    }

    /// The members of both sets.
    #[must_use]
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        let (a, b) = (self.0, other.0);
        Self([a[0] & b[0], a[1] & b[1], a[2] & b[2], a[3] & b[3]])
    }

    /// The members of this set that are not in `other`.
    #[must_use]
    #[inline(always)]
    pub fn without(self, other: Self) -> Self {
        let (a, b) = (self.0, other.0);
        Self([a[0] & !b[0], a[1] & !b[1], a[2] & !b[2], a[3] & !b[3]])
    }

    /// Whether the set has no member.
    #[must_use]
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        let a = self.0;
        a[0] | a[1] | a[2] | a[3] == 0
    }

    /// The lowest member.
    ///
    /// Written without a loop and without a count-trailing-zeros instruction, which BPF does not have.
    #[must_use]
    #[inline(always)]
    pub fn lowest(&self) -> Option<u32> {
        let a = self.0;
        let (word, base) = if a[0] != 0 {
            (a[0], 0)
        } else if a[1] != 0 {
            (a[1], 64)
        } else if a[2] != 0 {
            (a[2], 128)
        } else if a[3] != 0 {
            (a[3], 192)
        } else {
            return None;
        };
        Some(base + lowest_bit(word))
    }
}

/// The index of the lowest one-bit of a word that has one, by halving.
#[inline(always)]
fn lowest_bit(mut word: u64) -> u32 {
    let mut index = 0;
    if word & 0xffff_ffff == 0 {
        index += 32;
        word >>= 32;
    }
    if word & 0xffff == 0 {
        index += 16;
        word >>= 16;
    }
    if word & 0xff == 0 {
        index += 8;
        word >>= 8;
    }
    if word & 0xf == 0 {
        index += 4;
        word >>= 4;
    }
    if word & 0x3 == 0 {
        index += 2;
        word >>= 2;
    }
    if word & 0x1 == 0 {
        index += 1;
    }
    index
}

crate::pod!(RuleSet);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_finds_every_single_bit_and_ignores_higher_ones() {
        for index in 0..MAX_RULES {
            let mut set = RuleSet::EMPTY;
            set.insert(index);
            set.insert(MAX_RULES - 1);
            assert_eq!(set.lowest(), Some(index as u32));
            assert!(set.contains(index));
        }
        assert_eq!(RuleSet::EMPTY.lowest(), None);
    }

    #[test]
    fn an_index_out_of_range_is_no_member() {
        let mut set = RuleSet::EMPTY;
        set.insert(MAX_RULES);
        assert!(set.is_empty());
        assert!(!set.contains(MAX_RULES));
    }
}
