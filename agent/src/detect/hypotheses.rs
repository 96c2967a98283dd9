//! What each test takes for benign and what for a bot.
//!
//! The probabilities are ours: no public data has refused attempts by program. They are chosen from how programs that we
//! know retry, and tried on the models of `cargo xtask bench detect`, whose seeds for choosing and for reporting differ.

use super::walk::Test;

/// The tests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Hypotheses {
    /// An observation: a destination that is new, rather than a repeat that counts. A program that sends to one smart host
    /// meets a new one when that moves; a bot meets one with nearly every mail, except for the large providers that come
    /// again and again.
    pub(super) fan_out: Test,
    /// The same of a mail server that nobody has sanctioned: half of what it tries is new until its queue comes round
    /// again.
    pub(super) mail_server: Test,
    /// An observation: ten minutes in which a new destination was met. It does not mind what else the subject does, so
    /// retrying each victim, or knocking at many doors between them, does not help.
    pub(super) persistent: Test,
    /// An observation: two minutes with more attempts than a program makes that retries. A batch of newsletters fills
    /// a few of them, and then waits.
    pub(super) hammer: Test,
    /// An observation: ten minutes in which far more mail was handed to the local mail server than in the subject's past.
    /// Five of them whatever the signs say: a first peak of half an hour, of a web application, is no finding.
    pub(super) local: Test,
    /// An observation: a program of one user that was not refused before, and goes where none of that user's has gone.
    pub(super) many_programs: Test,
}

impl Hypotheses {
    /// The tests that together err as often as granted on a subject-day: the one that decides most gets half of it, the
    /// others an eighth each.
    pub(super) fn new(errors: f64, missed: f64) -> Self {
        let test = |benign, bot, share, least| Test::new(benign, bot, errors * share, missed, least);
        Self {
            fan_out: test(0.03, 0.8, 0.5, 2),
            mail_server: test(0.5, 0.8, 0.5, 8),
            persistent: test(0.15, 0.7, 0.125, 5),
            hammer: test(0.2, 0.95, 0.125, 5),
            local: test(0.05, 0.9, 0.125, 5),
            many_programs: test(0.03, 0.8, 0.125, 5),
        }
    }
}
