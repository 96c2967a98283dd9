//! The largest message, the most recipients, and messages that come round again.

use super::super::settings::{Action, Settings};
use super::{Answer, Filter, Point, Refusal, Seen, Verdict};

/// How often a message may come through a relay like this one: once in front of the mail server's queue and once behind it,
/// and as often again where it is forwarded.
const MOST_OWN: usize = 4;

/// The limits of `[relay]`.
#[derive(Debug)]
pub(super) struct Limits {
    size: u64,
    recipients: usize,
    hops: usize,
    action: Action,
}

impl Limits {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            size: settings.max_size,
            recipients: settings.max_recipients,
            hops: settings.max_hops,
            action: settings.action,
        }
    }

    fn refuse(&self, code: u16, detail: &'static str, text: String) -> Verdict {
        Verdict::Refuse(Refusal { action: self.action, code, detail, text })
    }

    fn at_end(&self, seen: Seen<'_>) -> Verdict {
        let Some(headers) = seen.headers else { return Verdict::Accept };
        if headers.hops > self.hops || headers.own > MOST_OWN {
            let text = format!("the message goes in a circle: it has come {} hops", headers.hops);
            return self.refuse(554, "4.6", text);
        }
        Verdict::Accept
    }
}

impl Filter for Limits {
    fn name(&self) -> &str {
        "limits"
    }

    fn points(&self) -> &[Point] {
        &[Point::Mail, Point::Rcpt, Point::End]
    }

    fn look<'a>(&'a self, point: Point, seen: Seen<'a>) -> Answer<'a> {
        let too_large = || self.refuse(552, "3.4", format!("a message may have {} bytes", self.size));
        Answer::Now(match point {
            Point::Mail | Point::End if seen.size > self.size => too_large(),
            // More at another time is what a client makes of 452 (RFC 5321 §4.5.3.1.10), whatever the policy's action is.
            Point::Rcpt if seen.recipients.len() >= self.recipients => Verdict::Refuse(Refusal {
                action: Action::Hold,
                code: 452,
                detail: "5.3",
                text: format!("a message may have {} recipients", self.recipients),
            }),
            Point::End => self.at_end(seen),
            Point::Connect | Point::Helo | Point::Mail | Point::Rcpt | Point::Data => Verdict::Accept,
        })
    }
}
