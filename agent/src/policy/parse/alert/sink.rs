//! One `[[alert.sink]]`.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use lettre::message::Mailbox;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::reader::Reader;
use super::super::units::{duration, size};
use super::count;
use crate::alert::{
    CERTIFICATES, JOURNAL, Occasion, SYSLOG, SinkKind, SinkSettings, SyslogFormat, SyslogTo, Template, Webhook,
    is_loopback,
};
use crate::detect::Severity;

pub(in super::super) const KEYS: &[&str] = &[
    "kind",
    "name",
    "min_severity",
    "on",
    "tries",
    "retry",
    "queue",
    "path",
    "host",
    "port",
    "protocol",
    "format",
    "facility",
    "rotate",
    "keep",
    "url",
    "plain",
    "template",
    "secret_file",
    "ca_file",
    "proxy",
    "timeout",
    "from",
    "to",
    "program",
    "arguments",
];
/// The keys that every kind has.
const COMMON: &[&str] = &["kind", "name", "min_severity", "on", "tries", "retry", "queue"];

/// RFC 5424 §6.2.1, by the names of syslog(3).
const FACILITIES: [(&str, u8); 13] = [
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("authpriv", 10),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

type Value<'i> = Spanned<DeValue<'i>>;

/// The kinds, as written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Journald,
    Syslog,
    File,
    Webhook,
    Email,
    Command,
}

const KINDS: [(&str, Kind); 6] = [
    ("journald", Kind::Journald),
    ("syslog", Kind::Syslog),
    ("file", Kind::File),
    ("webhook", Kind::Webhook),
    ("email", Kind::Email),
    ("command", Kind::Command),
];

impl Kind {
    fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// The keys of its own.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Journald => &["path"],
            Self::Syslog => &["path", "host", "port", "protocol", "format", "facility"],
            Self::File => &["path", "rotate", "keep"],
            Self::Webhook => &["url", "plain", "template", "secret_file", "ca_file", "proxy", "timeout"],
            Self::Email => &["host", "port", "from", "to"],
            Self::Command => &["program", "arguments", "timeout"],
        }
    }
}

/// One table as it is read: what is asked for by key.
struct Keys<'r, 'a, 'v, 'i> {
    reader: &'r mut Reader<'a>,
    span: Range<usize>,
    table: &'v DeTable<'i>,
}

/// Reads the sink whose table is at `span`; none if what it lacks makes it no sink.
pub(super) fn sink(reader: &mut Reader<'_>, span: Range<usize>, table: &DeTable<'_>) -> Option<SinkSettings> {
    let mut keys = Keys { reader, span, table };
    let kind = keys.kind();
    keys.known(kind);
    let kind = match kind? {
        Kind::Journald => Some(SinkKind::Journald { socket: keys.path("path").unwrap_or_else(|| JOURNAL.into()) }),
        Kind::Syslog => Some(keys.syslog()),
        Kind::File => keys.file(),
        Kind::Webhook => keys.webhook(),
        Kind::Email => keys.email(),
        Kind::Command => keys.command(),
    };
    // Asked before it is known whether there is a sink, so that all that is wrong is found at once.
    let name = keys.read("name", |reader, key, value| reader.string(key, value)).map(|name| name.value);
    let severities = Severity::ALL.map(|severity| (severity.name(), severity));
    let min_severity = keys.read("min_severity", |reader, key, value| reader.choice(key, value, &severities));
    let on = keys.read("on", occasions);
    let tries = keys.read("tries", |reader, key, value| count(reader, key, value, 1000));
    let retry = keys.read("retry", duration);
    let queue = keys.read("queue", |reader, key, value| count(reader, key, value, 100_000));
    let kind = kind?;
    let mut sink = SinkSettings::new(&name.unwrap_or_else(|| kind.name().to_owned()), kind);
    sink.min_severity = min_severity.unwrap_or(sink.min_severity);
    sink.on = on.unwrap_or(sink.on);
    sink.tries = tries.and_then(|tries| u32::try_from(tries).ok()).unwrap_or(sink.tries);
    sink.retry = retry.unwrap_or(sink.retry);
    sink.queue = queue.unwrap_or(sink.queue);
    Some(sink)
}

impl<'v, 'i> Keys<'_, '_, 'v, 'i> {
    fn get(&self, key: &str) -> Option<&'v Value<'i>> {
        self.table.get(key)
    }

    fn read<T>(&mut self, key: &str, read: impl FnOnce(&mut Reader<'_>, &str, &Value<'_>) -> Option<T>) -> Option<T> {
        let value = self.get(key)?;
        read(self.reader, key, value)
    }

    /// Says what is missing, unless a syntax error may have swallowed it.
    fn missing(&mut self, what: &str, mend: &str) {
        if self.reader.whole() {
            self.reader.error(self.span.clone(), what.to_owned(), mend);
        }
    }

