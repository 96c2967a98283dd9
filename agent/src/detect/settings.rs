//! What the policy says of the detector.

use ipnet::IpNet;

use super::Signs;

/// `[detect]` of the policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Whether anything is judged at all.
    pub enabled: bool,
    /// The probability that a benign subject is found fault with on one day, all tests together.
    pub errors_per_subject_day: f64,
    /// The probability that a test clears a bot: it begins anew then, so that this costs time, not the finding.
    pub missed: f64,
    /// How many subjects are remembered.
    pub subjects: usize,
    /// After how many seconds without an attempt an episode is over.
    pub quiet: u32,
    /// The weight of each sign, in the order of [`Signs::NAMES`], in nats.
    pub weights: [f64; Signs::NAMES.len()],
    /// Networks of which each counts as one destination, by name: providers with many addresses.
    pub sites: Vec<(String, Vec<IpNet>)>,
    /// Sources (of captures, of a LAN) that are expected to send and are not judged.
    pub expected: Vec<IpNet>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            errors_per_subject_day: 1e-4,
            missed: 0.01,
            subjects: 16_384,
            quiet: 3600,
            weights: [0.0; Signs::NAMES.len()],
            sites: Vec::new(),
            expected: Vec::new(),
        }
    }
}
