//! Listeners, and the tasks of the sessions.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener as StdListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::Backlog;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::engine::{Engine, Lasting};
use super::origin::{Origin, Way};
use super::session::Session;
use super::wire::reply::Reply;

/// How many connections wait to be accepted: as many as Linux lets (net.core.somaxconn).
const BACKLOG: i32 = 4096;
/// How long nothing is accepted after there was no room for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// How far the relay is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// It runs.
    Running,
    /// Sessions end where they can.
    Draining,
    /// They end where they are.
    Ending,
    /// Its threads end.
    Over,
}

/// What listeners and sessions have in common.
#[derive(Debug)]
pub(super) struct Common {
    /// The engine of the policy in force.
    pub(super) engine: Mutex<Option<Arc<Engine>>>,
    pub(super) lasting: Arc<Lasting>,
    pub(super) phase: watch::Sender<Phase>,
}

impl Common {
    /// The engine that new sessions get.
    pub(super) fn engine(&self) -> Option<Arc<Engine>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Listens, with nobody accepting yet.
pub(super) fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // Again, with more room than the standard library's 128: Linux takes the new number.
    nix::sys::socket::listen(&listener, Backlog::new(BACKLOG)?)?;
    Ok(listener)
}

/// Accepts until the relay ends.
pub(super) async fn accept(listener: TcpListener, common: Arc<Common>) {
    let mut phase = common.phase.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = reaches(&mut phase, Phase::Draining) => return,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, &common),
            Err(error) => {
                tracing::warn!("the relay: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn admit(stream: TcpStream, peer: SocketAddr, common: &Arc<Common>) {
    let Some(engine) = common.engine() else { return };
    let counters = &common.lasting.counters;
    let brings = engine.settings.way == Way::Redirect;
    let brought = if brings { common.lasting.door.as_ref().and_then(|door| door.arrived(peer)) } else { None };
    let refusal = if brings && brought.is_none() {
        // Somebody who came by himself; or one of so many that the kernel has forgotten him, who may come again.
        Some(Reply::new(421, &format!("4.7.1 {} portreeve: nobody brought you here", engine.name)))
    } else if !brings && !engine.settings.takes(peer) {
        Some(Reply::new(
            554,
            &format!("5.7.1 {} portreeve: [{}] may not use this relay", engine.name, peer.ip().to_canonical()),
        ))
    } else if counters.active.load(Ordering::Relaxed) >= engine.settings.max_sessions as u64 {
        Some(Reply::new(421, &format!("4.3.2 {} portreeve: too many sessions; try again", engine.name)))
    } else {
        None
    };
    if let Some(refusal) = refusal {
        counters.turned_away.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(turn_away(stream, refusal));
        return;
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("a connection without TCP_NODELAY: {error}");
    }
    let mut origin = Origin { peer, way: engine.settings.way, destination: None, subject: None, rule: None };
    if let Some(brought) = brought {
        origin.tell(&brought, &common.lasting.rules.lock().unwrap_or_else(PoisonError::into_inner));
    }
    serve(stream, origin, engine, common);
}

/// Runs a session in a task of its own. Whoever accepts connections in another way calls this with what it knows of them.
pub(super) fn serve(stream: TcpStream, origin: Origin, engine: Arc<Engine>, common: &Arc<Common>) {
    let place = Place::take(&common.lasting);
    let (draining, mut ending) = (common.phase.subscribe(), common.phase.subscribe());
    tokio::spawn(async move {
        let mut session = Box::new(Session::new(engine, origin, stream, draining));
        let cut = tokio::select! {
            () = session.run() => false,
            () = reaches(&mut ending, Phase::Ending) => true,
        };
        if cut {
            session.give_up().await
        } else {
            session.finish().await
        }
        drop(place);
    });
}

async fn turn_away(mut stream: TcpStream, reply: Reply) {
    let said = tokio::time::timeout(Duration::from_secs(5), async {
        stream.write_all(reply.bytes()).await?;
        stream.shutdown().await
    });
    let said = said.await;
    tracing::trace!("turned away: {said:?}");
}

/// Waits until the relay is so far.
pub(super) async fn reaches(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    if phase.wait_for(|phase| *phase >= wanted).await.is_err() {
        tracing::debug!("the relay has ended");
    }
}

/// A session's place among those that run.
#[derive(Debug)]
struct Place(Arc<Lasting>);

impl Place {
    fn take(lasting: &Arc<Lasting>) -> Self {
        lasting.counters.sessions.fetch_add(1, Ordering::Relaxed);
        lasting.counters.active.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(lasting))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.counters.active.fetch_sub(1, Ordering::Relaxed);
    }
}
