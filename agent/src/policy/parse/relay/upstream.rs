//! `[[relay.upstream]]`.

use std::ops::Range;

use toml::de::DeTable;

use super::super::reader::Reader;
use super::{count, path};
use crate::alert::is_loopback;
use crate::relay::settings::{Tls, UpstreamSettings};

pub(in super::super) const KEYS: &[&str] = &["host", "port", "tls", "tls_name", "ca_file", "auth_file", "priority"];

const TLS: [(&str, Tls); 4] = [
    ("none", Tls::None),
    ("opportunistic", Tls::Opportunistic),
    ("required", Tls::Required),
    ("implicit", Tls::Implicit),
];

/// Reads one.
pub(super) fn upstream(reader: &mut Reader<'_>, span: Range<usize>, table: &DeTable<'_>) -> Option<UpstreamSettings> {
    let (mut host, mut port, mut tls, mut tls_name) = (None, None, Tls::default(), None);
    let (mut ca_file, mut auth_file, mut priority) = (None, None, 10);
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        match name {
            "host" => {
                host = reader.string(name, value).map(|host| host.value);
                let bad = |host: &String| host.contains(['/', ' ', '[', ']', '@']);
                if let Some(text) = host.take_if(|host| bad(host)) {
                    let mend = "write a name or an address; the port has a key of its own";
                    reader.error(value.span(), format!("\"{text}\" is no host"), mend);
                }
            }
            "port" => port = count(reader, name, value, u64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok()),
            "tls" => tls = reader.choice(name, value, &TLS).unwrap_or(tls),
            "tls_name" => tls_name = reader.string(name, value).map(|name| name.value),
            "ca_file" => ca_file = path(reader, name, value),
            "auth_file" => auth_file = path(reader, name, value),
            "priority" => {
                let read = count(reader, name, value, 1000).and_then(|priority| u16::try_from(priority).ok());
                priority = read.unwrap_or(priority);
            }
            other => reader.unknown_key(key.span(), other, "relay.upstream", KEYS),
        }
    }
    if table.get("host").is_none() && reader.whole() {
        let mend = "write host = \"mx.example.org\"";
        reader.error(span.clone(), "this upstream has no \"host\"".to_owned(), mend);
    }
    let host = host?;
    if auth_file.is_some() && !tls.verifies() && !is_loopback(&host) {
        let what = format!("the password for {host} could be read on the way");
        reader.error(span.clone(), what, "write tls = \"required\" or \"implicit\", so that it is sent to nobody else");
    }
    if let (Some(value), false) = (table.get("ca_file"), tls.verifies()) {
        let what = "\"ca_file\" means nothing where no certificate is verified".to_owned();
        reader.error(value.span(), what, "write tls = \"required\" or \"implicit\", or take it out");
    }
    let usual = if tls == Tls::Implicit { 465 } else { 25 };
    Some(UpstreamSettings { host, port: port.unwrap_or(usual), tls, tls_name, ca_file, auth_file, priority })
}
