//! Traces: attempts out of files, whatever wrote them, as the detector takes them. One line at a time, so that a trace
//! may be larger than the memory, and may come by a pipe.

mod argus;
mod attempts;
mod lines;
mod time;
mod zeek;

use std::io::{self, BufRead};
use std::net::IpAddr;

use crate::alert::Who;
use crate::attempt::Attempt;
use crate::detect::{Observation, Outcome, Signs, SubjectId};
use lines::Lines;

/// How many lines that could not be read are named.
const NAMED: usize = 5;
/// How much is told of what is wrong with one, in characters: it may repeat a line as long as a line may be.
const FAULT: usize = 200;

/// How a trace is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The JSON Lines of `portreeve attempts --json`.
    Attempts,
    /// Zeek's conn.log, tab-separated or as JSON.
    Zeek,
    /// Bidirectional flows of Argus as CSV, as in CTU-13's `*.binetflow`.
    Argus,
}

/// One attempt of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    /// What the detector is told.
    pub observation: Observation,
    /// Who is behind it.
    pub source: Source,
    /// What the trace says it is (CTU-13's `Label`), where it says so.
    pub label: Option<String>,
}

/// Who is behind an attempt of a trace.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A program, by its record.
    Program(Box<Attempt>),
    /// A host of a capture.
    Host(IpAddr),
}

impl Source {
    /// It, for people.
    #[must_use]
    pub fn who(&self) -> Who {
        match self {
            Self::Program(attempt) => Who::of(attempt),
            Self::Host(address) => Who::of_host(*address),
        }
    }

    /// The address of a host whose programs are not known.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Program(attempt) => attempt.host_address(),
            Self::Host(address) => Some(*address),
        }
    }
}

/// What was in a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lines, all of them.
    pub lines: u64,
    /// Attempts among them.
    pub attempts: u64,
    /// Connections that are not about mail: another protocol or port.
    pub elsewhere: u64,
    /// Lines that are no attempts and need not be: headers, notes, attempts without a destination.
    pub others: u64,
    /// Attempts that came too fast to be written, as the trace itself says.
    pub lost: u64,
    /// Lines that could not be read.
    pub unreadable: u64,
    /// What was wrong with the first of these, as `file:line: fault`.
    pub faults: Vec<String>,
}

/// Why a trace can not be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// There is no such file, or it must not be read.
    #[error("cannot open {name}: {source}")]
    Open {
        /// The file.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// The file gave an error.
    #[error("{name}:{line}: cannot read it: {source}")]
    Read {
        /// The file.
        name: String,
        /// The line after which it happened.
        line: u64,
        /// What the system says.
        source: io::Error,
    },
    /// The first line is of no format.
    #[error(
        "{name}:{line}: this is neither an attempt of `portreeve attempts --json` nor a line of Zeek's conn.log nor the \
         header of an Argus CSV; name the format with --format if it is one of them, and pipe what is compressed \
         through `zcat`"
    )]
    Unknown {
        /// The file.
        name: String,
        /// The line.
        line: u64,
    },
    /// The header lacks a column.
    #[error("{name}:{line}: the header has no column {column}, without which nobody can tell who connects to whom")]
    Column {
        /// The file.
        name: String,
        /// The line.
        line: u64,
        /// The column.
        column: &'static str,
    },
    /// Nothing in it could be read.
    #[error("no line of it could be read as what its format has; the first: {fault}")]
    Nothing {
        /// What was wrong with the first line, as `file:line: fault`.
        fault: String,
    },
}

/// A trace that is being read.
#[derive(Debug)]
pub struct Trace<R> {
    name: String,
    lines: Lines<R>,
    reader: Option<Reader>,
    ports: Vec<u16>,
    tally: Tally,
}

impl<R: BufRead> Trace<R> {
    /// A trace of a format, or, with none given, of the format that its first line shows. Of captures only connections
    /// to `ports` count (25 if there are none); of attempts all do, unless ports are given: they were guarded.
    pub fn new(name: impl Into<String>, input: R, format: Option<Format>, ports: &[u16]) -> Self {
        let reader = format.map(Reader::new);
        Self { name: name.into(), lines: Lines::new(input), reader, ports: ports.to_vec(), tally: Tally::default() }
    }

