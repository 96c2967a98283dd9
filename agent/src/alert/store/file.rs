//! The SQLite file.

mod glimpse;
mod rows;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use thiserror::Error;

use super::schema::STEPS;
use super::{Keep, Page};
use crate::alert::{Alert, Filter, Left};
use crate::detect::SubjectId;

pub(super) use glimpse::next_of;
pub use glimpse::{Glimpse, glimpse};
use rows::{signed, unsigned};

/// How long somebody else's lock is waited for (an administrator's `sqlite3`, a backup).
const BUSY: Duration = Duration::from_secs(5);
/// How far the log may grow before its file is cut, in bytes.
const LOG_BYTES: i64 = 4 << 20;

/// Why the file cannot be used.
#[derive(Debug, Error)]
pub(super) enum FileError {
    /// SQLite says so.
    #[error("cannot {step} {}: {source}", path.display())]
    Sqlite {
        /// What was being done.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// The kernel says so.
    #[error("cannot {step} {}: {source}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// It was written by a later version.
    #[error(
        "{} was written by a later version of portreeve (its layout is {found}, this one knows {known}) and is left alone; \
         run that version, or move the file away",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
        /// The last one that is known here.
        known: usize,
    },
    /// What it holds makes no sense.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl FileError {
    /// Whether the file is beyond repair.
    pub(super) fn damaged(&self) -> bool {
        match self {
            Self::Sqlite { source, .. } => {
                matches!(source.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
            }
            Self::Damaged { .. } => true,
            Self::Io { .. } | Self::Newer { .. } => false,
        }
    }
}

/// The open file.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    db: Connection,
    inode: u64,
}

/// What was there at the start.
pub(super) type Kept = (Vec<Alert>, Vec<(SubjectId, Left)>);

impl File {
    /// Opens the file, makes it if there is none, and brings its tables up to date.
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        Self::open_with(path, &STEPS)
    }

    /// As [`Self::open`], with the steps of some version.
    pub(super) fn open_with(path: &Path, steps: &[&str]) -> Result<Self, FileError> {
        let io = |step| move |source| FileError::Io { step, path: path.to_owned(), source };
        // SQLite gives its other files the mode of this one.
        OpenOptions::new().append(true).create(true).mode(0o640).open(path).map_err(io("open"))?;
        let inode = fs::metadata(path).map_err(io("look at"))?.ino();
        let fail = |step| move |source| FileError::Sqlite { step, path: path.to_owned(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).map_err(fail("open"))?;
        db.busy_timeout(BUSY).map_err(fail("open"))?;
        let version = rows::version(&db).map_err(fail("read"))?;
        let known = steps.len();
        let done = usize::try_from(version).ok().filter(|done| *done <= known);
        let done = done.ok_or_else(|| FileError::Newer { path: path.to_owned(), found: version, known })?;
        let mut file = Self { path: path.to_owned(), db, inode };
        file.set_up(steps, done)?;
        Ok(file)
    }

    fn set_up(&mut self, steps: &[&str], done: usize) -> Result<(), FileError> {
        // Before there are tables, or it takes no effect.
        if done == 0 {
            self.db.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(self.fail("set up"))?;
        }
        // A log in front of the file: a kill at any moment leaves one that opens. FULL has the log on disk before a write
        // is called done, so that what somebody was told outlives a power cut too; it costs one fsync for all that waits,
        // a few a second at most.
        self.db.pragma_update(None, "journal_mode", "WAL").map_err(self.fail("set up"))?;
        self.db.pragma_update(None, "synchronous", "FULL").map_err(self.fail("set up"))?;
        self.db.pragma_update(None, "journal_size_limit", LOG_BYTES).map_err(self.fail("set up"))?;
        for (step, sql) in steps.iter().enumerate().skip(done) {
            rows::migrate(&mut self.db, sql, step as i64 + 1).map_err(self.fail("bring up to date"))?;
        }
        let check: Result<String, _> = self.db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
        match check.map_err(self.fail("check"))?.as_str() {
            "ok" => Ok(()),
            what => Err(FileError::Damaged { path: self.path.clone(), what: what.to_owned() }),
        }
    }

    /// Moves a damaged file out of the way, and says where it is now.
    pub(super) fn set_aside(path: &Path, now: Timestamp) -> io::Result<PathBuf> {
        let mut aside = path.as_os_str().to_owned();
        aside.push(now.strftime(".broken-%Y%m%dT%H%M%SZ").to_string());
        let aside = PathBuf::from(aside);
        fs::rename(path, &aside)?;
        for end in ["-wal", "-shm"] {
            match fs::rename(with_end(path, end), with_end(&aside, end)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(aside)
    }

    /// Whether the open file is still the one of its name: somebody may have removed or replaced it.
    pub(super) fn is_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode)
    }

    /// Sets numbers apart up to `until` at least, and says up to which they are.
    pub(super) fn set_apart(&mut self, until: u64) -> Result<u64, FileError> {
        let next = rows::set_apart(&mut self.db, signed(until)).map_err(self.fail("write"))?;
        Ok(unsigned(next))
    }

    /// Gives back the numbers that were set apart and not used.
    pub(super) fn give_back(&mut self, next: u64) -> Result<(), FileError> {
        let done = self.db.execute("UPDATE numbers SET next = ?1", [signed(next)]);
        done.map(drop).map_err(self.fail("write"))
    }

    /// Writes alerts, all or none.
    pub(super) fn write<'a>(&mut self, alerts: impl Iterator<Item = (&'a Alert, bool)>) -> Result<(), FileError> {
        rows::put(&mut self.db, alerts).map_err(self.fail("write"))
    }

    /// One alert.
    pub(super) fn read(&self, id: u64) -> Result<Option<Alert>, FileError> {
        rows::read(&self.db, id).map_err(self.fail("read"))
    }

    /// Part of a list, the newest first.
    pub(super) fn list(&self, filter: &Filter, before: u64) -> Result<Page, FileError> {
        rows::list(&self.db, filter, before).map_err(self.fail("read"))
    }

    /// What the agent begins with: what is not resolved, the worst first, and what was resolved lately; of the rest, the
    /// numbers.
    pub(super) fn load(&self, most: usize, now: Timestamp) -> Result<Kept, FileError> {
        rows::load(&self.db, most, now).map_err(self.fail("read"))
    }

    /// Deletes what is too old, then what is too much, and says which.
    pub(super) fn retain(&mut self, keep: Keep, now: Timestamp) -> Result<Vec<u64>, FileError> {
        rows::retain(&mut self.db, keep, now).map_err(self.fail("tidy up"))
    }

    /// Closes the file, its log merged into it.
    pub(super) fn close(self) {
        if let Err((_, error)) = self.db.close() {
            tracing::debug!("closing {}: {error}", self.path.display());
        }
    }

    fn fail(&self, step: &'static str) -> impl Fn(rusqlite::Error) -> FileError + use<> {
        let path = self.path.clone();
        move |source| FileError::Sqlite { step, path: path.clone(), source }
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}
