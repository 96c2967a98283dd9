//! Rate limits: recipients in a time, for each peer, sender, subject or rule.

use std::num::NonZeroU32;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::super::settings::{Action, LimitSettings, Per};
use super::{Answer, Filter, Point, Refusal, Seen, Verdict};

/// How many are told apart. Beyond that those who have not sent lately are forgotten, and if that is not enough the rest
/// share one account.
const MOST_KEYS: usize = 20_000;
/// The account of those beyond.
const OTHERS: &str = "\0others";

/// One `[[relay.limit]]`.
#[derive(Debug)]
pub(super) struct Rate {
    name: String,
    per: Per,
    action: Action,
    text: String,
    limiter: DefaultKeyedRateLimiter<String>,
    most: usize,
}

impl Rate {
    pub(super) fn new(limit: &LimitSettings) -> Self {
        let recipients = NonZeroU32::new(limit.recipients).unwrap_or(NonZeroU32::MIN);
        // The policy's parser lets no time of zero pass.
        let quota = Quota::with_period(limit.every / recipients.get())
            .unwrap_or_else(|| Quota::per_second(recipients))
            .allow_burst(recipients);
        Self {
            name: format!("limit per {}", limit.per.word()),
            per: limit.per,
            action: limit.action,
            text: format!(
                "more than {recipients} recipients in {} for this {}",
                crate::relay::words(limit.every),
                limit.per.word()
            ),
            limiter: RateLimiter::hashmap(quota),
            most: MOST_KEYS,
        }
    }

    /// Whose share a recipient comes from; nobody's if that is not known.
    fn key(&self, seen: Seen<'_>) -> Option<String> {
        match self.per {
            Per::Peer => {
                let peer = || seen.origin.peer.ip().to_canonical().to_string();
                Some(seen.forwarded.get("ADDR").map_or_else(peer, str::to_owned))
            }
            Per::Sender => seen.sender.map(str::to_ascii_lowercase),
            Per::Subject => seen.origin.subject.clone(),
            Per::Rule => seen.origin.rule.clone(),
        }
    }

    fn is_within(&self, key: String) -> bool {
        if self.limiter.len() >= self.most {
            self.limiter.retain_recent();
        }
        let key = if self.limiter.len() >= self.most { OTHERS.to_owned() } else { key };
        self.limiter.check_key(&key).is_ok()
    }
}

impl Filter for Rate {
    fn name(&self) -> &str {
        &self.name
    }

    fn points(&self) -> &[Point] {
        &[Point::Rcpt]
    }

    fn look<'a>(&'a self, _point: Point, seen: Seen<'a>) -> Answer<'a> {
        let within = self.key(seen).is_none_or(|key| self.is_within(key));
        Answer::Now(if within {
            Verdict::Accept
        } else {
            Verdict::Refuse(Refusal { action: self.action, code: 550, detail: "7.1", text: self.text.clone() })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::origin::{Forwarded, Origin, Way};
    use super::*;

    fn rate(recipients: u32) -> Rate {
        let every = Duration::from_secs(3600);
        Rate::new(&LimitSettings { per: Per::Sender, recipients, every, action: Action::Hold })
    }

    fn refused(rate: &Rate, sender: &str) -> bool {
        let origin = Origin {
            peer: ([127, 0, 0, 1], 1).into(),
            way: Way::Relayhost,
            destination: None,
            subject: None,
            rule: None,
        };
        let forwarded = Forwarded::default();
        let seen = Seen {
            origin: &origin,
            forwarded: &forwarded,
            helo: "h",
            sender: Some(sender),
            recipient: Some("r"),
            recipients: &[],
            size: 0,
            headers: None,
            message: None,
        };
        match rate.look(Point::Rcpt, seen) {
            Answer::Now(verdict) => verdict != Verdict::Accept,
            Answer::Later(_) => panic!(),
        }
    }

    #[test]
    fn each_sender_has_a_share_of_its_own_and_the_null_sender_too() {
        let rate = rate(3);
        let sent = |sender: &str| (0..5).filter(|_| !refused(&rate, sender)).count();
        assert_eq!([sent("a@x"), sent("A@X"), sent("b@x"), sent("")], [3, 0, 3, 3]);
        assert_eq!(rate.text, "more than 3 recipients in 1h for this sender");
    }

    #[test]
    fn those_beyond_the_bound_share_one_account() {
        let rate = Rate { most: 10, ..rate(3) };
        let sent = (0..100).filter(|number| !refused(&rate, &format!("{number}@x"))).count();
        assert_eq!((sent, rate.limiter.len()), (13, 11));
    }
}