    /// The next attempt, or none at the end.
    ///
    /// # Errors
    ///
    /// When the file can not be read, or is no trace at all. A single line that makes no sense is only counted.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not be asked for the tally in between")]
    pub fn next(&mut self) -> Result<Option<Sighting>, TraceError> {
        loop {
            let line = match self.lines.next() {
                Ok(Some(line)) => line,
                Ok(None) => return self.end().map(|()| None),
                Err(source) => {
                    return Err(TraceError::Read { name: self.name.clone(), line: self.tally.lines, source });
                }
            };
            self.tally.lines += 1;
            let Some(line) = line else {
                self.unreadable("the line is longer than a mebibyte");
                continue;
            };
            if line.iter().all(u8::is_ascii_whitespace) {
                self.tally.others += 1;
                continue;
            }
            let reader = match &mut self.reader {
                Some(reader) => reader,
                none => match guess(line) {
                    Some(format) => none.insert(Reader::new(format)),
                    None => return Err(TraceError::Unknown { name: self.name.clone(), line: self.tally.lines }),
                },
            };
            match reader.read(line, &self.ports) {
                Row::Sighting(sighting) => {
                    self.tally.attempts += 1;
                    return Ok(Some(sighting));
                }
                Row::Elsewhere => self.tally.elsewhere += 1,
                Row::Other => self.tally.others += 1,
                Row::Lost(lost) => {
                    self.tally.others += 1;
                    self.tally.lost += lost;
                }
                Row::NoColumn(column) => {
                    return Err(TraceError::Column { name: self.name.clone(), line: self.tally.lines, column });
                }
                Row::Fault(fault) => self.unreadable(&fault),
            }
        }
    }

    /// What was in it so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    fn unreadable(&mut self, fault: &str) {
        self.tally.unreadable += 1;
        if self.tally.faults.len() < NAMED {
            // Whoever made the file must not write to the terminal of whoever reads it.
            let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
            let fault: String = fault.chars().take(FAULT).map(shown).collect();
            self.tally.faults.push(format!("{}:{}: {fault}", self.name, self.tally.lines));
        }
    }

    /// A file of which nothing could be read is the wrong file, or of another format.
    fn end(&self) -> Result<(), TraceError> {
        let nothing = self.tally.attempts + self.tally.elsewhere + self.tally.lost == 0;
        match self.tally.faults.first() {
            Some(fault) if nothing => Err(TraceError::Nothing { fault: fault.clone() }),
            _ => Ok(()),
        }
    }
}

/// What a line is.
#[derive(Debug)]
enum Row {
    Sighting(Sighting),
    Elsewhere,
    Other,
    Lost(u64),
    NoColumn(&'static str),
    Fault(String),
}

#[derive(Debug)]
enum Reader {
    Attempts,
    Zeek(zeek::Columns),
    Argus(argus::Columns),
}

impl Reader {
    fn new(format: Format) -> Self {
        match format {
            Format::Attempts => Self::Attempts,
            Format::Zeek => Self::Zeek(zeek::Columns::default()),
            Format::Argus => Self::Argus(argus::Columns::default()),
        }
    }

    fn read(&mut self, line: &[u8], ports: &[u16]) -> Row {
        match self {
            Self::Attempts => attempts::read(line, ports),
            Self::Zeek(columns) => zeek::read(line, columns, captured(ports)),
            Self::Argus(columns) => argus::read(line, columns, captured(ports)),
        }
    }
}

/// The port that mail goes to (RFC 5321 §4.5.4.2).
const SMTP: &[u16] = &[25];

fn captured(ports: &[u16]) -> &[u16] {
    if ports.is_empty() { SMTP } else { ports }
}

/// The format that a line shows.
fn guess(line: &[u8]) -> Option<Format> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii_start();
    if line.starts_with(b"#") {
        return Some(Format::Zeek);
    }
    if line.starts_with(b"{") {
        return if attempts::is_one(line) {
            Some(Format::Attempts)
        } else if zeek::is_one(line) {
            Some(Format::Zeek)
        } else {
            None
        };
    }
    argus::is_header(line).then_some(Format::Argus)
}

/// A connection of a capture: nothing is known of programs, and nothing was refused, only seen.
fn captured_connection(time: i64, from: IpAddr, to: IpAddr, label: Option<String>) -> Row {
    let from = from.to_canonical();
    let observation = Observation {
        time,
        subject: SubjectId::of_host(from),
        owner: SubjectId::default(),
        thread: 0,
        address: to.to_canonical(),
        domain: 0,
        outcome: Outcome::Refused,
        signs: Signs::default(),
    };
    Row::Sighting(Sighting { observation, source: Source::Host(from), label })
}

#[cfg(test)]
mod tests;
