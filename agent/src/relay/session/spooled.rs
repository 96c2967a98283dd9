//! DATA where a filter wants the whole message: it is taken first, judged, and only then offered to the upstream.

use super::super::message::Inspector;
use super::super::record::Fate;
use super::super::settings::Action;
use super::super::spool::Spool;
use super::super::upstream::Lost;
use super::super::wire::data::{DataReader, Next};
use super::super::wire::reply::Reply;
use super::envelope::Envelope;
use super::message::{broken, too_large};
use super::{End, Session};

impl Session {
    pub(super) async fn spooled(&mut self) -> Result<(), End> {
        self.settle().await?;
        let Some(mut envelope) = self.envelope.take() else {
            // MAIL was refused, or the upstream is lost.
            self.say(503, "5.5.1 portreeve: say MAIL and RCPT first");
            return Ok(());
        };
        if envelope.taken() == 0 {
            self.envelope = Some(envelope);
            self.say(554, "5.5.1 portreeve: no recipient is left");
            return Ok(());
        }
        self.say(354, "go on");
        envelope.ms.envelope = envelope.lap();
        self.client.flush(self.patience()).await?;
        let mut spool = Spool::new(&self.engine.lasting.spool);
        let taken = self.take_whole(&mut envelope, &mut spool).await;
        envelope.ms.data = envelope.lap();
        self.client.shrink();
        match taken {
            Ok(true) => self.judge_and_send(envelope, &spool).await,
            Ok(false) => Ok(()),
            Err(end) => {
                self.conclude(envelope, Fate::Abandoned, None);
                Err(end)
            }
        }
    }

    /// Reads the message to its end. False if it has been refused.
    async fn take_whole(&mut self, envelope: &mut Envelope, spool: &mut Spool) -> Result<bool, End> {
        let (smuggling, longest) = (self.engine.settings.smuggling, self.engine.settings.longest_line);
        let (block, most) = (self.engine.settings.timeouts.block, self.engine.settings.max_size);
        let mut reader = DataReader::new(smuggling, longest);
        let mut inspector = Inspector::new(envelope.from.is_empty());
        loop {
            let part = reader.read(self.client.input());
            inspector.take(&part.pass);
            envelope.size += part.pass.len() as u64;
            let kept = if envelope.size > most { Ok(()) } else { spool.push(&part.pass).await };
            let (used, next) = (part.used, part.next);
            if let Err(error) = kept {
                let reply = Reply::new(452, &format!("4.3.1 portreeve: no room for the message ({})", envelope.id));
                tracing::error!("the relay has no room for a message: {error}");
                self.client.consume(used);
                return self.stop(envelope, Fate::Deferred, &reply, next == Next::End).await;
            }
            self.client.consume(used);
            if envelope.size > most {
                let refusal = too_large(&self.engine.settings);
                let reply = refusal.reply(&envelope.id);
                envelope.refused = Some(refusal.action);
                return self.stop(envelope, super::commands::fate(refusal.action), &reply, next == Next::End).await;
            }
            match next {
                Next::End => break,
                Next::Refused(fault) => {
                    let reply = broken(fault).reply(&envelope.id);
                    envelope.refused = Some(Action::Reject);
                    self.stop(envelope, Fate::Rejected, &reply, false).await?;
                    return Err(End::Over);
                }
                Next::More => {}
            }
            if self.client.fill_much(block).await? == 0 {
                return Err(End::Client(std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
        envelope.headers = std::mem::take(&mut inspector.seen);
        Ok(true)
    }

    /// Reads a message to its end that goes no further, and says so.
    async fn stop(&mut self, envelope: &mut Envelope, fate: Fate, reply: &Reply, ended: bool) -> Result<bool, End> {
        let rest = if ended { Ok(()) } else { self.drain().await };
        self.client.push(reply.bytes());
        let stopped = std::mem::replace(envelope, Envelope::new(String::new(), 0));
        self.conclude(stopped, fate, Some(reply));
        rest.map(|()| false)
    }

    async fn judge_and_send(&mut self, mut envelope: Envelope, spool: &Spool) -> Result<(), End> {
        if let Some(refusal) = self.judge_end(&mut envelope, Some(spool)).await {
            self.end_open();
            self.refuse(envelope, &refusal);
            return self.settle().await;
        }
        let (patience, block) = (self.engine.settings.timeouts.data, self.engine.settings.timeouts.block);
        let Some(hop) = &mut self.hop else { return self.no_answer(envelope, &Lost::Closed) };
        let answer = hop.command("DATA", patience).await;
        match answer {
            Ok(reply) if reply.code == 354 => {}
            // It has had the recipients, and has something against the message itself.
            Ok(reply) => {
                self.client.push(reply.bytes());
                self.conclude(envelope, Fate::Refused, Some(&reply));
                return Ok(());
            }
            Err(lost) => return self.no_answer(envelope, &lost),
        }
        let head = self.head(&envelope);
        let Some(hop) = &mut self.hop else { return self.no_answer(envelope, &Lost::Closed) };
        hop.conn.push(head.as_bytes());
        let mut at = 0;
        loop {
            let sent = match spool.read(at).await {
                Ok(bytes) if bytes.is_empty() => break,
                Ok(bytes) => {
                    at += bytes.len() as u64;
                    hop.conn.push(&bytes);
                    hop.conn.flush(block).await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = sent {
                return self.no_answer(envelope, &error.into());
            }
        }
        self.end(envelope).await
    }
}
