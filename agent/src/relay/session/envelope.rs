//! A message from MAIL on, up to its record.

use std::time::Instant;

use jiff::Timestamp;

use super::super::filter::{Refusal, Refused, Seen};
use super::super::message::Headers;
use super::super::record::{Fate, MailRecord, RecipientRecord, Timings, VerdictRecord};
use super::super::settings::Action;
use super::super::wire::reply::Reply;
use super::{Session, next_id};

/// A message that has begun.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) id: String,
    pub(super) from: String,
    /// The size that the client has announced.
    pub(super) announced: u64,
    /// Every recipient that was asked for.
    pub(super) to: Vec<RecipientRecord>,
    /// The addresses of those that no filter has refused.
    pub(super) passed: Vec<String>,
    pub(super) verdicts: Vec<VerdictRecord>,
    pub(super) tags: Vec<(&'static str, String)>,
    /// The refusal of the whole message that is carried out at its end: it is dropped.
    pub(super) discard: Option<Refusal>,
    /// The last refusal of a part of it.
    pub(super) refused: Option<Action>,
    pub(super) possible_duplicate: bool,
    pub(super) size: u64,
    pub(super) headers: Headers,
    pub(super) upstream: Option<String>,
    pub(super) upstream_tls: Option<String>,
    pub(super) ms: Timings,
    time: Timestamp,
    since: Instant,
}

impl Envelope {
    pub(super) fn new(from: String, announced: u64) -> Self {
        Self {
            id: next_id(),
            from,
            announced,
            to: Vec::new(),
            passed: Vec::new(),
            verdicts: Vec::new(),
            tags: Vec::new(),
            discard: None,
            refused: None,
            possible_duplicate: false,
            size: 0,
            headers: Headers::default(),
            upstream: None,
            upstream_tls: None,
            ms: Timings::default(),
            time: Timestamp::now(),
            since: Instant::now(),
        }
    }

    /// Milliseconds since it was asked last.
    pub(super) fn lap(&mut self) -> u64 {
        let before = std::mem::replace(&mut self.since, Instant::now());
        u64::try_from(before.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How many recipients the upstream has taken.
    pub(super) fn taken(&self) -> usize {
        self.to.iter().filter(|to| to.code.is_some_and(|code| code / 100 == 2)).count()
    }

    /// What filters see of it.
    pub(super) fn seen<'a>(&'a self, session: Seen<'a>, recipient: Option<&'a str>) -> Seen<'a> {
        Seen { sender: Some(&self.from), recipient, recipients: &self.passed, size: self.announced, ..session }
    }
}

impl Session {
    /// Writes the record of a message that is over.
    pub(super) fn conclude(&mut self, envelope: Envelope, fate: Fate, reply: Option<&Reply>) {
        self.dotted = false;
        if matches!(fate, Fate::Rejected | Fate::Held) || envelope.refused.is_some() {
            let asked: Vec<String> = envelope.to.iter().map(|to| to.address.clone()).collect();
            self.engine.guard.remember(Refused {
                sender: &envelope.from,
                recipients: &asked,
                message_id: envelope.headers.message_id.as_deref(),
                queue_id: self.forwarded.get("IDENT").or(envelope.headers.queue_id.as_deref()),
            });
        }
        let record = MailRecord {
            time: envelope.time,
            id: envelope.id,
            fate,
            possible_duplicate: envelope.possible_duplicate,
            way: self.origin.way,
            peer: self.origin.peer,
            destination: self.origin.destination,
            helo: self.helo.clone(),
            client: self.forwarded.get("ADDR").map(str::to_owned),
            subject: self.origin.subject.clone(),
            rule: self.origin.rule.clone(),
            from: envelope.from,
            to: envelope.to,
            message_id: envelope.headers.message_id,
            size: envelope.size,
            verdicts: envelope.verdicts,
            upstream: envelope.upstream,
            upstream_tls: envelope.upstream_tls,
            reply: reply.map(ToString::to_string),
            ms: envelope.ms,
        };
        if record.possible_duplicate {
            tracing::warn!("message {} may arrive twice: the client or the upstream was lost after its end", record.id);
        }
        self.engine.record(record);
    }

    /// Ends a message that the client gives up, by RSET, by another EHLO or by leaving.
    pub(super) fn abandon(&mut self) {
        let Some(envelope) = self.envelope.take() else { return };
        // One that only asked for MAIL was a probe.
        if envelope.to.is_empty() && envelope.refused.is_none() {
            return;
        }
        let fate = match envelope.refused {
            Some(Action::Reject) => Fate::Rejected,
            Some(Action::Hold) => Fate::Held,
            Some(Action::Discard) => Fate::Discarded,
            None if envelope.to.iter().any(|to| to.code.is_some_and(|code| code / 100 > 3)) => Fate::Refused,
            None => Fate::Abandoned,
        };
        self.conclude(envelope, fate, None);
    }
}
