//! The systemd journal, by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use super::message::Message;
use super::text::shorten;
use super::worker::{Deliver, Failure};

/// The MESSAGE_ID of a notice (systemd.journal-fields(7)): `journalctl MESSAGE_ID=…` finds all of them.
const NOTICE: &str = "d1203113533b423f81154d46922a5332";
/// The MESSAGE_ID of a summary.
const SUMMARY: &str = "6358099c4cd34b6992410838e89d3cce";
/// The longest value of a field, in characters. With it an entry stays far below the size of a datagram (net.core.
/// wmem_default, 208 KiB), and needs no memfd.
const LONGEST: usize = 4096;

pub(super) struct Journald {
    pub(super) socket: PathBuf,
}

impl Deliver for Journald {
    fn deliver(&mut self, message: &Message) -> Result<(), Failure> {
        let reach = |error| Failure::later("write to the journal at", self.socket.display(), error);
        let socket = UnixDatagram::unbound().map_err(reach)?;
        // A journald that hangs must not hang the thread for ever.
        socket.set_write_timeout(Some(std::time::Duration::from_secs(10))).map_err(reach)?;
        let entry = entry(message);
        let sent = socket.send_to(&entry, &self.socket).map_err(reach)?;
        if sent == entry.len() { Ok(()) } else { Err(reach(std::io::ErrorKind::WriteZero.into())) }
    }
}

/// The datagram.
fn entry(message: &Message) -> Vec<u8> {
    let id = match message {
        Message::Notice(_) => NOTICE,
        Message::Summary(_) => SUMMARY,
    };
    let text = match message {
        Message::Notice(_) => message.headline(),
        Message::Summary(summary) => format!("{}\n{}", message.headline(), super::text::table(summary)),
    };
    let mut entry = Vec::with_capacity(2048);
    field(&mut entry, "MESSAGE", &text);
    field(&mut entry, "MESSAGE_ID", id);
    field(&mut entry, "PRIORITY", &message.priority().to_string());
    field(&mut entry, "SYSLOG_IDENTIFIER", "portreeve");
    for (name, value) in message.fields() {
        field(&mut entry, &format!("PORTREEVE_{}", name.to_ascii_uppercase()), &value);
    }
    entry
}

/// One field. A value with a line break goes with its length in front of it, as 64 bits, little-endian; else whoever
/// names a program could write fields of their own.
fn field(entry: &mut Vec<u8>, name: &str, value: &str) {
    let value = shorten(value, LONGEST);
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::super::tests::{alert, notice, summary};
    use super::*;
    use crate::alert::Occasion;

    /// An entry, read as journald reads it.
    pub(in super::super) fn read(mut entry: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while let Some(end) = entry.iter().position(|byte| *byte == b'\n') {
            let line = std::str::from_utf8(&entry[..end]).unwrap();
            entry = &entry[end + 1..];
            let (name, value) = match line.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => {
                    let length = u64::from_le_bytes(entry[..8].try_into().unwrap()) as usize;
                    let value = std::str::from_utf8(&entry[8..8 + length]).unwrap().to_owned();
                    assert_eq!(entry[8 + length], b'\n');
                    entry = &entry[9 + length..];
                    (line.to_owned(), value)
                }
            };
            // journal_field_valid(), src/libsystemd/sd-journal/journal-file.c of systemd 252.
            let good = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            assert!(name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(good));
            assert!(fields.insert(name, value).is_none());
        }
        assert!(entry.is_empty());
        fields
    }

    #[test]
    fn a_program_with_a_line_break_in_its_name_writes_no_field_of_its_own() {
        let mut bad = alert(7);
        bad.who.exe = Some("/tmp/x\nPRIORITY=7\nMESSAGE=all is well".to_owned());
        bad.who.name = bad.who.exe.clone().unwrap();
        let fields = read(&entry(&notice(Occasion::Opened, bad)));
        assert_eq!(fields["PRIORITY"], "2");
        assert_eq!(fields["PORTREEVE_EXE"], "/tmp/x\nPRIORITY=7\nMESSAGE=all is well");
        assert!(fields["MESSAGE"].starts_with("alert 7 opened: critical: /tmp/x\u{fffd}PRIORITY"), "{fields:#?}");
    }

    #[test]
    fn a_summary_is_one_entry_with_its_table() {
        let fields = read(&entry(&summary(1000)));
        assert_eq!(fields["MESSAGE_ID"], SUMMARY);
        assert_eq!((fields["PORTREEVE_ALERTS"].as_str(), fields["PORTREEVE_NOTICES"].as_str()), ("1000", "1000"));
        assert!(fields["MESSAGE"].contains("and 980 more"), "{fields:#?}");
    }
}
