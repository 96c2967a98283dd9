//! A syslog daemon: RFC 5424 messages with structured data, over a local socket, UDP (RFC 5426) or TCP (RFC 6587); or
//! the older form that readers of `/dev/log` expect.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::message::Message;
use super::text::printable;
use super::worker::{Deliver, Failure};
use crate::alert::settings::{SyslogFormat, SyslogTo};

/// The id of the structured data (RFC 5424 §6.3.2). The number is the one for documentation (RFC 5612): Portreeve has
/// none of its own.
const ID: &str = "portreeve@32473";
/// The largest message over UDP that every receiver should take (RFC 5426 §3.2).
const UDP_BYTES: usize = 2048;
/// The largest one elsewhere: what rsyslog takes unless told otherwise (its `maxMessageSize`).
const BYTES: usize = 8192;
/// The longest value of the structured data, so that all of them leave room for the text in [`UDP_BYTES`].
const VALUE_BYTES: usize = 96;
/// How long a connection may take to be made, and to be closed by the other side.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Syslog {
    pub(super) to: SyslogTo,
    pub(super) format: SyslogFormat,
    pub(super) facility: u8,
    pub(super) host: String,
}

impl Deliver for Syslog {
    fn deliver(&mut self, message: &Message) -> Result<(), Failure> {
        let most = match self.to {
            SyslogTo::Udp(..) => UDP_BYTES,
            SyslogTo::Local(_) | SyslogTo::Tcp(..) => BYTES,
        };
        let text = match self.format {
            SyslogFormat::Rfc5424 => {
                let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
                format(message, &self.host, self.facility, &time, most)
            }
            SyslogFormat::Rfc3164 => {
                let local = jiff::tz::TimeZone::system().to_datetime(jiff::Timestamp::now());
                old_format(message, self.facility, &local.strftime("%b %e %H:%M:%S").to_string(), most)
            }
        };
        match &self.to {
            SyslogTo::Local(path) => {
                local(path, &text).map_err(|error| Failure::later("write to the syslog socket", path.display(), error))
            }
            SyslogTo::Udp(host, port) => {
                let to = format!("{host}:{port}");
                udp(host, *port, &text).map_err(|error| Failure::later("send by UDP to", to, error))
            }
            SyslogTo::Tcp(host, port) => {
                let to = format!("{host}:{port}");
                tcp(host, *port, &text).map_err(|error| Failure::later("send by TCP to", to, error))
            }
        }
    }
}

fn local(path: &std::path::Path, text: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to(text.as_bytes(), path).map(|_sent| ())
}

fn udp(host: &str, port: u16, text: &str) -> io::Result<()> {
    let to = resolve(host, port)?.next().ok_or(io::ErrorKind::NotFound)?;
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.send(text.as_bytes()).map(|_sent| ())
}

