//! The table of LAN sources is bounded, so those that have not tried for long are taken out of it, and their counts kept by
//! network.
//!
//! No count may be lost or doubled by that, whatever comes meanwhile and wherever the agent is killed:
//!
//! 1. The keys that go are written to `PR_LAN_LEAVING`: who looks for one of them from there on counts beside it
//!    (`LAN_BESIDE`). After the programs that may not have seen that are waited for, nobody counts in their entries.
//! 2. Each is moved on its own: first `PR_LAN_MOVE` says what the sum in `PR_OLD_SOURCES` will be, then it is written
//!    there, then the entry is deleted. All of that can be done a second time, and is when an agent starts.
//! 3. `PR_LAN_LEAVING` is emptied.
//!
//! The reader adds up a source's entry, the one beside it, and the kept one.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use aya::maps::MapData;
use portreeve_abi::{
    LAN_BESIDE, LAN_COME, LAN_GONE, LAN_LEAVING, LanMove, LanSource, MOVE_COUNTED, MOVE_KEPT, MOVE_NONE, SubjectCount,
};

use super::carry::added;
use super::guard::Guard;
use super::{KernelError, sys};
use crate::clock::Clock;
use crate::host::links;

const SOURCES: &str = "PR_LAN_SOURCES";
const KEPT: &str = "PR_OLD_SOURCES";
const LEAVING: &str = "PR_LAN_LEAVING";
const MOVE: &str = "PR_LAN_MOVE";
const KNOWN: &str = "PR_LAN_KNOWN";
/// The entries of `PR_LAN_SOURCES` and of `PR_OLD_SOURCES`.
const ENTRIES: usize = 16_384;
/// Two entries for all IPv4 and all IPv6 sources together always have room.
const ROOM: usize = ENTRIES - 2;
/// How long sources are kept when the table is nearly full: longer than a kernel repeats the SYN of one connection (127
/// seconds, `tcp_syn_retries`, ip-sysctl.rst), so that who is still trying stays.
const CROWDED: Duration = Duration::from_secs(300);

type Counts = HashMap<LanSource, SubjectCount>;

impl Guard {
    /// The LAN interfaces, by their index.
    #[must_use]
    pub fn lan_interfaces(&self) -> Vec<u32> {
        self.frames.lan_devices.keys().copied().collect()
    }

    /// The counters of every LAN host, and of every network where there were too many of them or they were not seen for
    /// long.
    ///
    /// # Errors
    ///
    /// Those of the maps.
    pub fn lan_sources(&mut self) -> Result<Vec<(LanSource, SubjectCount)>, KernelError> {
        let mut sum = self.counts(KEPT)?;
        for (key, count) in self.counts(SOURCES)? {
            put(&mut sum, of(key), &count);
        }
        Ok(sum.into_iter().collect())
    }

    /// Takes out sources that have not tried for `age`, or for less when more than three quarters of the `most` hosts or
    /// of the table are there, and those of interfaces that are gone. Returns whether there are more of them.
    ///
    /// # Errors
    ///
    /// Those of the maps. The counts stay exact.
    pub fn forget_lan_sources(&mut self, age: Duration, most: u32) -> Result<bool, KernelError> {
        self.finish_forgetting()?;
        let now = Clock::now().boot;
        let counted = self.tell_known()?;
        let hosts = counted.keys().filter(|key| is_host(key)).count();
        let crowded = nearly(hosts, most as usize) || nearly(counted.len(), ENTRIES);
        let age = if crowded { age.min(CROWDED) } else { age };
        let before = now.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        let interfaces = Interfaces::now();
        let (leaving, more) = oldest(&counted, before, &interfaces);
        let mut kept = self.counts(KEPT)?;
        self.forget_kept(&mut kept, before, &interfaces)?;
        if leaving.is_empty() {
            return Ok(false);
        }
        let mut map = self.hash::<LanSource, u32>(LEAVING)?;
        for key in &leaving {
            map.insert(key, 1, 0).map_err(|source| KernelError::map(LEAVING, source))?;
        }
        sys::wait_for_running_programs();
        for key in &leaving {
            let count = self.hash::<LanSource, SubjectCount>(SOURCES)?.get(key, 0);
            let count = count.map_err(|source| KernelError::map(SOURCES, source))?;
            let network = network(&of(*key), interfaces.is_there(key.interface));
            self.move_count(MOVE_COUNTED, key, &count, network, &mut kept)?;
        }
        tracing::debug!("{} LAN sources were not seen for long: they are counted by network", leaving.len());
        self.finish_forgetting()?;
        self.tell_known()?;
        Ok(more)
    }

