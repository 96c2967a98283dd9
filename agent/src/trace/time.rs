//! Times as captures write them, in microseconds since 1970-01-01 UTC.

use jiff::Timestamp;
use jiff::civil::DateTime;

/// Seconds since 1970 with a fraction, or ISO 8601. Read digit by digit: a binary fraction of today's times is only just
/// exact to the microsecond.
pub(super) fn epoch(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !whole.is_empty() && whole.bytes().all(|byte| byte.is_ascii_digit()) {
        let micros = fraction_of(fraction)?;
        return whole.parse::<i64>().ok()?.checked_mul(1_000_000)?.checked_add(micros);
    }
    text.parse::<Timestamp>().ok().map(Timestamp::as_microsecond)
}

/// `2011/08/10 09:46:53.047277`, as Argus writes it. It does not say of which zone: UTC is taken, for nothing depends on
/// the hour but what is printed.
pub(super) fn argus(text: &str) -> Option<i64> {
    if !text.contains('/') {
        return epoch(text);
    }
    let (day, hour) = text.split_once(' ')?;
    let mut day = day.splitn(3, '/');
    let (year, month, date) = (day.next()?.parse().ok()?, day.next()?.parse().ok()?, day.next()?.parse().ok()?);
    let (hour, fraction) = hour.split_once('.').unwrap_or((hour, ""));
    let mut hour = hour.splitn(3, ':');
    let (hours, minutes, seconds) =
        (hour.next()?.parse().ok()?, hour.next()?.parse().ok()?, hour.next()?.parse().ok()?);
    let time = DateTime::new(year, month, date, hours, minutes, seconds, 0).ok()?;
    let micros = fraction_of(fraction)?;
    let seconds = jiff::tz::TimeZone::UTC.to_timestamp(time).ok()?.as_second();
    seconds.checked_mul(1_000_000)?.checked_add(micros)
}

/// Digits after the point as microseconds; those beyond are cut.
fn fraction_of(digits: &str) -> Option<i64> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let micros = digits.bytes().chain(std::iter::repeat(b'0')).take(6);
    Some(micros.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_to_write_a_time_agree() {
        let expected = Some(1_312_969_613_047_277);
        assert_eq!(epoch("1312969613.047277"), expected);
        assert_eq!(epoch("1312969613.0472779"), expected);
        assert_eq!(epoch("2011-08-10T09:46:53.047277Z"), expected);
        assert_eq!(argus("2011/08/10 09:46:53.047277"), expected);
        assert_eq!(argus("1312969613.047277"), expected);
        assert_eq!(epoch("1312969613"), Some(1_312_969_613_000_000));
        for wrong in ["", "-", ".5", "1.x", "1.2.3", "soon", "99999999999999999999"] {
            assert_eq!(epoch(wrong), None, "{wrong}");
        }
        for wrong in ["2011/08/10", "2011/13/10 09:46:53", "2011/08/10 09:46", "/ ", "2011/08/10 09:46:53.x"] {
            assert_eq!(argus(wrong), None, "{wrong}");
        }
    }
}
