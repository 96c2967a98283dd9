//! `[gateway]` with its `[[gateway.allow]]` and `[[gateway.host]]` tables.

use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::diagnostic::Located;
use super::super::gateway::{Answer, Gateway, LanRule, MOST_SOURCES, NamedHost, parse_vlan};
use super::super::model::Mode;
use super::reader::Reader;
use super::rule::{networks, rule_name};
use super::units::duration;
use crate::host::Mac;

pub(super) const KEYS: &[&str] = &[
    "lan",
    "mode",
    "ports",
    "refuse_with",
    "local_submission",
    "sources",
    "forget",
    "leases",
    "reverse_dns",
    "allow",
    "host",
];
pub(super) const ALLOW_KEYS: &[&str] = &["name", "description", "from", "mac", "to", "ports", "vlan"];
pub(super) const HOST_KEYS: &[&str] = &["name", "mac", "address"];

/// `mac` says that the address alone is enough.
const ANY: &str = "any";
/// The longest name of an interface (IFNAMSIZ, include/uapi/linux/if.h, without its NUL).
const LONGEST_INTERFACE: usize = 15;

type Value<'i> = Spanned<DeValue<'i>>;

/// Reads the table.
pub(super) fn gateway(reader: &mut Reader<'_>, span: Range<usize>, table: &DeTable<'_>) -> Gateway {
    let mut gateway = Gateway { place: reader.place(span.clone()), ..Gateway::default() };
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        match name {
            "lan" => gateway.lan = interfaces(reader, name, value),
            "mode" => {
                let choices = [("enforce", Mode::Enforce), ("observe", Mode::Observe)];
                gateway.mode = reader.choice(name, value, &choices);
            }
            "ports" => gateway.ports = Some(reader.ports(name, value)),
            "refuse_with" => {
                let choices =
                    [("reset", Answer::Reset), ("icmp-prohibited", Answer::IcmpProhibited), ("drop", Answer::Drop)];
                gateway.refuse_with = reader.choice(name, value, &choices).unwrap_or(gateway.refuse_with);
            }
            "local_submission" => {
                let choices = [("allow", true), ("deny", false)];
                gateway.local_submission = reader.choice(name, value, &choices).unwrap_or(gateway.local_submission);
            }
            "sources" => {
                let bounds = 1..=u64::from(MOST_SOURCES);
                let number = reader.integer(name, value, bounds, "the kernel's table has no room for more");
                gateway.sources = number.and_then(|number| u32::try_from(number).ok()).unwrap_or(gateway.sources);
            }
            "forget" => gateway.forget = duration(reader, name, value).unwrap_or(gateway.forget),
            "leases" => gateway.leases = leases(reader, name, value),
            "reverse_dns" => gateway.reverse_dns = addresses(reader, name, value),
            "allow" => gateway.rules = tables(reader, name, value, allow),
            "host" => gateway.hosts = tables(reader, name, value, host).into_iter().flatten().collect(),
            other => reader.unknown_key(key.span(), other, "gateway", KEYS),
        }
    }
    if table.get("lan").is_none() && reader.whole() {
        let mend = "name the interfaces behind which the hosts are, as in lan = [\"lan0\", \"br-*\"]";
        reader.error(span, "[gateway] has no \"lan\"".to_owned(), mend);
    }
    gateway
}

/// The elements of a list of tables, read one by one.
fn tables<T>(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Value<'_>,
    one: fn(&mut Reader<'_>, Range<usize>, &DeTable<'_>) -> T,
) -> Vec<T> {
    let Some(list) = value.get_ref().as_array() else {
        let mend = format!("write [[gateway.{key}]] with two brackets on each side, once for each");
        reader.error(value.span(), format!("\"{key}\" must be a list of tables"), &mend);
        return Vec::new();
    };
    let mut read = Vec::new();
    for element in list.iter() {
        if let Some(table) = element.get_ref().as_table() {
            read.push(one(reader, element.span(), table));
        }
    }
    read
}

