//! `[relay]` with its `[[relay.upstream]]`, `[[relay.limit]]` and `[relay.timeouts]` tables.

mod limit;
mod timeouts;
mod upstream;

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::reader::Reader;
use super::rule::networks;
use super::units::size;
use crate::relay::origin::Way;
use crate::relay::settings::{Action, Certificate, Settings};
use crate::relay::wire::data::Smuggling;

pub(super) use limit::KEYS as LIMIT_KEYS;
pub(super) use timeouts::KEYS as TIMEOUT_KEYS;
pub(super) use upstream::KEYS as UPSTREAM_KEYS;

pub(super) const KEYS: &[&str] = &[
    "mode",
    "listen",
    "peers",
    "name",
    "smuggling",
    "longest_line",
    "certificate",
    "key",
    "max_size",
    "max_recipients",
    "max_sessions",
    "max_hops",
    "refuse",
    "bounce_guard",
    "upstream",
    "limit",
    "timeouts",
];

/// What is done with what is refused, as written.
const ACTIONS: [(&str, Action); 3] = [("reject", Action::Reject), ("hold", Action::Hold), ("discard", Action::Discard)];

type Value<'i> = Spanned<DeValue<'i>>;

/// Reads the table.
pub(super) fn relay(reader: &mut Reader<'_>, span: Range<usize>, table: &DeTable<'_>) -> Settings {
    let mut relay = Settings::default();
    let (mut chain, mut key_file) = (None, None);
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        match name {
            "mode" => {
                let choices = [Way::Redirect, Way::Relayhost, Way::BeforeQueue].map(|way| (way.word(), way));
                relay.way = reader.choice(name, value, &choices).unwrap_or(relay.way);
            }
            "listen" => relay.listen = addresses(reader, name, value),
            "peers" => relay.peers = networks(reader, name, value).into_iter().map(|network| network.value).collect(),
            "name" => relay.name = own_name(reader, name, value),
            "smuggling" => {
                let choices = [("deny", Smuggling::Deny), ("fix", Smuggling::Fix)];
                relay.smuggling = reader.choice(name, value, &choices).unwrap_or(relay.smuggling);
            }
            "longest_line" => {
                let line = size(reader, name, value).and_then(|size| usize::try_from(size).ok());
                relay.longest_line = line.unwrap_or(relay.longest_line);
            }
            "certificate" => chain = path(reader, name, value),
            "key" => key_file = path(reader, name, value),
            "max_size" => relay.max_size = size(reader, name, value).unwrap_or(relay.max_size),
            "max_recipients" => {
                relay.max_recipients = count(reader, name, value, 100_000).unwrap_or(relay.max_recipients)
            }
            "max_sessions" => relay.max_sessions = count(reader, name, value, 100_000).unwrap_or(relay.max_sessions),
            "max_hops" => relay.max_hops = count(reader, name, value, 1000).unwrap_or(relay.max_hops),
            "refuse" => relay.action = reader.choice(name, value, &ACTIONS).unwrap_or(relay.action),
            "bounce_guard" => relay.bounce_guard = reader.boolean(name, value).unwrap_or(relay.bounce_guard),
            "upstream" => relay.upstreams = tables(reader, name, value, upstream::upstream),
            "limit" => relay.limits = tables(reader, name, value, limit::limit),
            "timeouts" => {
                if let Some(table) = reader.table(name, value) {
                    relay.timeouts = timeouts::timeouts(reader, table);
                }
            }
            other => reader.unknown_key(key.span(), other, "relay", KEYS),
        }
    }
    if relay.way == Way::Redirect {
        redirect(reader, table, &relay);
    }
    relay.certificate = certificate(reader, table, chain, key_file);
    if table.get("upstream").is_none() && reader.whole() {
        let mend = "say where mail goes: [[relay.upstream]] with host = \"mx.example.org\"";
        reader.error(span.clone(), "[relay] has no [[relay.upstream]]".to_owned(), mend);
    }
    open_relay(reader, span, &relay);
    relay
}

