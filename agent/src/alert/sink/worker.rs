//! One sink's thread: deliver, try again, give up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::SinkStatus;
use super::message::{Message, Notice};
use crate::alert::Occasion;
use crate::alert::settings::SinkSettings;
use crate::detect::Severity;

/// The longest wait between two tries.
const LONGEST: Duration = Duration::from_secs(300);

/// Takes a message to where it belongs. May wait, but not for ever.
pub(super) trait Deliver: Send {
    /// Delivers one message.
    ///
    /// # Errors
    ///
    /// Why it did not work, and whether it may work later.
    fn deliver(&mut self, message: &Message) -> Result<(), Failure>;
}

/// Why a message was not delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Another try may succeed.
    #[error("{why}")]
    Later { why: String },
    /// The same would happen again.
    #[error("{why}")]
    Never { why: String },
}

impl Failure {
    /// One that may pass: what was done, to what, and what came of it.
    pub(super) fn later(step: &str, object: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self::Later { why: format!("cannot {step} {object}: {error}") }
    }
}

/// When to try again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// How many tries there are.
    pub(super) tries: u32,
    /// How long to wait after the first.
    pub(super) first: Duration,
}

impl Plan {
    /// How long to wait after a number of failures, from 1 on: twice as long each time, up to five minutes. None if that
    /// was the last try. There is no jitter: one host's few messages are no herd.
    pub(super) fn pause(self, failures: u32) -> Option<Duration> {
        if failures >= self.tries {
            return None;
        }
        let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        Some(self.first.saturating_mul(factor).min(LONGEST.max(self.first)))
    }
}

/// What is known of a sink from all threads: whom it serves, and its counts.
#[derive(Debug)]
pub(super) struct Line {
    name: String,
    kind: &'static str,
    min_severity: Severity,
    on: Vec<Occasion>,
    queued: AtomicU64,
    delivered: AtomicU64,
    retried: AtomicU64,
    dropped: AtomicU64,
    dead: AtomicU64,
    last_error: Mutex<Option<(Timestamp, String)>>,
}

impl Line {
    pub(super) fn new(sink: &SinkSettings) -> Self {
        Self {
            name: sink.name.clone(),
            kind: sink.kind.name(),
            min_severity: sink.min_severity,
            on: sink.on.clone(),
            queued: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            last_error: Mutex::new(None),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is told of this.
    pub(super) fn wants(&self, notice: &Notice) -> bool {
        notice.alert.severity >= self.min_severity && self.on.contains(&notice.occasion)
    }

    pub(super) fn queued(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    /// A message did not fit.
    pub(super) fn dropped(&self) {
        if self.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("alert sink {} does not keep up; what does not fit is counted as dropped", self.name);
        }
    }

    /// One that had been counted as queued did not fit after all.
    pub(super) fn not_queued(&self) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
        self.dropped();
    }

    pub(super) fn failed(&self, why: &str) {
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((Timestamp::now(), why.to_owned()));
    }

    pub(super) fn status(&self) -> SinkStatus {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        SinkStatus {
            name: self.name.clone(),
            kind: self.kind.to_owned(),
            queued: get(&self.queued),
            delivered: get(&self.delivered),
            retried: get(&self.retried),
            dropped: get(&self.dropped),
            dead: get(&self.dead),
            last_error_at: last.as_ref().map(|(time, _)| *time),
            last_error: last.map(|(_, why)| why),
        }
    }

    fn done(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
        self.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Says to every thread until when it may work.
#[derive(Debug, Default)]
pub(super) struct Stop {
    deadline: Mutex<Option<Instant>>,
    changed: Condvar,
}

impl Stop {
    /// Everything ends at this moment.
    pub(super) fn at(&self, deadline: Instant) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Some(deadline);
        self.changed.notify_all();
    }

    /// Waits; false if the end comes first.
    fn wait(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut deadline = self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return false;
            }
            if until <= now {
                return true;
            }
            let next = deadline.map_or(until, |deadline| deadline.min(until));
            let waited = self.changed.wait_timeout(deadline, next - now);
            deadline = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// One sink's thread.
pub(super) struct Worker {
    pub(super) sink: Box<dyn Deliver>,
    pub(super) line: Arc<Line>,
    pub(super) plan: Plan,
    pub(super) stop: Arc<Stop>,
}

impl Worker {
    /// Works until the queue's other end is gone and it is empty.
    pub(super) fn work(mut self, queue: &Receiver<Message>) {
        for message in queue {
            match self.deliver(&message) {
                Ok(()) => self.line.done(&self.line.delivered),
                Err(why) => {
                    tracing::warn!("alert sink {} has given up \"{}\": {why}", self.line.name, message.headline());
                    self.line.done(&self.line.dead);
                }
            }
        }
    }

    /// Tries until it is delivered or given up; then why.
    fn deliver(&mut self, message: &Message) -> Result<(), String> {
        let over = || "the time to stop is over".to_owned();
        if !self.stop.wait(Duration::ZERO) {
            return Err(over());
        }
        let mut failures = 0;
        loop {
            let failure = match self.sink.deliver(message) {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            let why = failure.to_string();
            self.line.failed(&why);
            failures += 1;
            match failure {
                Failure::Never { .. } => return Err(why),
                Failure::Later { .. } => {
                    let Some(pause) = self.plan.pause(failures) else { return Err(why) };
                    tracing::debug!("alert sink {}: {why}; tried again in {pause:?}", self.line.name);
                    if !self.stop.wait(pause) {
                        return Err(over());
                    }
                    self.line.retried.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pause_is_twice_the_one_before_up_to_five_minutes() {
        let plan = Plan { tries: 10, first: Duration::from_secs(5) };
        let pauses: Vec<Option<u64>> = (1..=10).map(|n| plan.pause(n).map(|pause| pause.as_secs())).collect();
        let expected = [5, 10, 20, 40, 80, 160, 300, 300, 300].map(Some).into_iter().chain([None]);
        assert_eq!(pauses, expected.collect::<Vec<_>>());
        let long = Plan { tries: u32::MAX, first: Duration::from_secs(3600) };
        assert_eq!(long.pause(1000), Some(Duration::from_secs(3600)));
    }

    #[test]
    fn a_wait_ends_when_the_end_is_near() {
        let stop = Stop::default();
        assert!(stop.wait(Duration::from_millis(5)));
        stop.at(Instant::now() + Duration::from_millis(20));
        assert!(stop.wait(Duration::from_millis(1)));
        let start = Instant::now();
        assert!(!stop.wait(Duration::from_secs(60)));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
