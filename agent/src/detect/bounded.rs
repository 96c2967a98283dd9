//! A table of a bounded size. Who comes when it is full takes the place of the least interesting.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// How many degrees of interest there are.
pub(super) const DEGREES: usize = 4;
/// No entry.
const NONE: u32 = u32::MAX;

/// What the table must know of an entry.
pub(super) trait Entry {
    /// Its key.
    fn key(&self) -> u64;
    /// How interesting it is, 0 the least, below [`DEGREES`].
    fn degree(&self) -> u8;
    /// When it was last used, in seconds since 1970.
    fn used(&self) -> u32;
}

/// The entries, each in the list of its degree, the one used last at its head.
#[derive(Debug)]
pub(super) struct Bounded<T> {
    places: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
    entries: Vec<Linked<T>>,
    heads: [u32; DEGREES],
    tails: [u32; DEGREES],
    most: usize,
    /// How many were let go of for others.
    pub(super) evicted: u64,
}

#[derive(Debug)]
struct Linked<T> {
    entry: T,
    before: u32,
    after: u32,
    degree: u8,
}

impl<T: Entry> Bounded<T> {
    /// An empty table for so many entries.
    pub(super) fn new(most: usize) -> Self {
        let most = most.clamp(1, NONE as usize - 1);
        Self {
            places: HashMap::default(),
            entries: Vec::new(),
            heads: [NONE; DEGREES],
            tails: [NONE; DEGREES],
            most,
            evicted: 0,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes an entry, with the share of the table that leads to it (hashbrown keeps at most 7 of 8 places in use, and one
    /// byte of its own a place).
    pub(super) const fn bytes_per_entry() -> usize {
        size_of::<Linked<T>>() + (size_of::<(u64, u32)>() + 1) * 16 / 7
    }

    /// The entry of a key, made by `new` if it is not there; `stale` seconds after its last use an entry is let go of
    /// before any other.
    pub(super) fn at(&mut self, key: u64, now: u32, stale: u32, new: impl FnOnce() -> T) -> (usize, bool) {
        if let Some(place) = self.places.get(&key) {
            return (*place as usize, false);
        }
        let linked = Linked { entry: new(), before: NONE, after: NONE, degree: 0 };
        let place = if self.entries.len() < self.most {
            self.entries.push(linked);
            (self.entries.len() - 1) as u32
        } else {
            let place = self.least_interesting(now, stale);
            self.unlink(place);
            self.evicted += 1;
            let old = std::mem::replace(&mut self.entries[place as usize], linked);
            self.places.remove(&old.entry.key());
            place
        };
        self.places.insert(key, place);
        self.link(place);
        (place as usize, true)
    }

    /// The entry at a place that [`Self::at`] has told.
    pub(super) fn entry(&mut self, place: usize) -> &mut T {
        &mut self.entries[place].entry
    }

    /// Puts an entry where it belongs now that it was used.
    pub(super) fn used(&mut self, place: usize) {
        let linked = &mut self.entries[place];
        let degree = linked.entry.degree().min(DEGREES as u8 - 1);
        if linked.degree == degree && linked.before == NONE {
            return;
        }
        self.unlink(place as u32);
        self.entries[place].degree = degree;
        self.link(place as u32);
    }

    /// All entries, from the one that would be let go of first to the last; each degree after the one below.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &T> {
        (0..DEGREES).flat_map(move |degree| {
            let mut next = self.tails[degree];
            std::iter::from_fn(move || {
                let linked = self.entries.get(next as usize)?;
                next = linked.before;
                Some(&linked.entry)
            })
        })
    }

    fn least_interesting(&self, now: u32, stale: u32) -> u32 {
        let used = |place: u32| self.entries.get(place as usize).map_or(now, |linked| linked.entry.used());
        let old = self.tails.into_iter().find(|tail| now.saturating_sub(used(*tail)) > stale);
        old.or_else(|| self.tails.into_iter().find(|tail| *tail != NONE)).unwrap_or(0)
    }

    fn link(&mut self, place: u32) {
        let degree = usize::from(self.entries[place as usize].degree);
        let head = self.heads[degree];
        let linked = &mut self.entries[place as usize];
        (linked.before, linked.after) = (NONE, head);
        match self.entries.get_mut(head as usize) {
            Some(old) => old.before = place,
            None => self.tails[degree] = place,
        }
        self.heads[degree] = place;
    }

    fn unlink(&mut self, place: u32) {
        let Linked { before, after, degree, .. } = self.entries[place as usize];
        let degree = usize::from(degree);
        match self.entries.get_mut(before as usize) {
            Some(linked) => linked.after = after,
            None => self.heads[degree] = after,
        }
        match self.entries.get_mut(after as usize) {
            Some(linked) => linked.before = before,
            None => self.tails[degree] = before,
        }
    }
}

/// Keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    struct One(u64, u8, u32);

    impl Entry for One {
        fn key(&self) -> u64 {
            self.0
        }
        fn degree(&self) -> u8 {
            self.1
        }
        fn used(&self) -> u32 {
            self.2
        }
    }

    fn keys(table: &Bounded<One>) -> Vec<u64> {
        table.in_order().map(|one| one.0).collect()
    }

    #[test]
    fn the_least_interesting_goes_first_and_among_equals_the_one_not_used_longest() {
        let mut table = Bounded::new(3);
        for (key, degree) in [(1, 2), (2, 0), (3, 0)] {
            let (place, new) = table.at(key, 10, 100, || One(key, degree, 10));
            assert!(new);
            table.used(place);
        }
        let (place, _) = table.at(2, 11, 100, || unreachable!());
        table.used(place);
        table.at(4, 12, 100, || One(4, 0, 12));
        assert_eq!(keys(&table), [2, 4, 1], "3 is gone");
        // What was not used for long goes before all others, interesting or not.
        table.at(5, 200, 187, || One(5, 0, 200));
        assert_eq!((keys(&table), table.evicted), (vec![4, 5, 1], 2));
    }

    proptest! {
        #[test]
        fn it_never_grows_and_never_loses_count(
            most in 1_usize..20, calls in prop::collection::vec((0_u64..40, 0_u8..4), 0..400)
        ) {
            let mut table = Bounded::new(most);
            for (now, (key, degree)) in (0_u32..).zip(calls) {
                let (place, _) = table.at(key, now, 1000, || One(key, 0, now));
                *table.entry(place) = One(key, degree, now);
                table.used(place);
                prop_assert_eq!(table.entry(place).0, key);
                prop_assert!(table.len() <= most);
                prop_assert_eq!(table.in_order().count(), table.len());
                prop_assert_eq!(table.places.len(), table.len());
            }
        }
    }
}
