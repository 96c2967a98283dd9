//! DATA: the message itself, from the client to the upstream as it comes.
//!
//! Nothing that could end the message goes upstream before the filters have had their say: without the last line the
//! upstream has no message, and the relay just hangs up on it.

use super::super::filter::{Point, Refusal};
use super::super::message::{self, Inspector};
use super::super::record::Fate;
use super::super::settings::Settings;
use super::super::spool::Spool;
use super::super::upstream::Lost;
use super::super::wire::data::{DataReader, Drain, Fault, Next};
use super::super::wire::reply::Reply;
use super::commands::fate;
use super::envelope::Envelope;
use super::settle::Pending;
use super::{End, Session};

/// How a message ended, before its last line went upstream.
enum Came {
    /// Whole.
    Whole,
    /// Larger than it may be. What has come of it is not all.
    Refused(Refusal),
    /// With something that another server could read differently.
    Broken(Fault),
    /// The upstream is lost, or has said something too early.
    Lost(Lost),
}

impl Session {
    pub(super) async fn data(&mut self) -> Result<(), End> {
        let Some(mut envelope) = self.envelope.take() else {
            self.say(503, "5.5.1 portreeve: say MAIL and RCPT first");
            return Ok(());
        };
        if envelope.discard.is_some() {
            return self.swallow(envelope).await;
        }
        if envelope.passed.is_empty() {
            self.envelope = Some(envelope);
            self.settle().await?;
            self.say(554, "5.5.1 portreeve: no recipient is left");
            return Ok(());
        }
        if let Some(refusal) = self.judge(Point::Data, &mut envelope, None).await {
            if !self.stops(&refusal, &mut envelope) {
                return self.swallow(envelope).await;
            }
            self.envelope = Some(envelope);
            let id = self.envelope.as_ref().map(|envelope| envelope.id.clone()).unwrap_or_default();
            self.respond(&refusal.reply(&id));
            return Ok(());
        }
        self.envelope = Some(envelope);
        if self.engine.chain.wants_message() {
            return self.spooled().await;
        }
        if let Some(hop) = &mut self.hop {
            hop.conn.push(b"DATA\r\n");
        }
        self.data_reply = None;
        self.pending.push_back(Pending::Data);
        self.settle().await?;
        let Some(reply) = self.data_reply.take() else {
            // The upstream is lost, and that has been said.
            return Ok(());
        };
        if reply.code != 354 {
            self.client.push(reply.bytes());
            if let Some(envelope) = self.envelope.take() {
                self.conclude(envelope, Fate::Refused, Some(&reply));
            }
            return Ok(());
        }
        match self.envelope.take() {
            Some(envelope) if envelope.taken() > 0 => {
                self.client.push(reply.bytes());
                self.transfer(envelope).await
            }
            envelope => {
                // It waits for a message to nobody. It does not get one, not even an empty one.
                self.hop = None;
                let reply = Reply::new(554, "5.5.1 portreeve: no recipient is left");
                self.client.push(reply.bytes());
                if let Some(envelope) = envelope {
                    self.conclude(envelope, Fate::Refused, Some(&reply));
                }
                Ok(())
            }
        }
    }

    async fn transfer(&mut self, mut envelope: Envelope) -> Result<(), End> {
        envelope.ms.envelope = envelope.lap();
        self.client.flush(self.patience()).await?;
        let head = self.head(&envelope);
        if let Some(hop) = &mut self.hop {
            hop.conn.push(head.as_bytes());
        }
        let mut inspector = Inspector::new(envelope.from.is_empty());
        let came = self.pass(&mut envelope, &mut inspector).await;
        envelope.headers = std::mem::take(&mut inspector.seen);
        envelope.ms.data = envelope.lap();
        let came = match came {
            Ok(came) => came,
            Err(end) => {
                self.hop = None;
                self.conclude(envelope, Fate::Abandoned, None);
                return Err(end);
            }
        };
        match came {
            Came::Whole => self.whole(envelope).await,
            Came::Refused(refusal) => {
                self.hop = None;
                self.drain().await?;
                self.refuse(envelope, &refusal);
                Ok(())
            }
            Came::Broken(fault) => {
                self.hop = None;
                let rest = self.drain().await;
                self.refuse(envelope, &broken(fault));
                // Where its end is, is what others may see otherwise: what follows is no command of the same client's.
                rest.and(Err(End::Over))
            }
            Came::Lost(lost) => self.lost_in_data(envelope, lost).await,
        }
    }

