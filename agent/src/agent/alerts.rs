//! The alerts of the running agent: the book, its store, and whoever is told.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, oneshot};

use crate::alert::response::Deed;
use crate::alert::{
    Alert, Book, Change, ChangeError, Filter, Keep, Occasion, Outcome, Page, Resolution, State, Store, StoreEvent, Told,
};
use crate::attempt::Attempt;
use crate::detect::{Finding, Severity, SubjectId};
use crate::subject::Member;

/// How far a follower may fall behind before it loses some and is told.
const FOLLOW_BEHIND: usize = 1024;
/// How many alerts that have only grown are written a second. Those that wait are written in the seconds after.
const GROWN: usize = 200;
/// How long an end waits for the disk.
const ENDING: Duration = Duration::from_secs(5);

/// What sinks hand over to be told.
type Hook = Box<dyn FnMut(&Told)>;

/// The alerts.
pub struct Alerts {
    book: Book,
    store: Store,
    followers: broadcast::Sender<Told>,
    sinks: Option<Hook>,
    quiet: u32,
}

/// How the alerts are doing, in `portreeve status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertsStatus {
    /// Nobody has looked at them.
    pub open: u64,
    /// Somebody has.
    pub acknowledged: u64,
    /// Resolved ones that are kept.
    pub resolved: u64,
    /// Of those that are not resolved.
    pub by_severity: BySeverity,
    /// The store's file.
    pub store: String,
    /// Why alerts are only kept in memory.
    pub broken: Option<String>,
    /// Alerts that had to be let go because they could be kept nowhere.
    pub lost: u64,
}

/// Numbers of alerts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BySeverity {
    /// Worth a look.
    pub notice: u64,
    /// Something is wrong.
    pub warning: u64,
    /// Spam bots, as far as can be told.
    pub critical: u64,
}

/// What somebody wants done about an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// It was looked at.
    Acknowledge,
    /// It was this.
    Resolve(Resolution),
    /// A rule was written for it: what is to stand in its history.
    Allowed(String),
}

impl Alerts {
    /// Those of a state folder. Nothing is read before [`Self::start`].
    #[must_use]
    pub fn new(folder: &Path, keep: Keep, quiet: u32) -> Self {
        Self {
            book: Book::default(),
            store: Store::new(folder, keep),
            followers: broadcast::channel(FOLLOW_BEHIND).0,
            sinks: None,
            quiet,
        }
    }

    /// Reads what was kept, and starts the store's thread: after the agent has let go of the rights it does not need.
    pub fn start(&mut self) {
        for event in self.store.start() {
            self.hear(event);
        }
        self.take_numbers();
    }

    /// Tells everything that is told to followers to the sinks as well.
    pub fn tell_sinks(&mut self, hook: impl FnMut(&Told) + 'static) {
        self.sinks = Some(Box::new(hook));
    }

    /// The policy says how long and how much is kept, and after how many seconds without an attempt an episode is over.
    pub fn settings(&mut self, keep: Keep, quiet: u32) {
        self.store.keep(keep);
        self.quiet = quiet;
    }

    /// Takes an attempt with what was found at it: see [`Book::attempt`]. Followers and sinks have been told what is
    /// returned.
    pub fn attempt(
        &mut self,
        subject: SubjectId,
        attempt: &Attempt,
        findings: &[Finding],
        earlier: impl FnOnce() -> Vec<Arc<Attempt>>,
    ) -> Vec<Told> {
        if !findings.is_empty() {
            self.take_numbers();
        }
        let told = self.book.attempt(subject, attempt, findings, earlier);
        self.tell(&told);
        told
    }