fn interfaces(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Vec<Located<String>> {
    let names = reader.strings(key, value);
    let names = reader.once(key, names);
    for name in &names {
        // Slashes and blanks are in no interface's name (dev_valid_name, net/core/dev.c).
        if name.value.len() > LONGEST_INTERFACE || name.value.contains(['/', ' ', ':']) {
            let what = format!("\"{}\" is no name of an interface", name.value);
            let mend = "write a name as `ip link` shows it, with * for any characters and ? for one";
            reader.error_at(name.place, what, mend);
        }
    }
    names
}

fn leases(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Vec<Located<PathBuf>> {
    let mut paths = Vec::new();
    for path in reader.strings(key, value) {
        if path.value.starts_with('/') {
            paths.push(Located { value: PathBuf::from(&path.value), place: path.place });
        } else {
            let what = format!("\"{}\" is no absolute path", path.value);
            reader.error_at(path.place, what, "write the path of the DHCP server's lease file, from / on");
        }
    }
    paths
}

/// Reads one rule.
fn allow(reader: &mut Reader<'_>, span: Range<usize>, table: &DeTable<'_>) -> LanRule {
    let mut rule = LanRule { place: reader.place(span.clone()), ..LanRule::default() };
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        match name {
            "name" => rule.name = rule_name(reader, name, value),
            "description" => {
                // For people only; what matters is that it is a text.
                let _text: Option<Located<String>> = reader.string(name, value);
            }
            "from" => rule.from = networks(reader, name, value),
            "mac" => rule.mac = macs(reader, name, value, true),
            "to" => rule.to = networks(reader, name, value),
            "ports" => rule.ports = reader.ports(name, value),
            "vlan" => rule.vlan = vlans(reader, name, value),
            other => reader.unknown_key(key.span(), other, "gateway.allow", ALLOW_KEYS),
        }
    }
    if !reader.whole() {
        return rule;
    }
    if table.get("from").is_none() {
        let mend = "say whose mail may pass, as in from = \"10.0.0.25\"";
        reader.error(span, "a rule of the gateway needs \"from\"".to_owned(), mend);
    } else if table.get("mac").is_none() {
        let what =
            "this rule names no \"mac\": any host on the same segment can take the mail server's address".to_owned();
        let mend = "add mac = \"…\" as `ip neighbour` shows it; or mac = \"any\" if the server is behind another router or \
                    on a link without Ethernet";
        reader.warning(span, what, mend);
    }
    rule
}

/// Reads one host.
fn host(reader: &mut Reader<'_>, span: Range<usize>, table: &DeTable<'_>) -> Option<NamedHost> {
    let (mut host, mut named) = (NamedHost { name: String::new(), mac: Vec::new(), address: Vec::new() }, false);
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        match name {
            "name" => {
                named = true;
                host.name = rule_name(reader, name, value).map(|name| name.value).unwrap_or_default();
            }
            "mac" => host.mac = macs(reader, name, value, false),
            "address" => host.address = addresses(reader, name, value),
            other => reader.unknown_key(key.span(), other, "gateway.host", HOST_KEYS),
        }
    }
    let known = table.get("mac").is_some() || table.get("address").is_some();
    if reader.whole() && !(named && known) {
        let mend = "as in name = \"printer\", mac = \"00:1b:21:0a:0b:0c\"";
        reader.error(span, "a host needs \"name\", and \"mac\" or \"address\"".to_owned(), mend);
        return None;
    }
    Some(host)
}

fn macs(reader: &mut Reader<'_>, key: &str, value: &Value<'_>, any: bool) -> Vec<Mac> {
    let texts = reader.strings(key, value);
    if any && texts.len() == 1 && texts.iter().any(|text| text.value == ANY) {
        return Vec::new();
    }
    let mut macs = Vec::new();
    for text in texts {
        match text.value.parse::<Mac>() {
            Ok(mac) if mac.is_multicast() => {
                let what = format!("{mac} is the address of a group, and no host's");
                reader.error_at(text.place, what, "write the host's own, as `ip neighbour` shows it");
            }
            Ok(mac) => macs.push(mac),
            Err(_) => {
                let what = format!("\"{}\" is no MAC address", text.value);
                reader.error_at(text.place, what, "write six bytes, as in \"00:1b:21:0a:0b:0c\"");
            }
        }
    }
    macs
}

fn addresses(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for text in reader.strings(key, value) {
        match text.value.parse::<IpAddr>() {
            Ok(address) => addresses.push(address.to_canonical()),
            Err(_) => {
                let what = format!("\"{}\" is no address", text.value);
                reader.error_at(text.place, what, "write it in numbers, as in \"10.0.0.23\" or \"2001:db8::23\"");
            }
        }
    }
    addresses
}

fn vlans(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Vec<u32> {
    let mut vlans = Vec::new();
    for element in reader.elements(key, value) {
        let text = match element.get_ref() {
            DeValue::Integer(number) => number.to_string(),
            DeValue::String(text) => text.clone().into_owned(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => String::new(),
        };
        let quoted = matches!(element.get_ref(), DeValue::Integer(_) | DeValue::String(_));
        match parse_vlan(&text).filter(|_| quoted) {
            Some(vlan) => vlans.push(vlan),
            None => {
                let what = format!("\"{text}\" is no VLAN");
                let mend = "write a number from 1 to 4094, or \"100.30\" in quotes for the inner one of two tags";
                reader.error(element.span(), what, mend);
            }
        }
    }
    vlans
}
