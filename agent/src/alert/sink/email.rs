//! Mail through the local mail server.

use std::time::{Duration, SystemTime};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, SmtpTransport, Transport as _};

use super::message::{Message, Notice};
use super::text::{printable, shorten, text};
use super::worker::{Deliver, Failure};
use crate::alert::{Alert, Occasion};

/// How long the mail server may take for one answer (RFC 5321 §4.5.3.2 allows minutes, which a local one never needs).
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Email {
    pub(super) server: String,
    pub(super) port: u16,
    pub(super) from: Option<Mailbox>,
    pub(super) to: Vec<Mailbox>,
    pub(super) host: String,
}

impl Deliver for Email {
    fn deliver(&mut self, message: &Message) -> Result<(), Failure> {
        let mail = self.mail(message, SystemTime::now())?;
        let transport = SmtpTransport::builder_dangerous(self.server.as_str())
            .port(self.port)
            .hello_name(ClientId::Domain(domain(&self.host)))
            .timeout(Some(PATIENCE))
            .build();
        let server = format!("{}:{}", self.server, self.port);
        match transport.send(&mail) {
            Ok(_answer) => Ok(()),
            // 5yz (RFC 5321 §4.2.1): it would say the same again.
            Err(error) if error.is_permanent() => {
                Err(Failure::Never { why: format!("the mail server {server} does not take it: {error}") })
            }
            Err(error) => Err(Failure::later("hand mail to", server, error)),
        }
    }
}

impl Email {
    fn mail(&self, message: &Message, now: SystemTime) -> Result<lettre::Message, Failure> {
        let wrong = |error: &dyn std::fmt::Display| Failure::Never { why: format!("cannot write the mail: {error}") };
        let from = match &self.from {
            Some(from) => from.clone(),
            None => {
                let address = Address::new("portreeve", domain(&self.host)).map_err(|error| wrong(&error))?;
                Mailbox::new(Some(format!("Portreeve on {}", self.host)), address)
            }
        };
        let mut builder = lettre::Message::builder().from(from).date(now);
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        builder = self.thread(builder, message);
        builder = builder.subject(self.subject(message));
        for (name, value) in self.headers(message) {
            let name = HeaderName::new_from_ascii(name.to_owned()).map_err(|error| wrong(&error))?;
            builder = builder.raw_header(HeaderValue::new(name, value));
        }
        builder
            .header(ContentType::TEXT_PLAIN)
            .body(text(message, &self.host).replace('\n', "\r\n"))
            .map_err(|error| wrong(&error))
    }

    /// Message-ID and References (RFC 5322 §3.6.4): all mails of an alert are one thread, and a mail that was sent twice
    /// because the answer to the first got lost is the same to mail clients.
    fn thread(&self, builder: MessageBuilder, message: &Message) -> MessageBuilder {
        let domain = domain(&self.host);
        match message {
            Message::Notice(notice) => {
                let first = root(&notice.alert);
                if notice.occasion == Occasion::Opened {
                    return builder.message_id(Some(format!("<{first}@{domain}>")));
                }
                let this = format!("{first}.{}.{}", notice.occasion.name(), notice.time.as_microsecond());
                let first = format!("<{first}@{domain}>");
                builder.message_id(Some(format!("<{this}@{domain}>"))).in_reply_to(first.clone()).references(first)
            }
            Message::Summary(summary) => {
                let this = format!("summary.{}", summary.from.as_microsecond());
                builder.message_id(Some(format!("<portreeve.{this}@{domain}>")))
            }
        }
    }

    fn subject(&self, message: &Message) -> String {
        match message {
            Message::Notice(notice) => {
                let again = if notice.occasion == Occasion::Opened { "" } else { "Re: " };
                let (severity, name) = (notice.alert.severity, shorten(&printable(&notice.alert.who.name), 100));
                format!("{again}[{}] {severity}: {name} (alert {})", self.host, notice.alert.id)
            }
            Message::Summary(_) => format!("[{}] {}", self.host, shorten(&message.headline(), 160)),
        }
    }

    fn headers(&self, message: &Message) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            // RFC 3834 §5: no holiday notices in answer.
            ("Auto-Submitted", "auto-generated".to_owned()),
            ("X-Portreeve-Severity", message.severity().to_string()),
        ];
        if let Message::Notice(Notice { alert, occasion, .. }) = message {
            headers.push(("X-Portreeve-Alert", alert.id.to_string()));
            headers.push(("X-Portreeve-Occasion", occasion.name().to_owned()));
        }
        headers
    }
}

/// The left side of an alert's first Message-ID. With the time, because numbers begin again if the store is removed.
fn root(alert: &Alert) -> String {
    format!("portreeve.{}.{}", alert.id, alert.opened.as_microsecond())
}

/// The host's name as a domain in addresses and ids.
fn domain(host: &str) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if !host.is_empty() && host.chars().all(good) { host.to_owned() } else { "localhost".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{alert, notice, summary};
    use super::*;

    fn sink() -> Email {
        Email {
            server: "127.0.0.1".to_owned(),
            port: 25,
            from: None,
            to: vec!["root@example.org".parse().unwrap()],
            host: "mail.example".to_owned(),
        }
    }

    fn mail(message: &Message) -> String {
        String::from_utf8(sink().mail(message, SystemTime::UNIX_EPOCH).unwrap().formatted()).unwrap()
    }

    #[test]
    fn the_mails_of_an_alert_are_one_thread() {
        let first = mail(&notice(Occasion::Opened, alert(7)));
        let id = format!("<{}@mail.example>", root(&alert(7)));
        assert!(first.contains(&format!("\r\nMessage-ID: {id}\r\n")), "{first}");
        assert!(first.contains("\r\nAuto-Submitted: auto-generated\r\n"), "{first}");
        assert!(first.contains("Subject: [mail.example] critical: /tmp/.x/sendd of www-data (alert 7)\r\n"), "{first}");
        let second = mail(&notice(Occasion::Worse, alert(7)));
        assert!(second.contains(&format!("\r\nIn-Reply-To: {id}\r\nReferences: {id}\r\n")), "{second}");
        assert!(second.contains("Subject: Re: [mail.example]") && !second.contains(&format!("Message-ID: {id}")));
    }

    #[test]
    fn a_line_break_in_a_program_s_name_makes_no_header() {
        let mut bad = alert(7);
        bad.who.name = "/tmp/x\r\nBcc: victim@example.com\r\n\r\nbuy".to_owned();
        let message = notice(Occasion::Opened, bad);
        assert!(!sink().subject(&message).contains(char::is_control));
        let mail = mail(&message);
        let (headers, _) = mail.split_once("\r\n\r\n").unwrap();
        assert!(!headers.contains("\r\nBcc:") && headers.contains("Content-Type"), "{mail}");
    }

    #[test]
    fn a_thousand_alerts_are_one_mail_with_a_table() {
        let mail = mail(&summary(1000));
        assert!(mail.contains("[mail.example] 1000 alerts within"), "{mail}");
        assert!(mail.contains("and 980 more") && mail.contains("portreeve alerts"), "{mail}");
    }
}
