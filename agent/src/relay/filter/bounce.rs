//! The bounce guard: a report about a message that the relay has refused goes no further.
//!
//! Behind the mail server's queue, a refusal makes the mail server write to the sender, who may be forged; and that report
//! leaves by the relay as well. So the relay remembers what it refused, for a while and so many, and drops a null sender's
//! message to the sender of such a one that refers to it by its Message-ID, its queue id or its recipient.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

use super::super::settings::Action;
use super::{Answer, Filter, Point, Refusal, Seen, Verdict};

/// How many marks are kept: three or more a message. The oldest go first.
const KEPT: usize = 30_000;

/// What is known of a message that was refused.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// Its sender.
    pub sender: &'a str,
    /// Its recipients.
    pub recipients: &'a [String],
    /// Its `Message-ID:`, if it came that far.
    pub message_id: Option<&'a str>,
    /// The mail server's id for it.
    pub queue_id: Option<&'a str>,
}

/// The memory.
#[derive(Debug, Default)]
pub struct BounceGuard {
    hasher: RandomState,
    marks: Mutex<Marks>,
}

#[derive(Debug, Default)]
struct Marks {
    /// How often each is in the queue.
    counts: HashMap<u64, u32>,
    order: VecDeque<u64>,
}

impl BounceGuard {
    /// Remembers a message. One of the null sender brings no report.
    pub fn remember(&self, refused: Refused<'_>) {
        if refused.sender.is_empty() {
            return;
        }
        let ids = [refused.message_id, refused.queue_id].into_iter().flatten().map(str::to_owned);
        let recipients = refused.recipients.iter().map(|recipient| recipient.to_ascii_lowercase());
        let marks: Vec<u64> = ids.chain(recipients).map(|reference| self.mark(refused.sender, &reference)).collect();
        let mut kept = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        for mark in marks {
            *kept.counts.entry(mark).or_default() += 1;
            kept.order.push_back(mark);
            if kept.order.len() > KEPT {
                kept.forget_oldest();
            }
        }
    }

    /// Whether a report to somebody refers to a message of theirs that was refused.
    #[must_use]
    pub fn knows(&self, to: &str, references: &[String]) -> bool {
        let marks: Vec<u64> = references.iter().map(|reference| self.mark(to, reference)).collect();
        let kept = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.iter().any(|mark| kept.counts.contains_key(mark))
    }

    fn mark(&self, sender: &str, reference: &str) -> u64 {
        self.hasher.hash_one((sender.to_ascii_lowercase(), reference))
    }
}

impl Marks {
    fn forget_oldest(&mut self) {
        let Some(oldest) = self.order.pop_front() else { return };
        if let Some(count) = self.counts.get_mut(&oldest) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&oldest);
            }
        }
    }
}

impl Filter for BounceGuard {
    fn name(&self) -> &str {
        "bounce guard"
    }

    fn points(&self) -> &[Point] {
        &[Point::End]
    }

    fn look<'a>(&'a self, _point: Point, seen: Seen<'a>) -> Answer<'a> {
        let report = seen.sender == Some("");
        let references = seen.headers.map(|headers| headers.references.as_slice()).unwrap_or_default();
        let ours = report && !seen.recipients.is_empty() && seen.recipients.iter().all(|to| self.knows(to, references));
        Answer::Now(if ours {
            // Not rejected: the mail server would report that, too.
            Verdict::Refuse(Refusal {
                action: Action::Discard,
                code: 550,
                detail: "7.1",
                text: "a report about a message that was refused here".to_owned(),
            })
        } else {
            Verdict::Accept
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<'a>(sender: &'a str, recipients: &'a [String], id: &'a str) -> Refused<'a> {
        Refused { sender, recipients, message_id: Some(id), queue_id: None }
    }

    #[test]
    fn a_report_is_known_by_its_addressee_and_a_reference() {
        let guard = BounceGuard::default();
        let recipients = ["Victim@x".to_owned()];
        guard.remember(refused("Forged@y", &recipients, "<1@a>"));
        let references = |text: &str| [text.to_owned()];
        assert!(guard.knows("forged@y", &references("<1@a>")) && guard.knows("forged@Y", &references("victim@x")));
        assert!(!guard.knows("other@y", &references("<1@a>")) && !guard.knows("forged@y", &references("<2@a>")));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes() {
        let guard = BounceGuard::default();
        for number in 0..KEPT + 2 {
            guard.remember(refused("a@b", &[], &number.to_string()));
        }
        let marks = guard.marks.lock().unwrap();
        assert_eq!((marks.order.len(), marks.counts.len()), (KEPT, KEPT));
        drop(marks);
        assert!(!guard.knows("a@b", &["1".to_owned()]) && guard.knows("a@b", &["2".to_owned()]));
    }
}
