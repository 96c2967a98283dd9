//! The alerts in memory. No clock and no I/O: time comes in with the attempts or is given.
//!
//! One alert a subject: it opens with a finding, grows with every attempt, goes quiet, and comes back with its history.
//! Memory is bounded by [`MOST`]; what has to leave stays in the store, and here only its number.

mod destinations;
mod entry;
mod numbers;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use thiserror::Error;

use super::response::Deed;
use super::{Alert, Change, Filter, Occasion, Resolution, State, Told};
use crate::attempt::Attempt;
use crate::detect::{Finding, Severity, SubjectId};
use crate::subject::Member;
use entry::Entry;
use numbers::Numbers;

pub(in crate::alert) use entry::continued;

/// How many alerts are in memory, 4 KiB each at first, 30 KiB when everything that is bounded has reached its bound.
pub const MOST: usize = 10_000;
/// Of how many alerts outside memory the number is known, 32 bytes each. The store's bound by size comes long before.
const MOST_LEFT: usize = 500_000;
/// Who has done what nobody has ordered.
pub const PORTREEVE: &str = "portreeve";

/// The alerts.
#[derive(Debug)]
pub struct Book {
    entries: HashMap<u64, Entry>,
    by_subject: HashMap<SubjectId, u64>,
    left: HashMap<SubjectId, Left>,
    numbers: Numbers,
    most: usize,
    /// Numbers of alerts that have grown, and of those whose state has changed, since they were last given to the store.
    grown: Vec<u64>,
    changed: Vec<u64>,
    leaving: Vec<Save>,
}

/// An alert that is only in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its number.
    pub id: u64,
    /// Its state.
    pub state: State,
    /// Its severity.
    pub severity: Severity,
}

/// An alert for the store.
#[derive(Clone, Debug)]
pub struct Save {
    /// The alert.
    pub alert: Arc<Alert>,
    /// Something was done about it, which goes into the record of changes.
    pub changed: bool,
    /// The store has more of it: what is there is to be gone on from, not written over.
    pub partial: bool,
}

/// Why nothing was done about an alert.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// There is none of this number.
    #[error("there is no alert {0}; `portreeve alerts --all` lists them")]
    NoSuchAlert(u64),
    /// Somebody has already resolved it.
    #[error("alert {id} is already resolved as {resolution}; it opens again by itself if the subject comes back")]
    Resolved {
        /// The alert.
        id: u64,
        /// As what.
        resolution: Resolution,
    },
}

impl Default for Book {
    fn default() -> Self {
        Self::with_room(MOST)
    }
}

impl Book {
    /// A book for at most so many alerts.
    #[must_use]
    pub fn with_room(most: usize) -> Self {
        Self {
            entries: HashMap::new(),
            by_subject: HashMap::new(),
            left: HashMap::new(),
            numbers: Numbers::default(),
            most: most.max(1),
            grown: Vec::new(),
            changed: Vec::new(),
            leaving: Vec::new(),
        }
    }

    /// Takes an attempt and what was found at it. For a subject without an alert and without findings this is one look
    /// into a table.
    ///
    /// A finding about somebody else, the user behind ever new programs, counts the attempt for that alert too. `earlier`
    /// is asked for the subject's attempts that are still known, when an alert opens.
    pub fn attempt(
        &mut self,
        subject: SubjectId,
        attempt: &Attempt,
        findings: &[Finding],
        earlier: impl FnOnce() -> Vec<Arc<Attempt>>,
    ) -> Vec<Told> {
        self.count(subject, attempt);
        if findings.is_empty() {
            return Vec::new();
        }
        let mut earlier = Some(earlier);
        let mut about: Vec<SubjectId> = findings.iter().map(|finding| finding.subject).collect();
        about.sort_unstable();
        about.dedup();
        let mut told = Vec::new();
        for whom in about {
            let of_it: Vec<&Finding> = findings.iter().filter(|finding| finding.subject == whom).collect();
            let occasion = if let Some(id) = self.by_subject.get(&whom).copied() {
                if whom != subject {
                    self.count(whom, attempt);
                }
                let occasion = self.entries.get_mut(&id).and_then(|entry| entry.found(attempt, &of_it));
                occasion.map(|occasion| (id, occasion))
            } else {
                let known = if whom == subject { earlier.take().map(|ask| ask()) } else { None };
                Some(self.open(whom, attempt, &of_it, &known.unwrap_or_default()))
            };
            told.extend(occasion.and_then(|(id, occasion)| self.tell(id, occasion)));
        }
        told
    }