    /// Once a second: what has gone quiet is told, what has grown is written.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Told> {
        for event in self.store.events() {
            self.hear(event);
        }
        self.take_numbers();
        let told = self.book.tick(now, self.quiet);
        self.tell(&told);
        self.save(GROWN);
        self.store.catch_up();
        told
    }

    /// What was found out about the executable.
    pub fn identify(&mut self, id: u64, sha256: Option<String>, package: Option<String>) {
        self.book.identify(id, sha256, package);
    }

    /// The process tree at the worst moment.
    pub fn tree(&mut self, id: u64, tree: Vec<Member>) {
        self.book.tree(id, tree);
    }

    /// The agent has done something about the subject by itself, or somebody has undone it.
    ///
    /// # Errors
    ///
    /// When there is no such alert in memory.
    pub fn responded(&mut self, id: u64, deeds: Vec<Deed>, change: Change) -> Result<Told, ChangeError> {
        let told = self.book.responded(id, deeds, change)?;
        self.tell(std::slice::from_ref(&told));
        Ok(told)
    }

    /// Writes everything and closes the store; waits a little for a slow disk.
    pub fn end(&mut self) {
        self.save(usize::MAX);
        if !self.store.end(ENDING) {
            let why = self.store.broken().unwrap_or_else(|| "the disk is too slow".to_owned());
            tracing::error!("not all alerts are on disk: {why}");
        }
    }

    /// The alerts in memory.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// How they are doing.
    #[must_use]
    pub fn status(&self) -> AlertsStatus {
        let mut status = AlertsStatus {
            store: self.store.path().display().to_string(),
            broken: self.store.broken(),
            lost: self.store.lost(),
            ..AlertsStatus::default()
        };
        for (state, severity) in self.book.tally() {
            match state {
                State::Open => status.open += 1,
                State::Acknowledged => status.acknowledged += 1,
                State::Resolved => {
                    status.resolved += 1;
                    continue;
                }
            }
            match severity {
                Severity::Notice => status.by_severity.notice += 1,
                Severity::Warning => status.by_severity.warning += 1,
                Severity::Critical => status.by_severity.critical += 1,
            }
        }
        status
    }

    /// What is told from now on.
    pub(super) fn follow(&self) -> broadcast::Receiver<Told> {
        self.followers.subscribe()
    }

    /// Reads an alert that may be only in the store.
    pub(super) fn read(&self, id: u64) -> oneshot::Receiver<Result<Option<Alert>, String>> {
        self.store.read(id)
    }

    /// Reads a part of those in the store.
    pub(super) fn list(&self, filter: &Filter, before: u64) -> oneshot::Receiver<Result<Page, String>> {
        self.store.list(filter, before)
    }

    /// Takes an alert back into memory.
    pub(super) fn recall(&mut self, alert: Alert) {
        self.book.recall(alert);
    }

    /// Does what somebody wants done about an alert in memory. The answer to the second comes when it is on disk, or when
    /// it is known that it is not.
    pub(super) fn order(
        &mut self,
        id: u64,
        order: Order,
        who: &str,
        note: Option<String>,
        now: Timestamp,
    ) -> Result<(Told, oneshot::Receiver<Outcome>), ChangeError> {
        let told = match order {
            Order::Acknowledge => self.book.acknowledge(id, who, note, now)?,
            Order::Resolve(resolution) => self.book.resolve(id, resolution, who, note, now)?,
            Order::Allowed(what) => self.book.allowed(id, Change { time: now, who: who.to_owned(), what, note })?,
        };
        let mut on_disk = None;
        for save in self.book.to_save(0) {
            if save.alert.id == id {
                on_disk = Some(self.store.save_now(save));
            } else {
                self.store.save(save);
            }
        }
        self.announce(std::slice::from_ref(&told));
        // Without anything to be saved the sender is gone, and the answer breaks off.
        Ok((told, on_disk.unwrap_or_else(|| oneshot::channel().1)))
    }

    fn hear(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Loaded(alerts, left) => self.book.load(alerts, left),
            StoreEvent::Recalled(alert) => self.book.recall(*alert),
            StoreEvent::Forgotten(ids) => self.book.forget(&ids),
            StoreEvent::Anew => self.book.save_all(),
        }
    }

    fn take_numbers(&mut self) {
        let (from, until) = self.store.numbers();
        self.book.numbers(from, until);
    }

    /// Saves what has changed at once, and tells of it.
    fn tell(&mut self, told: &[Told]) {
        if !told.is_empty() {
            self.save(0);
            self.announce(told);
        }
    }

    fn save(&mut self, grown: usize) {
        for save in self.book.to_save(grown) {
            self.store.save(save);
        }
    }

    fn announce(&mut self, told: &[Told]) {
        for told in told {
            let alert = &told.alert;
            match told.occasion {
                Occasion::Opened | Occasion::Reopened | Occasion::Worse => {
                    tracing::warn!("alert {} {}: {}", alert.id, told.occasion.name(), alert.headline());
                }
                Occasion::Quiet | Occasion::Acknowledged | Occasion::Resolved | Occasion::Responded => {
                    tracing::info!("alert {} {}: {}", alert.id, told.occasion.name(), alert.headline());
                }
            }
            if let Some(sinks) = &mut self.sinks {
                sinks(told);
            }
            // An error only says that nobody follows.
            if self.followers.send(told.clone()).is_err() {
                tracing::trace!("nobody follows");
            }
        }
    }
}

