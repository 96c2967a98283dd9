//! How the relay is doing.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::Relay;
use super::filter::FilterStatus;
use super::origin::Way;
use super::record::Messages;
use super::upstream::UpstreamStatus;

/// The relay in `portreeve status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// How mail comes to it.
    pub way: Way,
    /// What it calls itself.
    pub name: String,
    /// Where it listens.
    pub listen: Vec<String>,
    /// Sessions that run.
    pub active: u64,
    /// Sessions since the agent started.
    pub sessions: u64,
    /// Connections of those who may not connect, or that were too many.
    pub turned_away: u64,
    /// What became of messages since the agent started.
    pub messages: Messages,
    /// The upstreams.
    pub upstreams: Vec<UpstreamStatus>,
    /// The filters.
    pub filters: Vec<FilterStatus>,
    /// What is wrong.
    pub troubles: Vec<String>,
    /// Why records are only kept in memory.
    #[serde(default)]
    pub store_broken: Option<String>,
}

impl Relay {
    /// How it is doing; none where the policy has no relay.
    #[must_use]
    pub fn status(&self) -> Option<RelayStatus> {
        let wanted = self.wanted.as_ref()?;
        let (engine, counters) = (self.common.engine(), &self.common.lasting.counters);
        let records = self.common.lasting.records.lock().unwrap_or_else(PoisonError::into_inner);
        Some(RelayStatus {
            way: wanted.way,
            name: wanted.name(),
            listen: self.accepting.keys().map(ToString::to_string).collect(),
            active: counters.active.load(Ordering::Relaxed),
            sessions: counters.sessions.load(Ordering::Relaxed),
            turned_away: counters.turned_away.load(Ordering::Relaxed),
            messages: counters.messages(),
            upstreams: engine.as_ref().map(|engine| engine.upstreams.status()).unwrap_or_default(),
            filters: engine.as_ref().map(|engine| engine.chain.status()).unwrap_or_default(),
            troubles: self.troubles.clone(),
            store_broken: records.broken().map(str::to_owned),
        })
    }
}
