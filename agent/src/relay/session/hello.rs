//! Names, what is offered, TLS towards the client, and the session with an upstream.

use std::io;

use tokio_rustls::TlsAcceptor;

use super::super::filter::Point;
use super::super::origin::{ATTRIBUTES, Way};
use super::super::wire::reply::Reply;
use super::settle::Pending;
use super::{End, Session};

impl Session {
    /// EHLO and HELO. The upstream is connected before they are answered: what is offered depends on it.
    pub(super) async fn hello(&mut self, name: &[u8], esmtp: bool) -> Result<(), End> {
        self.settle().await?;
        self.reset();
        self.helo = String::from_utf8_lossy(name).into_owned();
        self.esmtp = esmtp;
        let judged = self.engine.chain.judge(Point::Helo, self.seen()).await;
        if let Some(refusal) = judged.refusal {
            self.client.push(refusal.reply("helo").bytes());
            return Ok(());
        }
        if self.hop.is_none() && !self.connect().await {
            return Err(End::Over);
        }
        let Some(hop) = &self.hop else { return Err(End::Over) };
        let offered = hop.offers.clone();
        let words = if esmtp { offered.offer(self.engine.settings.max_size) } else { Vec::new() };
        let own = [self.offers_xforward(), self.offers_starttls()];
        let own = own.into_iter().flatten().filter(|_| esmtp);
        let lines: Vec<String> = std::iter::once(self.engine.name.clone()).chain(words).chain(own).collect();
        self.offered = Some(offered);
        self.client.push(Reply::lines(250, &lines).bytes());
        Ok(())
    }

    fn offers_xforward(&self) -> Option<String> {
        (self.origin.way == Way::BeforeQueue).then(|| format!("XFORWARD {}", ATTRIBUTES.join(" ")))
    }

    fn offers_starttls(&self) -> Option<String> {
        (self.engine.acceptor.is_some() && !self.client.is_tls()).then(|| "STARTTLS".to_owned())
    }

    /// Begins a session with an upstream, or says why there is none and that this is the end.
    async fn connect(&mut self) -> bool {
        match self.engine.upstreams.open(&self.helo, self.engine.settings.timeouts.connect).await {
            Ok(hop) => {
                self.hop = Some(hop);
                true
            }
            Err(why) => {
                let text = format!("4.4.1 {} portreeve: no upstream answers ({why})", self.engine.name);
                self.client.push(Reply::new(421, &text).bytes());
                false
            }
        }
    }

    /// Sees to it that there is a session with an upstream for a message, as good as the one before.
    pub(super) async fn ensure_hop(&mut self) -> Result<(), End> {
        if self.hop.is_some() {
            return Ok(());
        }
        self.settle().await?;
        if !self.connect().await {
            return Err(End::Over);
        }
        let fits = match (&self.hop, &self.offered) {
            (Some(hop), Some(offered)) => hop.offers.covers(offered),
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let text = format!("4.4.2 {} portreeve: another upstream takes its place; begin again", self.engine.name);
        self.client.push(Reply::new(421, &text).bytes());
        Err(End::Over)
    }

    /// Forgets what was going on.
    pub(super) fn reset(&mut self) {
        self.abandon();
    }

    /// STARTTLS of the client.
    pub(super) async fn start_tls(&mut self) -> Result<(), End> {
        self.settle().await?;
        let Some(acceptor) = self.engine.acceptor.clone() else {
            // 502 would be for ever, and some clients try without having been offered it.
            self.say(454, "4.7.0 portreeve: TLS is not available here");
            return Ok(());
        };
        if self.client.is_tls() {
            self.say(503, "5.5.1 portreeve: this is TLS already");
            return Ok(());
        }
        // Whatever is there already was not sent in TLS, and must not be taken for what was (CVE-2011-0411).
        if !self.client.input().is_empty() {
            self.say(554, "5.5.1 portreeve: there is something behind STARTTLS");
            return Err(End::Over);
        }
        self.say(220, "2.0.0 go on");
        self.client.flush(self.patience()).await?;
        let Some(tcp) = self.client.take_tcp() else { return Err(End::Over) };
        let accepted = tokio::time::timeout(self.patience(), TlsAcceptor::from(acceptor).accept(tcp)).await;
        let stream = accepted.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))?;
        self.client.put_tls(stream.into());
        // The client begins anew (RFC 3207 §4.2).
        self.reset();
        self.offered = None;
        self.helo.clear();
        Ok(())
    }

    /// XFORWARD of the mail server.
    pub(super) fn xforward(&mut self, arguments: &[u8]) {
        if self.origin.way != Way::BeforeQueue {
            self.say(502, "5.5.1 portreeve: no such command here");
        } else if self.envelope.is_some() {
            self.say(503, "5.5.1 portreeve: not within a message");
        } else if let Err(why) = self.forwarded.take(arguments) {
            self.say(501, &format!("5.5.4 portreeve: {why}"));
        } else {
            if let Some(hop) = &mut self.hop {
                hop.told = false;
            }
            self.say(250, "2.0.0 Ok");
        }
    }

    /// Tells the upstream who is in front of the mail server, if it wants to know.
    pub(super) fn tell_upstream(&mut self) {
        let Some(hop) = self.hop.as_mut().filter(|hop| !hop.told) else { return };
        hop.told = true;
        if self.forwarded.is_empty() || hop.offers.xforward.is_empty() {
            return;
        }
        for command in self.forwarded.commands(&hop.offers.xforward) {
            hop.conn.push(command.as_bytes());
            hop.conn.push(b"\r\n");
            self.pending.push_back(Pending::Swallowed);
        }
    }
}
