//! The gateway's verdict: may this LAN host send this to there?

use portreeve_abi::{
    DestKey, IdKey, LAN_SUBMISSION, LanDimension, LanHeader, MODE_ENFORCE, MODE_OBSERVE, MacKey, PortKey, RULE_LOCAL,
    RULE_NONE, Reason, RuleSet, Verdict,
};

use crate::Decision;
use crate::packet::Bytes;

/// The gateway's part of a compiled policy, of one generation.
pub trait LanTables {
    /// The header; `None` when no policy is in force.
    fn header(&self) -> Option<&LanHeader>;
    /// The rules of the longest prefix that covers the source, those of shorter prefixes included.
    fn from(&self, key: &DestKey) -> Option<RuleSet>;
    /// The rules that name this MAC address, and those that leave it open.
    fn mac(&self, key: &MacKey) -> Option<RuleSet>;
    /// The rules that name this VLAN, and those that leave it open.
    fn vlan(&self, key: &IdKey) -> Option<RuleSet>;
    /// As `from`, for the destination.
    fn to(&self, key: &DestKey) -> Option<RuleSet>;
    /// The rules that name this port, and those that leave it open.
    fn port(&self, key: &PortKey) -> Option<RuleSet>;
    /// Whether an address is this host's own.
    fn is_own(&self, address: &[u8; 16]) -> bool;
}

/// A segment of a LAN host's, or what might be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanPacket {
    /// The source, IPv4 in its mapped form.
    pub source: [u8; 16],
    /// The destination, likewise.
    pub destination: [u8; 16],
    /// The destination port, host order.
    pub port: u16,
    /// The source's MAC address, zero on a device without Ethernet headers.
    pub mac: [u8; 6],
    /// See [`portreeve_abi::LanSource::vlan`].
    pub vlan: u32,
    /// It is TCP to this port, and not only something that might be.
    pub clear: bool,
}

/// The verdict for a LAN host's segment to a guarded port.
#[inline(always)]
pub fn judge_lan<T: LanTables>(tables: &T, packet: &LanPacket) -> Decision {
    let Some(header) = tables.header() else {
        return Decision { verdict: Verdict::Deny, reason: Reason::NoPolicy, rule: RULE_NONE, generation: 0, errno: 0 };
    };
    if !packet.clear {
        return refused(header, Reason::Unclear);
    }
    if header.flags & LAN_SUBMISSION != 0 && tables.is_own(&packet.destination) {
        return decision(header, Verdict::Local, Reason::Local, RULE_LOCAL);
    }
    // Without what a host on the same segment can choose for itself.
    let mut rules = satisfied_lan(tables, header, LanDimension::From, packet);
    rules = rules.and(satisfied_lan(tables, header, LanDimension::To, packet));
    rules = rules.and(satisfied_lan(tables, header, LanDimension::Port, packet));
    if rules.is_empty() {
        return refused(header, Reason::NoRule);
    }
    let rules = rules.and(satisfied_lan(tables, header, LanDimension::Vlan, packet));
    if rules.is_empty() {
        return refused(header, Reason::OtherVlan);
    }
    match rules.and(satisfied_lan(tables, header, LanDimension::Mac, packet)).lowest() {
        Some(rule) => decision(header, Verdict::Allow, Reason::Rule, rule),
        None => refused(header, Reason::OtherMac),
    }
}

/// The rules that match in one dimension.
#[inline(always)]
pub fn satisfied_lan<T: LanTables>(
    tables: &T,
    header: &LanHeader,
    dimension: LanDimension,
    packet: &LanPacket,
) -> RuleSet {
    let generation = header.generation;
    let prefix = |address: [u8; 16]| DestKey { generation: generation.to_ne_bytes(), address };
    let found = match dimension {
        LanDimension::From => tables.from(&prefix(packet.source)),
        LanDimension::Mac => tables.mac(&MacKey { generation, mac: packet.mac, _pad: 0 }),
        LanDimension::Vlan => tables.vlan(&IdKey { generation, id: packet.vlan }),
        LanDimension::To => tables.to(&prefix(packet.destination)),
        LanDimension::Port => tables.port(&PortKey { generation, port: u32::from(packet.port) }),
    };
    found.unwrap_or(header.wildcard[dimension as usize])
}

/// A refusal, or in observe mode the record of what would have been one.
#[inline(always)]
fn refused(header: &LanHeader, reason: Reason) -> Decision {
    let verdict = if header.mode == MODE_OBSERVE { Verdict::Observe } else { Verdict::Deny };
    decision(header, verdict, reason, RULE_NONE)
}

#[inline(always)]
fn decision(header: &LanHeader, verdict: Verdict, reason: Reason, rule: u32) -> Decision {
    // A header in neither mode was never written by the agent.
    let known = header.mode == MODE_ENFORCE || header.mode == MODE_OBSERVE;
    let (verdict, reason) = if known { (verdict, reason) } else { (Verdict::Deny, Reason::NoPolicy) };
    Decision { verdict, reason, rule, generation: header.generation, errno: 0 }
}

/// The VLAN of a frame with an Ethernet header: by the tag that the kernel has taken out of it, if it has (`tag`), and by
/// those that are in it. The tag of a mere priority (VLAN 0, IEEE 802.1Q §9.6) is none.
#[inline(always)]
pub fn vlan<P: Bytes + ?Sized>(frame: &P, tag: Option<u16>) -> u32 {
    let mut vlan = tag.map_or(0, |tag| u32::from(tag & 0xfff));
    for at in [12, 16] {
        match frame.get::<4>(at) {
            Some([0x81 | 0x91 | 0x92 | 0x93, 0x00, high, low]) | Some([0x88, 0xa8, high, low]) if vlan < 4096 => {
                vlan = vlan * 4096 + u32::from(u16::from_be_bytes([high, low]) & 0xfff);
            }
            _ => break,
        }
    }
    vlan
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    #[test]
    fn the_vlan_is_read_from_the_tag_outside_and_from_those_inside() {
        let frame = |tags: &[[u8; 4]]| -> Vec<u8> {
            [&[0; 12], tags.concat().as_slice(), &[8, 0, 0x45, 0, 0, 0, 0, 0]].concat()
        };
        let (q, ad) = ([0x81, 0, 0x20, 30], [0x88, 0xa8, 0x10, 100]);
        assert_eq!(vlan(&frame(&[])[..], None), 0);
        assert_eq!(vlan(&frame(&[])[..], Some(0x2005)), 5);
        assert_eq!(vlan(&frame(&[q])[..], None), 30);
        assert_eq!(vlan(&frame(&[ad, q])[..], None), 100 * 4096 + 30);
        assert_eq!(vlan(&frame(&[q])[..], Some(100)), 100 * 4096 + 30);
        // Only a priority.
        assert_eq!(vlan(&frame(&[[0x81, 0, 0x60, 0], q])[..], None), 30);
        assert_eq!(vlan(&frame(&[ad, q, q])[..], None), 100 * 4096 + 30);
        assert_eq!(vlan(&[0; 13][..], Some(7)), 7);
    }
}
