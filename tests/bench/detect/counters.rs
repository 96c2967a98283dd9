//! The counters in use today, each over one subject's refused attempts. All of them count a host or a user, who is one
//! actor here. Windows slide, also where the original's are cut at fixed times: that finds a little more.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;

use portreeve::detect::{Observation, Outcome};

const SECOND: i64 = 1_000_000;

/// A counter.
#[derive(Debug)]
pub(crate) struct Counter {
    /// Its name, and what it counts.
    pub(crate) name: &'static str,
    /// How it was understood.
    pub(crate) reading: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// At least so many within so long.
    Within(usize, i64),
    /// More than so many distinct ones since the last pause of so long.
    Distinct(usize, i64),
}

/// All of them.
pub(crate) const COUNTERS: [Counter; 5] = [
    Counter {
        name: ">5 servers (ntopng)",
        reading: "host check `smtp_contacts`, threshold 5: distinct servers since the host was last forgotten, which \
                  ntopng does after 5 minutes without traffic; its own count is an estimate (HyperLogLog)",
        kind: Kind::Distinct(5, 300 * SECOND),
    },
    Counter {
        name: "15 in 15 min (BotFlex)",
        reading: "spam.bro: more than `th_smtp` connections within `wnd_spam`, taken as 15 in 15 minutes (its published \
                  config.txt has 40 in 5 minutes, its script 20 in 5)",
        kind: Kind::Within(16, 900 * SECOND),
    },
    Counter {
        name: "20 in 60 s",
        reading: "iungonetwork/net-security, sensors/spam.js: more than 20 flows to mail ports within 60 s",
        kind: Kind::Within(21, 60 * SECOND),
    },
    Counter {
        name: "10 blocks (CSF)",
        reading: "csf.conf, User ID Tracking: more than UID_LIMIT = 10 blocks within UID_INTERVAL, off by default; 60 to \
                  300 s is called sensible, 300 s taken",
        kind: Kind::Within(11, 300 * SECOND),
    },
    Counter {
        name: "10 in 120 s (ET 2000328)",
        reading: "Emerging Threats, \"Outbound Multiple Non-SMTP Server Emails\": threshold, track by_src, count 10, seconds \
                  120; it looks for MAIL FROM, here every attempt counts",
        kind: Kind::Within(10, 120 * SECOND),
    },
];

/// A counter at work on one subject.
#[derive(Debug)]
pub(crate) struct Count {
    kind: Kind,
    times: VecDeque<i64>,
    servers: HashSet<IpAddr>,
    last: i64,
    alarmed: bool,
}

impl Count {
    /// One that has counted nothing.
    pub(crate) fn new(counter: &Counter) -> Self {
        Self { kind: counter.kind, times: VecDeque::new(), servers: HashSet::new(), last: i64::MIN, alarmed: false }
    }

    /// Takes an attempt.
    pub(crate) fn take(&mut self, observation: &Observation) {
        if self.alarmed || observation.outcome != Outcome::Refused {
            return;
        }
        let time = observation.time;
        match self.kind {
            Kind::Within(number, window) => {
                self.times.push_back(time);
                if self.times.len() >= number {
                    let first = self.times.pop_front().unwrap_or(time);
                    self.alarmed = time - first <= window;
                }
            }
            Kind::Distinct(most, pause) => {
                if time.saturating_sub(self.last) > pause {
                    self.servers.clear();
                }
                self.last = time;
                self.servers.insert(observation.address);
                self.alarmed = self.servers.len() > most;
            }
        }
    }

    /// Whether it has ever gone off.
    pub(crate) fn alarmed(&self) -> bool {
        self.alarmed
    }
}