    /// Does what an agent that died meanwhile, or a step that failed, has left undone.
    ///
    /// # Errors
    ///
    /// Those of the maps.
    pub fn finish_forgetting(&mut self) -> Result<(), KernelError> {
        let moved = self.array::<LanMove>(MOVE)?.get(&0, 0).map_err(|source| KernelError::map(MOVE, source))?;
        if moved.of != MOVE_NONE {
            self.carry_out(&moved)?;
        }
        let mut leaving = self.hash::<LanSource, u32>(LEAVING)?;
        let keys: Vec<LanSource> =
            leaving.keys().collect::<Result<_, _>>().map_err(|source| KernelError::map(LEAVING, source))?;
        for key in keys {
            leaving.remove(&key).map_err(|source| KernelError::map(LEAVING, source))?;
        }
        Ok(())
    }

    /// Adds the counters of another layout's sources.
    pub(super) fn keep_sources(&mut self, more: &Counts) -> Result<(), KernelError> {
        let mut kept = self.counts(KEPT)?;
        for (key, count) in more {
            let key = room(&kept, of(*key));
            let sum = put(&mut kept, key, count);
            let mut map = self.hash::<LanSource, SubjectCount>(KEPT)?;
            map.insert(key, sum, 0).map_err(|source| KernelError::map(KEPT, source))?;
        }
        Ok(())
    }

    /// Kept hosts, which another layout's were, go to their networks likewise; and networks to one entry for all when
    /// room gets scarce. No program counts there.
    fn forget_kept(&mut self, kept: &mut Counts, before: u64, interfaces: &Interfaces) -> Result<(), KernelError> {
        let crowded = nearly(kept.len(), ENTRIES);
        let old = kept.iter().filter(|(key, count)| count.last < before && (is_host(key) || crowded && !is_all(key)));
        let old: Vec<(LanSource, SubjectCount)> =
            old.take(LAN_LEAVING as usize).map(|(key, count)| (*key, *count)).collect();
        for (key, count) in old {
            let there = interfaces.is_there(key.interface);
            let to = if is_host(&key) { network(&key, there) } else { all(&key) };
            self.move_count(MOVE_KEPT, &key, &count, to, kept)?;
        }
        Ok(())
    }

    /// Moves one entry's count to a kept one, or to the one for all where there is no room for that.
    fn move_count(
        &mut self,
        of: u32,
        from: &LanSource,
        count: &SubjectCount,
        to: LanSource,
        kept: &mut Counts,
    ) -> Result<(), KernelError> {
        let to = room(kept, to);
        if of == MOVE_KEPT {
            kept.remove(from);
        }
        let sum = put(kept, to, count);
        let moved = LanMove { of, _pad: 0, from: *from, to, sum };
        self.array(MOVE)?.set(0, moved, 0).map_err(|source| KernelError::map(MOVE, source))?;
        self.carry_out(&moved)
    }

    fn carry_out(&mut self, moved: &LanMove) -> Result<(), KernelError> {
        let mut kept = self.hash::<LanSource, SubjectCount>(KEPT)?;
        kept.insert(moved.to, moved.sum, 0).map_err(|source| KernelError::map(KEPT, source))?;
        let table = if moved.of == MOVE_KEPT { KEPT } else { SOURCES };
        let mut map: aya::maps::HashMap<&mut MapData, LanSource, SubjectCount> = self.hash(table)?;
        match map.remove(&moved.from) {
            // Done by the agent before.
            Ok(()) | Err(aya::maps::MapError::KeyNotFound) => {}
            Err(aya::maps::MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(source) => return Err(KernelError::map(table, source)),
        }
        self.array(MOVE)?.set(0, LanMove::default(), 0).map_err(|source| KernelError::map(MOVE, source))
    }

    /// Tells the programs how many hosts have gone, and returns what there is. The number that have come is read first:
    /// those that come meanwhile make the bound stricter, not looser.
    fn tell_known(&mut self) -> Result<Counts, KernelError> {
        let come = self.array::<u64>(KNOWN)?.get(&LAN_COME, 0).map_err(|source| KernelError::map(KNOWN, source))?;
        let counted = self.counts(SOURCES)?;
        let hosts = counted.keys().filter(|key| is_host(key)).count() as u64;
        let gone = come.saturating_sub(hosts);
        self.array(KNOWN)?.set(LAN_GONE, gone, 0).map_err(|source| KernelError::map(KNOWN, source))?;
        Ok(counted)
    }

    fn counts(&mut self, name: &'static str) -> Result<Counts, KernelError> {
        let map = self.hash::<LanSource, SubjectCount>(name)?;
        map.iter().collect::<Result<_, _>>().map_err(|source| KernelError::map(name, source))
    }
}

/// The sources of another layout's tables, when a move there was not finished.
pub(super) fn settled(mut counted: Counts, mut kept: Counts, moved: &LanMove) -> Counts {
    if moved.of != MOVE_NONE {
        kept.insert(moved.to, moved.sum);
        if moved.of == MOVE_KEPT {
            kept.remove(&moved.from)
        } else {
            counted.remove(&moved.from)
        };
    }
    for (key, count) in counted {
        put(&mut kept, of(key), &count);
    }
    kept
}

/// The interfaces that there are; `None` where that is not known, and none counts as gone.
struct Interfaces(Option<BTreeSet<u32>>);

impl Interfaces {
    fn now() -> Self {
        let found = links().inspect_err(|error| tracing::warn!("which interfaces there are is not known: {error}"));
        Self(found.ok().map(|found| found.iter().map(|link| link.index).collect()))
    }