/// What holds for a relay that connections are brought to.
fn redirect(reader: &mut Reader<'_>, table: &DeTable<'_>, relay: &Settings) {
    match table.get("listen") {
        None => {}
        Some(value) if !relay.listen.iter().all(|at| at.ip().is_loopback()) => {
            let mend = "connections are brought to the loopback: listen = [\"127.0.0.1:10025\", \"[::1]:10025\"]";
            reader.error(
                value.span(),
                "with mode = \"redirect\" \"listen\" is this host's own loopback".to_owned(),
                mend,
            );
        }
        Some(value) if !relay.listen.iter().any(SocketAddr::is_ipv4) => {
            let mend =
                "add \"127.0.0.1:10025\": what goes to IPv4 addresses cannot be brought to an IPv6 one, and is refused";
            reader.warning(value.span(), "the relay listens at no IPv4 address".to_owned(), mend);
        }
        Some(_) => {}
    }
    if let Some(value) = table.get("peers") {
        let mend = "take it out: the kernel knows whom it brings, and nobody else is let in";
        reader.error(value.span(), "\"peers\" does not go with mode = \"redirect\"".to_owned(), mend);
    }
}

/// A relay for everybody is refused: it would be found within the hour.
fn open_relay(reader: &mut Reader<'_>, span: Range<usize>, relay: &Settings) {
    let everybody = relay.peers.iter().find(|peers| peers.prefix_len() == 0);
    if let Some(peers) = everybody {
        let mend = "name the networks of those who may send through it";
        reader.error(span, format!("with \"peers\" {peers} the relay is open to everybody"), mend);
    }
}

fn certificate(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    chain: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Option<Certificate> {
    for (has, lacks) in [("certificate", "key"), ("key", "certificate")] {
        if let (Some(value), None) = (table.get(has), table.get(lacks)) {
            let mend = format!("name the file in PEM with {lacks} = \"/etc/…\"");
            reader.error(value.span(), format!("[relay] has \"{has}\" without \"{lacks}\""), &mend);
        }
    }
    Some(Certificate { chain: chain?, key: key? })
}

fn addresses(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for text in reader.strings(key, value) {
        match text.value.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => addresses.push(text.with(address)),
            Ok(_) | Err(_) => {
                let what = format!("\"{}\" is no address with a port", text.value);
                reader.error_at(text.place, what, "write it as in \"127.0.0.1:10025\" or \"[::1]:10025\"");
            }
        }
    }
    reader.once(key, addresses).into_iter().map(|address| address.value).collect()
}

/// The name in the greeting: not that of this host, which the mail server has, too, and takes for its own.
fn own_name(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<String> {
    let text = reader.string(key, value)?.value;
    let good = |c: char| c.is_ascii_alphanumeric() || ".-[]:".contains(c);
    if text.len() > 255 || !text.chars().all(good) {
        reader.error(value.span(), format!("\"{text}\" is no host name"), "write it as in \"relay.example.org\"");
        return None;
    }
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    if host.is_some_and(|host| host.eq_ignore_ascii_case(&text)) {
        let what = format!("\"{text}\" is this host's own name");
        let mend = "give the relay another one: a mail server that is greeted with its own name returns all mail to its \
                    senders (\"mail loops back to myself\")";
        reader.error(value.span(), what, mend);
        return None;
    }
    Some(text)
}

fn path(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<PathBuf> {
    let text = reader.string(key, value)?.value;
    if !text.starts_with('/') {
        reader.error(value.span(), format!("\"{text}\" is no absolute path"), "write the whole path, from / on");
        return None;
    }
    Some(PathBuf::from(text))
}

fn count(reader: &mut Reader<'_>, key: &str, value: &Value<'_>, most: u64) -> Option<usize> {
    let number = reader.integer(key, value, 1..=most, "write a whole number within these bounds");
    number.and_then(|number| usize::try_from(number).ok())
}

/// The elements of a list of tables, read one by one.
fn tables<T>(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Value<'_>,
    one: fn(&mut Reader<'_>, Range<usize>, &DeTable<'_>) -> Option<T>,
) -> Vec<T> {
    let Some(list) = value.get_ref().as_array() else {
        let mend = format!("write [[relay.{key}]] with two brackets on each side, once for each");
        reader.error(value.span(), format!("\"{key}\" must be a list of tables"), &mend);
        return Vec::new();
    };
    let elements = list.iter().filter_map(|element| Some((element.span(), element.get_ref().as_table()?)));
    elements.filter_map(|(span, table)| one(reader, span, table)).collect()
}

#[cfg(test)]
mod tests;
