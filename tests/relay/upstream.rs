//! An upstream that does as it is told, and remembers every byte that it took.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lab::Host;

/// A point of the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Greeting,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    /// Within the message.
    Body,
    /// The message is taken, and the answer is not given.
    End,
}

impl At {
    pub(crate) const ALL: [Self; 7] =
        [Self::Greeting, Self::Ehlo, Self::Mail, Self::Rcpt, Self::Data, Self::Body, Self::End];
}

/// What goes wrong there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection is reset.
    Close,
    /// Nothing happens any more.
    Stall,
    /// Something that is no reply.
    Nonsense,
    /// An answer of its own.
    Says(&'static str),
}

/// A message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    /// Every byte up to the line that ends it.
    pub(crate) bytes: Vec<u8>,
}

impl Taken {
    /// The bytes behind the relay's own trace line.
    pub(crate) fn behind_trace(&self) -> &[u8] {
        let text = &self.bytes;
        assert!(text.starts_with(b"Received: from "), "{:?}", String::from_utf8_lossy(text));
        let mut at = 0;
        loop {
            at += text[at..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
            if text.get(at) != Some(&b'\t') {
                return &text[at..];
            }
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    fault: Mutex<Option<(At, Fault)>>,
    taken: Mutex<Vec<Taken>>,
    said: Mutex<Vec<String>>,
    offers: Mutex<Vec<String>>,
}

/// The upstream.
#[derive(Debug)]
pub(crate) struct Upstream {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
    pub(crate) port: u16,
}

impl Upstream {
    /// Listens at all of the host's addresses.
    pub(crate) fn listen(host: &Host, port: u16) -> Self {
        let listener = host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::new(Shared::default());
        *shared.offers.lock().unwrap() = [
            "PIPELINING",
            "8BITMIME",
            "SIZE 100000000",
            "DSN",
            "SMTPUTF8",
            "CHUNKING",
            "ENHANCEDSTATUSCODES",
            "XCLIENT NAME",
        ]
        .map(str::to_owned)
        .to_vec();
        let inside = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !inside.stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).unwrap();
                        let shared = Arc::clone(&inside);
                        std::thread::spawn(move || converse(stream, &shared).unwrap_or_default());
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Self { shared, thread: Some(thread), port }
    }

    pub(crate) fn fail(&self, fault: Option<(At, Fault)>) {
        *self.shared.fault.lock().unwrap() = fault;
    }

    pub(crate) fn offer(&self, words: &[&str]) {
        *self.shared.offers.lock().unwrap() = words.iter().map(|word| (*word).to_owned()).collect();
    }

    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.shared.taken.lock().unwrap().clone()
    }

    /// The command lines that it has heard.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.shared.said.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Shared {
    fn fault(&self) -> Option<(At, Fault)> {
        *self.fault.lock().unwrap()
    }

    fn hear(&self, line: String) {
        self.said.lock().unwrap().push(line);
    }

    fn offers(&self) -> Vec<String> {
        self.offers.lock().unwrap().clone()
    }

    fn take(&self, message: Taken) {
        self.taken.lock().unwrap().push(message);
    }
}

/// Answers, or goes wrong. False at the end.
fn at(point: At, answer: &str, out: &mut TcpStream, shared: &Shared) -> std::io::Result<bool> {
    go_wrong(shared.fault(), point, answer, out, shared)
}

/// As [`at`], with what goes wrong looked up before.
fn go_wrong(
    fault: Option<(At, Fault)>,
    point: At,
    answer: &str,
    out: &mut TcpStream,
    shared: &Shared,
) -> std::io::Result<bool> {
    match fault.filter(|(place, _)| *place == point).map(|(_, fault)| fault) {
        None => out.write_all(answer.as_bytes()).map(|()| true),
        Some(Fault::Says(other)) => out.write_all(other.as_bytes()).map(|()| true),
        Some(Fault::Nonsense) => out.write_all(b"\x16\x03nonsense\r\n").map(|()| true),
        Some(Fault::Close) => Ok(false),
        Some(Fault::Stall) => {
            while !shared.stop.load(Ordering::Relaxed) && shared.fault().is_some() {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(false)
        }
    }
}

fn converse(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    if !at(At::Greeting, "220 up.example ESMTP\r\n", &mut out, shared)? {
        return Ok(());
    }
    let mut message = Taken { from: String::new(), to: Vec::new(), bytes: Vec::new() };
    loop {
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        shared.hear(text.clone());
        let verb = text.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let goes_on = match verb.as_str() {
            "EHLO" => {
                let words = shared.offers();
                let lines: Vec<String> = std::iter::once("up.example".to_owned()).chain(words).collect();
                let last = lines.len() - 1;
                let text: String = lines
                    .iter()
                    .enumerate()
                    .map(|(index, line)| format!("250{}{line}\r\n", if index == last { ' ' } else { '-' }))
                    .collect();
                at(At::Ehlo, &text, &mut out, shared)?
            }
            "MAIL" if text.contains("refused@") => {
                out.write_all(b"550 5.7.1 up: not you\r\n")?;
                true
            }
            "MAIL" => {
                message = Taken { from: text, to: Vec::new(), bytes: Vec::new() };
                at(At::Mail, "250 2.1.0 up-sender ok\r\n", &mut out, shared)?
            }
            "RCPT" if text.contains("nobody@") => {
                out.write_all(b"550-5.1.1 up: not here\r\n550 5.1.1 up: really\r\n")?;
                true
            }
            "RCPT" => {
                message.to.push(text);
                at(At::Rcpt, "250 2.1.5 up-rcpt ok\r\n", &mut out, shared)?
            }
            "DATA" if message.to.is_empty() => {
                out.write_all(b"554 5.5.1 up: no valid recipients\r\n")?;
                true
            }
            "DATA" => data(&mut input, &mut out, &mut message, shared)?,
            "QUIT" => {
                out.write_all(b"221 bye\r\n")?;
                false
            }
            _ => out.write_all(b"250 ok\r\n").map(|()| true)?,
        };
        if !goes_on {
            return Ok(());
        }
    }
}

fn data(
    input: &mut BufReader<TcpStream>,
    out: &mut TcpStream,
    message: &mut Taken,
    shared: &Shared,
) -> std::io::Result<bool> {
    let fault = shared.fault();
    if !go_wrong(fault, At::Data, "354 up: go on\r\n", out, shared)? {
        return Ok(false);
    }
    if matches!(fault, Some((At::Data, Fault::Says(_) | Fault::Nonsense))) {
        return Ok(true);
    }
    let fault = shared.fault();
    if matches!(fault, Some((At::Body, _))) {
        let mut some = [0; 16];
        input.read_exact(&mut some)?;
        go_wrong(fault, At::Body, "", out, shared)?;
        return Ok(false);
    }
    // The strict reading.
    while !message.bytes.ends_with(b"\r\n.\r\n") && message.bytes != b".\r\n" {
        let mut byte = [0];
        input.read_exact(&mut byte)?;
        message.bytes.push(byte[0]);
    }
    message.bytes.truncate(message.bytes.len() - 3);
    let fault = shared.fault();
    if !matches!(fault, Some((At::End, Fault::Says(_)))) {
        shared.take(message.clone());
    }
    go_wrong(fault, At::End, "250 2.0.0 up: taken as 42\r\n", out, shared)
}
