//! The leases of a Microsoft DHCP server, as PowerShell exports them: `Get-DhcpServerv4Lease … | Export-Csv FILE`.
//!
//! The columns are the properties of the class DhcpServerv4Lease; they are found by name, since a `Select-Object` may have
//! left some out or put them in another order. Windows PowerShell writes UTF-16 or ASCII, and the line `#TYPE …` first,
//! PowerShell 7 UTF-8; `-UseCulture` separates by semicolons where a comma is in numbers.

use std::net::IpAddr;

use csv::{ByteRecord, ReaderBuilder};
use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

use super::table::Table;
use super::{Lease, Parsed, client_id, host_name};
use crate::host::Mac;

/// The states in which nobody has the address (`AddressState`).
const NOT_HELD: [&[u8]; 3] = [b"Declined", b"Expired", b"Offered"];
/// How much of a file is looked at to tell whether it is one: more than the two first lines have.
const LOOK: usize = 4096;

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut table = Table::default();
    let text = decoded(bytes);
    // A row that is not ended is not there yet.
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let (skipped, header) = header(&text);
    let rows = text.get(..whole).and_then(|text| text.get(header..)).unwrap_or_default();
    let mut reader =
        ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter(rows)).from_reader(rows);
    let mut columns = None;
    for row in reader.byte_records() {
        // Bytes in memory have no errors; rows of any length and encoding are rows.
        let Ok(row) = row else { continue };
        let line = skipped + row.position().map_or(0, csv::Position::line);
        let Some(columns) = &columns else {
            columns = Columns::of(&row);
            if columns.is_none() {
                table.bad(line);
                break;
            }
            continue;
        };
        match columns.row(&row) {
            Some(Some(lease)) => table.put(lease),
            Some(None) => {}
            None => table.bad(line),
        }
    }
    table.parsed()
}

/// Whether it is such a file.
pub(super) fn is_one(bytes: &[u8]) -> bool {
    let text = decoded(bytes.get(..LOOK).unwrap_or(bytes));
    let (_, header) = header(&text);
    let first = text.get(header..).unwrap_or_default().split(|byte| *byte == b'\n').next().unwrap_or_default();
    let names = String::from_utf8_lossy(first).to_ascii_lowercase();
    names.contains("ipaddress") && (names.contains("clientid") || names.contains("hostname"))
}

/// The text in UTF-8, without its byte order mark, its lines ended by a line feed alone: the reader of CSV takes a row after
/// a carriage return for one of the line before.
fn decoded(bytes: &[u8]) -> Vec<u8> {
    let mut text = narrow(bytes);
    let mut rest = text.clone().into_iter().skip(1);
    text.retain(|byte| {
        let next = rest.next();
        *byte != b'\r' || next != Some(b'\n')
    });
    text
}

fn narrow(bytes: &[u8]) -> Vec<u8> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.chunks_exact(2).filter_map(|pair| pair.try_into().ok()).map(unit);
        let text: String = char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        text.into_bytes()
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => rest.to_owned(),
        bytes => bytes.to_owned(),
    }
}

/// How many lines come before the names of the columns, and where these begin.
fn header(text: &[u8]) -> (u64, usize) {
    let (mut lines, mut at) = (0, 0);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if !line.starts_with(b"#TYPE") && !line.trim_ascii().is_empty() {
            break;
        }
        lines += 1;
        at += line.len();
    }
    (lines, at)
}

fn delimiter(rows: &[u8]) -> u8 {
    let first = rows.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let separator = first.iter().copied().find(|byte| [b',', b';', b'\t'].contains(byte));
    separator.unwrap_or(b',')
}

struct Columns {
    address: usize,
    client_id: Option<usize>,
    name: Option<usize>,
    state: Option<usize>,
    expires: Option<usize>,
}

impl Columns {
    fn of(header: &ByteRecord) -> Option<Self> {
        let find =
            |name: &str| header.iter().position(|found| found.trim_ascii().eq_ignore_ascii_case(name.as_bytes()));
        Some(Self {
            address: find("IPAddress")?,
            client_id: find("ClientId"),
            name: find("HostName"),
            state: find("AddressState"),
            expires: find("LeaseExpiryTime"),
        })
    }

    /// The lease of a row; `Some(None)` for one that nobody holds.
    fn row(&self, row: &ByteRecord) -> Option<Option<Lease>> {
        let field = |place: Option<usize>| place.and_then(|place| row.get(place)).unwrap_or_default().trim_ascii();
        let text = |place| std::str::from_utf8(field(place)).unwrap_or_default();
        let address: IpAddr = text(Some(self.address)).parse().ok()?;
        if NOT_HELD.iter().any(|state| field(self.state).eq_ignore_ascii_case(state)) {
            return Some(None);
        }
        let mut lease = Lease::of(address);
        lease.mac = text(self.client_id).parse::<Mac>().ok();
        lease.client_id = client_id(text(self.client_id)).map(|id| id.replace('-', ":"));
        lease.name = host_name(field(self.name));
        lease.expires = time(text(self.expires), &TimeZone::system());
        Some(Some(lease))
    }
}

/// A date and time as .NET writes it, which is by the culture of whoever has exported it: `2026-11-25 13:30:00`,
/// `25.11.2026 13:30:00`, `11/25/2026 1:30:00 PM`, `25/11/2026 13:30:00`. Which of two numbers up to twelve is the month
/// can not be told without a PM or AM, and then there is no time. Its zone is the server's, taken to be this host's.
fn time(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let mut words = text.split([' ', 'T', '\u{202f}', '\u{a0}']).filter(|word| !word.is_empty());
    let (date, time, half) = (words.next()?, words.next()?, words.next());
    let separator = date.chars().find(|digit| !digit.is_ascii_digit())?;
    let mut numbers = date.split(separator).map(|number| number.parse::<i16>().ok());
    let (first, second, third) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let (year, month, day) = match separator {
        '-' if first > 31 => (first, second, third),
        '.' => (third, second, first),
        '/' | '-' if half.is_some() || second > 12 => (third, first, second),
        '/' | '-' if first > 12 => (third, second, first),
        _ => return None,
    };
    let mut parts = time.split(':').map(|number| number.parse::<i8>().ok());
    let (hour, minute, seconds) = (parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?);
    let hour = match half.map(str::to_ascii_uppercase).as_deref() {
        Some("PM") if hour < 12 => hour + 12,
        Some("AM") if hour == 12 => 0,
        _ => hour,
    };
    let small = |number: i16| i8::try_from(number).ok();
    let date = Date::new(year, small(month)?, small(day)?).ok()?;
    let time = Time::new(hour, minute, seconds, 0).ok()?;
    zone.to_timestamp(date.to_datetime(time)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_several_cultures_are_read_and_ambiguous_ones_are_not() {
        let expected: Timestamp = "2026-11-25T13:30:00Z".parse().unwrap();
        for text in [
            "2026-11-25 13:30:00",
            "25.11.2026 13:30:00",
            "11/25/2026 1:30:00 PM",
            "25/11/2026 13:30:00",
            "25-11-2026 13:30",
        ] {
            assert_eq!(time(text, &TimeZone::UTC), Some(expected), "{text}");
        }
        assert_eq!(time("4/5/2026 12:00:01 AM", &TimeZone::UTC), "2026-04-05T00:00:01Z".parse().ok());
        for text in ["", "04/05/2026 13:30:00", "tomorrow", "2026-13-01 00:00:00", "1/1/1 99:99:99 PM"] {
            assert_eq!(time(text, &TimeZone::UTC), None, "{text}");
        }
    }
}