    /// Lets those go quiet that had no attempt for so many seconds.
    pub fn tick(&mut self, now: Timestamp, quiet: u32) -> Vec<Told> {
        let mut ids: Vec<u64> = Vec::new();
        for (id, entry) in &mut self.entries {
            if entry.quieten(now, i64::from(quiet)) {
                ids.push(*id);
            }
        }
        ids.sort_unstable();
        ids.into_iter().filter_map(|id| self.tell(id, Occasion::Quiet)).collect()
    }

    /// Somebody has looked at it.
    ///
    /// # Errors
    ///
    /// When there is no such alert in memory, or it is resolved.
    pub fn acknowledge(
        &mut self,
        id: u64,
        who: &str,
        note: Option<String>,
        now: Timestamp,
    ) -> Result<Told, ChangeError> {
        self.unresolved(id)?;
        self.change(id, Occasion::Acknowledged, |alert| {
            alert.state = State::Acknowledged;
            alert.note(Change { time: now, who: who.to_owned(), what: "acknowledged".to_owned(), note });
        })
    }

    /// Somebody says what it was.
    ///
    /// # Errors
    ///
    /// When there is no such alert in memory, or it is resolved.
    pub fn resolve(
        &mut self,
        id: u64,
        resolution: Resolution,
        who: &str,
        note: Option<String>,
        now: Timestamp,
    ) -> Result<Told, ChangeError> {
        self.unresolved(id)?;
        self.done_with(
            id,
            resolution,
            Change { time: now, who: who.to_owned(), what: format!("resolved as {resolution}"), note },
        )
    }

    /// Somebody has written a rule for the subject: `change` says which.
    ///
    /// # Errors
    ///
    /// When there is no such alert in memory.
    pub fn allowed(&mut self, id: u64, change: Change) -> Result<Told, ChangeError> {
        self.done_with(id, Resolution::Allowed, change)
    }

    /// The agent has done something about the subject by itself, or somebody has undone it.
    ///
    /// # Errors
    ///
    /// When there is no such alert in memory.
    pub fn responded(&mut self, id: u64, deeds: Vec<Deed>, change: Change) -> Result<Told, ChangeError> {
        self.change(id, Occasion::Responded, |alert| {
            alert.deeds = deeds;
            alert.note(change);
        })
    }

    /// The process tree at the worst moment; one of a process that has ended before it was looked at is no better than
    /// none.
    pub fn tree(&mut self, id: u64, tree: Vec<Member>) {
        if let Some(entry) = self.entries.get_mut(&id)
            && !tree.is_empty()
        {
            entry.alert.tree = tree;
            mark(&mut entry.grown, &mut self.grown, id);
        }
    }

