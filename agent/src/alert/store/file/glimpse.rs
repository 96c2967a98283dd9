//! The store, read by somebody who does not own it.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};

use super::super::schema::STEPS;
use super::super::{Page, store_path};
use super::{BUSY, FileError, Kept, rows, with_end};
use crate::alert::{Alert, Filter};

/// The store as somebody sees it who does not own it.
#[derive(Debug)]
pub struct Glimpse {
    db: Connection,
    /// When something was last written to it.
    pub written: Timestamp,
}

/// Looks into the store of a state folder without changing it, while no agent runs.
///
/// # Errors
///
/// One sentence: there is none, it cannot be read, or it is of a later version.
pub fn glimpse(folder: &Path) -> Result<Glimpse, String> {
    let path = store_path(folder);
    let newest = ["", "-wal"].map(|end| fs::metadata(with_end(&path, end)).and_then(|meta| meta.modified()).ok());
    let written = newest.into_iter().flatten().max();
    let written = written.and_then(|time| Timestamp::try_from(time).ok());
    let written = written.ok_or_else(|| format!("there is no store of alerts at {}", path.display()))?;
    let db = read_only(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    match rows::version(&db) {
        Ok(version) if version <= STEPS.len() as i64 => Ok(Glimpse { db, written }),
        Ok(found) => Err(FileError::Newer { path, found, known: STEPS.len() }.to_string()),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

impl Glimpse {
    /// One alert.
    ///
    /// # Errors
    ///
    /// SQLite's reason.
    pub fn read(&self, id: u64) -> Result<Option<Alert>, String> {
        rows::read(&self.db, id).map_err(|error| error.to_string())
    }

    /// Part of a list, the newest first: alerts with numbers below `before`.
    ///
    /// # Errors
    ///
    /// SQLite's reason.
    pub fn list(&self, filter: &Filter, before: u64) -> Result<Page, String> {
        rows::list(&self.db, filter, before).map_err(|error| error.to_string())
    }

    pub(in crate::alert::store) fn load(&self, most: usize, now: Timestamp) -> Result<(Kept, u64), String> {
        let next = self.db.query_row("SELECT next FROM numbers", [], |row| row.get(0));
        let next: i64 = next.map_err(|error| error.to_string())?;
        rows::load(&self.db, most, now).map(|kept| (kept, rows::unsigned(next))).map_err(|error| error.to_string())
    }
}

/// The number that a file sets apart next, even if nothing else of it can be read.
pub(in crate::alert::store) fn next_of(path: &Path) -> Option<u64> {
    let next: i64 = read_only(path).ok()?.query_row("SELECT next FROM numbers", [], |row| row.get(0)).ok()?;
    Some(rows::unsigned(next))
}

fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY)?;
    if rows::version(&db).is_ok() {
        return Ok(db);
    }
    // Without a log, nobody can be in the middle of a change: the file is whole by itself, and can be read where the log's
    // index cannot be made (a full or read-only disk).
    if fs::metadata(with_end(path, "-wal")).is_ok_and(|log| log.len() > 0) {
        return Ok(db);
    }
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    let escape = |byte: u8| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") };
    let escaped: String = path.as_os_str().as_bytes().iter().map(|b| escape(*b)).collect();
    Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags | OpenFlags::SQLITE_OPEN_URI)
}
