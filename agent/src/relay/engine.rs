//! What all sessions of one policy share.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_rustls::rustls::ServerConfig;

use super::filter::{BounceGuard, Chain};
use super::record::{Counters, MailRecord};
use super::settings::Settings;
use super::upstream::{self, Upstreams};
use crate::journal::Journal;
use crate::kernel::door::Door;

/// What outlives a change of the policy.
#[derive(Debug)]
pub(super) struct Lasting {
    pub(super) records: Mutex<Journal<MailRecord>>,
    pub(super) counters: Counters,
    pub(super) guard: Arc<BounceGuard>,
    /// The kernel, which the relay asks who comes and tells who goes.
    pub(super) door: Option<Arc<Door>>,
    /// The policy's generation, and the names of its rules.
    pub(super) rules: Mutex<(u32, Vec<String>)>,
    /// Where messages are put that filters want whole and that are large.
    pub(super) spool: PathBuf,
}

/// The settings of one policy, and what they name.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) settings: Settings,
    pub(super) name: String,
    pub(super) upstreams: Upstreams,
    pub(super) chain: Chain,
    pub(super) guard: Arc<BounceGuard>,
    /// For STARTTLS of clients.
    pub(super) acceptor: Option<Arc<ServerConfig>>,
    pub(super) lasting: Arc<Lasting>,
}

impl Engine {
    /// Reads what the settings name.
    ///
    /// # Errors
    ///
    /// What of it cannot be read, in a sentence.
    pub(super) fn load(settings: &Settings, lasting: &Arc<Lasting>) -> Result<Self, String> {
        Ok(Self {
            name: settings.name(),
            upstreams: Upstreams::load(settings, lasting.door.as_ref())?,
            chain: Chain::new(settings, Arc::clone(&lasting.guard)),
            guard: Arc::clone(&lasting.guard),
            acceptor: settings.certificate.as_ref().map(upstream::server).transpose()?,
            lasting: Arc::clone(lasting),
            settings: settings.clone(),
        })
    }

    /// Counts a message and keeps its record.
    pub(super) fn record(&self, record: MailRecord) {
        self.lasting.counters.count(&record);
        // Nothing panics while it is held.
        self.lasting.records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
    }
}
