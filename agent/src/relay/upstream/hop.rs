//! A session with an upstream.

use std::io;
use std::time::Duration;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::super::conn::{Conn, Stream};
use super::super::settings::Tls;
use super::super::wire::reply::{self, NoReply, Reply};
use super::secure::base64;
use super::{Capabilities, Upstream, connect};

/// Why a session with an upstream has ended, or cannot begin.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum Lost {
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It closed the connection.
    #[error("it closed the connection")]
    Closed,
    /// It said something that is no reply.
    #[error("what it says is no reply: {0}")]
    Nonsense(#[from] NoReply),
    /// It does not want to.
    #[error("it says {0}")]
    Unwilling(Reply),
    /// It cannot be reached as securely as the policy demands.
    #[error("{0}")]
    Insecure(String),
}

/// A session with an upstream.
#[derive(Debug)]
pub(in super::super) struct Hop {
    pub(in super::super) conn: Conn,
    pub(in super::super) offers: Capabilities,
    /// What the upstream is called.
    pub(in super::super) title: String,
    /// MAIL may have been taken, and nothing has ended it.
    pub(in super::super) open: bool,
    /// XFORWARD has been sent as it is now.
    pub(in super::super) told: bool,
}

impl Hop {
    /// Connects, greets, and does TLS and AUTH as the policy says.
    pub(super) async fn open(upstream: &Upstream, name: &str, patience: Duration) -> Result<Self, Lost> {
        let late = |_elapsed| Lost::Io(io::ErrorKind::TimedOut.into());
        let deadline = tokio::time::Instant::now() + patience;
        let first = Self::attempt(upstream, name, upstream.settings.tls != Tls::None, patience);
        match tokio::time::timeout_at(deadline, first).await.map_err(late)? {
            // Without TLS rather than not at all, where the policy leaves it open.
            Err(Lost::Insecure(why)) if upstream.settings.tls == Tls::Opportunistic => {
                tracing::info!("upstream {}: {why}; it goes on without TLS", upstream.settings.title());
                let second = Self::attempt(upstream, name, false, patience);
                tokio::time::timeout_at(deadline, second).await.map_err(late)?
            }
            outcome => outcome,
        }
    }

    async fn attempt(upstream: &Upstream, name: &str, tls: bool, patience: Duration) -> Result<Self, Lost> {
        let settings = &upstream.settings;
        let stream = connect(upstream).await?;
        let mut hop = Self {
            conn: Conn::new(Stream::Plain(stream)),
            offers: Capabilities::default(),
            title: settings.title(),
            open: false,
            told: false,
        };
        if settings.tls == Tls::Implicit {
            hop.handshake(upstream).await?;
        }
        let greeting = hop.reply(patience).await?;
        if greeting.code != 220 {
            return Err(Lost::Unwilling(greeting));
        }
        hop.greet(name, patience).await?;
        if tls && settings.tls != Tls::Implicit {
            if hop.offers.starttls {
                hop.start_tls(upstream, name, patience).await?;
            } else if settings.tls == Tls::Required {
                return Err(Lost::Insecure("it does not offer STARTTLS".to_owned()));
            }
        }
        if upstream.credentials.is_some() {
            hop.authenticate(upstream, patience).await?;
        }
        Ok(hop)
    }

    async fn greet(&mut self, name: &str, patience: Duration) -> Result<(), Lost> {
        let reply = self.command(&format!("EHLO {name}"), patience).await?;
        if reply.class() == 2 {
            self.offers = Capabilities::read(&reply);
            return Ok(());
        }
        // It may know HELO only; 421 is the end.
        if reply.class() == 4 {
            return Err(Lost::Unwilling(reply));
        }
        let reply = self.command(&format!("HELO {name}"), patience).await?;
        self.offers = Capabilities::default();
        if reply.class() == 2 { Ok(()) } else { Err(Lost::Unwilling(reply)) }
    }

    async fn start_tls(&mut self, upstream: &Upstream, name: &str, patience: Duration) -> Result<(), Lost> {
        let reply = self.command("STARTTLS", patience).await?;
        if reply.code != 220 {
            return match upstream.settings.tls {
                Tls::Required => Err(Lost::Unwilling(reply)),
                Tls::None | Tls::Opportunistic | Tls::Implicit => Ok(()),
            };
        }
        // Whoever is in between could have put it there, to be taken for what comes in TLS (RFC 3207 §6).
        if !self.conn.input().is_empty() {
            return Err(Lost::Insecure("there is something behind its answer to STARTTLS".to_owned()));
        }
        self.handshake(upstream).await?;
        // What was said before does not count (RFC 3207 §4.2).
        self.greet(name, patience).await
    }

    async fn handshake(&mut self, upstream: &Upstream) -> Result<(), Lost> {
        let settings = &upstream.settings;
        let name = settings.tls_name.as_ref().unwrap_or(&settings.host);
        let server =
            ServerName::try_from(name.clone()).map_err(|error| Lost::Insecure(format!("\"{name}\": {error}")))?;
        let config = upstream.tls.clone().ok_or_else(|| Lost::Insecure("TLS is not set up".to_owned()))?;
        let tcp = self.conn.take_tcp().ok_or(Lost::Closed)?;
        let done = TlsConnector::from(config).connect(server, tcp).await;
        let stream = done.map_err(|error| Lost::Insecure(format!("no TLS with it: {error}")))?;
        self.conn.put_tls(stream.into());
        Ok(())
    }

    async fn authenticate(&mut self, upstream: &Upstream, patience: Duration) -> Result<(), Lost> {
        let Some(credentials) = &upstream.credentials else { return Ok(()) };
        if !self.conn.is_tls() && !crate::alert::is_loopback(&upstream.settings.host) {
            return Err(Lost::Insecure("the password is not sent without TLS".to_owned()));
        }
        let has = |mechanism: &str| self.offers.auth.iter().any(|offered| offered == mechanism);
        let reply = if has("PLAIN") {
            let secret = base64(format!("\0{}\0{}", credentials.user, credentials.password).as_bytes());
            self.command(&format!("AUTH PLAIN {secret}"), patience).await?
        } else if has("LOGIN") {
            let mut reply = self.command("AUTH LOGIN", patience).await?;
            for part in [&credentials.user, &credentials.password] {
                if reply.code == 334 {
                    reply = self.command(&base64(part.as_bytes()), patience).await?;
                }
            }
            reply
        } else {
            return Err(Lost::Insecure("it offers neither AUTH PLAIN nor AUTH LOGIN".to_owned()));
        };
        if reply.code == 235 { Ok(()) } else { Err(Lost::Unwilling(reply)) }
    }

    /// Says something that has an answer.
    pub(in super::super) async fn command(&mut self, line: &str, patience: Duration) -> Result<Reply, Lost> {
        self.conn.push(line.as_bytes());
        self.conn.push(b"\r\n");
        self.conn.flush(patience).await?;
        self.reply(patience).await
    }

    /// The next answer.
    pub(in super::super) async fn reply(&mut self, patience: Duration) -> Result<Reply, Lost> {
        loop {
            if let Some((used, reply)) = reply::parse(self.conn.input())? {
                self.conn.consume(used);
                self.conn.shrink();
                return Ok(reply);
            }
            if self.conn.fill(patience).await? == 0 {
                return Err(Lost::Closed);
            }
        }
    }
}
