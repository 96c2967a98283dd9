//! The dispatcher: which notices a sink is told one by one, and which as one summary.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::message::{Message, Notice, Summary};
use super::worker::Line;

/// How many notices of one flood are kept for its summary; the others are counted.
const KEPT: usize = 10_000;
/// While a flood lasts each summary covers twice the time of the one before, up to this.
const LONGEST: Duration = Duration::from_secs(600);

/// Sorts notices into queues.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) outlets: Vec<Outlet>,
    /// How many notices within the window are told one by one.
    pub(super) flood: usize,
    pub(super) window: Duration,
    /// How long to gather after a notice.
    pub(super) gather: Duration,
}

/// The way to one sink.
#[derive(Debug)]
pub(super) struct Outlet {
    line: Arc<Line>,
    queue: SyncSender<Message>,
    /// When it was told how many notices, within the window.
    recent: VecDeque<(Instant, usize)>,
}

/// What was gathered.
#[derive(Debug, Default)]
struct Batch {
    notices: Vec<Notice>,
    uncounted: u64,
}

impl Batch {
    fn add(&mut self, notice: Notice) {
        if self.notices.len() < KEPT {
            self.notices.push(notice);
        } else {
            self.uncounted += 1;
        }
    }
}

impl Dispatcher {
    /// Works until nobody can tell anything any more, and then passes on what it has.
    pub(super) fn run(mut self, incoming: &Receiver<Notice>) {
        let mut lasting = self.window;
        while let Ok(first) = incoming.recv() {
            let start = Instant::now();
            let mut batch = Batch::default();
            batch.add(first);
            let mut over = gather(incoming, &mut batch, start + self.gather);
            let flooding = self.is_flood(&batch, start);
            if flooding && !over {
                over = gather(incoming, &mut batch, start + lasting);
            }
            // Asked again: some may have come only now.
            for outlet in &mut self.outlets {
                outlet.pass(&batch, self.flood);
            }
            if over {
                break;
            }
            lasting = if flooding { (lasting * 2).min(LONGEST).max(self.window) } else { self.window };
        }
    }

    /// Whether some sink would be told too many.
    fn is_flood(&mut self, batch: &Batch, now: Instant) -> bool {
        let (flood, window) = (self.flood, self.window);
        let floods = self.outlets.iter_mut().map(|outlet| {
            outlet.forget(now, window);
            outlet.is_flood(outlet.wanted(batch).count(), flood)
        });
        // Not any(): each has to forget.
        floods.fold(false, |any, floods| any | floods)
    }
}

impl Outlet {
    pub(super) fn new(line: Arc<Line>, queue: SyncSender<Message>) -> Self {
        Self { line, queue, recent: VecDeque::new() }
    }

    fn wanted<'b>(&self, batch: &'b Batch) -> impl Iterator<Item = &'b Notice> + use<'b, '_> {
        batch.notices.iter().filter(|notice| self.line.wants(notice))
    }

    fn forget(&mut self, now: Instant, window: Duration) {
        while self.recent.front().is_some_and(|(told, _)| now.saturating_duration_since(*told) > window) {
            self.recent.pop_front();
        }
    }

    fn is_flood(&self, wanted: usize, flood: usize) -> bool {
        wanted > 1 && wanted + self.recent.iter().map(|(_, count)| count).sum::<usize>() > flood
    }

    fn pass(&mut self, batch: &Batch, flood: usize) {
        let wanted: Vec<Notice> = self.wanted(batch).cloned().collect();
        if wanted.is_empty() {
            return;
        }
        if self.is_flood(wanted.len(), flood) {
            self.send(Message::Summary(Arc::new(Summary::of(&wanted, batch.uncounted))));
        } else {
            wanted.iter().for_each(|notice| self.send(Message::Notice(notice.clone())));
        }
        self.recent.push_back((Instant::now(), wanted.len()));
    }

    fn send(&self, message: Message) {
        // Counted before, so that the sink's thread never takes away what is not there yet.
        self.line.queued();
        if self.queue.try_send(message).is_err() {
            self.line.not_queued();
        }
    }
}

/// Gathers until a moment; true if nothing can come any more.
fn gather(incoming: &Receiver<Notice>, batch: &mut Batch, until: Instant) -> bool {
    loop {
        match incoming.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(notice) => batch.add(notice),
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => return true,
        }
    }
}
