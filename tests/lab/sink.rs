//! What listens at the other end: counts who comes, and takes mail.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::Host;
use crate::until::{DEADLINE, until};

/// A message the sink has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The argument of MAIL FROM.
    pub from: String,
    /// The arguments of RCPT TO.
    pub to: Vec<String>,
    /// The lines after DATA.
    pub data: String,
}

#[derive(Debug, Default)]
struct Shared {
    accepted: AtomicU64,
    stop: AtomicBool,
    messages: Mutex<Vec<Message>>,
}

/// A mail exchanger of the simplest kind (RFC 5321 §3), IPv4 and IPv6, MPTCP and Fast Open too.
#[derive(Debug)]
pub struct Sink {
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Sink {
    /// Listens on a port of a host.
    #[track_caller]
    #[must_use]
    pub fn listen(host: &Host, port: u16) -> Self {
        let shared = Arc::new(Shared::default());
        let listener = host.netns().enter(|| {
            // An MPTCP listener takes plain TCP as well.
            let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::from(libc::IPPROTO_MPTCP))).unwrap();
            fast_open(&socket);
            socket.set_only_v6(false).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)).into()).unwrap();
            socket.listen(1024).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        });
        let inside = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !inside.stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((socket, _)) => {
                        inside.accepted.fetch_add(1, Ordering::SeqCst);
                        socket.set_nonblocking(false).unwrap();
                        let shared = Arc::clone(&inside);
                        std::thread::spawn(move || {
                            // A client that goes away in the middle is no failure of the sink.
                            converse(socket.into(), &shared).unwrap_or_default();
                        });
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Self { shared, threads: vec![thread] }
    }

    /// How many connections have come.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Waits until that many have come in all.
    #[track_caller]
    pub fn wait_for(&self, count: u64) {
        until("connections", DEADLINE, || match self.accepted() {
            enough if enough >= count => Ok(()),
            fewer => Err(fewer),
        });
    }

    /// The messages taken so far.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.shared.messages.lock().unwrap().clone()
    }

    /// Waits until that many messages have come in all, and returns them.
    #[track_caller]
    pub fn wait_for_messages(&self, count: usize, deadline: Duration) -> Vec<Message> {
        until("messages", deadline, || {
            let messages = self.messages();
            if messages.len() >= count { Ok(messages) } else { Err(messages.len()) }
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn converse(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut out = stream.try_clone()?;
    out.write_all(b"220 sink.test ESMTP\r\n")?;
    let mut lines = BufReader::new(stream).lines();
    let mut message = Message { from: String::new(), to: Vec::new(), data: String::new() };
    while let Some(line) = lines.next().transpose()? {
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let reply = match verb.as_str() {
            "EHLO" => "250-sink.test\r\n250-8BITMIME\r\n250 SIZE 10000000\r\n",
            "MAIL" => {
                message.from = line;
                "250 2.1.0 ok\r\n"
            }
            "RCPT" => {
                message.to.push(line);
                "250 2.1.5 ok\r\n"
            }
            "DATA" => {
                out.write_all(b"354 go on\r\n")?;
                for line in lines.by_ref() {
                    let line = line?;
                    if line == "." {
                        break;
                    }
                    message.data.push_str(&line);
                    message.data.push('\n');
                }
                let taken = std::mem::replace(
                    &mut message,
                    Message { from: String::new(), to: Vec::new(), data: String::new() },
                );
                let mut messages = shared.messages.lock().map_err(|error| std::io::Error::other(error.to_string()))?;
                messages.push(taken);
                drop(messages);
                "250 2.0.0 taken\r\n"
            }
            "QUIT" => {
                out.write_all(b"221 bye\r\n")?;
                return Ok(());
            }
            _ => "250 ok\r\n",
        };
        out.write_all(reply.as_bytes())?;
    }
    Ok(())
}

/// Lets a listener take Fast Open. Before Linux 6.2 one of MPTCP does not; clients then send their data after the
/// handshake.
fn fast_open(socket: &Socket) {
    let queue: libc::c_int = 64;
    // SAFETY: an option of the size named, on a socket that is open.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN, (&raw const queue).cast(), 4)
    };
    let error = std::io::Error::last_os_error();
    assert!(set == 0 || error.raw_os_error() == Some(libc::ENOPROTOOPT), "TCP_FASTOPEN: {error}");
}
