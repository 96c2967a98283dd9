//! Wald's sequential probability ratio test over yes-or-no observations, and what it may cost on one day.
//!
//! Each observation adds the logarithm of its likelihood ratio, bot against benign, to a walk: `ln(θ1/θ0)` for one that
//! speaks against the subject, `ln((1-θ1)/(1-θ0))` for one in its favour (Wald, "Sequential Tests of Statistical
//! Hypotheses", Annals of Mathematical Statistics 16(2), 1945; as a threshold random walk over first contacts: Jung,
//! Paxson, Berger, Balakrishnan, "Fast Portscan Detection Using Sequential Hypothesis Testing", IEEE S&P 2004). It ends
//! with a finding at the upper threshold, and at the lower one `ln(β/(1-α))`, about `ln β`, with the subject cleared, and
//! the next test begins.
//!
//! *What one test may err.* A likelihood ratio is a martingale under the benign hypothesis, so by Ville's inequality
//! (1939) it ever reaches `A` with probability `1/A` at most: the threshold `ln(1/α)` keeps α without Wald's
//! approximation for the overshoot.
//!
//! *What a day may err.* A day has many tests, because each that clears the subject is followed by another. The i-th test
//! of a day gets `α_i = e / (i (i + 1))`; the sum over all i is `e`, the error that the policy grants this kind of test on
//! a subject-day, however many tests there are (Bonferroni's inequality over a series; Foster & Stine, "α-investing", JRSS B
//! 70(2), 2008, spend errors in the same way). The price is a threshold that is higher by `ln(i (i + 1) / 2)`.

use serde::{Deserialize, Serialize};

/// The two hypotheses of a test, and what it may err.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Test {
    /// What an observation against the subject adds, in nats: positive.
    against: f64,
    /// What one in its favour adds: negative.
    in_favour: f64,
    /// What this kind of test may err on one subject-day.
    errors: f64,
    /// Where the subject is cleared: negative.
    lower: f64,
    /// How many observations against the subject there must be, whatever its signs say.
    least: u16,
}

impl Test {
    /// A test of a probability of `benign` against one of `bot`, for an observation that speaks against the subject.
    pub(super) fn new(benign: f64, bot: f64, errors: f64, missed: f64, least: u16) -> Self {
        Self {
            against: (bot / benign).ln(),
            in_favour: ((1.0 - bot) / (1.0 - benign)).ln(),
            errors,
            lower: missed.ln(),
            least,
        }
    }

    /// The threshold of the i-th test of a day.
    pub(super) fn threshold(&self, tests: u16) -> f64 {
        let i = f64::from(tests.max(1));
        (i * (i + 1.0) / self.errors).ln()
    }
}

/// A walk on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Walk {
    /// The sum so far, in nats.
    pub(super) score: f64,
    /// Observations of this test against the subject.
    pub(super) against: u16,
    /// And in its favour.
    pub(super) in_favour: u16,
    /// How many tests were begun on `day`, this one included.
    pub(super) tests: u16,
    /// The day of the latest observation, counted from 1970-01-01.
    day: u16,
}

impl Walk {
    /// Takes an observation. True when walk and prior together have reached the threshold: a finding.
    ///
    /// The walk stays there for its numbers to be read; [`Self::begin_anew`] ends it.
    pub(super) fn observe(&mut self, test: &Test, against: bool, day: u16, prior: f64) -> bool {
        if self.day != day || self.tests == 0 {
            self.day = day;
            self.tests = 1;
        }
        let (step, count) =
            if against { (test.against, &mut self.against) } else { (test.in_favour, &mut self.in_favour) };
        *count = count.saturating_add(1);
        self.score += step;
        if self.score <= test.lower {
            self.begin_anew();
            return false;
        }
        against && self.against >= test.least && self.score + prior >= test.threshold(self.tests)
    }

    /// As many observations in the subject's favour at once, as when nothing was seen of it for a while.
    pub(super) fn favour(&mut self, test: &Test, times: u64) {
        if self.score == 0.0 && self.against == 0 || times == 0 {
            return;
        }
        // More than these end the test anyhow.
        let to_clear = u64::from(self.left(test));
        if times >= to_clear {
            self.begin_anew();
        } else {
            self.in_favour = self.in_favour.saturating_add(times as u16);
            self.score += test.in_favour * times as f64;
        }
    }