    fn is_there(&self, index: u32) -> bool {
        // 0 stands for those that are gone.
        index == 0 || self.0.as_ref().is_none_or(|there| there.contains(&index))
    }
}

/// The entries that are to go, the oldest first, and whether there are more than go at once. Never an entry together with
/// the one beside it, which is counted in meanwhile.
fn oldest(counted: &Counts, before: u64, interfaces: &Interfaces) -> (Vec<LanSource>, bool) {
    let goes = |key: &LanSource, count: &SubjectCount| count.last < before || !interfaces.is_there(key.interface);
    let mut old = Vec::new();
    for (key, count) in counted {
        let other = if key.prefix & LAN_BESIDE == 0 { None } else { counted.get(&of(*key)) };
        if goes(key, count) && !other.is_some_and(|other| goes(key, other)) {
            old.push((count.last, *key));
        }
    }
    old.sort_unstable_by_key(|(last, _)| *last);
    let more = old.len() > LAN_LEAVING as usize;
    old.truncate(LAN_LEAVING as usize);
    (old.into_iter().map(|(_, key)| key).collect(), more)
}

/// More than three quarters.
fn nearly(count: usize, most: usize) -> bool {
    count.saturating_mul(4) > most.saturating_mul(3)
}

fn put(counts: &mut Counts, key: LanSource, more: &SubjectCount) -> SubjectCount {
    *counts.entry(key).and_modify(|sum| *sum = added(sum, more)).or_insert(*more)
}

/// Whose entry it is, be it the one beside or not.
fn of(key: LanSource) -> LanSource {
    LanSource { prefix: key.prefix & !LAN_BESIDE, ..key }
}

fn is_host(key: &LanSource) -> bool {
    key.prefix & !LAN_BESIDE == 128
}

/// Where a kept count finds room.
fn room(kept: &Counts, key: LanSource) -> LanSource {
    if kept.len() < ROOM || kept.contains_key(&key) { key } else { all(&key) }
}

/// The network of a source, as the programs make it; of one behind an interface that is gone, behind none.
fn network(key: &LanSource, there: bool) -> LanSource {
    let mut network =
        if is_host(key) { LanSource { mac: [0; 6], ..masked(key, if is_v4(key) { 120 } else { 64 }) } } else { *key };
    if !there {
        network.interface = 0;
    }
    network
}

/// All sources of its family.
fn all(key: &LanSource) -> LanSource {
    LanSource { mac: [0; 6], interface: 0, vlan: 0, ..masked(key, if is_v4(key) { 96 } else { 0 }) }
}

fn is_all(key: &LanSource) -> bool {
    *key == all(key)
}

fn is_v4(key: &LanSource) -> bool {
    matches!(key.address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, _, _, _, _])
}

/// With the bits behind the prefix zero; the prefix in whole bytes.
fn masked(key: &LanSource, prefix: u16) -> LanSource {
    let mut address = key.address;
    for byte in address.iter_mut().skip(usize::from(prefix / 8)) {
        *byte = 0;
    }
    LanSource { address, prefix, ..*key }
}

#[cfg(test)]
#[path = "forget/tests.rs"]
mod tests;