/// A connection for each message, because a write into one that the other side has closed meanwhile succeeds and is
/// lost. The other side's end of it says that all has been read; one that keeps it open is not waited for any longer.
fn tcp(host: &str, port: u16, text: &str) -> io::Result<()> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for to in resolve(host, port)? {
        match TcpStream::connect_timeout(&to, PATIENCE) {
            Ok(stream) => return send(stream, text),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn send(mut stream: TcpStream, text: &str) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // Octet counting (RFC 6587 §3.4.1): the text may have line breaks of its own.
    stream.write_all(format!("{} {text}", text.len()).as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    loop {
        match stream.read(&mut [0; 256]) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn resolve(host: &str, port: u16) -> io::Result<impl Iterator<Item = SocketAddr> + use<>> {
    (host, port).to_socket_addrs()
}

/// The message by the grammar of RFC 5424 §6, cut to a number of bytes.
fn format(message: &Message, host: &str, facility: u8, time: &str, most: usize) -> String {
    let priority = facility * 8 + message.priority();
    let event = match message {
        Message::Notice(notice) => notice.occasion.name(),
        Message::Summary(_) => "summary",
    };
    let (host, process) = (header(host, 255), std::process::id());
    let mut text = format!("<{priority}>1 {time} {host} portreeve {process} {event} [{ID}");
    for (name, value) in message.fields() {
        // Nobody correlates by this, and it is long.
        if name != "sha256" {
            text += &format!(" {name}=\"{}\"", escape(&value, VALUE_BYTES));
        }
    }
    text += "] ";
    let said = printable(&message.headline());
    // The mark of UTF-8 (§6.4) is left out where there is nothing to mark.
    if !said.is_ascii() {
        text.push('\u{feff}');
    }
    let room = most.saturating_sub(text.len());
    text += &said[..floor(&said, room)];
    text
}

/// The message as syslog(3) writes it, cut to a number of bytes.
fn old_format(message: &Message, facility: u8, time: &str, most: usize) -> String {
    let priority = facility * 8 + message.priority();
    let said = printable(&message.headline());
    let head = format!("<{priority}>{time} portreeve[{}]: ", std::process::id());
    let room = most.saturating_sub(head.len());
    head + &said[..floor(&said, room)]
}

/// A header field: printable ASCII without blanks, and `-` where there is nothing (§6).
fn header(value: &str, most: usize) -> String {
    let shown: String = value.chars().filter(char::is_ascii_graphic).take(most).collect();
    if shown.is_empty() { "-".to_owned() } else { shown }
}

/// A value of the structured data (§6.3.3): `"`, `\` and `]` get a backslash, and what is longer is cut, but never
/// within an escape or a character.
fn escape(value: &str, most: usize) -> String {
    let mut escaped = String::new();
    for c in printable(value).chars() {
        let slash = matches!(c, '"' | '\\' | ']');
        if escaped.len() + c.len_utf8() + usize::from(slash) > most {
            break;
        }
        if slash {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// The nearest character boundary at or below a byte index.
fn floor(text: &str, index: usize) -> usize {
    (0..=index.min(text.len())).rev().find(|index| text.is_char_boundary(*index)).unwrap_or(0)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::tests::{alert, notice, summary};
    use super::*;
    use crate::alert::Occasion;

    /// A message as RFC 5424 reads it: header fields, structured data, text.
    pub(in super::super) fn read(message: &str) -> Option<(Vec<String>, BTreeMap<String, String>, String)> {
        let (head, rest) = message.split_once(" [")?;
        let header: Vec<String> = head.split(' ').map(str::to_owned).collect();
        let (id, mut rest) = rest.split_once(' ')?;
        assert_eq!(id, ID);
        let mut data = BTreeMap::new();
        loop {
            let (name, after) = rest.split_once("=\"")?;
            let mut value = String::new();
            let mut characters = after.char_indices();
            let end = loop {
                match characters.next()? {
                    (_, '\\') => value.push(characters.next()?.1),
                    (end, '"') => break end,
                    (_, ']') => return None,
                    (_, c) => value.push(c),
                }
            };
            data.insert(name.to_owned(), value);
            rest = &after[end + 1..];
            if let Some(text) = rest.strip_prefix("] ") {
                return Some((header, data, text.to_owned()));
            }
            rest = rest.strip_prefix(' ')?;
        }
    }

    #[test]
    fn the_message_is_what_the_grammar_says() {
        let text = format(&notice(Occasion::Opened, alert(7)), "mail.example", 3, "2026-01-02T03:04:05.000006Z", 2048);
        let (header, data, said) = read(&text).unwrap();
        let process = std::process::id().to_string();
        // daemon is 3, critical is 2
        let expected = ["<26>1", "2026-01-02T03:04:05.000006Z", "mail.example", "portreeve", &process, "opened"];
        assert_eq!(header, expected);
        assert_eq!((data["alert_id"].as_str(), data["kind"].as_str()), ("7", "fan-out"));
        assert_eq!(data["exe"], "/tmp/.x/sendd");
        assert!(
            said.starts_with("alert 7 opened: critical: /tmp/.x/sendd of www-data (fan-out; 14 attempts)"),
            "{said}"
        );
    }

    #[test]
    fn the_older_form_is_that_of_syslog_3() {
        let text = old_format(&notice(Occasion::Opened, alert(7)), 3, "Jan  2 03:04:05", BYTES);
        let head = format!("<26>Jan  2 03:04:05 portreeve[{}]: alert 7 opened: critical: /tmp/", std::process::id());
        assert!(text.starts_with(&head), "{text}");
        assert_eq!(old_format(&summary(1000), 3, "Jan  2 03:04:05", 60).len(), 60);
    }

    #[test]
    fn a_text_that_is_not_ascii_is_marked_and_a_summary_fits_into_a_datagram() {
        let mut strange = alert(1);
        strange.who.name = "/tmp/größe".repeat(300);
        strange.who.exe = Some("]\\\"".repeat(1000));
        let text = format(&notice(Occasion::Worse, strange), "", 16, "-", UDP_BYTES);
        assert!(text.len() <= UDP_BYTES && text.starts_with("<130>1 - - portreeve"), "{} {text}", text.len());
        assert!(read(&text).unwrap().2.starts_with('\u{feff}'));
        let text = format(&summary(1000), "h", 3, "-", UDP_BYTES);
        assert!(text.len() <= UDP_BYTES && text.contains("summary [") && text.contains("1000 alerts"), "{text}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_the_value_it_comes_back_and_no_more(value in "\\PC{0,60}", most in 0..200_usize) {
            let escaped = escape(&value, most);
            prop_assert!(escaped.len() <= most);
            let (_, data, text) = read(&format!("<1>1 - - - - - [{ID} a=\"{escaped}\" b=\"c\"] x")).unwrap();
            prop_assert!(printable(&value).starts_with(&data["a"]));
            prop_assert_eq!((data.len(), data["b"].as_str(), text.as_str()), (2, "c", "x"));
            if most >= 2 * value.len() + 200 {
                prop_assert_eq!(&data["a"], &printable(&value));
            }
        }

        #[test]
        fn whatever_the_program_s_name_the_message_is_one_line_with_the_same_parts(name in any::<String>()) {
            let mut strange = alert(1);
            strange.who.name = name.clone();
            strange.who.exe = Some(name);
            let text = format(&notice(Occasion::Opened, strange), "h", 3, "-", UDP_BYTES);
            prop_assert!(text.len() <= UDP_BYTES && !text.contains(['\n', '\r', '\0']));
            let (header, data, _) = read(&text).unwrap();
            prop_assert_eq!((header.len(), data["severity"].as_str()), (6, "critical"));
        }
    }
}
