//! One client's session: the server side towards it, the client side towards an upstream, command by command.
//!
//! Commands that the upstream has to answer are sent on as they came, those of one segment in one write, and answered in
//! their order. The relay says 250 to a message only after the upstream has said it.

mod commands;
mod envelope;
mod hello;
mod message;
mod settle;
mod spooled;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;

use super::conn::{Conn, Stream};
use super::engine::Engine;
use super::filter::{Point, Seen};
use super::origin::{Forwarded, Origin};
use super::server::{Phase, reaches};
use super::upstream::{Capabilities, Hop};
use super::wire::line::{self, Line};
use super::wire::reply::Reply;
use envelope::Envelope;
use settle::Pending;

/// The longest command line: RFC 5321 §4.5.3.1.4 has 512 bytes, and extensions add to it; DSN alone 1100 (RFC 3461 §4).
const LONGEST_COMMAND: usize = 4096;
/// How many commands that mean nothing a client may send.
const MOST_JUNK: u32 = 20;
/// How many answers may be outstanding.
const MOST_PENDING: usize = 100;

/// Why a session ends.
#[derive(Debug)]
pub(super) enum End {
    /// It is over: what is to be said has been said, or waits to be written.
    Over,
    /// The client is gone.
    Client(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Client(error)
    }
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    engine: Arc<Engine>,
    origin: Origin,
    client: Conn,
    hop: Option<Hop>,
    /// What the client has been offered, on the strength of the first upstream. None before EHLO.
    offered: Option<Capabilities>,
    helo: String,
    esmtp: bool,
    forwarded: Forwarded,
    pending: VecDeque<Pending>,
    envelope: Option<Envelope>,
    /// The upstream's answer to DATA, which is not passed on before it is looked at.
    data_reply: Option<Reply>,
    /// The message has been sent upstream, end and all, and no answer has come yet.
    dotted: bool,
    junk: u32,
    /// The client has said QUIT.
    said_bye: bool,
    line: Vec<u8>,
    draining: watch::Receiver<Phase>,
}

impl Session {
    pub(super) fn new(
        engine: Arc<Engine>,
        origin: Origin,
        stream: TcpStream,
        draining: watch::Receiver<Phase>,
    ) -> Self {
        Self {
            engine,
            origin,
            client: Conn::new(Stream::Plain(stream)),
            hop: None,
            offered: None,
            helo: String::new(),
            esmtp: false,
            forwarded: Forwarded::default(),
            pending: VecDeque::new(),
            envelope: None,
            data_reply: None,
            dotted: false,
            junk: 0,
            said_bye: false,
            line: Vec::new(),
            draining,
        }
    }

    /// Runs it to its end.
    pub(super) async fn run(&mut self) {
        let end = self.converse().await;
        if let Err(End::Client(error)) = &end {
            tracing::debug!("a client of the relay is gone: {error}");
        }
        self.abandon();
        if let Err(error) = self.client.flush(self.patience()).await {
            tracing::trace!("the client did not hear the end: {error}");
        }
    }

    /// Ends it now, whatever it is at: the agent ends.
    pub(super) async fn give_up(mut self) {
        self.pending.clear();
        if let Some(mut envelope) = self.envelope.take() {
            let text = "4.3.2 portreeve ends; try again";
            envelope.possible_duplicate = self.dotted;
            let reply = Reply::new(421, &format!("{text} ({})", envelope.id));
            self.conclude(envelope, super::record::Fate::Deferred, Some(&reply));
        }
        self.hop = None;
        self.client.push(Reply::new(421, &format!("4.3.2 {} portreeve ends; try again", self.engine.name)).bytes());
        if let Err(error) = self.client.flush(Duration::from_secs(1)).await {
            tracing::trace!("the client did not hear the end: {error}");
        }
        self.client.close(true).await;
    }

    /// Closes what [`Self::run`] has left.
    pub(super) async fn finish(mut self) {
        if let Some(hop) = self.hop.take() {
            hop.conn.close(false).await;
        }
        self.client.close(!self.said_bye).await;
    }

    async fn converse(&mut self) -> Result<(), End> {
        let judged = self.engine.chain.judge(Point::Connect, self.seen()).await;
        if let Some(refusal) = judged.refusal {
            self.client.push(Reply::new(421, &format!("4.{} portreeve: {}", refusal.detail, refusal.text)).bytes());
            return Err(End::Over);
        }
        self.client.push(Reply::new(220, &format!("{} ESMTP", self.engine.name)).bytes());
        loop {
            match line::first(self.client.input(), LONGEST_COMMAND) {
                Line::Whole(length) => {
                    let mut line = std::mem::take(&mut self.line);
                    line.clear();
                    line.extend_from_slice(&self.client.input()[..length]);
                    self.client.consume(length + 2);
                    let done = self.command(&line).await;
                    self.line = line;
                    done?;
                    if self.pending.len() >= MOST_PENDING {
                        self.settle().await?;
                    }
                }
                Line::Partial => {
                    self.settle().await?;
                    self.client.flush(self.patience()).await?;
                    self.wait().await?;
                }
                Line::TooLong => return self.refuse_line("the line is too long").await,
                Line::Bare(bare) => return self.refuse_line(&format!("{} in a command", bare.name())).await,
            }
        }
    }

    /// Waits for the client to say more.
    async fn wait(&mut self) -> Result<(), End> {
        // Between messages there is nothing that a restart of the agent would have to wait for.
        let may_leave = self.envelope.is_none() && self.client.input().is_empty();
        if may_leave {
            self.client.shrink();
        }
        let read = tokio::select! {
            read = self.client.fill(self.engine.settings.timeouts.client) => read,
            () = reaches(&mut self.draining, Phase::Draining), if may_leave => {
                self.client.push(Reply::new(421, &format!("4.3.2 {} portreeve ends; try again", self.engine.name)).bytes());
                return Err(End::Over);
            }
        };
        match read {
            Ok(0) => Err(End::Client(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                let text = format!("4.4.2 {} portreeve: you have been silent for too long", self.engine.name);
                self.client.push(Reply::new(421, &text).bytes());
                Err(End::Over)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses what is no command line. What follows cannot be trusted to be where it seems to be.
    async fn refuse_line(&mut self, what: &str) -> Result<(), End> {
        self.settle().await?;
        self.client.push(Reply::new(500, &format!("5.5.2 portreeve: {what}")).bytes());
        Err(End::Over)
    }

    /// Answers, behind the answers that are outstanding.
    fn respond(&mut self, reply: &Reply) {
        if self.pending.is_empty() {
            self.client.push(reply.bytes());
        } else {
            self.pending.push_back(Pending::Ours(reply.clone()));
        }
    }

    fn say(&mut self, code: u16, text: &str) {
        self.respond(&Reply::new(code, text));
    }

    /// How long an answer may take.
    fn patience(&self) -> Duration {
        self.engine.settings.timeouts.command
    }

    /// What filters see.
    fn seen(&self) -> Seen<'_> {
        Seen {
            origin: &self.origin,
            forwarded: &self.forwarded,
            helo: &self.helo,
            sender: None,
            recipient: None,
            recipients: &[],
            size: 0,
            headers: None,
            message: None,
        }
    }
}

/// A number for a message, unlike any other of this host.
fn next_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let micros = u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or_default();
    format!("{micros:x}{:03x}", NEXT.fetch_add(1, Ordering::Relaxed) & 0xfff)
}
