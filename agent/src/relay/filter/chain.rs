//! All filters, and what came of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::record::VerdictRecord;
use super::super::settings::{Action, Settings};
use super::{Answer, BounceGuard, Filter, Point, Refusal, Seen, Verdict, limits::Limits, rate::Rate};

/// The longest that a filter may delay an answer: well below what clients wait for one (RFC 5321 §4.5.3.2).
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// A filter with its counters.
#[derive(Debug)]
struct Link {
    filter: Arc<dyn Filter>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    tagged: AtomicU64,
    delayed: AtomicU64,
    rejected: AtomicU64,
    held: AtomicU64,
    discarded: AtomicU64,
}

/// A filter in the status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterStatus {
    /// Its name.
    pub name: String,
    /// How many messages it has tagged.
    pub tagged: u64,
    /// How many answers it has delayed.
    pub delayed: u64,
    /// How many recipients or messages it has rejected.
    pub rejected: u64,
    /// How many it has held.
    pub held: u64,
    /// How many it has discarded.
    pub discarded: u64,
}

/// The filters in their order.
#[derive(Debug)]
pub(in super::super) struct Chain {
    links: Vec<Link>,
    /// Which of them are asked at which point.
    at: [Vec<usize>; Point::ALL.len()],
}

/// What became of a message at a point.
#[derive(Debug, Default)]
pub(in super::super) struct Judged {
    /// For the record.
    pub(in super::super) verdicts: Vec<VerdictRecord>,
    /// Fields for its header.
    pub(in super::super) tags: Vec<(&'static str, String)>,
    /// It stops here.
    pub(in super::super) refusal: Option<Refusal>,
}

impl Chain {
    /// The filters of the policy.
    pub(in super::super) fn new(settings: &Settings, guard: Arc<BounceGuard>) -> Self {
        let mut filters: Vec<Arc<dyn Filter>> = vec![Arc::new(Limits::new(settings))];
        filters.extend(settings.limits.iter().map(|limit| Arc::new(Rate::new(limit)) as Arc<dyn Filter>));
        if settings.bounce_guard {
            filters.push(guard);
        }
        Self::of(filters)
    }

    pub(in super::super) fn of(filters: Vec<Arc<dyn Filter>>) -> Self {
        let at = Point::ALL.map(|point| {
            let asked = filters.iter().enumerate().filter(|(_, filter)| filter.points().contains(&point));
            asked.map(|(index, _)| index).collect()
        });
        let links = filters.into_iter().map(|filter| Link { filter, counts: Counts::default() });
        Self { links: links.collect(), at }
    }

    /// Whether anybody is asked at a point.
    pub(in super::super) fn is_asked(&self, point: Point) -> bool {
        !self.at[point as usize].is_empty()
    }

    /// Whether anybody must see the whole message.
    pub(in super::super) fn wants_message(&self) -> bool {
        self.links.iter().any(|link| link.filter.wants_message())
    }

    /// Asks those who are to be asked at a point, until one refuses.
    pub(in super::super) async fn judge(&self, point: Point, seen: Seen<'_>) -> Judged {
        let mut judged = Judged::default();
        for link in self.at[point as usize].iter().map(|index| &self.links[*index]) {
            let verdict = match link.filter.look(point, seen) {
                Answer::Now(verdict) => verdict,
                Answer::Later(later) => later.await,
            };
            link.note(point, &verdict, &mut judged);
            match verdict {
                Verdict::Accept => {}
                Verdict::Tag { field, value } => judged.tags.push((field, value)),
                Verdict::Delay(time) => tokio::time::sleep(time.min(LONGEST_DELAY)).await,
                Verdict::Refuse(refusal) => {
                    judged.refusal = Some(refusal);
                    break;
                }
            }
        }
        judged
    }

    pub(in super::super) fn status(&self) -> Vec<FilterStatus> {
        self.links.iter().map(Link::status).collect()
    }
}

impl Link {
    fn note(&self, point: Point, verdict: &Verdict, judged: &mut Judged) {
        let counts = &self.counts;
        let (word, count, text) = match verdict {
            Verdict::Accept => return,
            Verdict::Tag { value, .. } => ("tag", &counts.tagged, value.clone()),
            Verdict::Delay(time) => ("delay", &counts.delayed, format!("{} ms", time.as_millis())),
            Verdict::Refuse(refusal) => match refusal.action {
                Action::Reject => ("reject", &counts.rejected, refusal.text.clone()),
                Action::Hold => ("hold", &counts.held, refusal.text.clone()),
                Action::Discard => ("discard", &counts.discarded, refusal.text.clone()),
            },
        };
        count.fetch_add(1, Ordering::Relaxed);
        judged.verdicts.push(VerdictRecord {
            filter: self.filter.name().to_owned(),
            point: point.name().to_owned(),
            verdict: word.to_owned(),
            text,
        });
    }

    fn status(&self) -> FilterStatus {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        FilterStatus {
            name: self.filter.name().to_owned(),
            tagged: load(&self.counts.tagged),
            delayed: load(&self.counts.delayed),
            rejected: load(&self.counts.rejected),
            held: load(&self.counts.held),
            discarded: load(&self.counts.discarded),
        }
    }
}
