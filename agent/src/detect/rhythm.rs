//! Whether attempts come at regular intervals.

use serde::{Deserialize, Serialize};

/// Gaps shorter than this, in seconds, are retries of one attempt and say nothing of the rhythm.
const SHORTEST: f32 = 0.25;
/// The weight of the latest gap in mean and variance, which forget exponentially (Welford, Technometrics 4(3), 1962, in
/// the form of West, CACM 22(9), 1979).
const WEIGHT: f32 = 1.0 / 16.0;
/// How many gaps there must be.
const LEAST: u8 = 12;
/// The largest coefficient of variation of what is called regular. A timer's is far below it, a Poisson process's is 1.
const REGULAR: f32 = 0.1;

/// Mean and variance of the gaps between attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Rhythm {
    mean: f32,
    variance: f32,
    gaps: u8,
}

impl Rhythm {
    /// A gap of so many microseconds.
    pub(super) fn gap(&mut self, gap: i64) {
        let gap = gap as f32 / 1e6;
        if gap < SHORTEST {
            return;
        }
        if self.gaps == 0 {
            self.mean = gap;
        }
        let away = gap - self.mean;
        self.mean += WEIGHT * away;
        self.variance = (1.0 - WEIGHT) * (self.variance + WEIGHT * away * away);
        self.gaps = self.gaps.saturating_add(1);
    }

    /// Whether they are regular.
    pub(super) fn is_regular(&self) -> bool {
        self.gaps >= LEAST && self.variance < (REGULAR * self.mean) * (REGULAR * self.mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_regular_and_people_are_not() {
        let (mut timer, mut people) = (Rhythm::default(), Rhythm::default());
        for n in 0_i64..40 {
            timer.gap(300_000_000 + (n % 5) * 1_000_000);
            timer.gap(20_000);
            people.gap(1_000_000 * (1 + (n * n * 37) % 900));
        }
        assert!(timer.is_regular());
        assert!(!people.is_regular());
    }
}
