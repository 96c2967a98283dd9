//! The relay: an SMTP proxy without a queue, between the mail server and where its mail leaves.
//!
//! The sender keeps a message until the next server has accepted it, so the relay stores none: it says "250" only after the
//! upstream has said it for the same message, and when anything goes wrong before that, "later". What is lost with it is a
//! conversation, never a message.
//!
//! [`wire`] reads bytes, a session (`session`) carries on one conversation with a client and an upstream, filters ([`filter`])
//! say what goes no further, and [`Relay`] is what the agent holds: listeners, threads of its own, counters and records.

mod conn;
mod engine;
pub mod filter;
pub mod message;
pub mod origin;
pub mod record;
mod server;
mod session;
pub mod settings;
pub mod spool;
mod status;
mod upstream;
pub mod wire;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

use crate::journal::Journal;
use crate::kernel::door::Door;
use engine::{Engine, Lasting};
use server::{Common, Phase};

pub use record::MailRecord;
pub use settings::Settings;
pub use status::RelayStatus;
pub use upstream::UpstreamStatus;

/// The relay's threads. Each has a reactor and sessions of its own: with one of both for all threads, a good part of the time
/// goes into waking each other (measured at 20 sessions: 79 instead of 93 % of a plain proxy's messages a second).
const THREADS: usize = 2;

/// The relay, as the agent has it.
#[derive(Debug)]
pub struct Relay {
    common: Arc<Common>,
    threads: Vec<Handle>,
    /// Listeners that nobody accepts from yet.
    bound: BTreeMap<SocketAddr, TcpListener>,
    accepting: BTreeMap<SocketAddr, Vec<JoinHandle<()>>>,
    wanted: Option<Settings>,
    /// What is wrong, in sentences.
    troubles: Vec<String>,
}

impl Relay {
    /// A relay that does nothing yet. `state` is the folder where records are kept.
    #[must_use]
    pub fn new(state: &Path, door: Option<Door>) -> Self {
        let lasting = Lasting {
            records: Mutex::new(Journal::open(state, "mail")),
            counters: record::Counters::default(),
            guard: Arc::default(),
            door: door.map(Arc::new),
            rules: Mutex::default(),
            spool: state.to_owned(),
        };
        let phase = watch::channel(Phase::Running).0;
        let common = Common { engine: Mutex::default(), lasting: Arc::new(lasting), phase };
        Self {
            common: Arc::new(common),
            threads: Vec::new(),
            bound: BTreeMap::new(),
            accepting: BTreeMap::new(),
            wanted: None,
            troubles: Vec::new(),
        }
    }

    /// Listens where a policy says, which below port 1024 takes a right that the agent lets go of. Nothing is accepted
    /// before [`Self::start`].
    pub fn bind(&mut self, wanted: Option<&Settings>) {
        self.troubles.clear();
        self.wanted = wanted.cloned();
        let addresses = wanted.map(|settings| settings.listen.clone()).unwrap_or_default();
        self.bound.retain(|address, _| addresses.contains(address));
        self.accepting.retain(|address, tasks| {
            let stays = addresses.contains(address);
            if !stays {
                // The sessions go on.
                tasks.iter().for_each(JoinHandle::abort);
            }
            stays
        });
        for address in addresses {
            if self.bound.contains_key(&address) || self.accepting.contains_key(&address) {
                continue;
            }
            match self.listen(address) {
                Ok(listener) => drop(self.bound.insert(address, listener)),
                Err(error) => {
                    let mend = if error.kind() == std::io::ErrorKind::PermissionDenied {
                        "; ports below 1024 are taken when the agent starts: start it again"
                    } else {
                        ""
                    };
                    self.trouble(format!("the relay does not listen at {address}: {error}{mend}"));
                }
            }
        }
    }

    /// Listens, and tells the kernel that it may bring connections there.
    fn listen(&self, address: SocketAddr) -> std::io::Result<TcpListener> {
        let listener = server::bind(address)?;
        if let Some(door) = &self.common.lasting.door {
            door.listens(listener.as_fd())?;
        }
        Ok(listener)
    }

