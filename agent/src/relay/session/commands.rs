//! What each command does.

use super::super::filter::{Point, Refusal};
use super::super::record::{Fate, RecipientRecord};
use super::super::settings::Action;
use super::super::wire::command::{self, Command};
use super::super::wire::reply::Reply;
use super::envelope::Envelope;
use super::settle::Pending;
use super::{End, MOST_JUNK, Session};

impl Session {
    /// Carries out one command line.
    pub(super) async fn command(&mut self, line: &[u8]) -> Result<(), End> {
        match command::parse(line) {
            Command::Ehlo(name) => self.hello(name, true).await,
            Command::Helo(name) => self.hello(name, false).await,
            Command::Mail(mail) => self.mail(line, mail).await,
            Command::Rcpt(rcpt) => self.rcpt(line, rcpt).await,
            Command::Data => self.data().await,
            Command::Rset => {
                // Answers that are outstanding belong to this message, and would be taken for the next one's.
                self.settle().await?;
                self.rset();
                self.after_send().await
            }
            Command::Noop => {
                self.say(250, "2.0.0 Ok");
                Ok(())
            }
            Command::Vrfy => {
                self.say(252, "2.5.0 portreeve: send some mail, and you will see");
                Ok(())
            }
            Command::Quit => self.quit().await,
            Command::StartTls => self.start_tls().await,
            Command::Xforward(arguments) => {
                self.xforward(arguments);
                Ok(())
            }
            Command::Malformed(usage) => {
                self.say(501, &format!("5.5.4 portreeve: it goes like {usage}"));
                self.junk()
            }
            Command::Unknown => {
                self.say(500, "5.5.2 portreeve: no such command");
                self.junk()
            }
        }
    }

    fn junk(&mut self) -> Result<(), End> {
        self.junk += 1;
        if self.junk < MOST_JUNK {
            return Ok(());
        }
        self.say(421, "4.7.0 portreeve: that makes no sense");
        Err(End::Over)
    }

    /// Waits for the answer at once where the upstream does not take several commands in a row.
    async fn after_send(&mut self) -> Result<(), End> {
        if self.hop.as_ref().is_some_and(|hop| hop.offers.pipelining) { Ok(()) } else { self.settle().await }
    }

    async fn mail(&mut self, line: &[u8], mail: command::Envelope<'_>) -> Result<(), End> {
        let Some(offered) = &self.offered else {
            self.say(503, "5.5.1 portreeve: say EHLO first");
            return Ok(());
        };
        if self.envelope.is_some() {
            self.say(503, "5.5.1 portreeve: one message at a time");
            return Ok(());
        }
        if let Some((unknown, _)) = mail.parameters().find(|(key, value)| !self.esmtp || !offered.knows(key, value)) {
            let unknown = String::from_utf8_lossy(unknown).into_owned();
            self.say(555, &format!("5.5.4 portreeve: {unknown} is not offered"));
            return Ok(());
        }
        let announced = mail.parameters().find(|(key, _)| key.eq_ignore_ascii_case(b"SIZE")).map(|(_, value)| value);
        let announced = announced.and_then(|size| std::str::from_utf8(size).ok()?.parse().ok()).unwrap_or(0);
        let mut envelope = Envelope::new(String::from_utf8_lossy(mail.address).into_owned(), announced);
        if let Some(refusal) = self.judge(Point::Mail, &mut envelope, None).await
            && self.stops(&refusal, &mut envelope)
        {
            let reply = refusal.reply(&envelope.id);
            self.respond(&reply);
            self.conclude(envelope, fate(refusal.action), Some(&reply));
            return Ok(());
        }
        if envelope.discard.is_some() {
            self.say(250, "2.1.0 Ok");
            self.envelope = Some(envelope);
            return Ok(());
        }
        self.ensure_hop().await?;
        self.end_open();
        self.tell_upstream();
        self.after_send().await?;
        if let Some(hop) = &mut self.hop {
            envelope.upstream = Some(hop.title.clone());
            envelope.upstream_tls = hop.conn.tls();
            hop.open = true;
            hop.conn.push(line);
            hop.conn.push(b"\r\n");
        }
        self.envelope = Some(envelope);
        self.pending.push_back(Pending::Mail);
        self.after_send().await
    }

