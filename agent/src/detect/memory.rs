//! What a subject has met before, in constant room.
//!
//! A Bloom filter (Bloom, CACM 13(7), 1970) knows everything ever met: with its 1024 bits and 3 hashes one of a hundred
//! new ones is taken for known at 85 entries (`(1 - e^(-3n/1024))^3`), which is in the subject's favour. A few slots know
//! the latest of them better: when each was last counted, and how much credit it has given.

use serde::{Deserialize, Serialize};

/// How many of the latest are known well.
const SLOTS: usize = 18;
/// Words of the Bloom filter.
const WORDS: usize = 16;
/// How often one known thing may speak in the subject's favour, ever. Enough for a program that retries to drift to
/// innocence: three are worth more than the one first contact before them. And no more, so that a bot cannot buy
/// innocence by knocking at one door between victims (Mell & Harang, "Limitations to Threshold Random Walk Scan Detection
/// and Mitigating Enhancements", IEEE CNS 2013, show how plain TRW is circumvented like that).
pub(super) const CREDIT: u8 = 3;

/// What was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Memory {
    slots: [Slot; SLOTS],
    bloom: [u64; WORDS],
    /// How many different things were met.
    pub(super) distinct: u32,
}

/// One of the latest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Slot {
    /// The upper half of its hash; 0 for a slot not used.
    tag: u32,
    /// The stretch of ten minutes in which it was last counted since 1970, 24 bits, and the credit it has given, 8 bits.
    when_and_credit: u32,
}

/// What a meeting was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// The first.
    New,
    /// A repeat that speaks in the subject's favour.
    Credit,
    /// A repeat within the same stretch of time, or after its credit was used up.
    Known,
}

impl Memory {
    /// Meets something, by a hash of it, in a stretch of time, counted from 1970. Repeats within one do not count, so that a
    /// bot that sends a few mails by each of its victims' accounts gets no credit for them.
    pub(super) fn meet(&mut self, hash: u64, stretch: u32) -> Meeting {
        let (tag, stretch) = (tag(hash), stretch & 0x00ff_ffff);
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.tag == tag) {
            let credit = slot.when_and_credit as u8;
            if slot.when_and_credit >> 8 == stretch {
                return Meeting::Known;
            }
            if credit >= CREDIT {
                // Still one of the latest.
                slot.when_and_credit = stretch << 8 | u32::from(credit);
                return Meeting::Known;
            }
            slot.when_and_credit = stretch << 8 | u32::from(credit + 1);
            return Meeting::Credit;
        }
        let known = self.knows(hash);
        // One that comes back after many others may speak once more: its slot is gone, and so is the count.
        let credit = if known { CREDIT } else { 0 };
        self.put(Slot { tag, when_and_credit: stretch << 8 | u32::from(credit) });
        if known {
            return Meeting::Credit;
        }
        self.learn(hash);
        Meeting::New
    }

    /// Whether something was met before.
    pub(super) fn knows(&self, hash: u64) -> bool {
        bits(hash).into_iter().all(|(word, bit)| self.bloom[word] & bit != 0)
    }

    /// Knows something from now on.
    pub(super) fn learn(&mut self, hash: u64) {
        for (word, bit) in bits(hash) {
            self.bloom[word] |= bit;
        }
        self.distinct = self.distinct.saturating_add(1);
    }

    /// In place of the one that was counted longest ago.
    fn put(&mut self, new: Slot) {
        if let Some(oldest) = self.slots.iter_mut().min_by_key(|slot| slot.when_and_credit >> 8) {
            *oldest = new;
        }
    }
}

fn tag(hash: u64) -> u32 {
    ((hash >> 32) as u32).max(1)
}

/// Three places in the filter, from the lower half of the hash (Kirsch & Mitzenmacher, "Less Hashing, Same Performance",
/// ESA 2006).
fn bits(hash: u64) -> [(usize, u64); 3] {
    let (a, b) = (hash as u32, (hash >> 20) as u32 | 1);
    [0_u32, 1, 2].map(|i| {
        let place = a.wrapping_add(b.wrapping_mul(i)) as usize % (WORDS * 64);
        (place / 64, 1 << (place % 64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// splitmix64 (Steele, Lea, Flood 2014).
    fn hash(n: u64) -> u64 {
        let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[test]
    fn one_thing_gives_credit_once_in_a_stretch_and_three_times_in_all() {
        use Meeting::{Credit, Known, New};
        let mut memory = Memory::default();
        assert_eq!([(); 2].map(|()| memory.meet(hash(1), 10)), [New, Known]);
        let later: Vec<Meeting> = (11..16).map(|stretch| memory.meet(hash(1), stretch)).collect();
        assert_eq!(later, [Credit, Credit, Credit, Known, Known]);
        assert_eq!(memory.distinct, 1);
    }

    #[test]
    fn an_old_acquaintance_is_known_and_gives_little() {
        let mut memory = Memory::default();
        for n in 0..60 {
            memory.meet(hash(n), n as u32);
        }
        assert!(memory.distinct >= 59);
        assert_eq!(memory.meet(hash(0), 100), Meeting::Credit);
        assert_eq!(memory.meet(hash(0), 101), Meeting::Known);
    }

    #[test]
    fn few_of_a_hundred_new_things_are_taken_for_known() {
        let mut memory = Memory::default();
        let new = (0..100).filter(|n| memory.meet(hash(*n), 1) == Meeting::New).count();
        assert!(new >= 97, "{new}");
    }
}
