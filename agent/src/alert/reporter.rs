//! Who reports an alert, and which host it is about: what of a report is not in the alert.

use std::net::IpAddr;

use lettre::Address;
use thiserror::Error;

use super::{Alert, Reporter};

/// The longest name of a host (RFC 1035 §2.3.4), without the dot at its end.
const NAME: usize = 253;
/// The longest part of it (RFC 1035 §2.3.4).
const LABEL: usize = 63;

/// `[alert.reporter]` of the policy, or what the command line says in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReporterSettings {
    /// The organisation's name.
    pub org: Option<String>,
    /// The mail address for questions.
    pub contact: Option<String>,
    /// The organisation's domain; that of the mail address if there is none.
    pub domain: Option<String>,
    /// The address or name of this host, as others see it.
    pub source: Option<String>,
}

/// What a report cannot do without, and where to say it.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("a report needs to say {}: write that into [alert.reporter] of the policy, or give {}", .what.join(" and "), .flags.join(" and "))]
pub struct Incomplete {
    /// What is missing, in words.
    pub what: Vec<&'static str>,
    /// The flags that say it.
    pub flags: Vec<&'static str>,
}

impl ReporterSettings {
    /// The reporter, and what the alert's host is called. What these do not say, the policy does; and where that does not
    /// name the host, the alert or `hostname`, which is what this host calls itself.
    ///
    /// # Errors
    ///
    /// Everything that is missing, at once.
    pub fn complete(&self, policy: &Self, alert: &Alert, hostname: &str) -> Result<(Reporter, String), Incomplete> {
        let org = self.org.as_ref().or(policy.org.as_ref());
        let contact = self.contact.as_ref().or(policy.contact.as_ref());
        let at = || Some(contact?.rsplit_once('@')?.1.to_owned());
        let domain = self.domain.clone().or_else(|| policy.domain.clone()).or_else(at);
        let source = self.source.clone().or_else(|| source(alert, policy, hostname));
        match (org, contact, domain, source) {
            (Some(org), Some(contact), Some(domain), Some(source)) => {
                Ok((Reporter { org: org.clone(), contact: contact.clone(), domain }, source))
            }
            (org, contact, _, source) => {
                let parts = [
                    (org.is_none(), "whose it is", "--org"),
                    (contact.is_none(), "which mail address answers questions", "--contact"),
                    (source.is_none(), "which host it is about, as others see it", "--source"),
                ];
                let missing = parts.into_iter().filter(|(missing, ..)| *missing);
                let (what, flags) = missing.map(|(_, what, flag)| (what, flag)).unzip();
                Err(Incomplete { what, flags })
            }
        }
    }
}

/// What the host of an alert is called. The alert may be about another host than this one, whose address is all that is
/// known of it: behind this one's NAT it looks like this one, and else like itself.
fn source(alert: &Alert, policy: &ReporterSettings, hostname: &str) -> Option<String> {
    let other = alert.who.address.as_deref();
    let seen = |address: &&str| address.parse().is_ok_and(is_seen);
    let from = || alert.worst.as_ref()?.source.map(|from| from.ip()).filter(|from| is_seen(*from));
    let own = || Some(hostname.to_owned()).filter(|name| is_domain(name));
    let known = other.filter(seen).or(policy.source.as_deref()).map(str::to_owned);
    known.or_else(|| other.map(str::to_owned)).or_else(|| from().map(|from| from.to_string())).or_else(own)
}

/// Whether others may see this address: private ones (RFC 1918, RFC 4193) are rewritten on their way.
fn is_seen(address: IpAddr) -> bool {
    let inside = match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    !(inside || address.is_loopback() || address.is_unspecified())
}

/// Whether a text is the bare address of a mailbox, without a name beside it.
#[must_use]
pub fn is_mail_address(text: &str) -> bool {
    text.parse::<Address>().is_ok_and(|address| is_domain(address.domain()))
}

