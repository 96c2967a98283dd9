//! Portreeve's verdict as a pure function.
//!
//! The same code runs in the kernel programs (tables are BPF maps), in `portreeve explain` (tables are vectors) and in
//! property tests. It reads no clock, allocates nothing, and has no branch that ends in "allow" without a rule.

#![no_std]
#![forbid(unsafe_code)]

mod address;
pub mod answer;
mod lan;
pub mod packet;
mod verdict;

pub use address::{is_local, mapped};
pub use lan::{LanPacket, LanTables, judge_lan, satisfied_lan, vlan};
pub use verdict::{
    CgroupNames, Decision, Flow, Identity, Sender, Tables, judge, judge_packet, judge_raw_sender, matched, relayed,
    satisfied,
};
