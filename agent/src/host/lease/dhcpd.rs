//! ISC dhcpd's lease file: dhcpd.leases(5) of ISC DHCP 4.4.
//!
//! The text is read as dhcpd reads it, as words, strings, braces and semicolons, since names with braces in them are
//! possible. It is a journal: the last entry of an address is the one in force. IPv6 leases are `iaaddr` blocks in those of
//! their `ia-na`, whose name is the IAID and the DUID. Times are in UTC.

mod word;

use std::net::IpAddr;

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

use super::table::Table;
use super::{Lease, Parsed, hexadecimal, host_name};
use crate::host::Mac;
use word::{Word, Words};

/// How deep blocks may be within blocks; dhcpd's own go four deep.
const DEEPEST: usize = 32;
/// How many words of a statement are kept; none that is read has more than six.
const MOST_WORDS: usize = 16;

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut reading = Reading::default();
    let mut statement: Vec<Word> = Vec::new();
    let mut line = 1;
    for (at, word) in Words::new(bytes) {
        if statement.is_empty() {
            line = at;
        }
        match word {
            Word::End => {
                reading.statement(&statement, line);
                statement.clear();
            }
            Word::Open => {
                if reading.blocks.len() >= DEEPEST {
                    reading.table.bad(line);
                    break;
                }
                let block = reading.open(&statement, line);
                reading.blocks.push(block);
                statement.clear();
            }
            Word::Close => {
                statement.clear();
                reading.close();
            }
            Word::Plain(_) | Word::Quoted(_) => {
                if statement.len() < MOST_WORDS {
                    statement.push(word);
                }
            }
        }
    }
    reading.table.parsed()
}

/// Whether a file that begins with this line, comments apart, is dhcpd's.
pub(super) fn is_statement(line: &[u8]) -> bool {
    const FIRST: [&str; 8] =
        ["lease", "ia-na", "ia-ta", "ia-pd", "server-duid", "authoring-byte-order", "failover", "host"];
    let word = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    FIRST.iter().any(|first| first.as_bytes() == word)
}

#[derive(Default)]
struct Reading {
    table: Table,
    blocks: Vec<Block>,
}

/// A block that has not been closed yet.
enum Block {
    /// A lease.
    Lease(Box<Entry>),
    /// The IPv6 leases of a client.
    Client(Vec<u8>),
    /// Something that is not read.
    Other,
}

struct Entry {
    lease: Lease,
    active: bool,
    /// A name that the server has put into the domain name system, for want of the client's own.
    registered: Option<String>,
}

impl Reading {
    fn open(&mut self, words: &[Word], line: u64) -> Block {
        let client = match self.blocks.last() {
            Some(Block::Client(identity)) => Some(identity.as_slice()),
            Some(Block::Lease(_) | Block::Other) | None => None,
        };
        let mut lease = match (words, client) {
            ([Word::Plain(word), address], None) if word == b"lease" => address.address().map(Lease::of),
            ([Word::Plain(word), address], Some(_)) if word == b"iaaddr" => address.address().map(Lease::of),
            ([Word::Plain(word), Word::Quoted(identity)], None) if word == b"ia-na" || word == b"ia-ta" => {
                // The IAID is the first four bytes (RFC 8415 section 12).
                return Block::Client(identity.get(4..).unwrap_or_default().to_owned());
            }
            _other => return Block::Other,
        };
        if let (Some(lease), Some(identity)) = (&mut lease, client) {
            lease.client_id = hexadecimal(identity);
        }
        match lease {
            // An entry without a binding state is that of a server older than they are.
            Some(lease) => Block::Lease(Box::new(Entry { lease, active: true, registered: None })),
            None => {
                self.table.bad(line);
                Block::Other
            }
        }
    }

    fn close(&mut self) {
        let Some(Block::Lease(entry)) = self.blocks.pop() else { return };
        let Entry { mut lease, active, registered } = *entry;
        if active {
            lease.name = lease.name.or(registered);
            self.table.put(lease);
        } else {
            self.table.remove(lease.address);
        }
    }

    fn statement(&mut self, words: &[Word], line: u64) {
        let Some(Block::Lease(entry)) = self.blocks.last_mut() else { return };
        let lease = &mut entry.lease;
        let texts: Vec<&[u8]> = words.iter().map(Word::bytes).collect();
        let understood = match texts.as_slice() {
            [b"binding", b"state", state] => {
                entry.active = *state == b"active";
                true
            }
            [b"hardware", b"ethernet", mac] => {
                lease.mac = std::str::from_utf8(mac).ok().and_then(|mac| mac.parse::<Mac>().ok());
                lease.mac.is_some()
            }
            [b"ends", when @ ..] => {
                let ends = time(when);
                lease.expires = ends.flatten();
                ends.is_some()
            }
            [b"client-hostname", name] => {
                lease.name = host_name(name);
                true
            }
            [b"uid", identity] => {
                lease.client_id = uid(words.get(1), identity);
                true
            }
            [b"set", b"ddns-fwd-name", b"=", name] => {
                entry.registered = host_name(name);
                true
            }
            _other => true,
        };
        if !understood {
            self.table.bad(line);
        }
    }
}

/// A client identifier: a string, or hexadecimal bytes with colons (`db-time-format` and its like leave both possible).
fn uid(word: Option<&Word>, bytes: &[u8]) -> Option<String> {
    match word {
        Some(Word::Plain(_)) => std::str::from_utf8(bytes).ok().and_then(super::client_id),
        Some(Word::Quoted(_) | Word::Open | Word::Close | Word::End) | None => hexadecimal(bytes),
    }
}

/// A time: `never`, `epoch SECONDS`, or a weekday, a date and a time of day. `None` when it is none of them.
fn time(words: &[&[u8]]) -> Option<Option<Timestamp>> {
    match words {
        [b"never"] => Some(None),
        [b"epoch", seconds] => {
            let seconds = std::str::from_utf8(seconds).ok()?.parse().ok()?;
            Some(Some(Timestamp::from_second(seconds).ok()?))
        }
        [_weekday, date, time] => {
            let [year, month, day] = numbers(date, '/')?;
            let [hour, minute, second] = numbers(time, ':')?;
            let small = |number: i16| i8::try_from(number).ok();
            let date = Date::new(year, small(month)?, small(day)?).ok()?;
            let time = Time::new(small(hour)?, small(minute)?, small(second)?, 0).ok()?;
            Some(Some(TimeZone::UTC.to_timestamp(date.to_datetime(time)).ok()?))
        }
        _other => None,
    }
}

fn numbers(text: &[u8], separator: char) -> Option<[i16; 3]> {
    let mut parts = std::str::from_utf8(text).ok()?.split(separator).map(|part| part.parse().ok());
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

impl Word {
    fn address(&self) -> Option<IpAddr> {
        std::str::from_utf8(self.bytes()).ok()?.parse().ok()
    }
}