/// Whether a text is a name with a domain, as in `example.org` (RFC 1123 §2.1), and no address.
#[must_use]
pub fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        let ends = label.starts_with('-') || label.ends_with('-');
        (1..=LABEL).contains(&label.len()) && !ends && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    let top = text.rsplit('.').next().unwrap_or_default();
    text.len() <= NAME && text.contains('.') && text.split('.').all(label) && !top.chars().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::super::examples;
    use super::*;

    fn settings(org: &str, contact: &str, domain: &str, source: &str) -> ReporterSettings {
        let [org, contact, domain, source] =
            [org, contact, domain, source].map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()));
        ReporterSettings { org, contact, domain, source }
    }

    #[test]
    fn what_the_command_line_says_stands_before_the_policy() {
        let policy = settings("Example", "abuse@example.org", "", "192.0.2.1");
        let flags = settings("", "cert@example.net", "", "mx.example.org");
        let (reporter, source) = flags.complete(&policy, &examples::alert(), "web").unwrap();
        let of = |org: &str, contact: &str, domain: &str| {
            let [org, contact, domain] = [org, contact, domain].map(str::to_owned);
            Reporter { org, contact, domain }
        };
        assert_eq!((reporter, source.as_str()), (of("Example", "cert@example.net", "example.net"), "mx.example.org"));
        let (reporter, source) =
            settings("", "", "example.com", "").complete(&policy, &examples::alert(), "web").unwrap();
        assert_eq!((reporter, source.as_str()), (of("Example", "abuse@example.org", "example.com"), "192.0.2.1"));
    }

    #[test]
    fn everything_that_is_missing_is_named_with_the_flag_that_says_it() {
        let missing = |settings: ReporterSettings| {
            settings.complete(&ReporterSettings::default(), &examples::alert(), "web").unwrap_err().to_string()
        };
        assert_eq!(
            missing(ReporterSettings::default()),
            "a report needs to say whose it is and which mail address answers questions and which host it is about, as \
             others see it: write that into [alert.reporter] of the policy, or give --org and --contact and --source"
        );
        assert_eq!(
            missing(settings("Example", "", "", "192.0.2.1")),
            "a report needs to say which mail address answers questions: write that into [alert.reporter] of the \
             policy, or give --contact"
        );
    }

    #[test]
    fn the_host_is_what_the_alert_knows_of_it_or_its_name() {
        let whole = settings("Example", "abuse@example.org", "", "");
        let policy = ReporterSettings::default();
        let source = |alert: &Alert, hostname: &str| whole.complete(&policy, alert, hostname).map(|(_, source)| source);
        let mut alert = examples::alert();
        assert_eq!(source(&alert, "web.example.org").as_deref(), Ok("web.example.org"));
        for (from, seen) in [
            ("203.0.113.9:4711", true),
            ("[2001:db8::9]:4711", true),
            ("10.0.0.9:4711", false),
            ("127.0.0.1:4711", false),
            ("0.0.0.0:4711", false),
            ("[::ffff:192.168.0.9]:4711", false),
            ("[fe80::9]:4711", false),
            ("[fd00::9]:4711", false),
        ] {
            alert.worst.as_mut().unwrap().source = Some(from.parse().unwrap());
            let found = source(&alert, "web").ok();
            let address = from.parse::<std::net::SocketAddr>().unwrap().ip().to_string();
            assert_eq!(found, Some(address).filter(|_| seen), "{from}");
        }
        // What the policy says holds for this host, and for those behind its NAT.
        let policy = settings("", "", "", "192.0.2.1");
        let source = |alert: &Alert| whole.complete(&policy, alert, "web.example.org").map(|(_, source)| source);
        alert.worst.as_mut().unwrap().source = Some("203.0.113.9:4711".parse().unwrap());
        assert_eq!(source(&alert).as_deref(), Ok("192.0.2.1"));
        alert.who.address = Some("10.0.0.7".to_owned());
        assert_eq!(source(&alert).as_deref(), Ok("192.0.2.1"));
        alert.who.address = Some("203.0.113.7".to_owned());
        assert_eq!(source(&alert).as_deref(), Ok("203.0.113.7"));
        // This host's name would be that of another.
        alert.who.address = Some("10.0.0.7".to_owned());
        let of_another = whole.complete(&ReporterSettings::default(), &alert, "web.example.org");
        assert_eq!(of_another.map(|(_, source)| source).as_deref(), Ok("10.0.0.7"));
    }

    #[test]
    fn addresses_and_domains_are_told_from_what_is_none() {
        for right in ["abuse@example.org", "a.b+c@mx.example.org"] {
            assert!(is_mail_address(right), "{right}");
        }
        for wrong in
            ["", "abuse", "abuse@", "@example.org", "abuse@web", "Abuse <abuse@example.org>", "a b@example.org"]
        {
            assert!(!is_mail_address(wrong), "{wrong}");
        }
        for right in ["example.org", "xn--bcher-kva.example", "a-b.c"] {
            assert!(is_domain(right), "{right}");
        }
        let long = format!("{}.org", "x".repeat(64));
        for wrong in
            ["", "web", ".org", "example.", "a..b", "-a.org", "a-.org", "a b.org", "192.0.2.1", "a/b.org", &long]
        {
            assert!(!is_domain(wrong), "{wrong}");
        }
    }
}
