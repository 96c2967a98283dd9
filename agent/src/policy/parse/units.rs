//! Values with a unit: times and sizes.

use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::reader::Reader;

type Value<'i> = Spanned<DeValue<'i>>;

const TIMES: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
const SIZES: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];

/// A time that is not nothing, as in `"90s"`, `"15m"`, `"2h"` or `"365d"`.
pub(super) fn duration(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Duration> {
    let mend = "write a number and s, m, h or d, as in \"90s\", \"15m\", \"2h\" or \"365d\"";
    quantity(reader, key, value, &TIMES, ("time", mend)).map(Duration::from_secs)
}

/// A size in bytes that is not nothing, as in `"64MiB"`.
pub(super) fn size(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<u64> {
    let mend = "write a number and KiB, MiB or GiB, as in \"64MiB\"";
    quantity(reader, key, value, &SIZES, ("size", mend))
}

fn quantity(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Value<'_>,
    units: &[(&str, u64)],
    (what, mend): (&str, &str),
) -> Option<u64> {
    if let DeValue::Integer(number) = value.get_ref() {
        reader.error(value.span(), format!("\"{key}\" has no unit: {number}"), mend);
        return None;
    }
    let text = reader.string(key, value)?.value;
    let read = units.iter().find_map(|(unit, factor)| {
        let number = text.strip_suffix(unit)?.trim_end();
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| number.parse::<u64>().ok()).flatten()?;
        number.checked_mul(*factor).filter(|product| *product > 0 && *product <= i64::MAX.unsigned_abs())
    });
    if read.is_none() {
        reader.error(value.span(), format!("\"{text}\" is no {what}"), mend);
    }
    read
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse_text;
    use super::*;

    #[test]
    fn times_and_sizes_have_units() {
        let read = |text: &str| {
            let parsed = parse_text(&format!("[alert]\n{text}\n"));
            let found: Vec<String> = parsed.diagnostics.into_iter().map(|found| found.what).collect();
            (parsed.alert.unwrap(), found)
        };
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2 h", 7200), ("365d", 31_536_000)] {
            let (alert, found) = read(&format!("keep = \"{text}\""));
            assert_eq!((alert.keep, found), (Duration::from_secs(seconds), Vec::new()));
        }
        for (text, bytes) in [("512B", 512), ("10KiB", 10_240), ("64MiB", 64 << 20), ("1GiB", 1 << 30)] {
            let (alert, found) = read(&format!("keep_bytes = \"{text}\""));
            assert_eq!((alert.keep_bytes, found), (bytes, Vec::new()));
        }
        for text in ["\"0s\"", "\"1w\"", "\"s\"", "\"-1s\"", "\"+1s\"", "\"99999999999999999999d\"", "\"1.5h\""] {
            let found = read(&format!("keep = {text}")).1;
            assert!(found.len() == 1 && found[0].ends_with("is no time"), "{text}: {found:?}");
        }
        assert_eq!(read("keep = 5").1, ["\"keep\" has no unit: 5"]);
        assert_eq!(read("keep_bytes = \"64MB\"").1, ["\"64MB\" is no size"]);
    }
}
