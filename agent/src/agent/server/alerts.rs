//! Answers about alerts.

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::AsyncWrite;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::super::{Agent, Alerts, Order};
use super::{answer, failure, send};
use crate::alert::{Alert, ChangeError, Filter, Outcome, Told};
use crate::control::{AlertLine, Changed, Lost};

/// How long the disk is waited for; less than a caller waits for its answer.
const DISK: Duration = Duration::from_secs(20);

/// The alerts asked for, those that are only in the store first; then, for a follower, what is told.
pub(super) async fn list(
    writer: &mut (impl AsyncWrite + Unpin),
    agent: &RefCell<Agent>,
    filter: &Filter,
    follow: bool,
) -> io::Result<()> {
    // Both at one moment, so that none is missed.
    let (ids, left, mut coming) = {
        let agent = agent.borrow();
        let book = agent.alerts.book();
        (book.matching(filter), book.left_matching(filter), agent.alerts.follow())
    };
    if !follow || filter.since.is_some() {
        if left {
            stored(writer, agent, filter).await?;
        }
        for id in ids {
            // One at a time: each is made when it is sent.
            let alert = agent.borrow().alerts.book().get(id);
            if let Some(alert) = alert {
                send(writer, &*alert).await?;
            }
        }
    }
    if !follow {
        return Ok(());
    }
    // A resolved one is told to those who follow the open ones too: it is gone from their list.
    let filter = Filter { all: true, ..filter.clone() };
    loop {
        match coming.recv().await {
            Ok(Told { occasion, alert }) if filter.matches(&alert) => {
                send(writer, &AlertLine { occasion: Some(occasion), alert: Alert::clone(&alert) }).await?;
            }
            Ok(_) => {}
            Err(RecvError::Lagged(lost)) => send(writer, &Lost { lost }).await?,
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

/// Those that memory does not have.
async fn stored(writer: &mut (impl AsyncWrite + Unpin), agent: &RefCell<Agent>, filter: &Filter) -> io::Result<()> {
    let mut before = Some(u64::MAX);
    while let Some(from) = before {
        let asked = agent.borrow().alerts.list(filter, from);
        let page = match timeout(DISK, asked).await {
            Ok(Ok(Ok(page))) => page,
            Ok(Ok(Err(why))) => {
                tracing::debug!("only the alerts in memory are listed: {why}");
                return Ok(());
            }
            Ok(Err(_)) | Err(_) => {
                tracing::debug!("only the alerts in memory are listed: the store is busy");
                return Ok(());
            }
        };
        for alert in page.alerts {
            let here = agent.borrow().alerts.book().get(alert.id).is_some();
            if !here {
                send(writer, &alert).await?;
            }
        }
        before = page.before;
    }
    Ok(())
}

/// One alert.
pub(super) async fn show(writer: &mut (impl AsyncWrite + Unpin), agent: &RefCell<Agent>, id: u64) -> io::Result<()> {
    let here = agent.borrow().alerts.book().get(id);
    match here {
        Some(alert) => send(writer, &*alert).await,
        None => answer(writer, read(agent, id).await).await,
    }
}

/// Does what somebody wants done, and answers when it is on disk.
pub(super) async fn order(
    writer: &mut (impl AsyncWrite + Unpin),
    agent: &RefCell<Agent>,
    id: u64,
    order: Order,
    uid: u32,
    note: Option<String>,
) -> io::Result<()> {
    let here = agent.borrow().alerts.book().get(id).is_some();
    if !here {
        match read(agent, id).await {
            Ok(alert) => agent.borrow_mut().alerts.recall(alert),
            Err(error) => return send(writer, &failure(error)).await,
        }
    }
    let ordered = {
        let mut agent = agent.borrow_mut();
        let who = agent.recorder.user(uid).unwrap_or_else(|| format!("uid {uid}"));
        agent.alerts.order(id, order, &who, note, Timestamp::now())
    };
    let (told, on_disk) = match ordered {
        Ok(ordered) => ordered,
        Err(error) => return send(writer, &failure(error.to_string())).await,
    };
    let outcome: Outcome = match timeout(DISK, on_disk).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(busy(&agent.borrow().alerts)),
        Err(_) => Err(format!("the disk has not answered for {} seconds", DISK.as_secs())),
    };
    send(writer, &Changed { alert: Alert::clone(&told.alert), not_on_disk: outcome.err() }).await
}

/// Undoes what was done about an alert's subject.
pub(super) async fn undo(
    writer: &mut (impl AsyncWrite + Unpin),
    agent: &RefCell<Agent>,
    id: u64,
    uid: u32,
) -> io::Result<()> {
    let undone = {
        let mut agent = agent.borrow_mut();
        let who = agent.recorder.user(uid).unwrap_or_else(|| format!("uid {uid}"));
        agent.undo(id, &who).map(|()| agent.alerts.book().get(id))
    };
    match undone {
        Ok(Some(alert)) => send(writer, &Changed { alert: Alert::clone(&alert), not_on_disk: None }).await,
        Ok(None) => send(writer, &failure(ChangeError::NoSuchAlert(id).to_string())).await,
        Err(error) => send(writer, &failure(error)).await,
    }
}

/// An alert that is not in memory.
async fn read(agent: &RefCell<Agent>, id: u64) -> Result<Alert, String> {
    let asked = agent.borrow().alerts.read(id);
    match timeout(DISK, asked).await {
        Ok(Ok(Ok(Some(alert)))) => Ok(alert),
        Ok(Ok(Ok(None))) => Err(ChangeError::NoSuchAlert(id).to_string()),
        Ok(Ok(Err(why))) => Err(format!("alert {id} is not in memory, and the store cannot be read: {why}")),
        Ok(Err(_)) | Err(_) => Err(format!("alert {id} is not in memory, and the store is busy; try again")),
    }
}

fn busy(alerts: &Alerts) -> String {
    alerts.status().broken.unwrap_or_else(|| "the store is busy; it is written as soon as may be".to_owned())
}