    async fn rcpt(&mut self, line: &[u8], rcpt: command::Envelope<'_>) -> Result<(), End> {
        let Some(mut envelope) = self.envelope.take() else {
            self.say(503, "5.5.1 portreeve: say MAIL first");
            return Ok(());
        };
        let offered = self.offered.as_ref();
        let known =
            |(key, value): (&[u8], &[u8])| self.esmtp && offered.is_some_and(|offered| offered.knows(key, value));
        if let Some((unknown, _)) = rcpt.parameters().find(|parameter| !known(*parameter)) {
            let unknown = String::from_utf8_lossy(unknown).into_owned();
            self.envelope = Some(envelope);
            self.say(555, &format!("5.5.4 portreeve: {unknown} is not offered"));
            return Ok(());
        }
        let address = String::from_utf8_lossy(rcpt.address).into_owned();
        if let Some(refusal) = self.judge(Point::Rcpt, &mut envelope, Some(&address)).await {
            let stops = self.stops(&refusal, &mut envelope);
            let reply = if stops { refusal.reply(&envelope.id) } else { Reply::new(250, "2.1.5 Ok") };
            // So that no more is recorded than a message may have.
            if envelope.to.len() <= self.engine.settings.max_recipients {
                envelope.to.push(RecipientRecord { address, code: Some(reply.code) });
            }
            self.envelope = Some(envelope);
            self.respond(&reply);
            return Ok(());
        }
        let place = envelope.to.len();
        let discarded = envelope.discard.is_some();
        envelope.to.push(RecipientRecord { address: address.clone(), code: discarded.then_some(250) });
        envelope.passed.push(address);
        self.envelope = Some(envelope);
        if discarded {
            self.say(250, "2.1.5 Ok");
            return Ok(());
        }
        if let Some(hop) = &mut self.hop {
            hop.conn.push(line);
            hop.conn.push(b"\r\n");
        }
        self.pending.push_back(Pending::Rcpt(place));
        self.after_send().await
    }

    /// Asks the filters about a message, and notes what they say.
    pub(super) async fn judge(
        &mut self,
        point: Point,
        envelope: &mut Envelope,
        recipient: Option<&str>,
    ) -> Option<Refusal> {
        if !self.engine.chain.is_asked(point) || envelope.discard.is_some() {
            return None;
        }
        let mut judged = self.engine.chain.judge(point, envelope.seen(self.seen(), recipient)).await;
        envelope.verdicts.append(&mut judged.verdicts);
        envelope.tags.append(&mut judged.tags);
        judged.refusal
    }

    /// Notes a refusal. False when the client does not hear of it: the message is dropped at its end.
    pub(super) fn stops(&mut self, refusal: &Refusal, envelope: &mut Envelope) -> bool {
        envelope.refused = Some(refusal.action);
        if refusal.action != Action::Discard {
            return true;
        }
        envelope.discard = Some(refusal.clone());
        self.end_open();
        false
    }

    /// Ends what the upstream may take for a message in progress.
    pub(super) fn end_open(&mut self) {
        if let Some(hop) = self.hop.as_mut().filter(|hop| hop.open) {
            hop.open = false;
            hop.conn.push(b"RSET\r\n");
            self.pending.push_back(Pending::Swallowed);
        }
    }

    fn rset(&mut self) {
        let open = self.hop.as_mut().filter(|hop| hop.open);
        match open {
            Some(hop) => {
                hop.open = false;
                hop.conn.push(b"RSET\r\n");
                self.pending.push_back(Pending::Passed);
            }
            None => self.say(250, "2.0.0 Ok"),
        }
        self.abandon();
    }

    async fn quit(&mut self) -> Result<(), End> {
        self.settle().await?;
        if let Some(hop) = &mut self.hop {
            hop.conn.push(b"QUIT\r\n");
            // Nobody waits for the answer.
            if let Err(error) = hop.conn.flush(self.engine.settings.timeouts.command).await {
                tracing::trace!("the upstream did not hear QUIT: {error}");
            }
        }
        self.said_bye = true;
        self.say(221, "2.0.0 Bye");
        Err(End::Over)
    }
}

/// What a refusal makes of a message.
pub(super) fn fate(action: Action) -> Fate {
    match action {
        Action::Reject => Fate::Rejected,
        Action::Hold => Fate::Held,
        Action::Discard => Fate::Discarded,
    }
}
