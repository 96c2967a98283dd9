//! A TCP server that plays the mail exchanger and counts what reaches it.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe;
use socket2::{Domain, Protocol, Socket, Type};

use crate::host::{Host, Link};
use crate::smtp::{GREETING, Message, Session};
use crate::sniffer::Sniffer;
use crate::until;

/// How much of each connection's data is kept.
const KEPT: usize = 256;
/// How many connections' first bytes are kept: a flood must not fill the memory.
const KEPT_CONNECTIONS: usize = 1024;

/// A sink that is not yet started; made by [`Host::sink`].
#[derive(Debug)]
#[must_use]
pub struct SinkBuilder<'a> {
    host: &'a Host,
    port: u16,
    mptcp: bool,
    fast_open: bool,
    smtp: bool,
}

impl<'a> SinkBuilder<'a> {
    pub(crate) fn new(host: &'a Host, port: u16) -> Self {
        Self {
            host,
            port,
            mptcp: false,
            fast_open: false,
            smtp: false,
        }
    }

    /// Speaks Multipath TCP with those who ask for it, plain TCP with the rest.
    pub fn mptcp(mut self) -> Self {
        self.mptcp = true;
        self
    }

    /// Takes data in the SYN.
    pub fn fast_open(mut self) -> Self {
        self.fast_open = true;
        self
    }

    /// Speaks SMTP and keeps the messages. Otherwise it says nothing, reads until the client ends, and closes.
    pub fn smtp(mut self) -> Self {
        self.smtp = true;
        self
    }

    /// Starts to listen, on every address of the host.
    ///
    /// # Panics
    /// When the port is taken.
    #[track_caller]
    #[must_use]
    pub fn start(self) -> Sink {
        let (port, mptcp, fast_open) = (self.port, self.mptcp, self.fast_open);
        let listener = self
            .host
            .enter(|| listen(port, mptcp, fast_open))
            .unwrap_or_else(|error| panic!("listen on port {} of {}: {error}", self.port, self.host.name()));
        let sniffer = Sniffer::start(self.host.netns(), self.port);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (wake, stop) = pipe().unwrap();
        let (kept, smtp) = (Arc::clone(&seen), self.smtp);
        Sink {
            port: self.port,
            links: self.host.links(),
            v4: self.host.v4(),
            v6: self.host.v6(),
            seen,
            sniffer,
            stop: Some(stop),
            thread: Some(std::thread::spawn(move || serve(&listener, &wake, &kept, smtp))),
        }
    }
}

fn listen(port: u16, mptcp: bool, fast_open: bool) -> std::io::Result<Socket> {
    let protocol = if mptcp {
        Protocol::MPTCP
    } else {
        Protocol::TCP
    };
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(protocol))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    if fast_open {
        let queue: libc::c_int = 4096; // tcp(7): pending requests that have not been answered yet
        // SAFETY: pointer and length are of one live integer.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_FASTOPEN,
                (&raw const queue).cast(),
                size_of_val(&queue) as libc::socklen_t,
            )
        };
        nix::errno::Errno::result(result)?;
    }
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A listening sink; it closes, with its connections, on drop.
#[derive(Debug)]
pub struct Sink {
    port: u16,
    links: Vec<Link>,
    v4: IpAddr,
    v6: IpAddr,
    seen: Arc<Mutex<Seen>>,
    sniffer: Sniffer,
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    accepted: u64,
    bytes: u64,
    first_bytes: Vec<Vec<u8>>,
    peers: Vec<SocketAddr>,
    messages: Vec<Message>,
}

impl Sink {
    /// Its IPv4 address and port.
    #[must_use]
    pub fn v4(&self) -> SocketAddr {
        SocketAddr::new(self.v4, self.port)
    }

    /// Its IPv6 address and port.
    #[must_use]
    pub fn v6(&self) -> SocketAddr {
        SocketAddr::new(self.v6, self.port)
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.seen.lock().unwrap().accepted
    }

