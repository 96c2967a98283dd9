//! The gateway's part of the kernel's tables.

use portreeve_abi::{
    DestKey, IdKey, LAN_ON, LAN_SUBMISSION, LanDimension, LanHeader, MacKey, PORT_WORDS, PortKey, RuleSet,
};
use portreeve_decide::LanTables;

use super::super::gateway::Gateway;
use super::super::model::Policy;
use super::{Table, destination, port_bitmap};

/// The gateway's tables of one generation.
#[derive(Clone, Debug)]
pub struct CompiledLan {
    /// What holds for it as a whole.
    pub header: LanHeader,
    /// The bitmap of ports that are guarded for LAN hosts.
    pub ports: Box<[u64; PORT_WORDS]>,
    /// Rules by source; the prefix length counts from the first bit of the generation.
    pub from: Vec<(u32, DestKey, RuleSet)>,
    /// Rules by MAC address.
    pub mac: Vec<(MacKey, RuleSet)>,
    /// Rules by VLAN.
    pub vlan: Vec<(IdKey, RuleSet)>,
    /// Rules by destination.
    pub to: Vec<(u32, DestKey, RuleSet)>,
    /// Rules by port.
    pub port: Vec<(PortKey, RuleSet)>,
    /// The names of LAN interfaces, with `*` and `?`.
    pub interfaces: Vec<String>,
    /// The name of each rule, by its number.
    pub rule_names: Vec<String>,
    /// This host's own addresses, where they are known: for `explain`. The kernel has a table of them.
    pub own: Vec<[u8; 16]>,
}

impl Default for CompiledLan {
    /// No gateway: nothing is guarded.
    fn default() -> Self {
        Self {
            header: LanHeader::default(),
            ports: Box::new([0; PORT_WORDS]),
            from: Vec::new(),
            mac: Vec::new(),
            vlan: Vec::new(),
            to: Vec::new(),
            port: Vec::new(),
            interfaces: Vec::new(),
            rule_names: Vec::new(),
            own: Vec::new(),
        }
    }
}

impl CompiledLan {
    /// Whether LAN interfaces are guarded.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.header.flags & LAN_ON != 0
    }

    /// Whether a port is guarded for LAN hosts.
    #[must_use]
    pub fn guards(&self, port: u16) -> bool {
        self.ports[usize::from(port) / 64] >> (port % 64) & 1 == 1
    }
}

/// The look-ups of the kernel, over lists.
impl LanTables for CompiledLan {
    fn header(&self) -> Option<&LanHeader> {
        (self.header.generation != 0).then_some(&self.header)
    }

    fn from(&self, key: &DestKey) -> Option<RuleSet> {
        destination::longest(&self.from, key)
    }

    fn mac(&self, key: &MacKey) -> Option<RuleSet> {
        self.mac.iter().find(|(found, _)| found == key).map(|(_, rules)| *rules)
    }

    fn vlan(&self, key: &IdKey) -> Option<RuleSet> {
        self.vlan.iter().find(|(found, _)| found == key).map(|(_, rules)| *rules)
    }

    fn to(&self, key: &DestKey) -> Option<RuleSet> {
        destination::longest(&self.to, key)
    }

    fn port(&self, key: &PortKey) -> Option<RuleSet> {
        self.port.iter().find(|(found, _)| found == key).map(|(_, rules)| *rules)
    }

    fn is_own(&self, address: &[u8; 16]) -> bool {
        self.own.contains(address)
    }
}

/// Makes the gateway's tables; without `[gateway]` those of no guard.
pub(super) fn lan(policy: &Policy, generation: u32) -> CompiledLan {
    let Some(gateway) = &policy.gateway else {
        let header = LanHeader { generation, mode: policy.guard.mode.abi(), ..LanHeader::default() };
        return CompiledLan { header, ..CompiledLan::default() };
    };
    let (mut macs, mut vlans, mut ports) = (Table::default(), Table::default(), Table::default());
    for (index, rule) in gateway.rules.iter().enumerate() {
        let mac_key = |mac: &crate::host::Mac| MacKey { generation, mac: mac.0, _pad: 0 };
        macs.add(index, some(&rule.mac, mac_key));
        vlans.add(index, some(&rule.vlan, |vlan| IdKey { generation, id: *vlan }));
        let named: Vec<u16> = rule.ports.iter().copied().collect();
        ports.add(index, some(&named, |port| PortKey { generation, port: u32::from(*port) }));
    }
    let networks = |from: bool| {
        gateway.rules.iter().enumerate().map(move |(index, rule)| {
            let list = if from { &rule.from } else { &rule.to };
            let networks = list.iter().map(|network| network.value).collect::<Vec<_>>();
            // A rule without a source matches nothing: a checked policy has none.
            (index, (from || !networks.is_empty()).then_some(networks))
        })
    };
    let (from, from_open) = destination::prefixes(generation, networks(true));
    let (to, to_open) = destination::prefixes(generation, networks(false));
    let mut wildcard = [RuleSet::EMPTY; LanDimension::ALL.len()];
    for (dimension, open) in [
        (LanDimension::From, from_open),
        (LanDimension::Mac, macs.open),
        (LanDimension::Vlan, vlans.open),
        (LanDimension::To, to_open),
        (LanDimension::Port, ports.open),
    ] {
        wildcard[dimension as usize] = open;
    }
    CompiledLan {
        header: header(policy, gateway, generation, wildcard),
        ports: port_bitmap(gateway.ports.as_ref().unwrap_or(&policy.guard.ports)),
        from,
        mac: macs.finish(),
        vlan: vlans.finish(),
        to,
        port: ports.finish(),
        interfaces: gateway.lan.iter().map(|name| name.value.clone()).collect(),
        rule_names: gateway.rules.iter().enumerate().map(|(index, rule)| rule.title(index)).collect(),
        own: Vec::new(),
    }
}

fn header(policy: &Policy, gateway: &Gateway, generation: u32, wildcard: [RuleSet; 5]) -> LanHeader {
    LanHeader {
        generation,
        mode: gateway.mode.unwrap_or(policy.guard.mode).abi(),
        refuse: gateway.refuse_with.abi(),
        flags: LAN_ON | if gateway.local_submission { LAN_SUBMISSION } else { 0 },
        sources: gateway.sources,
        _pad: 0,
        wildcard,
    }
}

/// Keys of a list; none of a list that says nothing.
fn some<T, K>(list: &[T], key: impl Fn(&T) -> K) -> Option<Vec<K>> {
    (!list.is_empty()).then(|| list.iter().map(key).collect())
}
