//! `[gateway]`: what is wrong with it is said where it stands, and its tables say what its rules mean.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use portreeve_abi::{LAN_PROHIBITED, MODE_ENFORCE, MODE_OBSERVE, RULE_LOCAL, Reason, Verdict};
use portreeve_decide::{LanPacket, judge_lan, mapped};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::{Compiled, CompiledLan, Resolved, compile, load_text};
use crate::clock::Clock;

const NETWORKS: [&str; 8] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/24",
    "10.0.0.25/32",
    "::/0",
    "2001:db8::/32",
    "2001:db8::25/128",
    "203.0.113.0/24",
];
const ADDRESSES: [&str; 7] =
    ["10.0.0.25", "10.0.0.26", "10.1.0.1", "203.0.113.5", "2001:db8::25", "2001:db8::26", "fd00::1"];
const MACS: [&str; 3] = ["02:00:00:00:00:01", "02:00:00:00:00:02", "00:1b:21:0a:0b:0c"];
const VLANS: [&str; 3] = ["30", "31", "100.30"];
/// An address of the gateway's own.
const OWN: &str = "10.0.0.1";

fn sixteen(address: &str) -> [u8; 16] {
    match address.parse().unwrap() {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn compiled(text: &str) -> Compiled {
    let loaded = load_text(Path::new("portreeve.toml"), text.to_owned());
    let errors: Vec<String> = loaded.diagnostics.iter().filter(|d| d.is_error()).map(ToString::to_string).collect();
    assert_eq!(errors, [""; 0], "{text}");
    compile(&loaded.policy.unwrap(), &Resolved::default(), 7, Clock::now()).unwrap()
}

fn lan(text: &str) -> CompiledLan {
    CompiledLan { own: vec![sixteen(OWN)], ..compiled(text).lan }
}

fn findings(text: &str) -> Vec<String> {
    let found = load_text(Path::new("portreeve.toml"), text.to_owned()).diagnostics;
    found.iter().map(|found| format!("{}:{} {}", found.line, found.column, found.what)).collect()
}

/// What one rule means.
#[derive(Clone, Debug)]
struct Meaning {
    from: Vec<&'static str>,
    mac: Vec<&'static str>,
    vlan: Vec<&'static str>,
    to: Vec<&'static str>,
    ports: Vec<u16>,
}

impl Meaning {
    fn text(&self) -> String {
        let texts = |list: &[&str]| list.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ");
        let mut text = format!("[[gateway.allow]]\nfrom = [{}]\n", texts(&self.from));
        let mac = if self.mac.is_empty() { "\"any\"".to_owned() } else { format!("[{}]", texts(&self.mac)) };
        text.push_str(&format!("mac = {mac}\n"));
        for (key, list) in [("vlan", &self.vlan), ("to", &self.to)] {
            if !list.is_empty() {
                text.push_str(&format!("{key} = [{}]\n", texts(list)));
            }
        }
        if !self.ports.is_empty() {
            text.push_str(&format!("ports = {:?}\n", self.ports));
        }
        text
    }

    fn covers(list: &[&str], address: &str) -> bool {
        let address: IpAddr = address.parse().unwrap();
        list.iter().any(|network| network.parse::<IpNet>().unwrap().contains(&address))
    }

    /// Without MAC address and VLAN, with the VLAN, and with both.
    fn matches(&self, packet: &Sent) -> [bool; 3] {
        let there = Self::covers(&self.from, packet.source)
            && (self.to.is_empty() || Self::covers(&self.to, packet.destination))
            && (self.ports.is_empty() || self.ports.contains(&packet.port));
        let vlan = self.vlan.is_empty() || packet.vlan.is_some_and(|vlan| self.vlan.contains(&vlan));
        let mac = self.mac.is_empty() || self.mac.contains(&packet.mac);
        [there, there && vlan, there && vlan && mac]
    }
}

#[derive(Clone, Debug)]
struct Sent {
    source: &'static str,
    destination: &'static str,
    port: u16,
    mac: &'static str,
    vlan: Option<&'static str>,
}

impl Sent {
    fn packet(&self) -> LanPacket {
        let mac: crate::host::Mac = self.mac.parse().unwrap();
        LanPacket {
            source: sixteen(self.source),
            destination: sixteen(self.destination),
            port: self.port,
            mac: mac.0,
            vlan: self.vlan.map_or(0, |vlan| super::super::parse_vlan(vlan).unwrap()),
            clear: true,
        }
    }
}

fn meanings() -> impl Strategy<Value = Meaning> {
    let some = |all: &'static [&'static str], most| subsequence(all, 0..=most);
    (
        subsequence(&NETWORKS[..], 1..=3),
        some(&MACS, 2),
        some(&VLANS, 2),
        some(&NETWORKS, 2),
        subsequence(vec![25, 587], 0..=2),
    )
        .prop_map(|(from, mac, vlan, to, ports)| Meaning { from, mac, vlan, to, ports })
}

fn sent() -> impl Strategy<Value = Sent> {
    let vlan = prop_oneof![Just(None), select(&VLANS[..]).prop_map(Some)];
    (select(&ADDRESSES[..]), select(&ADDRESSES[..]), select(vec![25, 587]), select(&MACS[..]), vlan)
        .prop_map(|(source, destination, port, mac, vlan)| Sent { source, destination, port, mac, vlan })
}

proptest! {
    #[test]
    fn the_tables_say_what_the_rules_mean(
        rules in proptest::collection::vec(meanings(), 0..8), sent in proptest::collection::vec(sent(), 16),
    ) {
        let rules_text: String = rules.iter().map(Meaning::text).collect();
        let tables = lan(&format!("[gateway]\nlan = \"lan0\"\nports = [25, 587]\n{rules_text}"));
        for sent in sent {
            let decision = judge_lan(&tables, &sent.packet());
            let matches: Vec<_> = rules.iter().map(|rule| rule.matches(&sent)).collect();
            let any = |place: usize| matches.iter().any(|rule| rule[place]);
            let expected = if any(2) {
                Reason::Rule
            } else if any(1) {
                Reason::OtherMac
            } else if any(0) {
                Reason::OtherVlan
            } else {
                Reason::NoRule
            };
            prop_assert_eq!(decision.reason, expected, "{:?}", sent);
            prop_assert_eq!(decision.verdict == Verdict::Allow, any(2));
            let first = matches.iter().position(|rule| rule[2]);
            prop_assert!(first.is_none_or(|first| decision.rule as usize == first));
        }
    }
}

#[test]
fn without_a_gateway_nothing_is_guarded_for_lan_hosts() {
    let tables = lan("[guard]\nports = [25]\n");
    assert!(!tables.is_on() && !tables.guards(25) && tables.interfaces.is_empty());
}

#[test]
fn what_is_not_said_is_as_on_the_host() {
    let tables = lan("[guard]\nmode = \"observe\"\nports = [25, 587]\n[gateway]\nlan = [\"lan*\", \"wg0\"]\n");
    assert!(tables.is_on() && tables.guards(587) && tables.header.mode == MODE_OBSERVE);
    assert_eq!(tables.interfaces, ["lan*", "wg0"]);
    let other = lan("[guard]\nmode = \"observe\"\n[gateway]\nlan = \"lan0\"\nmode = \"enforce\"\nports = [465]\n\
                     refuse_with = \"icmp-prohibited\"\nsources = 50\n");
    assert!(other.guards(465) && !other.guards(25));
    assert_eq!((other.header.mode, other.header.refuse, other.header.sources), (MODE_ENFORCE, LAN_PROHIBITED, 50));
}

#[test]
fn the_gateways_own_addresses_take_mail_unless_the_policy_says_otherwise() {
    let to_own = LanPacket {
        source: sixteen("10.0.0.23"),
        destination: sixteen(OWN),
        port: 25,
        mac: [2, 0, 0, 0, 0, 1],
        vlan: 0,
        clear: true,
    };
    let decision = judge_lan(&lan("[gateway]\nlan = \"lan0\"\n"), &to_own);
    assert_eq!((decision.verdict, decision.reason, decision.rule), (Verdict::Local, Reason::Local, RULE_LOCAL));
    let tables = lan("[gateway]\nlan = \"lan0\"\nlocal_submission = \"deny\"\n");
    assert_eq!(judge_lan(&tables, &to_own).reason, Reason::NoRule);
    // What cannot be followed to its ports is nobody's mail.
    let unclear = LanPacket { clear: false, ..to_own };
    assert_eq!(judge_lan(&lan("[gateway]\nlan = \"lan0\"\n"), &unclear).verdict, Verdict::Deny);
    let observed = judge_lan(&lan("[gateway]\nlan = \"lan0\"\nmode = \"observe\"\n"), &unclear);
    assert_eq!((observed.verdict, observed.reason), (Verdict::Observe, Reason::Unclear));
}

#[test]
fn every_mistake_is_shown_where_it_stands() {
    let found = findings(
        "[gateway]\nlan = [\"lan0\", \"a/b\"]\nrefuse_with = \"rst\"\nsources = 0\nleases = [\"leases\"]\nreverse_dns = \"ns.lan\"\n\
         [[gateway.allow]]\nmac = \"01:00:5e:00:00:01\"\nvlan = [0, 4095, \"1.2.3\"]\nports = [25]\n\
         [[gateway.allow]]\nfrom = \"10.0.0.300\"\nmac = \"any\"\nunit = \"x\"\n\
         [[gateway.host]]\nname = \"printer\"\n\
         [[gateway.host]]\nname = \"printer\"\nmac = \"02-00\"\naddress = \"x\"\n",
    );
    let expected = [
        "2:16 \"a/b\" is no name of an interface",
        "3:15 \"rst\" is no value of \"refuse_with\"",
        "4:11 \"sources\" is 0, not from 1 to 12000",
        "5:11 \"leases\" is no absolute path",
        "6:15 \"ns.lan\" is no address",
        "7:1 a rule of the gateway needs \"from\"",
        "8:7 01:00:5e:00:00:01 is the address of a group, and no host's",
        "9:9 \"0\" is no VLAN",
        "9:12 \"4095\" is no VLAN",
        "9:18 \"1.2.3\" is no VLAN",
        "12:8 \"10.0.0.300\" is no network",
        "14:1 unknown key \"unit\" in [[gateway.allow]]",
        "15:1 a host needs \"name\", and \"mac\" or \"address\"",
        "19:7 \"02-00\" is no MAC address",
        "20:11 \"x\" is no address",
    ];
    for line in expected {
        assert!(found.iter().any(|found| found == line), "{line}\n{found:#?}");
    }
    assert!(findings("[gateway]\nmode = \"enforce\"\n").iter().any(|found| found == "1:1 [gateway] has no \"lan\""));
    let found = findings("[gateway]\nlan = \"lan0\"\nforget = 60\n");
    assert_eq!(found, ["3:10 \"forget\" has no unit: 60"]);
}

#[test]
fn a_rule_without_a_mac_address_and_ports_that_are_open_to_all_are_warned_of() {
    let found = findings("[gateway]\nlan = \"lan0\"\n[[gateway.allow]]\nfrom = \"10.0.0.25\"\nports = [587]\n");
    assert!(found.iter().any(|found| found.starts_with("3:1 this rule names no \"mac\"")), "{found:?}");
    assert!(found.iter().any(|found| found.ends_with("open to all LAN hosts: 587")), "{found:?}");
}

#[test]
fn two_rules_of_one_name_and_more_than_the_kernel_holds_are_errors() {
    let rule = "[[gateway.allow]]\nname = \"a\"\nfrom = \"10.0.0.25\"\nmac = \"any\"\n";
    let found = findings(&format!("[gateway]\nlan = \"lan0\"\n{rule}{rule}"));
    assert!(found.iter().any(|found| found.contains("\"a\" is taken by another rule")), "{found:?}");
    let many: String = (0..257)
        .map(|n| format!("[[gateway.allow]]\nfrom = \"10.0.{}.{}\"\nmac = \"any\"\n", n / 256, n % 256))
        .collect();
    let found = findings(&format!("[gateway]\nlan = \"lan0\"\n{many}"));
    assert!(found.iter().any(|found| found.contains("there are 257 rules of the gateway")), "{found:?}");
}
