//! Numbers for alerts, of which none is ever given twice.

use jiff::Timestamp;

/// Gives numbers out of those that the store has set apart, so that a crash cannot bring one back.
///
/// When there are none left, because the disk is full or slow, the attempt's time in microseconds is the number: larger
/// than any from the store, and exact in a double.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    next: u64,
    until: u64,
    by_clock: u64,
}

impl Numbers {
    /// The store has set apart those from `from` up to `until`.
    pub(super) fn apart(&mut self, from: u64, until: u64) {
        self.next = self.next.max(from);
        self.until = self.until.max(until);
    }

    /// A number that is in use already.
    pub(super) fn used(&mut self, id: u64) {
        if id >= Self::CLOCK {
            self.by_clock = self.by_clock.max(id);
        } else {
            self.next = self.next.max(id + 1);
        }
    }

    /// The next one.
    pub(super) fn take(&mut self, time: Timestamp) -> u64 {
        if self.next < self.until {
            self.next += 1;
            return self.next - 1;
        }
        let micros = u64::try_from(time.as_microsecond()).unwrap_or_default().max(Self::CLOCK);
        self.by_clock = micros.max(self.by_clock + 1);
        self.by_clock
    }

    /// From here on numbers come from the clock: September 2001 in microseconds.
    pub(super) const CLOCK: u64 = 1_000_000_000_000_000;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_set_apart_come_first_and_none_comes_twice() {
        let mut numbers = Numbers::default();
        let time: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let clock = [numbers.take(time), numbers.take(time)];
        assert_eq!(clock, [1_795_514_400_000_000, 1_795_514_400_000_001]);
        numbers.apart(7, 9);
        assert_eq!([numbers.take(time), numbers.take(time)], [7, 8]);
        assert_eq!(numbers.take(time), clock[1] + 1);
        numbers.used(9);
        numbers.apart(1, 12);
        assert_eq!(numbers.take(time), 10);
    }
}
