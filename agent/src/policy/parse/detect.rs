//! `[detect]`: the detector's settings.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::network;
use super::reader::Reader;
use crate::detect::{Settings, Signs};

pub(super) const KEYS: &[&str] = &[
    "enabled",
    "errors_per_subject_day",
    "missed",
    "subjects",
    "quiet",
    "hammer_per_minute",
    "local_per_ten_minutes",
    "expected",
    "weights",
    "site",
];
pub(super) const SITE_KEYS: &[&str] = &["name", "networks"];
/// The keys of `[detect.weights]`.
pub(super) const WEIGHT_KEYS: [&str; Signs::NAMES.len()] = {
    let mut names = [""; Signs::NAMES.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = Signs::NAMES[at].1;
        at += 1;
    }
    names
};
/// The most subjects that can be asked for: half a gigabyte.
const MOST_SUBJECTS: u64 = 1 << 20;
/// No sign may weigh more, in nats: it would decide alone. Nor may one take away more than three first contacts.
const MOST_WEIGHT: f64 = 5.0;
const LEAST_WEIGHT: f64 = -9.8;

type Value<'i> = Spanned<DeValue<'i>>;

/// Reads the table.
pub(super) fn detect(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Settings {
    let mut settings = Settings::default();
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        match name {
            "enabled" => settings.enabled = reader.boolean(name, value).unwrap_or(settings.enabled),
            "errors_per_subject_day" => {
                let mend = "write how many benign subjects of one may be found fault with on a day, as in 0.0001";
                let read = reader.fraction(name, value, 1e-9..=0.5, mend);
                settings.errors_per_subject_day = read.unwrap_or(settings.errors_per_subject_day);
            }
            "missed" => {
                let mend = "write the share of bots that one test may clear, as in 0.01";
                settings.missed = reader.fraction(name, value, 1e-9..=0.5, mend).unwrap_or(settings.missed);
            }
            "subjects" => {
                let read = reader.integer(name, value, 1..=MOST_SUBJECTS, "each takes half a KiB of memory");
                settings.subjects = read.map_or(settings.subjects, |number| number as usize);
            }
            "quiet" => {
                let read = reader.seconds(name, value, 60..=7 * 86_400);
                settings.quiet = read.map_or(settings.quiet, |seconds| seconds as u32);
            }
            "hammer_per_minute" => {
                let read = reader.integer(name, value, 1..=1_000_000, "40 is more than programs that retry make");
                settings.hammer_per_minute = read.map_or(settings.hammer_per_minute, |number| number as u32);
            }
            "local_per_ten_minutes" => {
                let read = reader.integer(name, value, 1..=1_000_000, "20 is more than reports and cron jobs make");
                settings.local_per_ten_minutes = read.map_or(settings.local_per_ten_minutes, |number| number as u32);
            }
            "expected" => settings.expected = networks(reader, name, value),
            "weights" => weights(reader, name, value, &mut settings),
            "site" => sites(reader, value, &mut settings),
            other => reader.unknown_key(key.span(), other, "detect", KEYS),
        }
    }
    settings
}

fn weights(reader: &mut Reader<'_>, name: &str, value: &Value<'_>, settings: &mut Settings) {
    let Some(table) = reader.table(name, value) else { return };
    for (key, value) in table {
        let sign = key.get_ref().as_ref();
        match WEIGHT_KEYS.iter().position(|known| *known == sign) {
            Some(place) => {
                let mend = "write a number from -9.8 to 5: what the sign adds to the logarithm of the odds";
                if let Some(weight) = reader.fraction(sign, value, LEAST_WEIGHT..=MOST_WEIGHT, mend) {
                    settings.weights[place] = weight;
                }
            }
            None => reader.unknown_key(key.span(), sign, "detect.weights", &WEIGHT_KEYS),
        }
    }
}

