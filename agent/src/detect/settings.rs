//! What the policy says of the detector.

use std::net::IpAddr;

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
    /// How many attempts a minute, kept up for a quarter of an hour, are more than any retrying program makes.
    pub hammer_per_minute: u32,
    /// How many hand-overs to the local mail server in ten minutes are nothing to look at, whatever the subject's past.
    pub local_per_ten_minutes: u32,
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
            hammer_per_minute: 40,
            local_per_ten_minutes: 20,
            weights: WEIGHTS,
            sites: sites(),
            expected: Vec::new(),
        }
    }
}

impl Settings {
    /// Whether a source (of a capture, of a LAN) is expected to send, and so not judged.
    #[must_use]
    pub fn expects(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        self.expected.iter().any(|network| network.contains(&source))
    }

    /// The weight of one sign.
    #[must_use]
    pub fn weight(&self, sign: Signs) -> f64 {
        Signs::NAMES.iter().zip(self.weights).find(|((known, _), _)| *known == sign).map_or(0.0, |(_, weight)| weight)
    }
}

/// The weights, in the order of [`Signs::NAMES`]: `ln(P(sign | bot) / P(sign | benign))` as we judge it.
///
/// No public data has these probabilities. They are set so that no one sign is worth more than one first contact (3.3
/// nats), and what many benign programs share, like an interpreter, is worth next to nothing. A script of root's is the one
/// that takes away three: so many does a cron job need whose report goes to six domains at its first run, five of them new
/// to the test, and to another network of a large provider at its second.
const WEIGHTS: [f64; Signs::NAMES.len()] = [
    1.0,  // deleted: also after an upgrade
    3.0,  // in_memory
    2.5,  // temporary_folder
    1.5,  // world_writable
    0.5,  // no_package
    -0.5, // packaged
    0.3,  // web_parent
    0.2,  // interpreter
    0.7,  // session_gone
    0.3,  // mta_unused
    1.5,  // mx_lookups
    -2.0, // mail_server
    1.5,  // tainted
    2.0,  // raw
    1.5,  // many_executables
    -0.5, // regular: timers, probes, cron
    0.3,  // immediate_retries
    -9.8, // root_script: in the fan-out test only
    1.0,  // many_addresses: also a router's
];

/// The providers with so many addresses for one mail exchanger or submission host that one message meets several networks.
///
/// Google: `_spf.google.com` and `goog.json`; Microsoft 365: "Office 365 URLs and IP address ranges", Exchange Online. As
/// of 2025; what is missing only costs one observation.
fn sites() -> Vec<(String, Vec<IpNet>)> {
    let google = [
        "64.233.160.0/19",
        "66.102.0.0/20",
        "66.249.64.0/19",
        "72.14.192.0/18",
        "74.125.0.0/16",
        "108.177.0.0/17",
        "142.250.0.0/15",
        "172.217.0.0/16",
        "172.253.0.0/16",
        "173.194.0.0/16",
        "192.178.0.0/15",
        "209.85.128.0/17",
        "216.58.192.0/19",
        "216.239.32.0/19",
        "2001:4860::/32",
        "2404:6800::/32",
        "2607:f8b0::/32",
        "2800:3f0::/32",
        "2a00:1450::/32",
        "2c0f:fb50::/32",
    ];
    let microsoft = [
        "13.107.6.152/31",
        "13.107.18.10/31",
        "13.107.128.0/22",
        "23.103.160.0/20",
        "40.92.0.0/15",
        "40.96.0.0/13",
        "40.104.0.0/15",
        "40.107.0.0/16",
        "52.96.0.0/14",
        "52.100.0.0/14",
        "52.238.78.88/32",
        "104.47.0.0/17",
        "131.253.33.215/32",
        "132.245.0.0/16",
        "150.171.32.0/22",
        "204.79.197.215/32",
        "2603:1006::/40",
        "2603:1016::/36",
        "2603:1026::/36",
        "2603:1036::/36",
        "2603:1046::/36",
        "2603:1056::/36",
        "2620:1ec:4::152/128",
        "2620:1ec:a92::152/128",
        "2a01:111:f400::/48",
        "2a01:111:f403::/48",
    ];
    let parse = |networks: &[&str]| networks.iter().filter_map(|text| text.parse().ok()).collect();
    vec![("google".to_owned(), parse(&google)), ("microsoft".to_owned(), parse(&microsoft))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_network_is_one() {
        let all: usize = sites().iter().map(|(_, networks)| networks.len()).sum();
        assert_eq!(all, 20 + 26);
    }

    #[test]
    fn no_sign_is_worth_more_than_a_first_contact() {
        let contact = (0.8_f64 / 0.03).ln();
        let root_script = Settings::default().weight(Signs::ROOT_SCRIPT);
        assert!(WEIGHTS.iter().all(|weight| weight.abs() <= contact || *weight == root_script));
        assert!((-3.0 * contact..-2.0 * contact).contains(&root_script), "{root_script}");
        assert_eq!(Settings::default().weight(Signs::REGULAR), -0.5);
    }
}
