//! What is asked of the tables, and written to them.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior, params};

use super::super::{Keep, Page};
use super::Kept;
use crate::alert::{Alert, Filter, Left, State};
use crate::detect::{Severity, SubjectId};

/// How many rows a page of a list looks at.
const PAGE_ROWS: usize = 500;
/// Of resolved alerts, those with an attempt in so many days are loaded at the start.
const RECENT_DAYS: i64 = 30;
/// How many alerts are deleted at once when the file is too large.
const BATCH: i64 = 50;

pub(super) fn migrate(db: &mut Connection, step: &str, version: i64) -> rusqlite::Result<()> {
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    change.execute_batch(step)?;
    change.pragma_update(None, "user_version", version)?;
    change.commit()
}

/// Writes alerts, and of those marked so what was done about them.
pub(super) fn put<'a>(db: &mut Connection, alerts: impl Iterator<Item = (&'a Alert, bool)>) -> rusqlite::Result<()> {
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut put = change.prepare(
            "INSERT OR REPLACE INTO alerts (id, subject, state, severity, opened, last, quiet, body) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        // Those that are there already stay as they are.
        let mut note = change
            .prepare("INSERT OR IGNORE INTO changes (alert, time, who, what, note) VALUES (?1, ?2, ?3, ?4, ?5)")?;
        for (alert, changed) in alerts {
            let body = serde_json::to_string(alert)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
            let (opened, last) = (alert.opened.as_microsecond(), alert.last.as_microsecond());
            let quiet = alert.quiet_since.map(Timestamp::as_microsecond);
            let (id, state, severity) = (signed(alert.id), alert.state.name(), alert.severity as i64);
            put.execute(params![id, signed(alert.subject.0), state, severity, opened, last, quiet, body])?;
            for c in alert.history.iter().filter(|_| changed) {
                note.execute(params![id, c.time.as_microsecond(), c.who, c.what, c.note])?;
            }
        }
    }
    change.commit()
}

/// Not `UPDATE … RETURNING`: that commits when the statement is let go of, where an error goes unseen.
pub(super) fn set_apart(db: &mut Connection, until: i64) -> rusqlite::Result<i64> {
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    change.execute("UPDATE numbers SET next = max(next, ?1)", [until])?;
    let next = change.query_row("SELECT next FROM numbers", [], |row| row.get(0))?;
    change.commit()?;
    Ok(next)
}

pub(super) fn read(db: &Connection, id: u64) -> rusqlite::Result<Option<Alert>> {
    let select = "SELECT body FROM alerts WHERE id = ?1";
    let body: Option<String> = db.query_row(select, [signed(id)], |row| row.get(0)).optional()?;
    Ok(body.and_then(|body| parse(id, &body)))
}

/// Deletes what is too old, then what is too much.
pub(super) fn retain(db: &mut Connection, keep: Keep, now: Timestamp) -> rusqlite::Result<Vec<u64>> {
    let age = SignedDuration::from_secs(keep.age.try_into().unwrap_or(i64::MAX));
    let oldest = now.checked_sub(age).unwrap_or(Timestamp::MIN).as_microsecond();
    let old = "SELECT id FROM alerts WHERE last < ?1 AND (state = 'resolved' OR quiet IS NOT NULL)";
    let mut gone = delete(db, old, oldest)?;
    while bytes(db)? > keep.bytes {
        let batch = delete(
            db,
            "SELECT id FROM alerts WHERE state = 'resolved' OR quiet IS NOT NULL \
             ORDER BY state = 'resolved' DESC, CASE state WHEN 'resolved' THEN 0 ELSE severity END, last LIMIT ?1",
            BATCH,
        )?;
        if batch.is_empty() {
            break;
        }
        gone.extend(batch);
    }
    if !gone.is_empty() {
        // Each row of the answer is a page that was given back.
        let mut vacuum = db.prepare("PRAGMA incremental_vacuum")?;
        let mut pages = vacuum.query([])?;
        while pages.next()?.is_some() {}
    }
    Ok(gone)
}

