//! The JSON Lines of `portreeve attempts --json`.

use serde::Deserialize;

use super::{Row, Sighting, Source};
use crate::attempt::Attempt;
use crate::control::Lost;

/// A label that somebody has added to a record.
#[derive(Deserialize)]
struct Labelled {
    label: Option<String>,
}

/// Whether a JSON line is one of `portreeve attempts --json`.
pub(super) fn is_one(line: &[u8]) -> bool {
    let object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line);
    object.is_ok_and(|object| object.contains_key("verdict") || object.contains_key("lost"))
}

/// Reads a line. Of no ports given, all count.
pub(super) fn read(line: &[u8], ports: &[u16]) -> Row {
    let attempt: Attempt = match serde_json::from_slice(line) {
        Ok(attempt) => attempt,
        Err(error) => {
            return match serde_json::from_slice(line) {
                Ok(Lost { lost }) => Row::Lost(lost),
                Err(_not_lost) if serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok() && !is_one(line) => {
                    Row::Other
                }
                Err(_not_lost) => Row::Fault(format!("this is no attempt: {error}")),
            };
        }
    };
    let guarded = |port: u16| ports.is_empty() || ports.contains(&port);
    if attempt.destination.is_some_and(|destination| !guarded(destination.port())) {
        return Row::Elsewhere;
    }
    let Some(observation) = attempt.observation() else { return Row::Other };
    let label = labelled(line).then(|| serde_json::from_slice::<Labelled>(line).ok()).flatten();
    let label = label.and_then(|labelled| labelled.label);
    Row::Sighting(Sighting { observation, source: Source::Program(Box::new(attempt)), label })
}

/// Most traces have none, and need not be read twice.
fn labelled(line: &[u8]) -> bool {
    line.windows(8).any(|window| window == b"\"label\":")
}
