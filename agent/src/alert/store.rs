//! The alerts on disk: SQLite, owned by a thread of its own, so that a slow disk holds up nothing else.
//!
//! What does not work does not stop the agent: alerts stay in memory, [`Store::broken`] says why, and everything is
//! written when the disk works again.

mod file;
mod schema;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Alert, Filter, Left, Save};
use crate::detect::SubjectId;

pub use file::{Glimpse, glimpse};

/// How many commands may wait for the thread.
const COMMANDS: usize = 1024;
/// How many alerts may wait for the disk. Of more, the mildest are not kept, and counted.
const WAITING: usize = 20_000;
/// How long the agent waits at its start for what the store has.
const LOADING: Duration = Duration::from_secs(5);

/// The store's file in a state folder.
#[must_use]
pub fn store_path(folder: &Path) -> PathBuf {
    folder.join("alerts.sqlite")
}

/// How long and how much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Alerts that are resolved, or quiet, for longer than so many seconds are deleted.
    pub age: u64,
    /// When the file is larger than so many bytes, resolved alerts are deleted, the oldest first, then quiet ones. Those
    /// that go on never are.
    pub bytes: u64,
}

impl Default for Keep {
    /// A year, and 64 MiB: some fifteen thousand alerts.
    fn default() -> Self {
        Self { age: 365 * 86_400, bytes: 64 << 20 }
    }
}

/// Whether something is on disk; or why not, in a sentence.
pub type Outcome = Result<(), String>;

/// Part of a list.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The alerts, the newest first.
    pub alerts: Vec<Alert>,
    /// Where the list goes on; none at its end.
    pub before: Option<u64>,
}

/// What the store tells by itself.
#[derive(Debug)]
pub enum StoreEvent {
    /// What was there at the start.
    Loaded(Vec<Alert>, Vec<(SubjectId, Left)>),
    /// The part of an alert that memory did not have.
    Recalled(Box<Alert>),
    /// These are deleted: too old, or too many.
    Forgotten(Vec<u64>),
    /// The file was lost, and a new one is begun.
    Anew,
}

/// What the thread is told.
enum Command {
    Save(Save, Option<oneshot::Sender<Outcome>>),
    Read(u64, oneshot::Sender<Result<Option<Alert>, String>>),
    List(Filter, u64, oneshot::Sender<Result<Page, String>>),
    Keep(Keep),
    End,
}

/// What both sides see at any time.
#[derive(Debug, Default)]
struct Health {
    broken: Mutex<Option<String>>,
    /// Numbers that are set apart on disk: from, until.
    apart: Mutex<(u64, u64)>,
    lost: AtomicU64,
}

/// The store, seen from the agent's thread. Nothing here waits, but [`Store::start`] and [`Store::end`].
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    keep: Keep,
    health: Arc<Health>,
    thread: Option<Thread>,
    /// What the thread had no room for: the latest of each alert.
    behind: HashMap<u64, Save>,
}

#[derive(Debug)]
struct Thread {
    commands: SyncSender<Command>,
    events: Receiver<StoreEvent>,
    ended: Receiver<()>,
}

impl Store {
    /// The store of a state folder. Nothing is opened before [`Self::start`].
    #[must_use]
    pub fn new(folder: &Path, keep: Keep) -> Self {
        Self { path: store_path(folder), keep, health: Arc::default(), thread: None, behind: HashMap::new() }
    }

    /// Starts the thread, and waits a while for what was kept. It comes last, unless the disk is too slow.
    pub fn start(&mut self) -> Vec<StoreEvent> {
        let (commands, orders) = sync_channel(COMMANDS);
        let (tell, events) = channel();
        let (end, ended) = sync_channel(1);
        let mut worker = worker::Worker::new(self.path.clone(), self.keep, Arc::clone(&self.health), tell);
        let run = move || {
            worker.run(&orders);
            drop(end);
        };
        if let Err(error) = std::thread::Builder::new().name("alert store".to_owned()).spawn(run) {
            self.health.breaks(&format!("no thread for the alerts' store: {error}"));
            return Vec::new();
        }
        let mut first = Vec::new();
        while let Ok(event) = events.recv_timeout(LOADING) {
            first.push(event);
            if matches!(first.last(), Some(StoreEvent::Loaded(..))) {
                break;
            }
        }
        self.thread = Some(Thread { commands, events, ended });
        first
    }

    /// What the thread has told since.
    pub fn events(&mut self) -> Vec<StoreEvent> {
        self.thread.as_ref().map(|thread| thread.events.try_iter().collect()).unwrap_or_default()
    }

    /// Has an alert written soon.
    pub fn save(&mut self, save: Save) {
        self.catch_up();
        if let Err(Some(save)) = self.send_save(save, None) {
            self.put_behind(save);
        }
    }

