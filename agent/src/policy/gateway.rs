//! `[gateway]`: what holds for the hosts behind this one.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use portreeve_abi::{LAN_DROP, LAN_PROHIBITED, LAN_RESET};

use super::diagnostic::{Located, Place};
use super::model::Mode;
use crate::host::Mac;

/// How LAN hosts are guarded.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Where the table stands.
    pub place: Place,
    /// The names of LAN interfaces, with `*` and `?`.
    pub lan: Vec<Located<String>>,
    /// Whether anything is refused; as on this host unless it says so.
    pub mode: Option<Mode>,
    /// The guarded ports; as on this host unless it says so.
    pub ports: Option<BTreeSet<u16>>,
    /// What a refused host gets.
    pub refuse_with: Answer,
    /// Whether LAN hosts may hand mail to this host's own addresses.
    pub local_submission: bool,
    /// How many sources are counted one by one.
    pub sources: u32,
    /// How long a source that does not try keeps its own count.
    pub forget: Duration,
    /// The rules, in order: the first that matches decides.
    pub rules: Vec<LanRule>,
    /// Hosts by name.
    pub hosts: Vec<NamedHost>,
    /// Files of DHCP servers.
    pub leases: Vec<Located<PathBuf>>,
    /// The resolvers that are asked for the names of addresses; none for no such questions.
    pub reverse_dns: Vec<std::net::IpAddr>,
}

/// The most sources that are counted one by one: the rest of the kernel's table is for networks.
pub const MOST_SOURCES: u32 = 12_000;

impl Default for Gateway {
    fn default() -> Self {
        Self {
            place: Place::default(),
            lan: Vec::new(),
            mode: None,
            ports: None,
            refuse_with: Answer::Reset,
            local_submission: true,
            sources: 10_000,
            forget: Duration::from_secs(3600),
            rules: Vec::new(),
            hosts: Vec::new(),
            leases: Vec::new(),
            reverse_dns: Vec::new(),
        }
    }
}

impl Gateway {
    /// Its rules, in words.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        self.rules.iter().enumerate().map(|(index, rule)| rule.describe(index)).collect()
    }
}

/// What a refused LAN host gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A TCP reset, as from a host without a mail server.
    Reset,
    /// "Administratively prohibited", by ICMP.
    IcmpProhibited,
    /// Nothing: it waits until it gives up.
    Drop,
}

impl Answer {
    /// The number in the gateway's header.
    #[must_use]
    pub fn abi(self) -> u32 {
        match self {
            Self::Reset => LAN_RESET,
            Self::IcmpProhibited => LAN_PROHIBITED,
            Self::Drop => LAN_DROP,
        }
    }

    /// The word in the policy.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::IcmpProhibited => "icmp-prohibited",
            Self::Drop => "drop",
        }
    }
}

/// One `[[gateway.allow]]`: all that is said of it must hold, of each list one element. An empty list says nothing.
#[derive(Clone, Debug, Default)]
pub struct LanRule {
    /// Its name, if it has one.
    pub name: Option<Located<String>>,
    /// Where it begins.
    pub place: Place,
    /// Sources; never empty in a checked policy.
    pub from: Vec<Located<IpNet>>,
    /// MAC addresses of the sources.
    pub mac: Vec<Mac>,
    /// Destinations.
    pub to: Vec<Located<IpNet>>,
    /// Destination ports.
    pub ports: BTreeSet<u16>,
    /// VLANs, as [`portreeve_abi::LanSource::vlan`] numbers them.
    pub vlan: Vec<u32>,
}

impl LanRule {
    /// What it is called: by its name, or by its number among the gateway's rules.
    #[must_use]
    pub fn title(&self, index: usize) -> String {
        self.name.as_ref().map_or_else(|| format!("gateway-{}", index + 1), |name| name.value.clone())
    }

    fn describe(&self, index: usize) -> String {
        let mut text = format!("{}: from {}", self.title(index), joined(self.from.iter().map(|from| from.value)));
        if !self.mac.is_empty() {
            text.push_str(&format!(" ({})", joined(&self.mac)));
        }
        if !self.vlan.is_empty() {
            text.push_str(&format!(" in VLAN {}", joined(self.vlan.iter().map(|vlan| vlan_text(*vlan)))));
        }
        if !self.to.is_empty() {
            text.push_str(&format!(" to {}", joined(self.to.iter().map(|to| to.value))));
        }
        if !self.ports.is_empty() {
            text.push_str(&format!(", TCP {}", joined(&self.ports)));
        }
        text
    }
}

fn joined<T: ToString>(parts: impl IntoIterator<Item = T>) -> String {
    parts.into_iter().map(|part| part.to_string()).collect::<Vec<_>>().join(", ")
}

/// One `[[gateway.host]]`: what a LAN host is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedHost {
    /// Its name.
    pub name: String,
    /// Its MAC addresses.
    pub mac: Vec<Mac>,
    /// Its addresses.
    pub address: Vec<std::net::IpAddr>,
}

/// A VLAN as people write it: `30`, or `100.30` with two tags, the outer one's first.
#[must_use]
pub fn vlan_text(vlan: u32) -> String {
    match (vlan / 4096, vlan % 4096) {
        (0, one) => one.to_string(),
        (outer, inner) => format!("{outer}.{inner}"),
    }
}

/// Reads one.
#[must_use]
pub fn parse_vlan(text: &str) -> Option<u32> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| (1..4095).contains(number));
    match text.split_once('.') {
        None => number(text),
        Some((outer, inner)) => Some(number(outer)? * 4096 + number(inner)?),
    }
}
