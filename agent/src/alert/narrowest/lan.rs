//! The narrowest rule for a host of the LAN.

use ipnet::IpNet;

use super::{NoRule, Towards, Wishes};
use crate::alert::Alert;
use crate::policy::edit::NewLanRule;

/// More addresses of one card than a host has.
const SEVERAL: u32 = 8;

/// A rule of the gateway, and what its author should know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct NarrowestLan {
    /// The rule.
    pub rule: NewLanRule,
    /// What it lets pass beyond what was seen, and what it does not; each a sentence without its end.
    pub notes: Vec<String>,
}

/// The narrowest rule that lets pass what an alert has seen of a LAN host: its address, its card, its VLAN, the
/// destinations and ports.
///
/// # Errors
///
/// When no rule would be safe.
pub fn narrowest_lan(alert: &Alert, wishes: &Wishes) -> Result<NarrowestLan, NoRule> {
    let attempt = alert.worst.as_ref().ok_or(NoRule::NoAttempt)?;
    let address = attempt.source.map(|source| source.ip().to_canonical()).ok_or(NoRule::NoAddress)?;
    let another = |what| NoRule::Another { address: address.to_string(), what };
    match attempt.reason.as_str() {
        "other-mac" => return Err(another("not from this MAC address")),
        "other-vlan" => return Err(another("not in this VLAN")),
        "unclear" => return Err(NoRule::Unclear),
        _that_a_rule_mends => {}
    }
    let Towards { to, ports, mut notes } = Towards::of(alert, wishes)?;
    if attempt.mac.is_none() {
        notes.push("its frames have no MAC address: whoever takes the address on that link may send".to_owned());
    }
    match attempt.mac_addresses {
        0 | 1 => {}
        few if few <= SEVERAL => notes.push(format!("of the {few} addresses of its card {address} alone is allowed")),
        many => notes.push(format!(
            "its card has lately had {many} addresses: it may be a router, and any host behind it can take {address}"
        )),
    }
    let rule = NewLanRule {
        comment: None,
        name: attempt.host.as_ref().map_or_else(|| address.to_string(), |host| host.name.clone()),
        from: vec![IpNet::from(address)],
        mac: attempt.mac,
        vlan: attempt.vlan.clone(),
        to,
        ports,
    };
    Ok(NarrowestLan { rule, notes })
}
