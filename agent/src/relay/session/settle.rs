//! Answers that are outstanding.

use super::super::record::Fate;
use super::super::upstream::Lost;
use super::super::wire::reply::Reply;
use super::{End, Session};

/// An answer that is outstanding.
#[derive(Debug)]
pub(super) enum Pending {
    /// Ours, behind others.
    Ours(Reply),
    /// The upstream's to MAIL.
    Mail,
    /// The upstream's to a recipient: by its place in the envelope.
    Rcpt(usize),
    /// The upstream's to DATA.
    Data,
    /// The upstream's to what the client has said.
    Passed,
    /// The upstream's to what the client has not said.
    Swallowed,
}

impl Session {
    /// Gets all answers that are outstanding, and puts them behind what waits to be written.
    pub(super) async fn settle(&mut self) -> Result<(), End> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let patience = self.patience();
        let mut lost = match &mut self.hop {
            Some(hop) => hop.conn.flush(patience).await.err().map(Lost::from),
            None => None,
        };
        while let Some(pending) = self.pending.pop_front() {
            if let Pending::Ours(reply) = &pending {
                self.client.push(reply.bytes());
                continue;
            }
            let patience = match pending {
                Pending::Data => self.engine.settings.timeouts.data,
                Pending::Ours(_) | Pending::Mail | Pending::Rcpt(_) | Pending::Passed | Pending::Swallowed => patience,
            };
            let reply = match (&mut self.hop, &lost) {
                (Some(hop), None) => hop.reply(patience).await,
                _ => Err(Lost::Closed),
            };
            match reply {
                // It closes the connection, and the client must know (RFC 5321 §3.8).
                Ok(reply) if reply.code == 421 => {
                    self.client.push(reply.bytes());
                    self.lose(&format!("it says {reply}"), &reply);
                    return Err(End::Over);
                }
                Ok(reply) => self.answered(&pending, reply),
                Err(error) => {
                    let error = lost.get_or_insert(error);
                    let what = error.to_string();
                    self.unanswered(&pending, &what);
                }
            }
        }
        Ok(())
    }

    fn answered(&mut self, pending: &Pending, reply: Reply) {
        let yes = reply.class() == 2;
        match pending {
            Pending::Ours(_) | Pending::Passed => {}
            Pending::Swallowed => return,
            Pending::Mail => {
                if let Some(hop) = self.hop.as_mut().filter(|_| !yes) {
                    hop.open = false;
                }
                if !yes && let Some(envelope) = self.envelope.take() {
                    self.conclude(envelope, Fate::Refused, Some(&reply));
                }
            }
            Pending::Rcpt(place) => {
                let to = self.envelope.as_mut().and_then(|envelope| envelope.to.get_mut(*place));
                if let Some(to) = to {
                    to.code = Some(reply.code);
                }
            }
            Pending::Data => {
                self.data_reply = Some(reply);
                return;
            }
        }
        self.client.push(reply.bytes());
    }

    /// Answers in place of an upstream that is gone.
    fn unanswered(&mut self, pending: &Pending, what: &str) {
        let id = self.envelope.as_ref().map(|envelope| envelope.id.clone()).unwrap_or_default();
        let title = self.hop.as_ref().map(|hop| hop.title.clone()).unwrap_or_default();
        let id = if id.is_empty() { id } else { format!(" ({id})") };
        let reply = Reply::new(451, &format!("4.4.2 portreeve: the upstream {title} is lost: {what}{id}"));
        if !matches!(pending, Pending::Swallowed) {
            self.client.push(reply.bytes());
        }
        self.lose(what, &reply);
    }

    /// Ends the session with the upstream, and the message that was on its way there.
    pub(super) fn lose(&mut self, what: &str, reply: &Reply) {
        if let Some(hop) = self.hop.take() {
            tracing::warn!("the relay's upstream {} is lost: {what}", hop.title);
        }
        if let Some(envelope) = self.envelope.take() {
            self.conclude(envelope, Fate::Deferred, Some(reply));
        }
    }
}