    fn kind(&mut self) -> Option<Kind> {
        if self.get("kind").is_none() {
            let mend = "write kind = \"journald\", \"syslog\", \"file\", \"webhook\", \"email\" or \"command\"";
            self.missing("this sink does not say what it is", mend);
        }
        self.read("kind", |reader, key, value| reader.choice(key, value, &KINDS))
    }

    fn known(&mut self, kind: Option<Kind>) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if !KEYS.contains(&name) {
                self.reader.unknown_key(key.span(), name, "alert.sink", KEYS);
            } else if let Some(kind) = kind
                && !COMMON.contains(&name)
                && !kind.keys().contains(&name)
            {
                let what = format!("a sink of the kind \"{}\" has no \"{name}\"", kind.name());
                let mend = format!("take it out; its own keys are {}", kind.keys().join(", "));
                self.reader.error(key.span(), what, &mend);
            }
        }
    }

    /// An absolute path.
    fn path(&mut self, key: &str) -> Option<PathBuf> {
        self.read(key, |reader, key, value| {
            let text = reader.string(key, value)?.value;
            if !text.starts_with('/') {
                let what = format!("\"{text}\" is no absolute path");
                reader.error(value.span(), what, "write the whole path, from / on");
                return None;
            }
            Some(PathBuf::from(text))
        })
    }

    /// A path without which the sink is none.
    fn needed_path(&mut self, key: &str, mend: &str) -> Option<PathBuf> {
        if self.get(key).is_none() {
            self.missing(&format!("this sink has no \"{key}\""), mend);
        }
        self.path(key)
    }

    fn host(&mut self) -> Option<String> {
        self.read("host", |reader, key, value| {
            let host = reader.string(key, value)?.value;
            if host.contains(['/', ' ', '[', ']'])
                || (host.contains(':') && host.parse::<std::net::Ipv6Addr>().is_err())
            {
                let what = format!("\"{host}\" is no host");
                reader.error(value.span(), what, "write a name or an address; the port has a key of its own");
                return None;
            }
            Some(host)
        })
    }

    fn port(&mut self) -> Option<u16> {
        let port = self.read("port", |reader, key, value| count(reader, key, value, u16::MAX.into()));
        port.and_then(|port| u16::try_from(port).ok())
    }

    fn syslog(&mut self) -> SinkKind {
        let facility = self.read("facility", |reader, key, value| reader.choice(key, value, &FACILITIES));
        let protocols = [("udp", false), ("tcp", true)];
        let tcp = self.read("protocol", |reader, key, value| reader.choice(key, value, &protocols));
        let formats = [("rfc5424", SyslogFormat::Rfc5424), ("rfc3164", SyslogFormat::Rfc3164)];
        let format = self.read("format", |reader, key, value| reader.choice(key, value, &formats));
        let (path, host, port) = (self.path("path"), self.host(), self.port());
        if let (Some(_), Some(value)) = (self.get("path"), self.get("host")) {
            let what = "a syslog sink has either \"path\" or \"host\"".to_owned();
            let mend = "take one of them out: \"path\" is a socket of this host, \"host\" another one's daemon";
            self.reader.error(value.span(), what, mend);
        }
        for key in ["port", "protocol"] {
            if let (Some(value), None) = (self.get(key), self.get("host")) {
                let what = format!("\"{key}\" without \"host\" means nothing");
                self.reader.error(value.span(), what, "say whose syslog daemon it is with \"host\", or take it out");
            }
        }
        let to = match (host, tcp) {
            (None, _) => SyslogTo::Local(path.unwrap_or_else(|| SYSLOG.into())),
            (Some(host), Some(true)) => SyslogTo::Tcp(host, port.unwrap_or(514)),
            (Some(host), Some(false) | None) => SyslogTo::Udp(host, port.unwrap_or(514)),
        };
        // Readers of /dev/log do not know the newer form: rsyslog takes the version "1" in it for the program's name.
        let usual = if matches!(to, SyslogTo::Local(_)) { SyslogFormat::Rfc3164 } else { SyslogFormat::Rfc5424 };
        SinkKind::Syslog { to, format: format.unwrap_or(usual), facility: facility.unwrap_or(3) }
    }

    fn file(&mut self) -> Option<SinkKind> {
        let path = self.needed_path("path", "name the file, as in path = \"/var/lib/portreeve/default/alerts.jsonl\"");
        let rotate = self.read("rotate", size).unwrap_or(10 << 20);
        let keep = self.read("keep", |reader, key, value| count(reader, key, value, 1000));
        let keep = keep.and_then(|keep| u32::try_from(keep).ok()).unwrap_or(5);
        Some(SinkKind::File { path: path?, rotate, keep })
    }

    fn webhook(&mut self) -> Option<SinkKind> {
        let templates = [("json", Template::Json), ("slack", Template::Slack)];
        let template = self.read("template", |reader, key, value| reader.choice(key, value, &templates));
        let template = template.unwrap_or(Template::Json);
        let (secret_file, ca_file) = (self.path("secret_file"), self.path("ca_file"));
        let timeout = self.read("timeout", duration).unwrap_or(Duration::from_secs(10));
        let proxy = self.read("proxy", |reader, key, value| {
            let text = reader.string(key, value)?.value;
            if ureq::Proxy::new(&text).is_err() {
                let what = format!("\"{text}\" is no proxy");
                reader.error(value.span(), what, "write it as in \"http://proxy.example:3128\"");
                return None;
            }
            Some(text)
        });
        if template == Template::Json && self.get("secret_file").is_none() {
            let mend = "name a file with a secret that the server knows too: it tells by the signature that a notice \
                        is yours; template = \"slack\" does without";
            self.missing("this webhook has no \"secret_file\"", mend);
        }
        let plain = self.read("plain", |reader, key, value| reader.boolean(key, value)).unwrap_or_default();
        if self.get("url").is_none() {
            self.missing("this sink has no \"url\"", "write url = \"https://…\"");
        }
        let url = self.read("url", |reader, key, value| url(reader, key, value, plain));
        let ca_file = ca_file.unwrap_or_else(|| CERTIFICATES.into());
        Some(SinkKind::Webhook(Webhook { url: url?, template, secret_file, ca_file, proxy, timeout }))
    }

    fn email(&mut self) -> Option<SinkKind> {
        let (host, port) = (self.host(), self.port().unwrap_or(25));
        if let (Some(host), Some(value)) = (&host, self.get("host"))
            && !is_loopback(host)
        {
            let what =
                format!("mail goes to {host} unencrypted, and the guard refuses it unless a rule allows the agent");
            let mend = "take \"host\" out, so that the mail server of this host sends it";
            self.reader.warning(value.span(), what, mend);
        }
        let from = self.read("from", mailbox);
        if self.get("to").is_none() {
            self.missing(
                "this sink has no \"to\"",
                "write to = \"root\" with a domain, as in to = \"root@example.org\"",
            );
        }
        let to = self.read("to", |reader, key, value| {
            let elements = reader.elements(key, value);
            Some(elements.into_iter().filter_map(|element| mailbox(reader, key, element)).collect::<Vec<_>>())
        });
        let to = to.filter(|to| !to.is_empty())?;
        Some(SinkKind::Email { host: host.unwrap_or_else(|| "127.0.0.1".to_owned()), port, from, to })
    }

    fn command(&mut self) -> Option<SinkKind> {
        let program = self.needed_path("program", "name the program, as in program = \"/usr/local/bin/page\"");
        let arguments = self.read("arguments", |reader, key, value| {
            // None at all is as good as any.
            let none = value.get_ref().as_array().is_some_and(|list| list.is_empty());
            Some(if none { Vec::new() } else { reader.strings(key, value) })
        });
        let arguments = arguments.unwrap_or_default().into_iter().map(|argument| argument.value).collect();
        let timeout = self.read("timeout", duration).unwrap_or(Duration::from_secs(30));
        Some(SinkKind::Command { program: program?, arguments, timeout })
    }
}