pub(super) fn version(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("PRAGMA user_version", [], |row| row.get(0))
}

pub(super) fn list(db: &Connection, filter: &Filter, before: u64) -> rusqlite::Result<Page> {
    let mut select = db.prepare("SELECT id, state, body FROM alerts WHERE id < ?1 ORDER BY id DESC LIMIT ?2")?;
    let mut rows = select.query(params![signed(before.min(i64::MAX as u64)), PAGE_ROWS as i64])?;
    let (mut page, mut seen) = (Page::default(), 0);
    while let Some(row) = rows.next()? {
        let id = unsigned(row.get(0)?);
        (seen, page.before) = (seen + 1, Some(id));
        let (state, body): (String, String) = (row.get(1)?, row.get(2)?);
        if State::ALL.into_iter().any(|known| known.name() == state && filter.has_state(known)) {
            page.alerts.extend(parse(id, &body).filter(|alert| filter.matches(alert)));
        }
    }
    if seen < PAGE_ROWS {
        page.before = None;
    }
    Ok(page)
}

pub(super) fn load(db: &Connection, most: usize, now: Timestamp) -> rusqlite::Result<Kept> {
    let recent = now.checked_sub(SignedDuration::from_hours(24 * RECENT_DAYS)).unwrap_or(Timestamp::MIN);
    let mut select = db.prepare(
        "SELECT id, subject, state, severity, last, body FROM alerts \
         ORDER BY state = 'resolved', quiet IS NOT NULL, severity DESC, last DESC",
    )?;
    let mut rows = select.query([])?;
    let (mut alerts, mut left) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let (subject, entry) = left_of(row)?;
        let lately = row.get::<_, i64>(4)? >= recent.as_microsecond();
        if alerts.len() < most && (entry.state != State::Resolved || lately) {
            let body: String = row.get(5)?;
            alerts.extend(parse(entry.id, &body));
        } else {
            left.push((subject, entry));
        }
    }
    Ok((alerts, left))
}

fn left_of(row: &Row<'_>) -> rusqlite::Result<(SubjectId, Left)> {
    let (state, severity): (String, i64) = (row.get(2)?, row.get(3)?);
    let state = State::ALL.into_iter().find(|known| known.name() == state).unwrap_or(State::Open);
    let severity = Severity::ALL.into_iter().find(|known| *known as i64 == severity).unwrap_or(Severity::Critical);
    Ok((SubjectId(unsigned(row.get(1)?)), Left { id: unsigned(row.get(0)?), state, severity }))
}

/// Deletes the alerts that a query names, with their changes.
fn delete(db: &mut Connection, which: &str, limit: i64) -> rusqlite::Result<Vec<u64>> {
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let ids: Vec<i64> = change.prepare(which)?.query_map([limit], |row| row.get(0))?.collect::<Result<_, _>>()?;
    {
        let mut alert = change.prepare("DELETE FROM alerts WHERE id = ?1")?;
        let mut changes = change.prepare("DELETE FROM changes WHERE alert = ?1")?;
        for id in &ids {
            alert.execute([id])?;
            changes.execute([id])?;
        }
    }
    change.commit()?;
    Ok(ids.into_iter().map(unsigned).collect())
}

/// The bytes in use.
fn bytes(db: &Connection) -> rusqlite::Result<u64> {
    let number = |sql| db.query_row(sql, [], |row| row.get::<_, i64>(0));
    let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    Ok(unsigned(pages * number("PRAGMA page_size")?))
}

/// An alert that cannot be read, of a version between, stays where it is.
fn parse(id: u64, body: &str) -> Option<Alert> {
    serde_json::from_str(body).map_err(|error| tracing::warn!("alert {id} in the store cannot be read: {error}")).ok()
}

pub(super) fn signed(number: u64) -> i64 {
    number.cast_signed()
}

pub(super) fn unsigned(number: i64) -> u64 {
    number.cast_unsigned()
}