    /// Bytes received so far, over all connections.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.seen.lock().unwrap().bytes
    }

    /// The first bytes of each of the first thousand connections, in the order in which they were accepted.
    #[must_use]
    pub fn first_bytes(&self) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap().first_bytes.clone()
    }

    /// Where each of the first thousand connections came from; IPv4 addresses are plain.
    #[must_use]
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.seen.lock().unwrap().peers.clone()
    }

    /// The messages taken so far.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.seen.lock().unwrap().messages.clone()
    }

    /// SYNs that reached the host for this port so far, answered or not. Exact, as [`Self::must_be_silent`] is.
    #[track_caller]
    #[must_use]
    pub fn syns(&self) -> u64 {
        self.catch_up();
        self.sniffer.syns()
    }

    /// Waits until `count` connections have been accepted.
    #[track_caller]
    pub fn wait_for(&self, count: u64, deadline: Duration) {
        until(&format!("{count} connections to port {}", self.port), deadline, || {
            let accepted = self.accepted();
            if accepted >= count { Ok(()) } else { Err(accepted) }
        });
    }

    /// Waits until `count` messages have been taken, and returns them.
    #[track_caller]
    pub fn wait_for_messages(&self, count: usize, deadline: Duration) -> Vec<Message> {
        until(&format!("{count} messages"), deadline, || {
            let messages = self.messages();
            if messages.len() >= count { Ok(messages) } else { Err(messages) }
        })
    }

    /// Nothing at all has arrived since the start: no connection, and no TCP segment for the port on any wire.
    ///
    /// # Panics
    /// When something has.
    #[track_caller]
    pub fn must_be_silent(&self) {
        self.must_be_silent_after(0, 0);
    }

    /// Nothing has arrived but `accepted` connections and `segments` segments; take both before the attempt, from
    /// [`Self::accepted`] and [`Self::segments`].
    ///
    /// # Panics
    /// When something has.
    #[track_caller]
    pub fn must_be_silent_after(&self, accepted: u64, segments: u64) {
        let now = (self.segments(), self.accepted());
        assert_eq!(
            now,
            (segments, accepted),
            "(segments, connections) at port {}: left is what arrived, right what was allowed to; first bytes: {:?}",
            self.port,
            self.first_bytes()
        );
    }

    /// TCP segments of any kind that reached the host for this port so far, on any wire.
    #[track_caller]
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.catch_up();
        self.sniffer.segments()
    }

    /// Whatever a wire's other end has sent is counted when this returns.
    #[track_caller]
    fn catch_up(&self) {
        for link in &self.links {
            self.sniffer.catch_up(&link.peer, self.v4);
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // The closed pipe wakes the thread.
        drop(self.stop.take());
        self.thread.take().map(JoinHandle::join);
    }
}

struct Connection {
    socket: Socket,
    session: Option<Session>,
    index: usize,
}

fn serve(listener: &Socket, wake: &OwnedFd, seen: &Mutex<Seen>, smtp: bool) {
    let mut connections: Vec<Connection> = Vec::new();
    loop {
        let mut fds = vec![
            PollFd::new(wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(
            connections
                .iter()
                .map(|connection| PollFd::new(connection.socket.as_fd(), PollFlags::POLLIN)),
        );
        // A signal ends the wait early; the next round asks again.
        poll(&mut fds, PollTimeout::NONE).unwrap_or_default();
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        if ready[0] {
            return;
        }
        let mut ready_connections = ready[2..].iter();
        connections.retain_mut(|connection| {
            !ready_connections.next().copied().unwrap_or(false) || connection.read(seen)
        });
        while ready[1] {
            let Ok((socket, peer)) = listener.accept() else {
                break;
            };
            connections.extend(Connection::accept(socket, peer.as_socket(), seen, smtp));
        }
    }
}

impl Connection {
    fn accept(
        mut socket: Socket,
        peer: Option<SocketAddr>,
        seen: &Mutex<Seen>,
        smtp: bool,
    ) -> Option<Self> {
        socket.set_nonblocking(true).ok()?;
        let mut seen = seen.lock().unwrap();
        let index = seen.first_bytes.len();
        seen.accepted += 1;
        if index < KEPT_CONNECTIONS {
            seen.first_bytes.push(Vec::new());
            seen.peers.extend(peer.map(plain));
        }
        if smtp {
            socket.write_all(GREETING).ok()?;
        }
        Some(Self {
            socket,
            session: smtp.then(Session::default),
            index,
        })
    }

    /// Reads what is there; `false` when the connection is over.
    fn read(&mut self, seen: &Mutex<Seen>) -> bool {
        let mut buffer = [0; 16384];
        let got = match self.socket.read(&mut buffer) {
            Ok(0) => return false,
            Ok(got) => &buffer[..got],
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        let mut seen = seen.lock().unwrap();
        seen.bytes += got.len() as u64;
        if let Some(first) = seen.first_bytes.get_mut(self.index) {
            let room = KEPT.saturating_sub(first.len());
            first.extend(got.iter().take(room));
        }
        let Some(session) = &mut self.session else {
            return true;
        };
        let answer = session.ingest(got);
        seen.messages.extend(answer.messages);
        self.socket.write_all(&answer.reply).is_ok() && !answer.quit
    }
}

/// A dual-stack listener shows IPv4 peers in mapped form.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