fn occasions(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Vec<Occasion>> {
    let choices = Occasion::ALL.map(|occasion| (occasion.name(), occasion));
    let elements = reader.elements(key, value);
    let read: Vec<Occasion> =
        elements.into_iter().filter_map(|element| reader.choice(key, element, &choices)).collect();
    Some(read).filter(|read| !read.is_empty())
}

fn mailbox(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Mailbox> {
    let text = reader.string(key, value)?.value;
    let read = text.parse::<Mailbox>();
    if read.is_err() {
        let mend = "write it with its domain, as in \"root@example.org\" or \"Portreeve <portreeve@example.org>\"";
        reader.error(value.span(), format!("\"{text}\" is no mail address"), mend);
    }
    read.ok()
}

/// An `https` URL; `http` only within this host or where the policy says so in so many words.
fn url(reader: &mut Reader<'_>, key: &str, value: &Value<'_>, plain: bool) -> Option<String> {
    let text = reader.string(key, value)?.value;
    let uri: Option<ureq::http::Uri> = text.parse().ok();
    let parts = uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.host()?)));
    match parts {
        Some(("https", _)) => Some(text),
        Some(("http", host)) if plain || is_loopback(host) => Some(text),
        Some(("http", host)) => {
            let what = format!("\"url\" goes to {host} unencrypted");
            reader.error(value.span(), what, "write https://, or say plain = true if the network may read alerts");
            None
        }
        Some(_) | None => {
            // The rest may be a secret, but its author sees it in the same line anyway.
            let what = "\"url\" is no address of an HTTP server".to_owned();
            reader.error(value.span(), what, "write it as in \"https://alerts.example/portreeve\"");
            None
        }
    }
}

#[cfg(test)]
mod tests;
