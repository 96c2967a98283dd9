//! What of this host the policy's `[gateway]` is about, and what on it makes less of that.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Finding, bad, good, note};
use crate::control::{Client, Request};
use crate::host::lease::{LeaseFile, LeaseReader};
use crate::host::{Link, links};
use crate::instance::Instance;
use crate::policy::{self, Gateway, matches};

/// Routes of IPv4: device, destination, …, mask in the eighth column (Documentation/networking, `fib_route_seq_show`).
const ROUTES: &str = "/proc/thread-self/net/route";
/// Routes of IPv6: destination and its length first, the device last (net/ipv6/ip6_fib.c, `ipv6_route_native_seq_show`).
const ROUTES_V6: &str = "/proc/thread-self/net/ipv6_route";

/// Looks at what a policy's `[gateway]` needs; at nothing where the policy has none.
pub(super) fn examine(instance: &Instance, config: &Path) -> Vec<Finding> {
    let loaded = policy::load(config);
    let Some(gateway) = &loaded.draft.gateway else { return Vec::new() };
    let links = match links() {
        Ok(links) => links,
        Err(error) => return vec![bad("LAN interfaces", error.to_string(), "run it as root, on the gateway itself")],
    };
    let lan = matched(gateway, &links);
    let mut findings: Vec<Finding> = gateway.lan.iter().map(|pattern| devices(&pattern.value, &links)).collect();
    findings.extend(attached(instance, &lan));
    findings.extend(outside(&lan, &default_devices()));
    findings.extend(forwarding(&lan));
    findings.extend(bridges(&lan, &links));
    findings.extend(offload(&lan));
    let anonymous = loaded.diagnostics.iter().filter(|found| found.what.contains("names no \"mac\"")).count();
    if anonymous > 0 {
        let found =
            format!("{anonymous} of the rules of [gateway] name no \"mac\": any host of the segment can use them");
        findings.push(note("MAC addresses", found, Some("portreeve check shows which they are")));
    }
    findings.extend(gateway.leases.iter().map(|file| leases(&file.value)));
    findings
}

/// The LAN interfaces that there are.
fn matched<'l>(gateway: &Gateway, links: &'l [Link]) -> Vec<&'l Link> {
    let is_lan = |link: &&Link| gateway.lan.iter().any(|pattern| matches(&pattern.value, &link.name));
    links.iter().filter(is_lan).collect()
}

/// The devices of one pattern.
fn devices(pattern: &str, links: &[Link]) -> Finding {
    let found = links.iter().filter(|link| matches(pattern, &link.name));
    let names: Vec<String> =
        found.map(|link| if link.up { link.name.clone() } else { format!("{} (down)", link.name) }).collect();
    match names.is_empty() {
        false => good("LAN interfaces", format!("\"{pattern}\" is {}", names.join(", "))),
        true => note(
            "LAN interfaces",
            format!("\"{pattern}\" matches no device: nothing is guarded by it until one comes"),
            Some("correct gateway.lan, or bring the device up; ip -br link shows what there is"),
        ),
    }
}

/// Whether the running agent's programs are on all of them.
fn attached(instance: &Instance, lan: &[&Link]) -> Option<Finding> {
    let status = Client::ask(&instance.socket(), &Request::Status).and_then(Client::answer).ok()?;
    let hook = status["hooks"].as_array()?.iter().find(|hook| hook["name"] == "lan")?;
    let by = hook["by"].as_str().unwrap_or_default();
    let on: BTreeSet<&str> = by.split([' ', ',', ';']).filter(|word| !word.is_empty()).collect();
    let bare: Vec<&str> = lan.iter().map(|link| link.name.as_str()).filter(|name| !on.contains(name)).collect();
    Some(match bare.is_empty() {
        true => good("gateway guard", by.to_owned()),
        false => bad(
            "gateway guard",
            format!("the agent's programs are not on {}", bare.join(", ")),
            "portreeve reload, and see why in portreeve status if that does not help",
        ),
    })
}