fn sites(reader: &mut Reader<'_>, value: &Value<'_>, settings: &mut Settings) {
    let Some(list) = value.get_ref().as_array() else {
        let mend = "write [[detect.site]] with two brackets on each side, once for each provider";
        reader.error(value.span(), "\"site\" must be a list of tables".to_owned(), mend);
        return;
    };
    for value in list {
        let Some(table) = reader.table("detect.site", value) else { continue };
        let (mut site, mut all) = (None, Vec::new());
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            match name {
                "name" => site = reader.string(name, value).map(|name| name.value),
                "networks" => all = networks(reader, name, value),
                other => reader.unknown_key(key.span(), other, "detect.site", SITE_KEYS),
            }
        }
        match site {
            // One that is named again is said anew.
            Some(site) if !all.is_empty() => {
                settings.sites.retain(|(known, _)| *known != site);
                settings.sites.push((site, all));
            }
            Some(_) | None if table.contains_key("name") && table.contains_key("networks") => {}
            Some(_) | None => {
                let mend = "write name = \"…\" and networks = [\"198.51.100.0/24\", …] below [[detect.site]]";
                reader.error(value.span(), "a site needs a name and its networks".to_owned(), mend);
            }
        }
    }
}

fn networks(reader: &mut Reader<'_>, name: &str, value: &Value<'_>) -> Vec<ipnet::IpNet> {
    let mut networks = Vec::new();
    for element in reader.elements(name, value) {
        let Some(text) = reader.string(name, element) else { continue };
        match network::parse(&text.value) {
            Ok(network) => networks.push(network),
            Err(bad) => reader.error(element.span(), bad.what, &bad.mend),
        }
    }
    networks
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse_text;
    use crate::detect::{Settings, Signs};

    fn wrong(text: &str) -> String {
        let found = parse_text(text).diagnostics;
        found.iter().map(|found| format!("{}:{} {}: {}\n", found.line, found.column, found.what, found.mend)).collect()
    }

    #[test]
    fn what_is_said_counts_and_the_rest_stays_as_it_is() {
        let text = "[detect]\nquiet = \"2h\"\nexpected = \"192.0.2.25\"\n[detect.weights]\nregular = 0.5\ntainted = 2\n\
                    [[detect.site]]\nname = \"google\"\nnetworks = [\"192.0.2.0/24\"]\n";
        let parsed = parse_text(text);
        assert_eq!(parsed.diagnostics, []);
        let settings = parsed.detect.unwrap();
        assert_eq!(
            (settings.quiet, settings.weight(Signs::REGULAR), settings.weight(Signs::TAINTED)),
            (7200, 0.5, 2.0)
        );
        assert_eq!(settings.sites.len(), 2);
        assert!(settings.expects("192.0.2.25".parse().unwrap()) && !settings.expects("192.0.2.26".parse().unwrap()));
        assert_eq!(settings.subjects, Settings::default().subjects);
    }

    #[test]
    fn what_is_wrong_is_said_where_it_stands() {
        for (text, said) in [
            ("errors_per_subject_day = 2", "2:26 \"errors_per_subject_day\" is 2, not from 0.000000001 to 0.5"),
            ("errors_per_subject_day = \"few\"", "2:26 \"errors_per_subject_day\" must be a number, not a text"),
            ("subjects = 0", "2:12 \"subjects\" is 0, not from 1 to 1048576"),
            ("quiet = 5", "2:9 \"quiet\" must be a text in quotes"),
            ("quiet = \"soon\"", "2:9 \"soon\" is no length of time"),
            ("quiet = \"1s\"", "2:9 \"quiet\" is 1s, not from 60s to 604800s"),
            ("expected = [\"lan\"]", "2:13 \"lan\" is no network"),
            ("weights = { deletd = 1 }", "2:13 unknown key \"deletd\" in [detect.weights]: did you mean \"deleted\"?"),
            ("weights = { deleted = 9 }", "2:23 \"deleted\" is 9, not from -9.8 to 5"),
            ("site = 1", "2:8 \"site\" must be a list of tables"),
            ("[[detect.site]]\nname = \"x\"", "a site needs a name and its networks"),
        ] {
            let found = wrong(&format!("[detect]\n{text}\n"));
            assert!(found.contains(said), "{text}: {found}");
        }
    }
}
