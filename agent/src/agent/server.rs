//! The answering side of the control socket.

mod alerts;

use std::cell::RefCell;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Group, Uid};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::sync::broadcast::{self, error::RecvError};

use super::{Agent, Order};
use crate::control::{Failure, GROUP, Lost, Request};

/// How many conversations there may be at once.
const CONVERSATIONS: usize = 64;
/// The longest request.
const REQUEST_BYTES: u64 = 16 << 10;
/// How long a caller may take to ask, or to take an answer's line.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the socket: for root, and for the group `portreeve` where there is one.
///
/// # Errors
///
/// When the file cannot be made.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    let group = Group::from_name(GROUP).ok().flatten();
    if let Some(group) = &group {
        nix::unistd::chown(path, None, Some(group.gid))?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(if group.is_some() { 0o660 } else { 0o600 }))?;
    Ok(listener)
}

/// Answers until the task is dropped.
pub(super) async fn serve(listener: UnixListener, agent: Rc<RefCell<Agent>>) {
    let places = Arc::new(Semaphore::new(CONVERSATIONS));
    loop {
        // The place first, so that those who come too many wait in the kernel's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let agent = Rc::clone(&agent);
                tokio::task::spawn_local(async move {
                    if let Err(error) = converse(stream, &agent).await {
                        tracing::debug!("a conversation broke off: {error}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("the control socket: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, agent: &RefCell<Agent>) -> io::Result<()> {
    // Who it is that nobody can tell may change nothing.
    let uid = stream.peer_cred().ok().map(|peer| peer.uid());
    let root = uid.is_some_and(|uid| Uid::from_raw(uid).is_root());
    let uid = uid.unwrap_or(u32::MAX);
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(REQUEST_BYTES));
    tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await??;
    let request: Request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => return send(&mut writer, &failure(format!("not a request: {error}"))).await,
    };
    if request.changes() && !root {
        let refusal = Failure { error: "only root may change anything".to_owned(), forbidden: true };
        return send(&mut writer, &refusal).await;
    }
    match request {
        Request::Attempts { since, follow } => attempts(&mut writer, agent, since, follow).await,
        Request::Mail { since, follow } => mail(&mut writer, agent, since, follow).await,
        Request::Alerts { filter, follow } => alerts::list(&mut writer, agent, &filter, follow).await,
        Request::Alert { id } => alerts::show(&mut writer, agent, id).await,
        Request::AckAlert { id, note } => alerts::order(&mut writer, agent, id, Order::Acknowledge, uid, note).await,
        Request::ResolveAlert { id, resolution, note } => {
            alerts::order(&mut writer, agent, id, Order::Resolve(resolution), uid, note).await
        }
        Request::NoteAlert { id, what, note } => {
            alerts::order(&mut writer, agent, id, Order::Allowed(what), uid, note).await
        }
        Request::UndoAlert { id } => alerts::undo(&mut writer, agent, id, uid).await,
        Request::Status => {
            let answer = agent.borrow_mut().status();
            send(&mut writer, &answer).await
        }
        Request::Subjects => {
            let subjects = agent.borrow_mut().subjects();
            match subjects {
                Ok(subjects) => {
                    for subject in subjects {
                        send(&mut writer, &subject).await?;
                    }
                    Ok(())
                }
                Err(error) => send(&mut writer, &failure(error)).await,
            }
        }
        // Each borrow ends before the answer is sent: a caller that is slow to read must not hold up the agent.
        Request::Explain(question) => {
            let explanation = agent.borrow_mut().explain(&question);
            answer(&mut writer, explanation).await
        }
        Request::Reload => {
            let reloaded = agent.borrow_mut().reload();
            answer(&mut writer, reloaded).await
        }
        Request::HandOver => {
            let leave = agent.borrow().leave.clone();
            send(&mut writer, &serde_json::json!({ "handing_over": std::process::id() })).await?;
            leave.notify_one();
            Ok(())
        }
        Request::Mode { observe } => {
            let reloaded = agent.borrow_mut().switch_mode(observe);
            answer(&mut writer, reloaded).await
        }
    }
}

async fn attempts(
    writer: &mut (impl tokio::io::AsyncWrite + Unpin),
    agent: &RefCell<Agent>,
    since: Option<jiff::Timestamp>,
    follow: bool,
) -> io::Result<()> {
    // Both at one moment, so that none is missed and none comes twice.
    let (past, coming) = {
        let agent = agent.borrow();
        (agent.attempts().since(since), agent.attempts().follow())
    };
    records(writer, past, coming, since.is_some(), follow).await
}

async fn mail(
    writer: &mut (impl tokio::io::AsyncWrite + Unpin),
    agent: &RefCell<Agent>,
    since: Option<jiff::Timestamp>,
    follow: bool,
) -> io::Result<()> {
    let (past, coming) = agent.borrow().relay().records(since);
    records(writer, past, coming, since.is_some(), follow).await
}

/// What is on record, and what comes if it is followed; then the past only where it was asked for.
async fn records<T: Serialize + Clone>(
    writer: &mut (impl tokio::io::AsyncWrite + Unpin),
    past: Vec<Arc<T>>,
    mut coming: broadcast::Receiver<Arc<T>>,
    since: bool,
    follow: bool,
) -> io::Result<()> {
    if !follow || since {
        for one in past {
            send(writer, &*one).await?;
        }
    }
    if !follow {
        return Ok(());
    }
    loop {
        match coming.recv().await {
            Ok(one) => send(writer, &*one).await?,
            Err(RecvError::Lagged(lost)) => send(writer, &Lost { lost }).await?,
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

async fn answer(
    writer: &mut (impl tokio::io::AsyncWrite + Unpin),
    answer: Result<impl Serialize, String>,
) -> io::Result<()> {
    match answer {
        Ok(answer) => send(writer, &answer).await,
        Err(error) => send(writer, &failure(error)).await,
    }
}

fn failure(error: String) -> Failure {
    Failure { error, forbidden: false }
}

async fn send(writer: &mut (impl tokio::io::AsyncWrite + Unpin), value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    tokio::time::timeout(PATIENCE, writer.write_all(&line)).await??;
    Ok(())
}
