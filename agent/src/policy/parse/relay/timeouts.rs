//! `[relay.timeouts]`.

use std::time::Duration;

use toml::de::DeTable;

use super::super::reader::Reader;
use crate::relay::settings::Timeouts;

pub(in super::super) const KEYS: &[&str] = &["connect", "command", "data", "block", "end", "client", "drain"];

/// The longest of each: a client waits ten minutes for the answer to the end of its message (RFC 5321 §4.5.3.2.6), and less
/// for all others.
const LONGEST: u64 = 590;

/// Reads the table.
pub(super) fn timeouts(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Timeouts {
    let mut timeouts = Timeouts::default();
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        let (time, longest) = match name {
            "connect" => (&mut timeouts.connect, 280),
            "command" => (&mut timeouts.command, 290),
            "data" => (&mut timeouts.data, 290),
            "block" => (&mut timeouts.block, LONGEST),
            "end" => (&mut timeouts.end, LONGEST),
            "client" => (&mut timeouts.client, 86_400),
            // An agent that takes over waits a minute for the one that leaves.
            "drain" => (&mut timeouts.drain, 50),
            other => {
                reader.unknown_key(key.span(), other, "relay.timeouts", KEYS);
                continue;
            }
        };
        if let Some(seconds) = reader.seconds(name, value, 1..=longest) {
            *time = Duration::from_secs(seconds);
        }
    }
    timeouts
}