/// LAN interfaces that lead to the Internet, or to this host itself.
fn outside(lan: &[&Link], defaults: &BTreeSet<String>) -> Vec<Finding> {
    let wrong = lan.iter().filter_map(|link| {
        let why = match link.name.as_str() {
            "lo" => "lo is this host's own: its programs are judged by [[allow]]".to_owned(),
            name if defaults.contains(name) => {
                format!("{name} has the default route: what comes in from the Internet would be judged as a LAN host's")
            }
            _inside => return None,
        };
        Some(note("LAN interfaces", why, Some("name the devices inside alone in gateway.lan")))
    });
    wrong.collect()
}

/// The devices of the default routes.
fn default_devices() -> BTreeSet<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    defaults_v4(&read(ROUTES)).into_iter().chain(defaults_v6(&read(ROUTES_V6))).collect()
}

fn defaults_v4(table: &str) -> Vec<String> {
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines
        .filter(|columns| columns.get(1) == Some(&"00000000") && columns.get(7) == Some(&"00000000"))
        .filter_map(|columns| columns.first().map(|device| (*device).to_owned()))
        .collect()
}

fn defaults_v6(table: &str) -> Vec<String> {
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // The kernel has an entry by lo for what it cannot reach.
    lines
        .filter(|columns| columns.first().is_some_and(|to| to.bytes().all(|digit| digit == b'0')))
        .filter(|columns| columns.get(1) == Some(&"00") && columns.last() != Some(&"lo"))
        .filter_map(|columns| columns.last().map(|device| (*device).to_owned()))
        .collect()
}

/// Whether this host forwards at all.
fn forwarding(lan: &[&Link]) -> Option<Finding> {
    let on = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() != "0");
    let (v4, v6) = (on("/proc/sys/net/ipv4/ip_forward"), on("/proc/sys/net/ipv6/conf/all/forwarding"));
    let bridged = lan.iter().any(|link| link.master.is_some() || link.kind.as_deref() == Some("bridge"));
    match (v4, v6) {
        (true, true) => Some(good("forwarding", "IPv4 and IPv6")),
        (true, false) => Some(good("forwarding", "IPv4")),
        (false, true) => Some(good("forwarding", "IPv6")),
        (false, false) if bridged => Some(good("forwarding", "none; frames are bridged")),
        (false, false) => Some(note(
            "forwarding",
            "off for IPv4 and IPv6, and no LAN interface is bridged: hosts behind this one cannot send through it",
            Some("sysctl -w net.ipv4.ip_forward=1, if it is to be a gateway"),
        )),
    }
}

/// Bridges of which a part is guarded.
fn bridges(lan: &[&Link], links: &[Link]) -> Vec<Finding> {
    let is_lan = |index: u32| lan.iter().any(|link| link.index == index);
    let mut findings = Vec::new();
    for bridge in links.iter().filter(|link| link.kind.as_deref() == Some("bridge")) {
        let ports = links.iter().filter(|link| link.master == Some(bridge.index));
        let (inside, others): (Vec<&Link>, Vec<&Link>) = ports.partition(|port| is_lan(port.index));
        let names = |ports: &[&Link]| ports.iter().map(|port| port.name.clone()).collect::<Vec<_>>().join(", ");
        if is_lan(bridge.index) && inside.is_empty() && others.len() > 1 {
            findings.push(note(
                "bridges",
                format!(
                    "{} is a LAN interface and its ports ({}) are not: frames from port to port are not judged there",
                    bridge.name,
                    names(&others)
                ),
                Some("if the way to the Internet is one of the ports, name those of the LAN's side in gateway.lan instead"),
            ));
        }
        if !is_lan(bridge.index) && !inside.is_empty() && !others.is_empty() {
            findings.push(note(
                "bridges",
                format!(
                    "of {} the ports {} are not LAN interfaces: hosts behind them are not guarded",
                    bridge.name,
                    names(&others)
                ),
                Some("name them in gateway.lan as well, unless they lead to the Internet"),
            ));
        }
    }
    findings
}