    /// Passes the message on as it comes, without its end.
    async fn pass(&mut self, envelope: &mut Envelope, inspector: &mut Inspector) -> Result<Came, End> {
        let settings = &self.engine.settings;
        let block = settings.timeouts.block;
        let mut reader = DataReader::new(settings.smuggling, settings.longest_line);
        loop {
            let Some(hop) = &mut self.hop else { return Ok(Came::Lost(Lost::Closed)) };
            let part = reader.read(self.client.input());
            inspector.take(&part.pass);
            envelope.size += part.pass.len() as u64;
            if envelope.size > settings.max_size {
                return Ok(Came::Refused(too_large(settings)));
            }
            hop.conn.push(&part.pass);
            let (used, next) = (part.used, part.next);
            self.client.consume(used);
            match next {
                Next::End => return Ok(Came::Whole),
                Next::Refused(fault) => return Ok(Came::Broken(fault)),
                Next::More => {}
            }
            if let Err(error) = hop.conn.flush(block).await {
                return Ok(Came::Lost(error.into()));
            }
            if self.client.fill_much(block).await? == 0 {
                return Err(End::Client(std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// The filters' last word, and then the upstream's.
    async fn whole(&mut self, mut envelope: Envelope) -> Result<(), End> {
        let judged = self.judge_end(&mut envelope, None).await;
        if let Some(refusal) = judged {
            self.hop = None;
            self.refuse(envelope, &refusal);
            return Ok(());
        }
        self.end(envelope).await
    }

    /// Ends the message towards the upstream, which has all of it but that, and passes its answer on.
    pub(super) async fn end(&mut self, envelope: Envelope) -> Result<(), End> {
        let Some(hop) = &mut self.hop else { return Err(End::Over) };
        let timeouts = &self.engine.settings.timeouts;
        hop.conn.push(b".\r\n");
        if let Err(error) = hop.conn.flush(timeouts.block).await {
            // Some of it may have gone out, but hardly all: a write that fails is none that was acknowledged.
            return self.no_answer(envelope, &error.into());
        }
        self.dotted = true;
        // From here on an end of the agent cuts the wait short; the envelope is kept where that finds it.
        self.envelope = Some(envelope);
        let reply = hop.reply(timeouts.end).await;
        let Some(mut envelope) = self.envelope.take() else { return Err(End::Over) };
        envelope.ms.upstream = envelope.lap();
        match reply {
            Ok(reply) => {
                hop.open = false;
                let gone = reply.class() == 2 && self.client.is_closed();
                self.client.push(reply.bytes());
                let unheard = self.client.flush(timeouts.command).await;
                envelope.possible_duplicate = reply.class() == 2 && (gone || unheard.is_err());
                let fate = if reply.class() == 2 { Fate::Delivered } else { Fate::Refused };
                self.conclude(envelope, fate, Some(&reply));
                self.client.shrink();
                if reply.code == 421 {
                    self.hop = None;
                }
                Ok(unheard?)
            }
            Err(lost) => {
                envelope.possible_duplicate = true;
                self.no_answer(envelope, &lost)
            }
        }
    }

    pub(super) async fn judge_end(&mut self, envelope: &mut Envelope, message: Option<&Spool>) -> Option<Refusal> {
        envelope.announced = envelope.size;
        if !self.engine.chain.is_asked(Point::End) {
            return None;
        }
        let mut seen = envelope.seen(self.seen(), None);
        seen.headers = Some(&envelope.headers);
        seen.message = message;
        let mut judged = self.engine.chain.judge(Point::End, seen).await;
        envelope.verdicts.append(&mut judged.verdicts);
        envelope.tags.append(&mut judged.tags);
        judged.refusal
    }

    /// The upstream had the message, or some of it, and said nothing.
    pub(super) fn no_answer(&mut self, envelope: Envelope, lost: &Lost) -> Result<(), End> {
        let title = envelope.upstream.clone().unwrap_or_default();
        let text = format!("4.4.2 portreeve: the upstream {title} did not take it: {lost} ({})", envelope.id);
        let reply = Reply::new(451, &text);
        tracing::warn!("message {}: the upstream {title} did not take it: {lost}", envelope.id);
        self.hop = None;
        self.client.push(reply.bytes());
        self.conclude(envelope, Fate::Deferred, Some(&reply));
        Ok(())
    }

    /// The upstream broke off within the message. It may have said why.
    async fn lost_in_data(&mut self, envelope: Envelope, lost: Lost) -> Result<(), End> {
        let said = match self.hop.take() {
            Some(mut hop) => hop.reply(std::time::Duration::from_secs(1)).await.ok(),
            None => None,
        };
        let rest = self.drain().await;
        match said.filter(|reply| reply.class() > 3 && reply.code != 421) {
            Some(reply) => {
                self.client.push(reply.bytes());
                self.conclude(envelope, Fate::Refused, Some(&reply));
            }
            None => self.no_answer(envelope, &lost)?,
        }
        rest
    }

    /// Says what became of a message that stops here.
    pub(super) fn refuse(&mut self, mut envelope: Envelope, refusal: &Refusal) {
        let reply = refusal.reply(&envelope.id);
        envelope.refused = Some(refusal.action);
        self.client.push(reply.bytes());
        self.conclude(envelope, fate(refusal.action), Some(&reply));
    }

    /// Takes a message that a filter has decided to drop, and drops it.
    async fn swallow(&mut self, mut envelope: Envelope) -> Result<(), End> {
        self.settle().await?;
        let Some(refusal) = envelope.discard.take() else { return Ok(()) };
        self.client.push(Reply::new(354, "go on").bytes());
        self.client.flush(self.patience()).await?;
        // The first line may be the end already, so the end before it belongs to what is looked for.
        let mut drain = Drain::at_start();
        let rest = self.drain_with(&mut drain).await;
        self.refuse(envelope, &refusal);
        rest
    }

    /// Reads on to the end of a message that is not passed on.
    pub(super) async fn drain(&mut self) -> Result<(), End> {
        self.drain_with(&mut Drain::default()).await
    }

    async fn drain_with(&mut self, drain: &mut Drain) -> Result<(), End> {
        let mut left = self.engine.settings.max_size.saturating_mul(2).max(1 << 20);
        loop {
            let (used, ended) = drain.read(self.client.input());
            self.client.consume(used);
            if ended {
                self.client.shrink();
                return Ok(());
            }
            left = left.saturating_sub(used as u64);
            if left == 0 {
                return Err(End::Over);
            }
            if self.client.fill_much(self.engine.settings.timeouts.block).await? == 0 {
                return Err(End::Client(std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// What the relay puts in front of a message.
    pub(super) fn head(&self, envelope: &Envelope) -> String {
        let mut head = self.trace(&envelope.id);
        for (field, value) in &envelope.tags {
            head.push_str(&format!("{field}: {value}\r\n"));
        }
        head
    }

    fn trace(&self, id: &str) -> String {
        let with = match (self.esmtp, self.client.is_tls()) {
            (false, _) => "SMTP",
            (true, false) => "ESMTP",
            (true, true) => "ESMTPS",
        };
        message::trace(&self.helo, self.origin.peer, &self.engine.name, with, id, jiff::Timestamp::now())
    }
}

/// The refusal of a message that has grown larger than it may be.
pub(super) fn too_large(settings: &Settings) -> Refusal {
    let text = format!("a message may have {} bytes", settings.max_size);
    Refusal { action: settings.action, code: 552, detail: "3.4", text }
}

/// The refusal of a message that another server could read differently. It is final whatever the policy's action is: the
/// message does not become better by waiting.
pub(super) fn broken(fault: Fault) -> Refusal {
    let text = match fault {
        Fault::Bare(bare) => format!("the message has a {}", bare.name()),
        Fault::LongLine => "the message has a line that is too long".to_owned(),
    };
    Refusal { action: super::super::settings::Action::Reject, code: 554, detail: "6.0", text }
}
