//! What an agent of another map layout has left: its counters are taken along, once.
//!
//! They go into maps of their own, which the programs do not touch, so that taking them along loses no count that is
//! made meanwhile. The reader adds both.

use std::fs;
use std::io;
use std::path::Path;

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use portreeve_abi::{LanMove, LanSource, SubjectCount, SubjectKey, Tally, Total};

use super::guard::Guard;
use super::{KernelError, forget, sys};

/// Counters of another layout.
#[derive(Debug, Default)]
struct Counters {
    totals: Tally,
    subjects: Vec<(SubjectKey, SubjectCount)>,
    sources: std::collections::HashMap<LanSource, SubjectCount>,
}

impl Guard {
    /// Takes over the counters of the instance's other map folders, and removes those. To be called once this agent's
    /// programs are behind every link, so that nobody counts there any more.
    ///
    /// An agent that is killed between the two steps has them taken along twice.
    ///
    /// # Errors
    ///
    /// When they cannot be read or written; the folders stay then.
    pub fn carry_over(&mut self) -> Result<(), KernelError> {
        let fail = |source| KernelError::Pin { path: self.pins.clone(), source };
        let mut others = Vec::new();
        for entry in fs::read_dir(&self.pins).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let version = name.strip_prefix('v').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
            if version && path != self.map_pins {
                others.push(path);
            }
        }
        if !others.is_empty() {
            // The last of the programs before may still be counting.
            sys::wait_for_running_programs();
        }
        for folder in others {
            self.carry(&counters(&folder))?;
            tracing::info!("counters taken over from {}", folder.display());
            fs::remove_dir_all(&folder).map_err(|source| KernelError::Pin { path: folder, source })?;
        }
        Ok(())
    }

    fn carry(&mut self, counters: &Counters) -> Result<(), KernelError> {
        const TOTALS: &str = "PR_OLD_TOTALS";
        const SUBJECTS: &str = "PR_OLD_SUBJECTS";
        let mut totals: Array<_, u64> = self.array(TOTALS)?;
        for (index, more) in (0..).zip(counters.totals) {
            let before = totals.get(&index, 0).map_err(|source| KernelError::map(TOTALS, source))?;
            totals.set(index, before + more, 0).map_err(|source| KernelError::map(TOTALS, source))?;
        }
        let mut subjects: HashMap<_, SubjectKey, SubjectCount> = self.hash(SUBJECTS)?;
        for (key, more) in &counters.subjects {
            let before = subjects.get(key, 0).ok();
            let sum = before.map_or(*more, |before| added(&before, more));
            subjects.insert(key, sum, 0).map_err(|source| KernelError::map(SUBJECTS, source))?;
        }
        self.keep_sources(&counters.sources)
    }

    /// The totals taken over from other layouts.
    pub(super) fn carried_totals(&mut self) -> Result<Tally, KernelError> {
        let map: Array<_, u64> = self.array("PR_OLD_TOTALS")?;
        let mut tally = Tally::default();
        for (index, total) in (0..Total::COUNT).zip(&mut tally) {
            *total = map.get(&index, 0).map_err(|source| KernelError::map("PR_OLD_TOTALS", source))?;
        }
        Ok(tally)
    }

    /// The subjects' counters taken over from other layouts.
    pub(super) fn carried_subjects(&mut self) -> Result<Vec<(SubjectKey, SubjectCount)>, KernelError> {
        let map: HashMap<_, SubjectKey, SubjectCount> = self.hash("PR_OLD_SUBJECTS")?;
        map.iter().collect::<Result<_, _>>().map_err(|source| KernelError::map("PR_OLD_SUBJECTS", source))
    }
}

/// Two counts of one subject, as one.
pub(super) fn added(a: &SubjectCount, b: &SubjectCount) -> SubjectCount {
    let mut verdicts = a.verdicts;
    for (sum, more) in verdicts.iter_mut().zip(b.verdicts) {
        *sum += more;
    }
    SubjectCount { verdicts, first: a.first.min(b.first), last: a.last.max(b.last) }
}

/// The counters in a folder of maps, as far as they are of the form that has been the same since layout 1: a later one
/// only adds totals behind those that there are.
fn counters(folder: &Path) -> Counters {
    let mut counters = Counters::default();
    let pinned = |name: &str| MapData::from_pin(folder.join(name));
    let warn = |error: &dyn std::fmt::Display| tracing::warn!("counters in {} are lost: {error}", folder.display());
    for (per_cpu, name) in [(true, "PR_TOTALS"), (false, "PR_OLD_TOTALS")] {
        match pinned(name).map_err(io::Error::other).and_then(|map| totals(map, per_cpu)) {
            Ok(totals) => {
                for (sum, more) in counters.totals.iter_mut().zip(totals) {
                    *sum += more;
                }
            }
            // Layout 1 took nothing over.
            Err(_) if !per_cpu => {}
            Err(error) => warn(&error),
        }
    }
    for (name, since_1) in [("PR_SUBJECTS", true), ("PR_OLD_SUBJECTS", false)] {
        match entries(pinned(name)) {
            Ok(subjects) => counters.subjects.extend(subjects),
            Err(error) if since_1 => warn(&error),
            Err(_) => {}
        }
    }
    counters.sources = sources(folder).unwrap_or_else(|error| {
        warn(&error);
        std::collections::HashMap::default()
    });
    counters
}

/// Those of LAN hosts. Layout 4 was the first to have them, and took none out.
fn sources(folder: &Path) -> io::Result<std::collections::HashMap<LanSource, SubjectCount>> {
    let pinned = |name: &str| {
        let path = folder.join(name);
        path.exists().then(|| MapData::from_pin(path).map_err(io::Error::other)).transpose()
    };
    let counts = |name: &str| -> io::Result<std::collections::HashMap<_, _>> {
        let found = pinned(name)?.map(|map| entries(Ok(map))).transpose()?;
        Ok(found.unwrap_or_default().into_iter().collect())
    };
    let moved = match pinned("PR_LAN_MOVE")? {
        Some(map) => {
            let map: Array<_, LanMove> = Map::Array(map).try_into().map_err(io::Error::other)?;
            map.get(&0, 0).map_err(io::Error::other)?
        }
        None => LanMove::default(),
    };
    Ok(forget::settled(counts("PR_LAN_SOURCES")?, counts("PR_OLD_SOURCES")?, &moved))
}

fn entries<K: Pod, V: Pod>(map: Result<MapData, aya::maps::MapError>) -> io::Result<Vec<(K, V)>> {
    let map = map.map_err(io::Error::other)?;
    let map: HashMap<_, K, V> = Map::HashMap(map).try_into().map_err(io::Error::other)?;
    map.iter().collect::<Result<_, _>>().map_err(io::Error::other)
}

fn totals(map: MapData, per_cpu: bool) -> io::Result<Vec<u64>> {
    let known = |len: u32| 0..len.min(Total::COUNT);
    if per_cpu {
        let map: PerCpuArray<_, u64> = Map::PerCpuArray(map).try_into().map_err(io::Error::other)?;
        let sum = |index| map.get(&index, 0).map(|values| values.iter().sum()).map_err(io::Error::other);
        known(map.len()).map(sum).collect()
    } else {
        let map: Array<_, u64> = Map::Array(map).try_into().map_err(io::Error::other)?;
        known(map.len()).map(|index| map.get(&index, 0).map_err(io::Error::other)).collect()
    }
}
