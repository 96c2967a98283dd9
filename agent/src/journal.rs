//! A record of what happens, one thing after the other: the latest in memory, the older ones in a file, and whoever follows.
//!
//! Memory and disk are bounded: a flood costs details, which are counted.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::broadcast;

/// How many are kept in memory, about 2 KiB each.
pub const KEPT: usize = 8192;
/// How far a follower may fall behind before it loses some and is told.
const FOLLOW_BEHIND: usize = 4096;
/// Where the file is turned over; one older file is kept.
const FILE_BYTES: u64 = 16 << 20;
/// How many records a second go to the file, so that a flood does not become a flood of writes.
const FILE_RATE: u32 = 1000;

/// Something that happened at a time.
pub trait Timed {
    /// When.
    fn time(&self) -> jiff::Timestamp;
}

/// The record.
#[derive(Debug)]
pub struct Journal<T> {
    /// What is recorded, in the plural.
    what: &'static str,
    latest: VecDeque<Arc<T>>,
    followers: broadcast::Sender<Arc<T>>,
    path: PathBuf,
    file: Option<File>,
    written: u64,
    second: Instant,
    in_second: u32,
    not_stored: u64,
    broken: Option<String>,
}

impl<T: Timed + Serialize + DeserializeOwned> Journal<T> {
    /// Opens the record of `what` in a state folder, with what an earlier agent left there. A folder that cannot be written
    /// to is no error: the record is kept in memory then, and [`Self::broken`] says why.
    #[must_use]
    pub fn open(folder: &Path, what: &'static str) -> Self {
        let path = folder.join(what).with_extension("jsonl");
        let mut latest = VecDeque::new();
        for old in [path.with_extension("jsonl.1"), path.clone()] {
            for one in read(&old) {
                if latest.len() == KEPT {
                    latest.pop_front();
                }
                latest.push_back(Arc::new(one));
            }
        }
        let mut journal = Self {
            what,
            latest,
            followers: broadcast::channel(FOLLOW_BEHIND).0,
            path,
            file: None,
            written: 0,
            second: Instant::now(),
            in_second: 0,
            not_stored: 0,
            broken: None,
        };
        journal.reopen();
        journal
    }

    /// Keeps one and shows it to the followers.
    pub fn push(&mut self, one: T) -> Arc<T> {
        let one = Arc::new(one);
        self.write(&one);
        if self.latest.len() == KEPT {
            self.latest.pop_front();
        }
        self.latest.push_back(Arc::clone(&one));
        // An error only says that nobody follows.
        if self.followers.send(Arc::clone(&one)).is_err() {
            tracing::trace!("nobody follows");
        }
        one
    }

    /// What has happened since a time, the oldest first.
    pub fn since(&self, since: Option<jiff::Timestamp>) -> Vec<Arc<T>> {
        self.latest.iter().filter(|one| since.is_none_or(|since| one.time() >= since)).cloned().collect()
    }

    /// What comes from now on.
    pub fn follow(&self) -> broadcast::Receiver<Arc<T>> {
        self.followers.subscribe()
    }

    /// How many records the file did not get.
    #[must_use]
    pub fn not_stored(&self) -> u64 {
        self.not_stored
    }

    /// Why the file does not get any.
    #[must_use]
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    fn write(&mut self, one: &T) {
        if self.second.elapsed().as_secs() >= 1 {
            self.second = Instant::now();
            self.in_second = 0;
            if self.file.is_none() {
                self.reopen();
            }
        }
        self.in_second += 1;
        if self.in_second > FILE_RATE {
            self.not_stored += 1;
            return;
        }
        if let Err(error) = self.append(one) {
            self.not_stored += 1;
            if self.broken.is_none() {
                tracing::warn!("{} are only kept in memory: {}: {error}", self.what, self.path.display());
            }
            self.broken = Some(format!("{}: {error}", self.path.display()));
            self.file = None;
        }
    }

    fn append(&mut self, one: &T) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::Error::other("the file is not open")) };
        let mut line = serde_json::to_vec(one)?;
        line.push(b'\n');
        // One write a record, so that a full disk or a kill leaves at most one line cut, which reading skips.
        file.write_all(&line)?;
        self.broken = None;
        self.written += line.len() as u64;
        if self.written >= FILE_BYTES {
            std::fs::rename(&self.path, self.path.with_extension("jsonl.1"))?;
            self.reopen();
        }
        Ok(())
    }

    fn reopen(&mut self) {
        let opened = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path);
        match opened {
            Ok(mut file) => {
                self.written = file.metadata().map_or(0, |meta| meta.len());
                // A line that was cut by a full disk must not swallow the next one.
                if self.written > 0 && self.broken.is_some() && file.write_all(b"\n").is_err() {
                    return;
                }
                self.file = Some(file);
            }
            Err(error) => {
                if self.broken.is_none() {
                    tracing::warn!("{} are only kept in memory: {}: {error}", self.what, self.path.display());
                }
                self.broken = Some(format!("{}: {error}", self.path.display()));
                self.file = None;
            }
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> impl Iterator<Item = T> {
    let lines = File::open(path).ok().map(|file| BufReader::new(file).split(b'\n'));
    lines.into_iter().flatten().map_while(Result::ok).filter_map(|line| serde_json::from_slice(&line).ok())
}