    /// Takes over the names of a policy's rules.
    pub fn name_rules(&self, generation: u32, names: &[String]) {
        // Nothing panics while it is held.
        *self.common.lasting.rules.lock().unwrap_or_else(PoisonError::into_inner) = (generation, names.to_vec());
    }

    /// Takes what [`Self::bind`] was told into use, on threads that are started if there are none. To be called when the
    /// agent has given up the rights that they must not have.
    pub fn start(&mut self) {
        let Some(wanted) = self.wanted.clone() else {
            *self.common.engine.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return;
        };
        match Engine::load(&wanted, &self.common.lasting) {
            Ok(engine) => {
                *self.common.engine.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(engine));
            }
            Err(error) if self.common.engine().is_some() => {
                self.trouble(format!("the relay goes on as it was before the change of the policy: {error}"));
            }
            Err(error) => {
                self.trouble(format!("the relay takes no mail: {error}"));
                return;
            }
        }
        if let Err(error) = self.accept() {
            self.trouble(format!("the relay takes no mail: {error}"));
        }
    }

    fn accept(&mut self) -> std::io::Result<()> {
        while self.threads.len() < THREADS {
            let thread = self.thread()?;
            self.threads.push(thread);
        }
        while let Some((address, listener)) = self.bound.pop_first() {
            let mut tasks = Vec::with_capacity(THREADS);
            for thread in &self.threads {
                // All wait for connections at one socket; whoever is first has it.
                let _inside = thread.enter();
                let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
                tasks.push(thread.spawn(server::accept(listener, Arc::clone(&self.common))));
            }
            tracing::info!("the relay listens at {address}");
            self.accepting.insert(address, tasks);
        }
        Ok(())
    }

    fn thread(&self) -> std::io::Result<Handle> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (handle, mut phase) = (runtime.handle().clone(), self.common.phase.subscribe());
        let until_over = move || runtime.block_on(server::reaches(&mut phase, Phase::Over));
        std::thread::Builder::new().name("relay".to_owned()).spawn(until_over)?;
        Ok(handle)
    }

    /// Takes over another policy.
    pub fn settings(&mut self, wanted: Option<&Settings>) {
        if self.wanted.as_ref() != wanted || !self.troubles.is_empty() {
            self.bind(wanted);
            self.start();
        }
    }

    fn trouble(&mut self, what: String) {
        tracing::error!("{what}");
        self.troubles.push(what);
    }

    /// The records since a time, and those to come from that moment on.
    #[must_use]
    pub fn records(
        &self,
        since: Option<jiff::Timestamp>,
    ) -> (Vec<Arc<MailRecord>>, broadcast::Receiver<Arc<MailRecord>>) {
        let records = self.common.lasting.records.lock().unwrap_or_else(PoisonError::into_inner);
        (records.since(since), records.follow())
    }

    /// Tells all sessions that the agent ends. Those between messages end now, the others have until the time that is
    /// returned.
    pub fn drain(&mut self) -> Draining {
        self.common.phase.send_replace(Phase::Draining);
        self.accepting.clear();
        self.bound.clear();
        let patience = self.wanted.as_ref().map_or(Duration::ZERO, |settings| settings.timeouts.drain);
        Draining { common: Arc::clone(&self.common), until: Instant::now() + patience }
    }
}

/// The end of a relay.
#[derive(Debug)]
pub struct Draining {
    common: Arc<Common>,
    until: Instant,
}

/// How often it is looked whether all sessions have ended.
const LOOK: Duration = Duration::from_millis(10);
/// How long they have to say that they end.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Draining {
    /// Waits until all sessions have ended.
    pub async fn done(self) {
        self.wait(self.until).await;
        let left = self.common.lasting.counters.active.load(Ordering::Relaxed);
        if left > 0 {
            tracing::warn!("{left} sessions of the relay are cut short; their mail stays with the mail server");
            self.common.phase.send_replace(Phase::Ending);
            self.wait(Instant::now() + LAST_WORDS).await;
        }
        self.common.phase.send_replace(Phase::Over);
    }

    async fn wait(&self, until: Instant) {
        while self.common.lasting.counters.active.load(Ordering::Relaxed) > 0 && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A time in words.
pub(crate) fn words(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        _ if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        _ if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}
