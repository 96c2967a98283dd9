//! An alert as an X-ARF report: the file that abuse desks exchange.
//!
//! The format is XARF 4 (xarf.org; the schemas are `schemas/v4/xarf-core.json` and
//! `schemas/v4/types/infrastructure-botnet.json` of github.com/xarf/xarf-spec). A finding of Portreeve's is about a
//! program on a host of one's own, not about a mail: so the category is `infrastructure` with the type `botnet`, whose
//! one field beyond the core is how the compromise was seen. `messaging`/`spam` would need the envelope sender and the
//! source port of a mail that, refused, was never sent.

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Alert;
use crate::detect::Severity;

/// The version of the format.
const VERSION: &str = "4.0.0";
/// The longest `description` (xarf-core.json), in characters.
const DESCRIPTION: usize = 1000;

/// Who makes the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporter {
    /// The organisation's name.
    pub org: String,
    /// The address for questions.
    pub contact: String,
    /// The organisation's domain.
    pub domain: String,
}

/// The report of an alert on a host, whose address or name is `source`: where the world would have seen the mail come
/// from. It has the same `report_id` each time it is made for the same alert, so that an abuse desk knows it again.
#[must_use]
pub fn report(alert: &Alert, source: &str, reporter: &Reporter) -> Value {
    let contact = json!({ "org": reporter.org, "contact": reporter.contact, "domain": reporter.domain });
    let evidence = evidence(alert);
    json!({
        "xarf_version": VERSION,
        "report_id": report_id(alert, source),
        "timestamp": time(alert.last),
        "reporter": contact,
        "sender": contact,
        "source_identifier": source,
        "category": "infrastructure",
        "type": "botnet",
        "evidence_source": "automated_discovery",
        "compromise_evidence": compromise(alert),
        "bot_capabilities": ["spam"],
        "first_seen": time(alert.first),
        "last_seen": time(alert.last),
        "confidence": confidence(alert),
        "description": description(alert),
        "evidence": [{
            "content_type": "application/json",
            "description": "The alert as Portreeve keeps it: findings, numbers, destinations, process tree",
            "payload": base64(&evidence),
            "hash": format!("sha256:{}", hex(&Sha256::digest(&evidence))),
            "size": evidence.len(),
        }],
        "tags": alert.tests().iter().map(|kind| format!("portreeve:{kind}")).collect::<Vec<_>>(),
    })
}

fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A UUID in the form of version 4 (RFC 9562 §5.4), made of what tells this alert from all others.
fn report_id(alert: &Alert, source: &str) -> String {
    let text = format!("{source}\0{}\0{}\0{}", alert.id, alert.subject, alert.opened.as_microsecond());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(text)[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let all = hex(&bytes);
    format!("{}-{}-{}-{}-{}", &all[..8], &all[8..12], &all[12..16], &all[16..20], &all[20..])
}

fn compromise(alert: &Alert) -> String {
    let tests: Vec<String> = alert.tests().iter().map(|kind| format!("{kind}: {}", kind.means())).collect();
    format!("what was found: {}", tests.join("; "))
}

fn description(alert: &Alert) -> String {
    let (attempts, refused) = (alert.attempts, alert.refused);
    let text = format!("{}; {attempts} attempts to send mail, {refused} of them refused", alert.headline());
    text.chars().take(DESCRIPTION).collect()
}

/// How sure the report is, from 0 to 1: what the severity means, as the schema wants a number.
fn confidence(alert: &Alert) -> f64 {
    match alert.severity {
        Severity::Notice => 0.5,
        Severity::Warning => 0.75,
        Severity::Critical => 0.95,
    }
}

/// The alert without what is of this house only: who has dealt with it, and how.
fn evidence(alert: &Alert) -> Vec<u8> {
    let alert = Alert { history: Vec::new(), next: Vec::new(), ..alert.clone() };
    serde_json::to_vec(&alert).unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            // A group of n bytes has n + 1 digits.
            let digit = DIGITS[(group >> (18 - 6 * place) & 0x3f) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::sink::tests::alert;
    use super::*;

    /// The required fields of xarf-core.json and of infrastructure-botnet.json.
    const REQUIRED: [&str; 9] = [
        "xarf_version",
        "report_id",
        "timestamp",
        "reporter",
        "sender",
        "source_identifier",
        "category",
        "type",
        "compromise_evidence",
    ];

    fn reporter() -> Reporter {
        let [org, contact, domain] = ["Example", "abuse@example.org", "example.org"].map(str::to_owned);
        Reporter { org, contact, domain }
    }

    fn text<'v>(value: &'v Value, key: &str) -> &'v str {
        value[key].as_str().unwrap_or_else(|| panic!("{key} is no text: {value:#}"))
    }

    #[test]
    fn every_field_that_the_schema_requires_is_there_and_of_its_form() {
        let report = report(&alert(7), "192.0.2.1", &reporter());
        for key in REQUIRED {
            assert!(!report[key].is_null(), "{key} is missing: {report:#}");
        }
        assert_eq!((text(&report, "category"), text(&report, "type")), ("infrastructure", "botnet"));
        assert!(text(&report, "xarf_version").starts_with("4."));
        for party in ["reporter", "sender"] {
            // additionalProperties: false
            let keys: Vec<&String> = report[party].as_object().unwrap().keys().collect();
            assert_eq!(keys, ["contact", "domain", "org"]);
        }
        for key in ["timestamp", "first_seen", "last_seen"] {
            assert_eq!(text(&report, key), "2026-01-02T03:04:05Z");
        }
        assert!((0.0..=1.0).contains(&report["confidence"].as_f64().unwrap()));
        assert!(text(&report, "description").chars().count() <= DESCRIPTION);
        let item = report["evidence"][0].as_object().unwrap();
        let keys: Vec<&String> = item.keys().collect();
        assert_eq!(keys, ["content_type", "description", "hash", "payload", "size"]);
        let hash = text(&report["evidence"][0], "hash").strip_prefix("sha256:").unwrap();
        assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
        // ^[a-z0-9][a-z0-9_+-]*:[a-z0-9][a-z0-9_+-.]*$
        assert_eq!(report["tags"], json!(["portreeve:fan-out"]));
    }

    #[test]
    fn the_id_is_a_uuid_and_the_same_for_the_same_alert() {
        let id = |id, source| text(&report(&alert(id), source, &reporter()), "report_id").to_owned();
        let one = id(7, "192.0.2.1");
        let lengths: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert!(one.as_bytes()[14] == b'4' && b"89ab".contains(&one.as_bytes()[19]), "{one}");
        assert_eq!(one, id(7, "192.0.2.1"));
        assert!(one != id(8, "192.0.2.1") && one != id(7, "192.0.2.2"));
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        // RFC 4648 §10
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (text, encoded) in vectors {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }

    #[test]
    fn what_the_house_has_done_about_it_stays_in_the_house() {
        let mut handled = alert(7);
        handled.next = vec!["ask Bob".to_owned()];
        assert!(!String::from_utf8(evidence(&handled)).unwrap().contains("Bob"));
    }
}