    /// Has an alert written at once, and tells when it is.
    pub fn save_now(&mut self, save: Save) -> oneshot::Receiver<Outcome> {
        self.catch_up();
        let (reply, answer) = oneshot::channel();
        // Without a place the answer breaks off, which says as much: it is not known to be on disk.
        if let Err(Some(save)) = self.send_save(save, Some(reply)) {
            self.put_behind(save);
        }
        answer
    }

    /// Sends what the thread had no room for.
    pub fn catch_up(&mut self) {
        let ids: Vec<u64> = self.behind.keys().copied().collect();
        for id in ids {
            let Some(save) = self.behind.remove(&id) else { continue };
            if let Err(Some(save)) = self.send_save(save, None) {
                self.behind.insert(id, save);
                return;
            }
        }
    }

    /// Reads an alert.
    #[must_use]
    pub fn read(&self, id: u64) -> oneshot::Receiver<Result<Option<Alert>, String>> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Read(id, reply));
        answer
    }

    /// Reads part of a list: alerts with numbers below `before`.
    #[must_use]
    pub fn list(&self, filter: &Filter, before: u64) -> oneshot::Receiver<Result<Page, String>> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::List(filter.clone(), before, reply));
        answer
    }

    /// Changes how long and how much is kept.
    pub fn keep(&mut self, keep: Keep) {
        if keep != self.keep {
            self.keep = keep;
            self.send(Command::Keep(keep));
        }
    }

    /// The numbers that are set apart on disk: from, until.
    #[must_use]
    pub fn numbers(&self) -> (u64, u64) {
        *self.health.apart.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why alerts are only kept in memory.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        self.health.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many alerts had to be let go while the disk did not work.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.health.lost.load(Ordering::Relaxed)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has everything written and the file closed; waits at most so long. Says whether it is done.
    pub fn end(&mut self, patience: Duration) -> bool {
        if self.thread.is_none() {
            return self.behind.is_empty();
        }
        let deadline = std::time::Instant::now() + patience;
        while !self.behind.is_empty() && std::time::Instant::now() < deadline {
            self.catch_up();
            std::thread::sleep(Duration::from_millis(1));
        }
        let Some(thread) = self.thread.take() else { return self.behind.is_empty() };
        let mut end = Some(Command::End);
        while let Some(command) = end.take() {
            match thread.commands.try_send(command) {
                Err(TrySendError::Full(command)) if std::time::Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                    end = Some(command);
                }
                Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
            }
        }
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        matches!(thread.ended.recv_timeout(left), Err(RecvTimeoutError::Disconnected)) && self.behind.is_empty()
    }

    fn send(&self, command: Command) {
        if let Some(thread) = &self.thread
            && thread.commands.try_send(command).is_err()
        {
            // Whoever waits for an answer sees that it broke off.
            tracing::debug!("the alerts' store is busy");
        }
    }

    /// Gives the alert back when there is no room.
    fn send_save(&self, save: Save, reply: Option<oneshot::Sender<Outcome>>) -> Result<(), Option<Save>> {
        let Some(thread) = &self.thread else { return Err(Some(save)) };
        match thread.commands.try_send(Command::Save(save, reply)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(Command::Save(save, _)) | TrySendError::Disconnected(Command::Save(save, _))) => {
                Err(Some(save))
            }
            Err(_) => Err(None),
        }
    }

    fn put_behind(&mut self, save: Save) {
        wait_for(&mut self.behind, save, &self.health);
    }
}

impl Health {
    fn breaks(&self, why: &str) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if broken.as_deref() != Some(why) {
            tracing::error!("alerts are only kept in memory: {why}");
            *broken = Some(why.to_owned());
        }
    }

    fn works(&self) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if broken.take().is_some() {
            tracing::warn!("alerts are kept on disk again");
        }
    }

    fn set_apart(&self, from: u64, until: u64) {
        *self.apart.lock().unwrap_or_else(PoisonError::into_inner) = (from, until);
    }
}

/// Adds an alert to those that wait, in place of what waits of it already. When there are too many, the mildest that goes
/// on least is let go.
fn wait_for(waiting: &mut HashMap<u64, Save>, save: Save, health: &Health) {
    let id = save.alert.id;
    if let Some(before) = waiting.get_mut(&id) {
        // Since the earlier one is not on disk, what it said of the alert still holds.
        let changed = before.changed || save.changed;
        *before = Save { changed, ..save };
        return;
    }
    if waiting.len() >= WAITING {
        // A sixteenth at once: choosing one by one would be slow in a flood.
        let mut order: Vec<_> = waiting.values().map(|s| (s.alert.severity, s.alert.last, s.alert.id)).collect();
        order.sort_unstable();
        for (_, _, id) in order.into_iter().take(WAITING / 16) {
            waiting.remove(&id);
            health.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
    waiting.insert(id, save);
}
