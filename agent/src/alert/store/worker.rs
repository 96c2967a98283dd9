//! The thread that owns the file.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::file::{File, FileError, glimpse, next_of};
use super::{Command, Health, Keep, Outcome, StoreEvent, wait_for};
use crate::alert::book::continued;
use crate::alert::{Alert, MOST, Save};

/// How often a disk that does not work is tried again.
const RETRY: Duration = Duration::from_secs(3);
/// How often it is looked for what is too old or too much.
const TIDY: Duration = Duration::from_secs(60);
/// How many commands are taken before what they bring is written, in one go.
const TOGETHER: usize = 512;
/// How many numbers are set apart at least. A crash skips at most as many.
const APART: u64 = 64;
/// And at most.
const APART_MOST: u64 = 65_536;

pub(super) struct Worker {
    path: PathBuf,
    keep: Keep,
    health: Arc<Health>,
    tell: Sender<StoreEvent>,
    file: Option<File>,
    /// Not on disk yet, the latest of each alert.
    waiting: HashMap<u64, Save>,
    replies: Vec<oneshot::Sender<Outcome>>,
    /// What the store had of alerts that memory has only in part.
    old: HashMap<u64, Alert>,
    loaded: bool,
    /// The largest number in use, of those that were set apart.
    used: u64,
    /// Up to where they are set apart, and by how many the last time.
    until: u64,
    step: u64,
    retry: Instant,
    tidy: Instant,
}

impl Worker {
    pub(super) fn new(path: PathBuf, keep: Keep, health: Arc<Health>, tell: Sender<StoreEvent>) -> Self {
        let now = Instant::now();
        Self {
            path,
            keep,
            health,
            tell,
            file: None,
            waiting: HashMap::new(),
            replies: Vec::new(),
            old: HashMap::new(),
            loaded: false,
            used: 0,
            until: 0,
            step: APART,
            retry: now,
            tidy: now,
        }
    }