    /// How many observations in its favour would clear the subject.
    pub(super) fn left(&self, test: &Test) -> u32 {
        ((self.score - test.lower) / -test.in_favour).ceil().max(0.0) as u32
    }

    /// Ends the test and begins the next one.
    pub(super) fn begin_anew(&mut self) {
        self.score = 0.0;
        self.against = 0;
        self.in_favour = 0;
        self.tests = self.tests.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn test() -> Test {
        Test::new(0.03, 0.8, 5e-5, 0.01, 2)
    }

    #[test]
    fn the_thresholds_of_a_day_spend_its_errors_and_no_more() {
        let test = test();
        let spent: f64 = (1..=10_000).map(|i| (-test.threshold(i)).exp()).sum();
        assert!(spent <= 5e-5 && spent > 4.99e-5, "{spent}");
    }

    #[test]
    fn four_observations_against_decide_and_three_do_not() {
        let mut walk = Walk::default();
        let decided: Vec<bool> = (0..4).map(|_| walk.observe(&test(), true, 1, 0.0)).collect();
        assert_eq!(decided, [false, false, false, true]);
    }

    #[test]
    fn a_test_that_clears_is_followed_by_one_with_a_higher_threshold() {
        let (mut walk, test) = (Walk::default(), test());
        for _ in 0..3 {
            assert!(!walk.observe(&test, false, 1, 5.0));
        }
        assert_eq!((walk.score, walk.tests), (0.0, 2));
        assert!(test.threshold(2) > test.threshold(1) + 1.0);
        walk.observe(&test, false, 2, 0.0);
        assert_eq!(walk.tests, 1, "a new day");
    }

    #[test]
    fn signs_alone_are_no_finding() {
        let mut walk = Walk::default();
        assert!(!walk.observe(&test(), true, 1, 100.0));
        assert!(walk.observe(&test(), true, 1, 100.0));
    }

    /// The error rate as measured, over walks of the benign hypothesis itself.
    #[test]
    fn benign_walks_err_no_more_often_than_granted() {
        let test = Test::new(0.2, 0.8, 0.05, 0.01, 1);
        let (mut wrong, mut random) = (0, 0x2545_f491_4f6c_dd1d_u64);
        for _ in 0..4000 {
            let mut walk = Walk::default();
            for _ in 0..500 {
                // xorshift64 (Marsaglia 2003).
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                if walk.observe(&test, random % 1000 < 200, 1, 0.0) {
                    wrong += 1;
                    break;
                }
            }
        }
        // 5 % granted, three standard deviations above.
        assert!(wrong <= 200 + 42, "{wrong} of 4000");
        assert!(wrong > 10, "the test has no power: {wrong}");
    }

    proptest! {
        #[test]
        fn evidence_is_monotone(seen in prop::collection::vec(any::<bool>(), 0..60), at in 0_usize..60) {
            // One observation turned against the subject never makes it look better at any later moment of the same test.
            let test = Test::new(0.03, 0.8, 1e-9, 1e-30, 2);
            let mut worse = seen.clone();
            if let Some(one) = worse.get_mut(at) {
                *one = true;
            }
            let (mut a, mut b) = (Walk::default(), Walk::default());
            let mut found = (false, false);
            for (left, right) in seen.iter().zip(&worse) {
                found.0 |= a.observe(&test, *left, 1, 0.0);
                found.1 |= b.observe(&test, *right, 1, 0.0);
                prop_assert!(b.score >= a.score);
                prop_assert!(!found.0 || found.1);
            }
        }

        #[test]
        fn many_in_favour_at_once_are_as_good_as_one_by_one(against in 0_u8..6, times in 0_u64..20) {
            let test = test();
            let mut once = Walk::default();
            for _ in 0..against {
                once.observe(&test, true, 1, 0.0);
            }
            let mut single = once;
            once.favour(&test, times);
            for _ in 0..times {
                if single.score != 0.0 {
                    single.observe(&test, false, 1, 0.0);
                }
            }
            prop_assert!((once.score - single.score).abs() < 1e-9, "{once:?} {single:?}");
        }
    }
}
