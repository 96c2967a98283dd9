//! `[alert.reporter]`.

use std::net::IpAddr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::reader::Reader;
use crate::alert::{ReporterSettings, is_domain, is_mail_address};

pub(in super::super) const KEYS: &[&str] = &["org", "contact", "domain", "source"];

/// Reads the table.
pub(super) fn reporter(reader: &mut Reader<'_>, table: &DeTable<'_>) -> ReporterSettings {
    let mut settings = ReporterSettings::default();
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        match name {
            "org" => settings.org = reader.string(name, value).map(|org| org.value),
            "contact" => {
                let mend = "write the address alone, as in \"abuse@example.org\"";
                settings.contact = text(reader, name, value, is_mail_address, ("mail address", mend));
            }
            "domain" => {
                let mend = "write it as in \"example.org\"";
                settings.domain = text(reader, name, value, is_domain, ("domain", mend));
            }
            "source" => {
                let is_host = |text: &str| text.parse::<IpAddr>().is_ok() || is_domain(text);
                let mend = "write it as in \"192.0.2.1\" or \"www.example.org\"";
                settings.source = text(reader, name, value, is_host, ("address or name of a host", mend));
            }
            other => reader.unknown_key(key.span(), other, "alert.reporter", KEYS),
        }
    }
    settings
}

/// A text that is what it should be.
fn text(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Spanned<DeValue<'_>>,
    is: impl Fn(&str) -> bool,
    (what, mend): (&str, &str),
) -> Option<String> {
    let text = reader.string(key, value)?.value;
    if !is(&text) {
        reader.error(value.span(), format!("\"{text}\" is no {what}"), mend);
        return None;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::parse_text;
    use super::*;

    #[test]
    fn the_reporter_is_read_with_all_its_keys() {
        let text = "[alert.reporter]\norg = \"Example Ltd\"\ncontact = \"abuse@example.org\"\ndomain = \"example.com\"\n\
                    source = \"2001:db8::1\"\n";
        let parsed = parse_text(text);
        assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
        let [org, contact, domain, source] =
            ["Example Ltd", "abuse@example.org", "example.com", "2001:db8::1"].map(|text| Some(text.to_owned()));
        assert_eq!(parsed.alert.unwrap().reporter, ReporterSettings { org, contact, domain, source });
    }

    #[test]
    fn what_is_wrong_is_named_and_the_rest_is_read() {
        let text = "[alert.reporter]\norg = \"\"\ncontact = \"Abuse <abuse@example.org>\"\ndomain = \"example\"\n\
                    source = \"web\"\nemail = \"x\"\n";
        let parsed = parse_text(text);
        let found: Vec<String> =
            parsed.diagnostics.iter().map(|found| format!("{}:{} {}", found.line, found.column, found.what)).collect();
        let expected = [
            "2:7 \"org\" is empty",
            "3:11 \"Abuse <abuse@example.org>\" is no mail address",
            "4:10 \"example\" is no domain",
            "5:10 \"web\" is no address or name of a host",
            "6:1 unknown key \"email\" in [alert.reporter]",
        ];
        assert_eq!(found, expected);
        assert_eq!(parsed.alert.unwrap().reporter, ReporterSettings::default());
    }
}