    /// Works until it is told to end, or nobody is left who could tell it anything.
    pub(super) fn run(&mut self, commands: &Receiver<Command>) {
        if let Err(error) = self.open() {
            self.breaks(&error);
            self.load_without_writing();
        }
        loop {
            let mut ends = false;
            let next = if self.file.is_none() || !self.waiting.is_empty() { self.retry } else { self.tidy };
            match commands.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(command) => {
                    ends = !self.take(command);
                    for command in commands.try_iter().take(TOGETHER) {
                        ends |= !self.take(command);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => ends = true,
            }
            self.work();
            if ends {
                self.end();
                return;
            }
        }
    }

    /// Takes a command; says whether to go on.
    fn take(&mut self, command: Command) -> bool {
        match command {
            Command::Save(save, reply) => {
                if save.alert.id < self.until {
                    self.used = self.used.max(save.alert.id);
                }
                wait_for(&mut self.waiting, save, &self.health);
                if let Some(reply) = reply {
                    self.replies.push(reply);
                    // Somebody waits: perhaps the disk works again.
                    self.retry = Instant::now();
                }
            }
            Command::Read(id, reply) => {
                self.work();
                answer(reply, self.ask(|file| file.read(id)));
            }
            Command::List(filter, before, reply) => {
                self.work();
                answer(reply, self.ask(|file| file.list(&filter, before)));
            }
            Command::Keep(keep) => {
                self.keep = keep;
                self.tidy = Instant::now();
            }
            Command::End => return false,
        }
        true
    }

    fn ask<T>(&self, question: impl FnOnce(&File) -> Result<T, FileError>) -> Result<T, String> {
        let Some(file) = &self.file else { return Err(self.why()) };
        question(file).map_err(|error| error.to_string())
    }

    /// Brings to disk what waits, and tidies up, as far as the disk works and it is time.
    fn work(&mut self) {
        let now = Instant::now();
        let broken = self.file.is_none();
        if (broken || !self.waiting.is_empty()) && now >= self.retry {
            match self.write() {
                Ok(()) => {
                    self.health.works();
                    self.waiting.clear();
                    self.replies.drain(..).for_each(|reply| answer(reply, Ok(())));
                }
                Err(error) => self.breaks(&error),
            }
        }
        // Whoever asked is told; what was asked stays among what waits.
        if !self.replies.is_empty() {
            let why = self.why();
            self.replies.drain(..).for_each(|reply| answer(reply, Err(why.clone())));
        }
        if now >= self.tidy {
            self.tidy = now + TIDY;
            if let Some(file) = &mut self.file {
                match file.retain(self.keep, Timestamp::now()) {
                    Ok(gone) if gone.is_empty() => {}
                    Ok(gone) => self.tell(StoreEvent::Forgotten(gone)),
                    Err(error) => self.breaks(&error),
                }
            }
        }
    }

    fn write(&mut self) -> Result<(), FileError> {
        if self.file.as_ref().is_some_and(|file| !file.is_there()) {
            tracing::error!("{} was removed or replaced; it is written anew", self.path.display());
            self.file = None;
            self.tell(StoreEvent::Anew);
        }
        if self.file.is_none() {
            self.open()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut alerts = Vec::with_capacity(self.waiting.len());
        for (id, save) in &self.waiting {
            if !save.partial {
                self.old.remove(id);
            } else if !self.old.contains_key(id)
                && let Some(old) = file.read(*id)?
            {
                if self.tell.send(StoreEvent::Recalled(Box::new(old.clone()))).is_err() {
                    tracing::trace!("nobody is left to tell");
                }
                self.old.insert(*id, old);
            }
            let whole = self.old.get(id).map(|old| Arc::new(continued(old, &save.alert)));
            alerts.push((whole.unwrap_or_else(|| Arc::clone(&save.alert)), save.changed));
        }
        file.write(alerts.iter().map(|(alert, changed)| (&**alert, *changed)))?;
        self.set_apart()
    }

    /// Sets more numbers apart when half of them are used; more and more in a flood.
    fn set_apart(&mut self) -> Result<(), FileError> {
        let left = self.until.saturating_sub(self.used + 1);
        if left >= self.step / 2 {
            return Ok(());
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        if self.until > 0 {
            self.step = (self.step * 2).min(APART_MOST);
        }
        let from = self.until;
        self.until = file.set_apart(self.until + self.step)?;
        self.health.set_apart(from, self.until);
        Ok(())
    }

    /// Opens the file; a damaged one is set aside and a new one begun.
    fn open(&mut self) -> Result<(), FileError> {
        let opened = match File::open(&self.path) {
            Err(error) if error.damaged() => self.begin_anew(&error),
            opened => opened,
        };
        let mut file = opened?;
        if self.until == 0 {
            let next = file.set_apart(self.used + 1)?;
            self.used = next - 1;
            self.until = file.set_apart(next + APART)?;
            self.health.set_apart(next, self.until);
        } else {
            // Of a new file, or one that another agent has written to.
            self.until = file.set_apart(self.until)?;
        }
        if !self.loaded {
            let kept = file.load(MOST, Timestamp::now())?;
            self.loaded = true;
            self.tell(StoreEvent::Loaded(kept.0, kept.1));
        }
        self.file = Some(file);
        self.health.works();
        Ok(())
    }

    fn begin_anew(&mut self, error: &FileError) -> Result<File, FileError> {
        self.used = self.used.max(next_of(&self.path).map_or_else(
            // The seconds of the clock are more than there were alerts.
            || if self.until == 0 { u64::try_from(Timestamp::now().as_second()).unwrap_or_default() } else { 0 },
            |next| next.saturating_sub(1),
        ));
        let aside = File::set_aside(&self.path, Timestamp::now()).map_err(|source| FileError::Io {
            step: "set aside",
            path: self.path.clone(),
            source,
        })?;
        tracing::error!(
            "{error}; it is kept as {}, and a new one is begun with the alerts in memory. Look at it: sqlite3 {} .recover",
            aside.display(),
            aside.display()
        );
        self.tell(StoreEvent::Anew);
        File::open(&self.path)
    }

    /// At the start, on a disk that can only be read: what is there is known all the same.
    fn load_without_writing(&mut self) {
        let seen = self.path.parent().and_then(|folder| glimpse(folder).ok());
        if let Some(Ok((kept, next))) = seen.map(|glimpse| glimpse.load(MOST, Timestamp::now())) {
            self.loaded = true;
            self.used = next.saturating_sub(1);
            self.tell(StoreEvent::Loaded(kept.0, kept.1));
        } else {
            // Nothing yet. Should it become readable, the rest follows.
            self.tell(StoreEvent::Loaded(Vec::new(), Vec::new()));
        }
    }

    fn breaks(&mut self, error: &FileError) {
        self.health.breaks(&error.to_string());
        self.retry = Instant::now() + RETRY;
        // Opened anew each time: whatever was wrong with it is looked at again.
        self.file = None;
    }

    fn why(&self) -> String {
        let why = self.health.broken.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        why.unwrap_or_else(|| "the store is not open".to_owned())
    }

    fn end(&mut self) {
        let Some(mut file) = self.file.take() else { return };
        // All that is in use is on disk, so that nothing needs to be skipped.
        if self.waiting.is_empty()
            && let Err(error) = file.give_back(self.used + 1)
        {
            tracing::debug!("numbers of alerts are skipped: {error}");
        }
        file.close();
    }

    fn tell(&self, event: StoreEvent) {
        if self.tell.send(event).is_err() {
            tracing::trace!("nobody is left to tell");
        }
    }
}

fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::trace!("whoever asked has gone");
    }
}
