//! Colours, on a terminal only.

use std::io::IsTerminal as _;

use crate::detect::Severity;

/// Paints, or does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    /// On a terminal, unless NO_COLOR is set (https://no-color.org).
    pub(super) fn for_stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { on: wanted && std::io::stdout().is_terminal() }
    }

    /// Never.
    #[cfg(test)]
    pub(super) fn off() -> Self {
        Self { on: false }
    }

    /// A text in the colour of a severity.
    pub(super) fn severity(self, severity: Severity, text: &str) -> String {
        let code = match severity {
            Severity::Notice => "36",
            Severity::Warning => "33",
            Severity::Critical => "1;31",
        };
        self.with(code, text)
    }

    /// A heading.
    pub(super) fn heading(self, text: &str) -> String {
        self.with("1", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A text that others have chosen, without what a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A number of seconds, for people.
pub(super) fn span(seconds: i64) -> String {
    let two = |large: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {small_unit}"),
    };
    match seconds.max(0) {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => two(s / 60, "min", s % 60, "s"),
        s @ 3600..86_400 => two(s / 3600, "h", s % 3600 / 60, "min"),
        s => two(s / 86_400, "d", s % 86_400 / 3600, "h"),
    }
}

/// A number with its thousands apart.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans_are_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        let spans = [-1, 59, 60, 3661, 7200, 90_000].map(span);
        assert_eq!(spans, ["0 s", "59 s", "1 min", "1 h 1 min", "2 h", "1 d 1 h"]);
        assert_eq!(plain("a\x1b[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
        assert_eq!(Paint { on: true }.severity(Severity::Critical, "x"), "\x1b[1;31mx\x1b[0m");
        assert_eq!(Paint::off().heading("x"), "x");
    }
}
