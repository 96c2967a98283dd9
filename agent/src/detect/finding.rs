//! What a test has found, with the numbers behind it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Which test found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The subject goes to one new destination after the other.
    FanOut,
    /// One user's ever new programs each go to a new destination.
    ManyPrograms,
    /// The subject tries the same few destinations at a rate that no retrying program has.
    Hammer,
    /// The subject meets new destinations in nearly every ten minutes, for hours.
    Persistent,
    /// The subject hands the local mail server far more mail than it ever did.
    LocalPath,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::FanOut, Self::ManyPrograms, Self::Hammer, Self::Persistent, Self::LocalPath];

    /// Its name, as in the JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FanOut => "fan-out",
            Self::ManyPrograms => "many-programs",
            Self::Hammer => "hammer",
            Self::Persistent => "persistent",
            Self::LocalPath => "local-path",
        }
    }

    /// What it means, as a sentence without its end.
    #[must_use]
    pub fn means(self) -> &'static str {
        match self {
            Self::FanOut => "goes to one new mail destination after the other, as a spam bot does",
            Self::ManyPrograms => "one user's ever new programs each go to a new mail destination",
            Self::Hammer => "tries the same destination at a rate that no retrying program has",
            Self::Persistent => "meets new mail destinations in nearly every ten minutes, for hours",
            Self::LocalPath => "hands the local mail server far more mail than it ever did",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How much it should worry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth a look.
    Notice,
    /// Something is wrong, and it may be a program that is only broken.
    Warning,
    /// A spam bot, as far as can be told.
    Critical,
}

impl Severity {
    /// All of them, the mildest first.
    pub const ALL: [Self; 3] = [Self::Notice, Self::Warning, Self::Critical];

    /// Its name, as in the JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A sign that moved the prior, and by how much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weighed {
    /// The sign's name, as in `[detect.weights]`.
    pub sign: String,
    /// Its weight, in nats of log-odds; what speaks for the subject is negative.
    pub weight: f64,
}

/// What a test has found about a subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// When: the time of the attempt that decided.
    pub time: Timestamp,
    /// Whom it is about; see [`super::SubjectId`].
    pub subject: super::SubjectId,
    /// Which test.
    pub kind: Kind,
    /// How much it should worry.
    pub severity: Severity,
    /// The numbers behind it.
    pub evidence: Evidence,
}

/// The state of the test when it decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
// Stored alerts of an older agent lack what was added since.
#[serde(default)]
pub struct Evidence {
    /// The test's walk: the logarithm of the likelihood ratio of what was observed, bot against benign, in nats.
    pub walk: f64,
    /// What the signs add to it.
    pub prior: f64,
    /// What both had to reach together.
    pub threshold: f64,
    /// The probability that a benign subject without signs takes this one test that far: e^-threshold at most.
    pub alpha: f64,
    /// How many tests of this kind the subject has begun on this day, this one included.
    pub tests_today: u32,
    /// The signs.
    pub signs: Vec<Weighed>,
    /// Attempts since the subject was first seen.
    pub attempts: u64,
    /// Of these, refused or what would have been refused.
    pub refused: u64,
    /// Mail handed to the local mail server.
    pub local: u64,
    /// Distinct destinations met.
    pub destinations: u32,
    /// Programs of one user, where the finding is about that user.
    pub programs: u32,
    /// Observations of this test that spoke for a bot.
    pub against: u32,
    /// Observations of this test that spoke for the subject.
    pub in_favour: u32,
    /// The first attempt.
    pub first: Option<Timestamp>,
    /// What it would have taken to clear the subject: so many observations in its favour.
    pub to_clear: u32,
}
