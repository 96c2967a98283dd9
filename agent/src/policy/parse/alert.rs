//! `[alert]`, its `[alert.reporter]` and its `[[alert.sink]]` tables.

mod reporter;
mod sink;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::reader::Reader;
use super::units::{duration, size};
use crate::alert::{Settings, SinkSettings};

pub(super) use reporter::KEYS as REPORTER_KEYS;
pub(super) use sink::KEYS as SINK_KEYS;

pub(super) const KEYS: &[&str] = &["keep", "keep_bytes", "flood", "flood_window", "reporter", "sink"];

type Value<'i> = Spanned<DeValue<'i>>;

/// Reads the table.
pub(super) fn alert(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Settings {
    let mut settings = Settings::default();
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        match name {
            "keep" => settings.keep = duration(reader, name, value).unwrap_or(settings.keep),
            "keep_bytes" => settings.keep_bytes = size(reader, name, value).unwrap_or(settings.keep_bytes),
            "flood" => settings.flood = count(reader, name, value, 10_000).unwrap_or(settings.flood),
            "flood_window" => settings.flood_window = duration(reader, name, value).unwrap_or(settings.flood_window),
            "reporter" => {
                if let Some(table) = reader.table("alert.reporter", value) {
                    settings.reporter = reporter::reporter(reader, table);
                }
            }
            "sink" => settings.sinks = sinks(reader, value),
            other => reader.unknown_key(key.span(), other, "alert", KEYS),
        }
    }
    settings
}

/// A number from 1 to `most`.
fn count(reader: &mut Reader<'_>, key: &str, value: &Value<'_>, most: u32) -> Option<usize> {
    let integer = matches!(value.get_ref(), DeValue::Integer(_));
    let number = reader.number(value.get_ref(), most.into()).filter(|number| integer && *number > 0);
    if number.is_none() {
        let mend = format!("write a number from 1 to {most} without quotes");
        reader.error(value.span(), format!("\"{key}\" is no number from 1 to {most}"), &mend);
    }
    number.and_then(|number| usize::try_from(number).ok())
}

fn sinks(reader: &mut Reader<'_>, value: &Value<'_>) -> Vec<SinkSettings> {
    let Some(list) = value.get_ref().as_array() else {
        let mend = "write [[alert.sink]] with two brackets on each side, once for each sink";
        reader.error(value.span(), "\"sink\" must be a list of tables".to_owned(), mend);
        return Vec::new();
    };
    let mut sinks: Vec<SinkSettings> = Vec::new();
    for element in list.iter() {
        let Some(table) = element.get_ref().as_table() else { continue };
        let Some(sink) = sink::sink(reader, element.span(), table) else { continue };
        if sinks.iter().any(|before| before.name == sink.name) {
            let span = table.get("name").map_or(element.span(), Spanned::span);
            let what = format!("there are two sinks with the name \"{}\"", sink.name);
            reader.error(span, what, "give each a \"name\" of its own; without one it is called after its kind");
        }
        sinks.push(sink);
    }
    sinks
}