    /// What was found out about the executable.
    pub fn identify(&mut self, id: u64, sha256: Option<String>, package: Option<String>) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.alert.sha256 = sha256.or(entry.alert.sha256.take());
            entry.alert.package = package.or(entry.alert.package.take());
            entry::advise(&mut entry.alert);
            mark(&mut entry.grown, &mut self.grown, id);
        }
    }

    /// An alert in memory, as it is now.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Arc<Alert>> {
        self.entries.get(&id).map(Entry::now)
    }

    /// The number of a subject's alert, in memory or not.
    #[must_use]
    pub fn of_subject(&self, subject: SubjectId) -> Option<u64> {
        self.by_subject.get(&subject).copied().or_else(|| self.left.get(&subject).map(|left| left.id))
    }

    /// The numbers of the alerts in memory that somebody asks for, the oldest first.
    #[must_use]
    pub fn matching(&self, filter: &Filter) -> Vec<u64> {
        let mut ids: Vec<u64> =
            self.entries.values().filter(|entry| filter.matches(&entry.alert)).map(|entry| entry.alert.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Whether alerts outside memory can be among those asked for.
    #[must_use]
    pub fn left_matching(&self, filter: &Filter) -> bool {
        self.left.values().any(|left| filter.has_state(left.state))
    }

    /// State and severity of every alert, in memory or not.
    pub fn tally(&self) -> impl Iterator<Item = (State, Severity)> {
        let here = self.entries.values().map(|entry| (entry.alert.state, entry.alert.severity));
        here.chain(self.left.values().map(|left| (left.state, left.severity)))
    }

    /// How many are only in the store.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.len()
    }

    /// The store has set apart numbers for new alerts: `from` and more, below `until`.
    pub fn numbers(&mut self, from: u64, until: u64) {
        self.numbers.apart(from, until);
    }

    /// Takes what the store has: alerts, and the numbers of those that stay there. What is in memory stays as it is.
    pub fn load(&mut self, alerts: Vec<Alert>, left: Vec<(SubjectId, Left)>) {
        for (subject, left) in left {
            self.numbers.used(left.id);
            self.left.insert(subject, left);
        }
        for alert in alerts {
            self.take_in(alert);
        }
    }

    /// Takes one alert that the store has, whole.
    pub fn recall(&mut self, old: Alert) {
        let id = old.id;
        match self.entries.get_mut(&id) {
            Some(entry) if entry.partial => {
                let (grown, changed) = (entry.grown, entry.changed);
                *entry = Entry::kept(continued(&old, &entry.now()));
                (entry.grown, entry.changed) = (grown, changed);
                mark(&mut entry.grown, &mut self.grown, id);
            }
            Some(_) => {}
            None => self.take_in(old),
        }
    }

    /// The store no longer has these alerts. One that has come back meanwhile stays.
    pub fn forget(&mut self, ids: &[u64]) {
        let over = |entry: &Entry| entry.alert.state == State::Resolved || entry.alert.quiet_since.is_some();
        for id in ids {
            if self.entries.get(id).is_some_and(over) {
                self.remove(*id);
            }
        }
        let gone: HashSet<u64> = ids.iter().copied().collect();
        self.left.retain(|_, left| !gone.contains(&left.id));
    }

    /// The store has lost everything and begins anew: it gets what is in memory.
    pub fn save_all(&mut self) {
        self.left.clear();
        for (id, entry) in &mut self.entries {
            entry.partial = false;
            mark(&mut entry.changed, &mut self.changed, *id);
        }
    }

    /// What is to be saved: everything whose state has changed or that has left memory, and up to `grown` of those that
    /// have only grown.
    pub fn to_save(&mut self, grown: usize) -> Vec<Save> {
        let mut saves = std::mem::take(&mut self.leaving);
        let mut ids = std::mem::take(&mut self.changed);
        ids.extend(self.grown.drain(..grown.min(self.grown.len())));
        for id in ids {
            // One that has changed and grown is saved once.
            if let Some(entry) = self.entries.get_mut(&id)
                && (entry.changed || entry.grown)
            {
                saves.push(save(entry));
            }
        }
        saves
    }

    fn count(&mut self, subject: SubjectId, attempt: &Attempt) {
        if let Some(id) = self.by_subject.get(&subject)
            && let Some(entry) = self.entries.get_mut(id)
        {
            entry.count(attempt);
            mark(&mut entry.grown, &mut self.grown, *id);
        }
    }

    fn open(
        &mut self,
        subject: SubjectId,
        attempt: &Attempt,
        findings: &[&Finding],
        earlier: &[Arc<Attempt>],
    ) -> (u64, Occasion) {
        let left = self.left.remove(&subject);
        let id = left.map_or_else(|| self.numbers.take(attempt.time), |left| left.id);
        let mut entry = Entry::open(id, subject, attempt, findings, earlier);
        entry.partial = left.is_some();
        if let Some(left) = left {
            // The rest of its history comes when the store has read it.
            entry.alert.severity = entry.alert.severity.max(left.severity);
            if let Some(opened) = entry.alert.history.first_mut() {
                "reopened".clone_into(&mut opened.what);
            }
        }
        self.make_room();
        self.entries.insert(id, entry);
        self.by_subject.insert(subject, id);
        (id, if left.is_some() { Occasion::Reopened } else { Occasion::Opened })
    }

    fn take_in(&mut self, alert: Alert) {
        let (id, subject) = (alert.id, alert.subject);
        self.numbers.used(id);
        if self.left.get(&subject).is_some_and(|left| left.id == id) {
            self.left.remove(&subject);
        }
        if self.entries.contains_key(&id) {
            return;
        }
        self.make_room();
        // A subject that was found while the store could not be read has two; the newer one grows.
        let newest = self.by_subject.entry(subject).or_insert(id);
        *newest = (*newest).max(id);
        self.entries.insert(id, Entry::kept(alert));
    }

    /// Lets the least important sixteenth go when there is no room: choosing one by one would be slow in a flood.
    fn make_room(&mut self) {
        if self.entries.len() < self.most {
            return;
        }
        let mut order: Vec<_> = self.entries.iter().map(|(id, entry)| (entry.importance(), *id)).collect();
        order.sort_unstable();
        for (_, id) in order.into_iter().take((self.most / 16).max(1)) {
            if let Some(mut entry) = self.remove(id) {
                if self.left.len() < MOST_LEFT {
                    let alert = &entry.alert;
                    let left = Left { id, state: alert.state, severity: alert.severity };
                    self.left.insert(alert.subject, left);
                }
                if entry.changed || entry.grown {
                    self.leaving.push(save(&mut entry));
                }
            }
        }
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        if self.by_subject.get(&entry.alert.subject) == Some(&id) {
            self.by_subject.remove(&entry.alert.subject);
        }
        Some(entry)
    }

    fn unresolved(&self, id: u64) -> Result<(), ChangeError> {
        let entry = self.entries.get(&id).ok_or(ChangeError::NoSuchAlert(id))?;
        match (entry.alert.state, entry.alert.resolution) {
            (State::Resolved, Some(resolution)) => Err(ChangeError::Resolved { id, resolution }),
            _ => Ok(()),
        }
    }

    fn done_with(&mut self, id: u64, resolution: Resolution, change: Change) -> Result<Told, ChangeError> {
        self.change(id, Occasion::Resolved, |alert| {
            alert.state = State::Resolved;
            alert.resolution = Some(resolution);
            // Should the subject come back, nothing that was undone before keeps it from what the policy says then.
            alert.deeds.retain(|deed| !deed.undone);
            alert.note(change);
        })
    }

    fn change(&mut self, id: u64, occasion: Occasion, how: impl FnOnce(&mut Alert)) -> Result<Told, ChangeError> {
        let entry = self.entries.get_mut(&id).ok_or(ChangeError::NoSuchAlert(id))?;
        how(&mut entry.alert);
        self.tell(id, occasion).ok_or(ChangeError::NoSuchAlert(id))
    }

    fn tell(&mut self, id: u64, occasion: Occasion) -> Option<Told> {
        let entry = self.entries.get_mut(&id)?;
        mark(&mut entry.changed, &mut self.changed, id);
        Some(Told { occasion, alert: entry.now() })
    }
}

fn mark(flag: &mut bool, list: &mut Vec<u64>, id: u64) {
    if !std::mem::replace(flag, true) {
        list.push(id);
    }
}

fn save(entry: &mut Entry) -> Save {
    let save = Save { alert: entry.now(), changed: entry.changed, partial: entry.partial };
    (entry.changed, entry.grown) = (false, false);
    save
}
