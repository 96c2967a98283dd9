//! Where mail goes: one or several servers, by priority, and how they are doing.

mod capabilities;
mod hop;
mod secure;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::rustls::ClientConfig;

use crate::kernel::door::Door;

use super::settings::{Settings, Tls, UpstreamSettings};
use secure::Credentials;

pub(super) use capabilities::Capabilities;
pub(super) use hop::{Hop, Lost};
pub(super) use secure::server;

/// How long an upstream that has failed is tried last, for each time in a row.
const REST: Duration = Duration::from_secs(10);
/// At most so long.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Makes the connection to an upstream: the one place where the relay connects.
///
/// # Errors
///
/// The last address's, when none of them answers.
pub(super) async fn connect(upstream: &Upstream) -> io::Result<TcpStream> {
    let (host, port) = (upstream.settings.host.as_str(), upstream.settings.port);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        match connect_to(address, upstream.door.as_deref()).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_to(address: SocketAddr, door: Option<&Door>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Small writes are whole ones here.
    socket.set_nodelay(true)?;
    // To a guarded port only the relay's own connections go out that the agent has vouched for.
    if let Some(door) = door {
        door.let_out(socket.as_fd())?;
    }
    socket.connect(address).await
}

/// One upstream.
#[derive(Debug)]
pub(super) struct Upstream {
    settings: UpstreamSettings,
    tls: Option<Arc<ClientConfig>>,
    credentials: Option<Credentials>,
    door: Option<Arc<Door>>,
    health: Mutex<Health>,
    sessions: AtomicU64,
    failures: AtomicU64,
}

/// How an upstream is doing.
#[derive(Debug, Default)]
struct Health {
    /// How often it has failed in a row.
    failed: u32,
    /// Until when it is tried last.
    rests: Option<Instant>,
    last_error: Option<String>,
}

/// An upstream in the status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Its host and port.
    pub name: String,
    /// The last attempt to reach it was none in vain.
    pub healthy: bool,
    /// Sessions with it.
    pub sessions: u64,
    /// Attempts in vain.
    pub failures: u64,
    /// Why the last one was.
    pub last_error: Option<String>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Upstreams {
    list: Vec<Upstream>,
    /// Turns those of one priority.
    turn: AtomicUsize,
}

impl Upstreams {
    /// Reads what the upstreams' settings name.
    pub(super) fn load(settings: &Settings, door: Option<&Arc<Door>>) -> Result<Self, String> {
        let mut list = Vec::with_capacity(settings.upstreams.len());
        for settings in &settings.upstreams {
            let named = |error| format!("upstream {}: {error}", settings.title());
            let tls = (settings.tls != Tls::None).then(|| secure::client(settings)).transpose().map_err(named)?;
            let credentials = settings.auth_file.as_deref().map(Credentials::read).transpose().map_err(named)?;
            list.push(Upstream {
                settings: settings.clone(),
                tls,
                credentials,
                door: door.cloned(),
                health: Mutex::default(),
                sessions: AtomicU64::new(0),
                failures: AtomicU64::new(0),
            });
        }
        Ok(Self { list, turn: AtomicUsize::new(0) })
    }

    /// A session with the first that takes it; or what went wrong with each.
    pub(super) async fn open(&self, name: &str, patience: Duration) -> Result<Hop, String> {
        let mut wrong = Vec::new();
        for upstream in self.order() {
            match Hop::open(upstream, name, patience).await {
                Ok(hop) => {
                    upstream.well();
                    return Ok(hop);
                }
                Err(lost) => {
                    let why = format!("{}: {lost}", upstream.settings.title());
                    upstream.failed(&lost.to_string());
                    wrong.push(why);
                }
            }
        }
        Err(wrong.join("; "))
    }

    /// The order to try them in: those that have just failed last, then by priority, equal ones in turn.
    fn order(&self) -> Vec<&Upstream> {
        let now = Instant::now();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.list.len().max(1);
        let turned = self.list.iter().cycle().skip(turn).take(self.list.len());
        let mut order: Vec<_> = turned.map(|upstream| (upstream.rests(now), upstream)).collect();
        order.sort_by_key(|(rests, upstream)| (*rests, upstream.settings.priority));
        order.into_iter().map(|(_, upstream)| upstream).collect()
    }

    /// How they are doing.
    pub(super) fn status(&self) -> Vec<UpstreamStatus> {
        self.list.iter().map(Upstream::status).collect()
    }
}

impl Upstream {
    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        // Nothing panics while it is held.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rests(&self, now: Instant) -> bool {
        self.health().rests.is_some_and(|until| until > now)
    }

    fn well(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        let mut health = self.health();
        if health.failed > 0 {
            tracing::info!("the relay's upstream {} answers again", self.settings.title());
        }
        *health = Health { last_error: health.last_error.take(), ..Health::default() };
    }

    fn failed(&self, why: &str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let mut health = self.health();
        if health.failed == 0 {
            tracing::warn!("the relay's upstream {} fails: {why}", self.settings.title());
        }
        health.failed = health.failed.saturating_add(1);
        health.rests = Some(Instant::now() + (REST * health.failed).min(LONGEST_REST));
        health.last_error = Some(why.to_owned());
    }

    fn status(&self) -> UpstreamStatus {
        let health = self.health();
        UpstreamStatus {
            name: self.settings.title(),
            healthy: health.failed == 0,
            sessions: self.sessions.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            last_error: health.last_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstreams(priorities: &[(&str, u16)]) -> Upstreams {
        let upstreams = priorities.iter().map(|(host, priority)| UpstreamSettings {
            host: (*host).to_owned(),
            port: 25,
            tls: Tls::None,
            tls_name: None,
            ca_file: None,
            auth_file: None,
            priority: *priority,
        });
        Upstreams::load(&Settings { upstreams: upstreams.collect(), ..Settings::default() }, None).unwrap()
    }

    fn order(upstreams: &Upstreams) -> Vec<&str> {
        upstreams.order().into_iter().map(|upstream| upstream.settings.host.as_str()).collect()
    }

    #[test]
    fn those_of_one_priority_take_turns_and_one_that_failed_comes_last() {
        let upstreams = upstreams(&[("a", 1), ("b", 1), ("c", 2)]);
        assert_eq!(order(&upstreams), ["a", "b", "c"]);
        assert_eq!(order(&upstreams), ["b", "a", "c"]);
        upstreams.list[0].failed("no");
        upstreams.list[1].failed("no");
        assert_eq!(order(&upstreams)[0], "c");
        assert!(!upstreams.status()[0].healthy);
        upstreams.list[0].well();
        assert_eq!(order(&upstreams)[0], "a");
        assert_eq!(upstreams.status()[0].last_error.as_deref(), Some("no"), "still to be read");
    }
}
