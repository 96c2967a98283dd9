//! The sinks: who is told of alerts.
//!
//! [`Sinks::tell`] never waits. A dispatcher gathers what comes together and makes one summary of a flood; each sink has
//! a thread and a bounded queue of its own, so that one that hangs holds up neither the agent nor the others. What does
//! not fit and what a sink does not take after its tries is counted and logged; nothing is lost in silence.

mod command;
mod dispatch;
mod email;
mod file;
mod journald;
mod message;
mod syslog;
mod text;
mod webhook;
mod worker;

#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::settings::{Settings, SinkKind, SinkSettings};
use super::{Alert, Occasion};
use dispatch::{Dispatcher, Outlet};
use message::Notice;
use worker::{Deliver, Line, Plan, Stop};

/// How many notices wait for the dispatcher at most. It only sorts, so they wait when the machine is overwhelmed.
const INCOMING: usize = 4096;
/// How long the dispatcher gathers after a notice, to see whether it comes alone.
const GATHER: Duration = Duration::from_secs(1);

/// The running sinks of one policy.
#[derive(Debug)]
pub struct Sinks {
    incoming: Option<SyncSender<Notice>>,
    lines: Vec<Arc<Line>>,
    stop: Arc<Stop>,
    // Every thread holds the other end; nothing is ever sent.
    running: Receiver<()>,
}

/// How a sink is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkStatus {
    /// Its name.
    pub name: String,
    /// What it is: `journald`, `syslog`, `file`, `webhook`, `email` or `command`.
    pub kind: String,
    /// Messages that wait, the one it is busy with included.
    pub queued: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Tries that failed and were repeated.
    pub retried: u64,
    /// Messages that did not fit into its queue.
    pub dropped: u64,
    /// Messages given up: after the last try, at once where another try is no use, or because the agent ended.
    pub dead: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// When.
    pub last_error_at: Option<Timestamp>,
}

impl Sinks {
    /// Starts the sinks of a policy. To be called after the agent has dropped its capabilities, because threads keep
    /// those that they are born with. A sink that cannot work yet says so in [`Self::status`] when it is told something.
    #[must_use]
    pub fn start(settings: &Settings, host: &str) -> Self {
        Self::start_gathering(settings, host, GATHER)
    }

    fn start_gathering(settings: &Settings, host: &str, gather: Duration) -> Self {
        let stop = Arc::new(Stop::default());
        let (alive, running) = mpsc::sync_channel(0);
        let mut lines = Vec::new();
        let mut outlets = Vec::new();
        for sink in &settings.sinks {
            let line = Arc::new(Line::new(sink));
            lines.push(Arc::clone(&line));
            let (sender, queue) = mpsc::sync_channel(sink.queue.max(1));
            let worker = worker::Worker {
                sink: build(sink, host),
                line: Arc::clone(&line),
                plan: Plan { tries: sink.tries.max(1), first: sink.retry },
                stop: Arc::clone(&stop),
            };
            if spawn(&alive, &line, move || worker.work(&queue)) {
                outlets.push(Outlet::new(line, sender));
            }
        }
        let (incoming, notices) = mpsc::sync_channel(INCOMING);
        let dispatcher = Dispatcher { outlets, flood: settings.flood, window: settings.flood_window, gather };
        let running_dispatcher =
            lines.first().is_some_and(|line| spawn(&alive, line, move || dispatcher.run(&notices)));
        Self { incoming: running_dispatcher.then_some(incoming), lines, stop, running }
    }

    /// Tells every sink that wants to know. Never waits.
    pub fn tell(&self, occasion: Occasion, alert: &Arc<Alert>) {
        let Some(incoming) = &self.incoming else { return };
        let notice = Notice { occasion, alert: Arc::clone(alert), time: Timestamp::now() };
        if let Err(mpsc::TrySendError::Full(notice) | mpsc::TrySendError::Disconnected(notice)) =
            incoming.try_send(notice)
        {
            for line in self.lines.iter().filter(|line| line.wants(&notice)) {
                line.dropped();
            }
        }
    }

    /// How each sink is doing, in the order of the policy.
    #[must_use]
    pub fn status(&self) -> Vec<SinkStatus> {
        self.lines.iter().map(|line| line.status()).collect()
    }

    /// Delivers what is queued, for as long as `patience` lasts; what is left then counts as given up. A thread that
    /// waits for a server at that moment is left behind, and ends by itself within that sink's time limit.
    pub fn stop(mut self, patience: Duration) -> Vec<SinkStatus> {
        let deadline = Instant::now() + patience;
        self.stop.at(deadline);
        drop(self.incoming.take());
        // Whoever waits for a next try sees the deadline; whoever is in the middle of one gets a moment to say so.
        let moment = Duration::from_millis(200);
        match self.running.recv_timeout(patience + moment) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => {
                let waiting = self.lines.iter().map(|line| line.status().queued).sum::<u64>();
                tracing::warn!("{waiting} messages to alert sinks are given up because the time to stop is over");
            }
        }
        self.status()
    }

    /// Stops them on a thread of its own: what a reload does with the sinks of the policy before.
    pub fn retire(self, patience: Duration) {
        let retired = std::thread::Builder::new().name("retired-sinks".to_owned()).spawn(move || {
            for line in self.stop(patience).into_iter().filter(|line| line.dead > 0) {
                tracing::debug!("alert sink {} of the policy before had given up {} messages", line.name, line.dead);
            }
        });
        if let Err(error) = retired {
            tracing::warn!("the alert sinks of the policy before are not waited for: {error}");
        }
    }
}

/// Runs something on a thread that counts as running until it ends.
fn spawn(alive: &SyncSender<()>, line: &Line, work: impl FnOnce() + Send + 'static) -> bool {
    let alive = alive.clone();
    let thread = std::thread::Builder::new().name(format!("sink-{}", line.name()));
    let spawned = thread.spawn(move || {
        work();
        drop(alive);
    });
    if let Err(error) = &spawned {
        line.failed(&format!("its thread cannot be started: {error}"));
    }
    spawned.is_ok()
}

fn build(sink: &SinkSettings, host: &str) -> Box<dyn Deliver> {
    let host = host.to_owned();
    match sink.kind.clone() {
        SinkKind::Journald { socket } => Box::new(journald::Journald { socket }),
        SinkKind::Syslog { to, format, facility } => Box::new(syslog::Syslog { to, format, facility, host }),
        SinkKind::File { path, rotate, keep } => Box::new(file::JsonLines { path, rotate, keep, host }),
        SinkKind::Webhook(settings) => Box::new(webhook::Hook { settings, host }),
        SinkKind::Email { host: server, port, from, to } => Box::new(email::Email { server, port, from, to, host }),
        SinkKind::Command { program, arguments, timeout } => {
            Box::new(command::Program { program, arguments, timeout, host })
        }
    }
}
