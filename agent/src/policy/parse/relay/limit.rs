//! `[[relay.limit]]`.

use std::ops::Range;
use std::time::Duration;

use toml::de::DeTable;

use super::super::reader::Reader;
use super::super::units::duration;
use super::{ACTIONS, count};
use crate::relay::settings::{Action, LimitSettings, Per};

pub(in super::super) const KEYS: &[&str] = &["per", "recipients", "every", "refuse"];

/// Reads one.
pub(super) fn limit(reader: &mut Reader<'_>, span: Range<usize>, table: &DeTable<'_>) -> Option<LimitSettings> {
    let (mut per, mut recipients) = (None, None);
    let (mut every, mut action) = (Duration::from_secs(3600), Action::Hold);
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        match name {
            "per" => {
                let choices = [Per::Peer, Per::Sender, Per::Subject, Per::Rule].map(|per| (per.word(), per));
                per = reader.choice(name, value, &choices);
            }
            "recipients" => {
                recipients = count(reader, name, value, 1_000_000).and_then(|number| u32::try_from(number).ok());
            }
            "every" => every = duration(reader, name, value).unwrap_or(every),
            "refuse" => action = reader.choice(name, value, &ACTIONS).unwrap_or(action),
            other => reader.unknown_key(key.span(), other, "relay.limit", KEYS),
        }
    }
    for (key, mend) in
        [("per", "write per = \"sender\", \"peer\", \"subject\" or \"rule\""), ("recipients", "write recipients = 100")]
    {
        if table.get(key).is_none() && reader.whole() {
            reader.error(span.clone(), format!("this limit has no \"{key}\""), mend);
        }
    }
    Some(LimitSettings { per: per?, recipients: recipients?, every, action })
}