/// Hardware that forwards without the kernel seeing the packets.
fn offload(lan: &[&Link]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let ruleset = Command::new("nft").args(["list", "flowtables"]).output();
    let ruleset = ruleset.map(|shown| String::from_utf8_lossy(&shown.stdout).into_owned()).unwrap_or_default();
    if ruleset.contains("flags offload") {
        findings.push(note(
            "offload",
            "a flowtable of nftables hands connections to the hardware: a rule that is taken out does not end those",
            Some("take \"flags offload\" out of the flowtable; a flowtable in software is no harm"),
        ));
    }
    let on_a_switch = |link: &&&Link| {
        // Only a device that is a switch chip's port has something to read there (Documentation/ABI, sysfs-class-net).
        fs::read(format!("/sys/class/net/{}/phys_switch_id", link.name)).is_ok_and(|id| !id.is_empty())
    };
    let chips: Vec<&str> =
        lan.iter().filter(|link| link.master.is_some()).filter(on_a_switch).map(|link| link.name.as_str()).collect();
    if !chips.is_empty() {
        findings.push(note(
            "offload",
            format!("{} are ports of a switch chip, which bridges by itself what no program sees", chips.join(", ")),
            Some("see that the way to the Internet is routed by this host, not bridged by the chip"),
        ));
    }
    findings
}

/// Whether a lease file can be read.
fn leases(path: &Path) -> Finding {
    let report = LeaseReader::new(vec![LeaseFile { path: path.to_owned(), kind: None }]).changed().unwrap_or_default();
    match report.troubles.first() {
        None => good("leases", format!("{} in {}", report.leases.len(), path.display())),
        Some(trouble) => {
            note("leases", trouble.clone(), Some("correct gateway.leases; hosts go without these names until then"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: &str, master: Option<u32>) -> Link {
        Link {
            index,
            name: name.into(),
            kind: Some(kind.into()),
            hardware: 1,
            master,
            peer: None,
            peer_netns: None,
            vlan: None,
            address: None,
            up: true,
        }
    }

    #[test]
    fn default_routes_are_found_and_the_unreachable_one_is_none() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
                  wan0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  lan0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                  tun0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000080\t0\t0\t0\n";
        assert_eq!(defaults_v4(v4), ["wan0"]);
        let zero = "0".repeat(32);
        let line = |to: &str, length: &str, device: &str| {
            format!("{to} {length} {zero} 00 {zero} 00000400 00000001 00000000 00450003 {device}\n")
        };
        let lan = format!("fd09{}", &zero[4..]);
        let v6 = [line(&zero, "00", "wan0"), line(&lan, "40", "lan0"), line(&zero, "00", "lo")].concat();
        assert_eq!(defaults_v6(&v6), ["wan0"]);
    }

    #[test]
    fn a_bridge_that_is_guarded_in_part_is_told_by_the_part_that_is_not() {
        let links = [
            link(2, "br0", "bridge", None),
            link(3, "p0", "veth", Some(2)),
            link(4, "p1", "veth", Some(2)),
            link(5, "wan0", "veth", None),
        ];
        let found = |lan: &[usize]| {
            let lan: Vec<&Link> = lan.iter().map(|place| &links[*place]).collect();
            bridges(&lan, &links).into_iter().map(|finding| finding.found).collect::<Vec<_>>()
        };
        assert!(found(&[0])[0].contains("br0 is a LAN interface and its ports (p0, p1) are not"), "{:?}", found(&[0]));
        assert!(found(&[1])[0].contains("of br0 the ports p1 are not"), "{:?}", found(&[1]));
        assert!(found(&[1, 2]).is_empty() && found(&[3]).is_empty() && found(&[0, 1, 2]).is_empty());
        let outside = outside(&[&links[3], &links[1]], &BTreeSet::from(["wan0".to_owned()]));
        assert!(outside.len() == 1 && outside[0].found.starts_with("wan0 has the default route"), "{outside:?}");
    }
}
