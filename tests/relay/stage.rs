//! A host with the agent's relay on it, and who speaks to it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::Duration;

use lab::{DEADLINE, Guard, Host, Lab, until};
use serde_json::Value;

use crate::upstream::Upstream;

/// Where the relay listens.
pub(crate) const RELAY: u16 = 10_025;
/// Where the upstream does.
pub(crate) const UP: u16 = 2525;

pub(crate) struct Stage {
    // Before the lab, whose namespaces it uses.
    pub(crate) guard: Guard,
    pub(crate) up: Upstream,
    pub(crate) host: Host,
    _lab: Lab,
}

/// A policy with a relay. `more` are keys of `[relay]`, `tables` further tables.
pub(crate) fn policy(more: &str, tables: &str) -> String {
    let mode = if more.contains("mode = ") { "" } else { "mode = \"relayhost\"\n" };
    format!(
        "[[allow]]\nname = \"none\"\nexe = \"/usr/bin/true\"\nuser = 1\n[relay]\n{mode}listen = \"127.0.0.1:{RELAY}\"\n\
         name = \"relay.example\"\n{more}\n[[relay.upstream]]\nhost = \"127.0.0.1\"\nport = {UP}\n{tables}\n"
    )
}

impl Stage {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, "", "")
    }

    pub(crate) fn with(name: &str, more: &str, tables: &str) -> Self {
        let lab = Lab::new(name);
        let host = lab.host("host");
        let up = Upstream::listen(&host, UP);
        let guard = Guard::start(&lab, &policy(more, tables));
        Self { guard, up, host, _lab: lab }
    }

    /// A client that has been greeted.
    pub(crate) fn talk(&self) -> Talk {
        let mut talk = Talk::connect(&self.host);
        talk.expect("220 ");
        talk
    }

    /// One that has said EHLO.
    pub(crate) fn hello(&self) -> Talk {
        let mut talk = self.talk();
        talk.say("EHLO client.example");
        talk.expect("250");
        talk
    }

    pub(crate) fn relay(&self) -> Value {
        self.guard.status()["relay"].clone()
    }

    /// The records of all messages, once there are that many.
    pub(crate) fn records(&self, count: usize) -> Vec<Value> {
        until("records of messages", DEADLINE, || {
            let listed = self.guard.command(["mail", "--json"]).must_succeed();
            let records: Vec<Value> = listed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            if records.len() >= count { Ok(records) } else { Err(records) }
        })
    }
}

/// A raw client.
pub(crate) struct Talk {
    out: TcpStream,
    input: BufReader<TcpStream>,
}

impl Talk {
    /// To the relay.
    pub(crate) fn connect(host: &Host) -> Self {
        Self::connect_to(host, RELAY)
    }

    /// To whoever listens there.
    pub(crate) fn connect_to(host: &Host, port: u16) -> Self {
        let stream = host.enter(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap());
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { out: stream.try_clone().unwrap(), input: BufReader::new(stream) }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.out.write_all(bytes).unwrap();
    }

    /// Sends to whom may be gone.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) {
        self.out.write_all(bytes).unwrap_or_default();
    }

    pub(crate) fn say(&mut self, line: &str) {
        self.send(format!("{line}\r\n").as_bytes());
    }

    /// A whole reply, its lines joined; empty at the end of the connection.
    pub(crate) fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            if self.input.read_line(&mut line).unwrap_or(0) == 0 {
                return reply;
            }
            let last = line.as_bytes().get(3) != Some(&b'-');
            reply.push_str(&line);
            if last {
                return reply;
            }
        }
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, begin: &str) -> String {
        let reply = self.reply();
        assert!(reply.starts_with(begin), "{begin}: {reply:?}");
        reply
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, line: &str, begin: &str) -> String {
        self.say(line);
        self.expect(begin)
    }

    /// MAIL and RCPT that are taken, and DATA.
    #[track_caller]
    pub(crate) fn data(&mut self, from: &str, to: &str) {
        self.ask(&format!("MAIL FROM:<{from}>"), "250");
        self.ask(&format!("RCPT TO:<{to}>"), "250");
        self.ask("DATA", "354");
    }

    /// A whole message; the answer to its end.
    #[track_caller]
    pub(crate) fn mail(&mut self, from: &str, to: &str, message: &[u8]) -> String {
        self.data(from, to);
        self.send(message);
        self.send(b".\r\n");
        self.reply()
    }

    /// Goes away without a word.
    pub(crate) fn hang_up(self) {
        self.out.shutdown(Shutdown::Both).unwrap();
    }
}
