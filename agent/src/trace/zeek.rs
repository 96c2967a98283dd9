//! Zeek's conn.log, as JSON and tab-separated (<https://docs.zeek.org/en/current/log-formats.html>,
//! <https://docs.zeek.org/en/current/logs/conn.html>).

use std::borrow::Cow;
use std::net::IpAddr;

use serde::Deserialize;

use super::{Row, captured_connection, time};

/// What a header has said so far. Files that were put together have one each.
#[derive(Debug)]
pub(super) struct Columns {
    separator: u8,
    at: Option<At>,
    /// The log is another one than conn (`#path dns`).
    other: bool,
}

impl Default for Columns {
    fn default() -> Self {
        Self { separator: b'\t', at: None, other: false }
    }
}

/// Where what matters is.
#[derive(Clone, Copy, Debug)]
struct At {
    time: usize,
    from: usize,
    to: usize,
    port: usize,
    protocol: usize,
    label: Option<usize>,
}

/// A JSON line. Zeek writes the parts of `id` as fields of their own, with a dot in their names.
#[derive(Deserialize)]
struct Connection<'a> {
    ts: Ts,
    #[serde(rename = "id.orig_h")]
    from: IpAddr,
    #[serde(rename = "id.resp_h")]
    to: IpAddr,
    #[serde(rename = "id.resp_p")]
    port: u16,
    #[serde(borrow)]
    proto: Cow<'a, str>,
    label: Option<String>,
}

/// Zeek writes times as seconds since 1970 or, told to by `LogAscii::json_timestamps`, as ISO 8601 or milliseconds.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ts {
    Number(f64),
    Text(String),
}

impl Ts {
    fn micros(&self) -> Option<i64> {
        match self {
            // Seconds of the year 5138 are milliseconds of 1973: there was no Zeek before, and will be none after.
            Self::Number(number) if *number >= 1e11 => whole(number * 1e3),
            Self::Number(number) => whole(number * 1e6),
            Self::Text(text) => time::epoch(text),
        }
    }
}

/// The nearest whole number, which today's times in microseconds have.
fn whole(number: f64) -> Option<i64> {
    let within = (0.0..9e15).contains(&number);
    within.then(|| number.round() as i64)
}

/// Whether a JSON line is one of a conn.log.
pub(super) fn is_one(line: &[u8]) -> bool {
    serde_json::from_slice::<Connection<'_>>(line).is_ok()
}

/// Reads a line of either kind.
pub(super) fn read(line: &[u8], columns: &mut Columns, ports: &[u16]) -> Row {
    if line.starts_with(b"{") {
        return json(line, ports);
    }
    let Ok(text) = std::str::from_utf8(line) else { return Row::Fault("the line is no UTF-8".to_owned()) };
    match text.strip_prefix('#') {
        Some(header) => columns.learn(header),
        None => columns.row(text, ports),
    }
}

fn json(line: &[u8], ports: &[u16]) -> Row {
    let connection: Connection<'_> = match serde_json::from_slice(line) {
        Ok(connection) => connection,
        Err(error) => return Row::Fault(format!("this is no line of a conn.log: {error}")),
    };
    if connection.proto != "tcp" || !ports.contains(&connection.port) {
        return Row::Elsewhere;
    }
    match connection.ts.micros() {
        Some(time) => captured_connection(time, connection.from, connection.to, connection.label),
        None => Row::Fault("\"ts\" is no time".to_owned()),
    }
}

impl Columns {
    /// Learns from a line that began with `#`.
    fn learn(&mut self, header: &str) -> Row {
        let (key, value) = header.split_once(['\t', ' ', char::from(self.separator)]).unwrap_or((header, ""));
        match key {
            // A new file begins.
            "separator" => *self = Self { separator: unescape(value).unwrap_or(b'\t'), ..Self::default() },
            "path" => self.other = value != "conn",
            "fields" if !self.other => {
                let names: Vec<&str> = value.split(char::from(self.separator)).collect();
                match At::find(&names) {
                    Ok(at) => self.at = Some(at),
                    Err(missing) => return Row::NoColumn(missing),
                }
            }
            _ => {}
        }
        Row::Other
    }

    fn row(&self, text: &str, ports: &[u16]) -> Row {
        if self.other {
            return Row::Other;
        }
        let Some(at) = self.at else { return Row::Fault("no #fields line says what the columns are".to_owned()) };
        let mut fields = [None; 6];
        let wanted = [Some(at.time), Some(at.from), Some(at.to), Some(at.port), Some(at.protocol), at.label];
        for (number, value) in text.split(char::from(self.separator)).enumerate() {
            for (field, column) in fields.iter_mut().zip(wanted) {
                if column == Some(number) {
                    *field = Some(value);
                }
            }
        }
        let [Some(ts), Some(from), Some(to), Some(port), Some(protocol), label] = fields else {
            return Row::Fault("the line has fewer columns than the header".to_owned());
        };
        if protocol != "tcp" || !port.parse().is_ok_and(|port| ports.contains(&port)) {
            return Row::Elsewhere;
        }
        let Some(time) = time::epoch(ts) else { return Row::Fault(format!("\"ts\" is no time: {ts}")) };
        let (Ok(from), Ok(to)) = (from.parse(), to.parse()) else {
            return Row::Fault(format!("these are no two addresses: {from}, {to}"));
        };
        let label = label.filter(|label| !matches!(*label, "-" | "(empty)")).map(str::to_owned);
        captured_connection(time, from, to, label)
    }
}

impl At {
    fn find(names: &[&str]) -> Result<Self, &'static str> {
        let column = |wanted: &'static str| names.iter().position(|name| *name == wanted).ok_or(wanted);
        Ok(Self {
            time: column("ts")?,
            from: column("id.orig_h")?,
            to: column("id.resp_h")?,
            port: column("id.resp_p")?,
            protocol: column("proto")?,
            label: column("label").ok(),
        })
    }
}

/// The separator: `\x09`, or itself.
fn unescape(text: &str) -> Option<u8> {
    match text.strip_prefix("\\x") {
        Some(digits) => u8::from_str_radix(digits, 16).ok().filter(u8::is_ascii),
        None => text.bytes().next().filter(u8::is_ascii),
    }
}