impl Drop for Alerts {
    /// Whatever ends the agent, what is known is written.
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::alert::examples::{at, attempt, finding};
    use crate::alert::{glimpse, store_path};
    use crate::detect::Kind;

    fn started(folder: &Path) -> Alerts {
        let mut alerts = Alerts::new(folder, Keep::default(), 3600);
        alerts.start();
        alerts
    }

    fn find(alerts: &mut Alerts, subject: u64, seconds: i64) -> Vec<Told> {
        let subject = SubjectId(subject);
        let findings = [finding(subject, Kind::FanOut, Severity::Critical, seconds, 3)];
        alerts.attempt(subject, &attempt(seconds, "192.0.2.1:25"), &findings, Vec::new)
    }

    #[test]
    fn what_happens_is_told_saved_and_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut alerts = started(folder.path());
        let heard = Rc::new(RefCell::new(Vec::new()));
        let hears = Rc::clone(&heard);
        alerts.tell_sinks(move |told| hears.borrow_mut().push((told.occasion, told.alert.id)));
        let mut follower = alerts.follow();
        assert_eq!(find(&mut alerts, 7, 0).len(), 1);
        assert_eq!(follower.try_recv().unwrap().alert.id, 1);
        let (_, on_disk) = alerts.order(1, Order::Acknowledge, "ann", Some("mine".into()), at(5)).unwrap();
        assert_eq!(on_disk.blocking_recv().unwrap(), Ok(()));
        // On disk before it is told: what a kill would leave is there now.
        let kept = glimpse(folder.path()).unwrap().read(1).unwrap().unwrap();
        assert_eq!((kept.state, kept.history[1].who.as_str()), (State::Acknowledged, "ann"));
        alerts.attempt(SubjectId(7), &attempt(9, "192.0.2.1:25"), &[], Vec::new);
        assert_eq!(alerts.tick(at(4000)).len(), 1);
        assert_eq!(*heard.borrow(), [(Occasion::Opened, 1), (Occasion::Acknowledged, 1), (Occasion::Quiet, 1)]);
        alerts.end();
        let mut alerts = started(folder.path());
        let alert = alerts.book().get(1).unwrap();
        assert_eq!((alert.attempts, alert.quiet_since), (4, Some(at(9))));
        assert_eq!(find(&mut alerts, 7, 9000)[0].occasion, Occasion::Reopened);
        assert_eq!(find(&mut alerts, 8, 9001)[0].alert.id, 2);
        let status = alerts.status();
        assert_eq!((status.open, status.acknowledged, status.by_severity.critical), (2, 0, 2));
        assert_eq!((status.broken, status.lost), (None, 0));
    }

    #[test]
    fn on_a_broken_disk_an_order_is_carried_out_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(store_path(folder.path())).unwrap();
        let mut alerts = started(folder.path());
        let id = find(&mut alerts, 7, 0)[0].alert.id;
        let (told, on_disk) = alerts.order(id, Order::Resolve(Resolution::Test), "ann", None, at(5)).unwrap();
        assert_eq!(told.alert.state, State::Resolved);
        assert!(on_disk.blocking_recv().unwrap().unwrap_err().contains("alerts.sqlite"));
        assert!(alerts.status().broken.is_some());
    }

    #[test]
    fn a_lost_file_is_written_anew_from_memory() {
        let folder = tempfile::tempdir().unwrap();
        let mut alerts = started(folder.path());
        for subject in 0..20 {
            find(&mut alerts, subject, 0);
        }
        let (_, on_disk) = alerts.order(1, Order::Acknowledge, "ann", None, at(5)).unwrap();
        assert_eq!(on_disk.blocking_recv().unwrap(), Ok(()));
        std::fs::remove_file(store_path(folder.path())).unwrap();
        let (_, on_disk) = alerts.order(2, Order::Acknowledge, "ann", None, at(5)).unwrap();
        assert_eq!(on_disk.blocking_recv().unwrap(), Ok(()));
        alerts.tick(at(6));
        alerts.end();
        let page = glimpse(folder.path()).unwrap().list(&Filter::default(), u64::MAX).unwrap();
        assert_eq!(page.alerts.len(), 20);
    }
}
