//! A connection with its buffers: bytes come in pieces of any size, and go out in one write a turn.

use std::io;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::socket::MsgFlags;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsStream;

/// What a read asks for while commands are exchanged.
const SMALL: usize = 2 << 10;
/// What a read asks for while a message comes.
const LARGE: usize = 16 << 10;

/// How much is read and forgotten of a connection that is closed.
const MOST_UNHEARD: usize = 1 << 20;

/// A TCP connection, with or without TLS.
#[derive(Debug)]
pub(super) enum Stream {
    /// In plain text.
    Plain(TcpStream),
    /// In TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// Lost while it changed from one to the other.
    Gone,
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Gone => Poll::Ready(Err(gone())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Gone => Poll::Ready(Err(gone())),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Conn {
    stream: Stream,
    input: Vec<u8>,
    /// How many bytes of the input are done with.
    used: usize,
    output: Vec<u8>,
}

impl Conn {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, input: Vec::new(), used: 0, output: Vec::new() }
    }

    /// What has come and is not done with.
    pub(super) fn input(&self) -> &[u8] {
        &self.input[self.used..]
    }

    /// Says that so many bytes of it are done with.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.used += bytes;
        if self.used >= self.input.len() {
            self.input.clear();
            self.used = 0;
        }
    }

    /// Puts bytes behind those to be written.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    /// Writes what waits.
    pub(super) async fn flush(&mut self, patience: Duration) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let written = timeout(patience, async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        });
        let outcome = written.await.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
        self.output.clear();
        if self.output.capacity() > LARGE {
            self.output = Vec::new();
        }
        outcome
    }

    /// Reads more. 0 is the end.
    pub(super) async fn fill(&mut self, patience: Duration) -> io::Result<usize> {
        self.read(SMALL, patience).await
    }

    /// Reads more of a message.
    pub(super) async fn fill_much(&mut self, patience: Duration) -> io::Result<usize> {
        self.read(LARGE, patience).await
    }

    async fn read(&mut self, room: usize, patience: Duration) -> io::Result<usize> {
        if self.used > 0 {
            self.input.drain(..self.used);
            self.used = 0;
        }
        self.input.reserve(room);
        let read = timeout(patience, self.stream.read_buf(&mut self.input)).await;
        read.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether the other side has closed the connection, as far as is known already. What it has sent is kept.
    pub(super) fn is_closed(&self) -> bool {
        let Stream::Plain(stream) = &self.stream else { return false };
        let mut byte = [0; 1];
        // Only asks, and only where the reactor has heard of something; a TLS connection would have to be read from.
        let peeked = stream.try_io(Interest::READABLE, || {
            nix::sys::socket::recv(stream.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)
                .map_err(io::Error::from)
        });
        match peeked {
            Ok(read) => read == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Lets go of buffers that a message has made large.
    pub(super) fn shrink(&mut self) {
        if self.input().is_empty() && self.input.capacity() > SMALL {
            self.input = Vec::new();
            self.used = 0;
        }
    }

    /// The connection itself, for a handshake. What has been read must have been dealt with.
    pub(super) fn take_tcp(&mut self) -> Option<TcpStream> {
        match std::mem::replace(&mut self.stream, Stream::Gone) {
            Stream::Plain(stream) => Some(stream),
            other @ (Stream::Tls(_) | Stream::Gone) => {
                self.stream = other;
                None
            }
        }
    }

    /// Goes on in TLS.
    pub(super) fn put_tls(&mut self, stream: TlsStream<TcpStream>) {
        self.stream = Stream::Tls(Box::new(stream));
    }

    /// Whether it is in TLS.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// The version and cipher of TLS, in words.
    pub(super) fn tls(&self) -> Option<String> {
        let Stream::Tls(stream) = &self.stream else { return None };
        let (_, session) = stream.get_ref();
        let version = session.protocol_version()?.as_str()?.replace("TLSv1_", "TLSv1.");
        let cipher = session.negotiated_cipher_suite()?.suite();
        Some(format!("{version} {}", cipher.as_str().unwrap_or_default()))
    }

    /// Closes it in order, as far as that can be done soon. What the other side still sends is read and forgotten where it
    /// should hear why: a connection that is closed over unread bytes is reset, and the answer may be lost with it.
    pub(super) async fn close(mut self, lingers: bool) {
        let closed = timeout(Duration::from_secs(1), async {
            self.stream.shutdown().await?;
            let mut left = if lingers { MOST_UNHEARD } else { 0 };
            while left > 0 {
                self.input.clear();
                self.input.reserve(SMALL);
                left = match self.stream.read_buf(&mut self.input).await? {
                    0 => 0,
                    read => left.saturating_sub(read),
                };
            }
            io::Result::Ok(())
        });
        let closed = closed.await;
        tracing::trace!("closed: {closed:?}");
    }
}
