//! Bidirectional flows of Argus as CSV, as CTU-13 publishes them (García et al., "An empirical comparison of botnet
//! detection methods", Computers & Security 45, 2014; <https://www.stratosphereips.org/datasets-ctu13>). The columns and
//! what the arrows mean: ra(1).

use std::borrow::Cow;
use std::net::IpAddr;

use super::{Row, captured_connection, time};

/// Where what matters is, once the header was read.
#[derive(Debug, Default)]
pub(super) struct Columns(Option<At>);

#[derive(Clone, Copy, Debug)]
struct At {
    time: usize,
    protocol: usize,
    from: usize,
    to: usize,
    to_port: usize,
    from_port: Option<usize>,
    direction: Option<usize>,
    label: Option<usize>,
}

/// Whether a line is the header.
pub(super) fn is_header(line: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(line) else { return false };
    let names = fields(text);
    ["SrcAddr", "DstAddr"].iter().all(|wanted| names.iter().any(|name| name.trim().eq_ignore_ascii_case(wanted)))
}

/// Reads a line: the header, or a flow.
pub(super) fn read(line: &[u8], columns: &mut Columns, ports: &[u16]) -> Row {
    if is_header(line) {
        return columns.learn(&String::from_utf8_lossy(line));
    }
    let Ok(text) = std::str::from_utf8(line) else { return Row::Fault("the line is no UTF-8".to_owned()) };
    match columns.0 {
        Some(at) => at.flow(&fields(text), ports),
        None => Row::Fault("no header says what the columns are".to_owned()),
    }
}

impl Columns {
    fn learn(&mut self, header: &str) -> Row {
        let names = fields(header.trim_start_matches('\u{feff}'));
        let column =
            |wanted: &'static str| names.iter().position(|name| name.trim().eq_ignore_ascii_case(wanted)).ok_or(wanted);
        let find = || {
            Ok(At {
                time: column("StartTime")?,
                protocol: column("Proto")?,
                from: column("SrcAddr")?,
                to: column("DstAddr")?,
                to_port: column("Dport")?,
                from_port: column("Sport").ok(),
                direction: column("Dir").ok(),
                label: column("Label").ok(),
            })
        };
        match find() {
            Ok(at) => {
                self.0 = Some(at);
                Row::Other
            }
            Err(missing) => Row::NoColumn(missing),
        }
    }
}

impl At {
    fn flow(&self, fields: &[Cow<'_, str>], ports: &[u16]) -> Row {
        let field = |at: usize| fields.get(at).map(|field| field.trim());
        let [Some(start), Some(protocol), Some(from), Some(to), Some(to_port)] =
            [self.time, self.protocol, self.from, self.to, self.to_port].map(field)
        else {
            return Row::Fault("the line has fewer columns than the header".to_owned());
        };
        let direction = self.direction.and_then(field).unwrap_or("->");
        let guarded = |text: &str| port(text).is_some_and(|port| ports.contains(&port));
        let from_port = self.from_port.and_then(field).unwrap_or_default();
        // `<-`: Argus saw the other side begin. Where it did not see who began (`<?>`, `?>`), whoever has the port of a
        // mail server is the server.
        let backwards = direction.contains('<') && !direction.contains('>');
        let unsure = direction.contains('?') && guarded(from_port) && !guarded(to_port);
        let (from, to, at_port) = if backwards || unsure { (to, from, from_port) } else { (from, to, to_port) };
        if !protocol.eq_ignore_ascii_case("tcp") || !guarded(at_port) {
            return Row::Elsewhere;
        }
        let Some(time) = time::argus(start) else { return Row::Fault(format!("StartTime is no time: {start}")) };
        let (Ok(from), Ok(to)) = (from.parse::<IpAddr>(), to.parse::<IpAddr>()) else {
            return Row::Fault(format!("these are no two addresses: {from}, {to}"));
        };
        let label = self.label.and_then(field).filter(|label| !label.is_empty());
        captured_connection(time, from, to, label.map(str::to_owned))
    }
}

/// A port as a number, in hexadecimal digits, or by the names that Argus gives them (/etc/services) without `-n`.
fn port(text: &str) -> Option<u16> {
    match text {
        "smtp" => Some(25),
        "submission" => Some(587),
        "submissions" | "smtps" | "ssmtp" | "urd" => Some(465),
        _ => match text.strip_prefix("0x") {
            Some(digits) => u16::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        },
    }
}

/// The fields of a line. Only one with quotes needs a parser.
fn fields(line: &str) -> Vec<Cow<'_, str>> {
    if !line.contains('"') {
        return line.split(',').map(Cow::Borrowed).collect();
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
    let record = reader.records().next().and_then(Result::ok).unwrap_or_default();
    record.iter().map(|field| Cow::Owned(field.to_owned())).collect()
}
