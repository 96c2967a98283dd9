//! The latest attempts in memory, the older ones in a file, and whoever follows.
//!
//! Memory and disk are bounded: a flood costs details, which are counted, never the exact counters, which the kernel
//! keeps.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::broadcast;

use super::Attempt;

/// How many attempts are kept in memory, about 2 KiB each.
pub const KEPT: usize = 8192;
/// How far a follower may fall behind before it loses some and is told.
const FOLLOW_BEHIND: usize = 4096;
/// Where the file is turned over; one older file is kept.
const FILE_BYTES: u64 = 16 << 20;
/// How many records a second go to the file, so that a flood does not become a flood of writes.
const FILE_RATE: u32 = 1000;

/// The attempts.
#[derive(Debug)]
pub struct Store {
    latest: VecDeque<Arc<Attempt>>,
    followers: broadcast::Sender<Arc<Attempt>>,
    path: PathBuf,
    file: Option<File>,
    written: u64,
    second: Instant,
    in_second: u32,
    not_stored: u64,
    broken: Option<String>,
}

impl Store {
    /// Opens the store in a state folder, with what an earlier agent left there. A folder that cannot be written to
    /// is no error: attempts are kept in memory then, and [`Self::broken`] says why.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        let path = folder.join("attempts.jsonl");
        let mut latest = VecDeque::new();
        for old in [path.with_extension("jsonl.1"), path.clone()] {
            for attempt in read(&old) {
                if latest.len() == KEPT {
                    latest.pop_front();
                }
                latest.push_back(Arc::new(attempt));
            }
        }
        let mut store = Self {
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
        store.reopen();
        store
    }

    /// Keeps an attempt and shows it to the followers.
    pub fn push(&mut self, attempt: Attempt) -> Arc<Attempt> {
        let attempt = Arc::new(attempt);
        self.write(&attempt);
        if self.latest.len() == KEPT {
            self.latest.pop_front();
        }
        self.latest.push_back(Arc::clone(&attempt));
        // An error only says that nobody follows.
        if self.followers.send(Arc::clone(&attempt)).is_err() {
            tracing::trace!("nobody follows");
        }
        attempt
    }

    /// The attempts since a time, the oldest first.
    pub fn since(&self, since: Option<jiff::Timestamp>) -> Vec<Arc<Attempt>> {
        self.latest.iter().filter(|attempt| since.is_none_or(|since| attempt.time >= since)).cloned().collect()
    }

    /// What comes from now on.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Attempt>> {
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

    fn write(&mut self, attempt: &Attempt) {
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
        if let Err(error) = self.append(attempt) {
            self.not_stored += 1;
            if self.broken.is_none() {
                tracing::warn!("attempts are only kept in memory: {}: {error}", self.path.display());
            }
            self.broken = Some(format!("{}: {error}", self.path.display()));
            self.file = None;
        }
    }

    fn append(&mut self, attempt: &Attempt) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::Error::other("the file is not open")) };
        let mut line = serde_json::to_vec(attempt)?;
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
                    tracing::warn!("attempts are only kept in memory: {}: {error}", self.path.display());
                }
                self.broken = Some(format!("{}: {error}", self.path.display()));
                self.file = None;
            }
        }
    }
}

fn read(path: &Path) -> impl Iterator<Item = Attempt> {
    let lines = File::open(path).ok().map(|file| BufReader::new(file).split(b'\n'));
    lines.into_iter().flatten().map_while(Result::ok).filter_map(|line| serde_json::from_slice(&line).ok())
}
