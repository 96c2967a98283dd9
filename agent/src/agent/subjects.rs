//! The kernel's exact counters, subject by subject, with the names that are known.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use ipnet::IpNet;
use jiff::Timestamp;
use portreeve_abi::{LanSource, SubjectCount, SubjectKey};
use serde::{Deserialize, Serialize};

use super::Agent;
use crate::clock::Clock;
use crate::host::{HostName, Mac};
use crate::policy::vlan_text;

/// One subject and what was counted for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The executable's path, where an attempt of it is still remembered.
    pub exe: Option<String>,
    /// The executable's inode number.
    pub exe_inode: u64,
    /// The executable's device, as the kernel numbers it.
    pub exe_device: u32,
    /// The effective user.
    pub euid: u32,
    /// The effective user's name.
    pub user: Option<String>,
    /// The cgroup's id.
    pub cgroup_id: u64,
    /// The cgroup's path, where an attempt of it is still remembered.
    pub cgroup: Option<String>,
    /// Attempts allowed by a rule.
    pub allowed: u64,
    /// Attempts refused.
    pub refused: u64,
    /// Attempts that passed and would have been refused.
    pub observed: u64,
    /// Mail handed to this host's own loopback.
    pub local: u64,
    /// The first attempt.
    pub first: Timestamp,
    /// The last attempt.
    pub last: Timestamp,
    /// The LAN host, in place of a program.
    #[serde(default)]
    pub host: Option<HostSubject>,
}

/// A LAN host, or a network of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSubject {
    /// Its address, or a network's: the kernel counts by networks what is beyond `gateway.sources`.
    pub address: IpNet,
    /// Its MAC address.
    pub mac: Option<Mac>,
    /// The VLAN.
    pub vlan: Option<String>,
    /// The interface behind which it is.
    pub interface: Option<String>,
    /// What it is called.
    pub name: Option<HostName>,
}

impl Agent {
    /// Every subject that the kernel counts for, the most refused first.
    ///
    /// # Errors
    ///
    /// When the counters cannot be read.
    pub fn subjects(&mut self) -> Result<Vec<Subject>, String> {
        let counted = self.guard.subjects().map_err(|error| error.to_string())?;
        let (mut programs, mut cgroups) = (HashMap::new(), HashMap::new());
        for attempt in self.attempts.since(None) {
            programs.insert((attempt.exe_device, attempt.exe_inode), attempt.exe.clone());
            cgroups.insert(attempt.cgroup_id, attempt.cgroup.clone());
        }
        let clock = Clock::now();
        let mut subjects: Vec<Subject> = counted
            .into_iter()
            .map(|(SubjectKey { ino, cgroup, dev, euid }, count)| {
                let [allowed, refused, observed, local] = count.verdicts;
                Subject {
                    exe: programs.get(&(dev, ino)).cloned().flatten(),
                    exe_inode: ino,
                    exe_device: dev,
                    euid,
                    user: self.recorder.user(euid),
                    cgroup_id: cgroup,
                    cgroup: cgroups.get(&cgroup).cloned(),
                    allowed,
                    refused,
                    observed,
                    local,
                    first: clock.at(count.first),
                    last: clock.at(count.last),
                    host: None,
                }
            })
            .collect();
        let sources = self.guard.lan_sources().map_err(|error| error.to_string())?;
        subjects.extend(sources.iter().map(|(source, count)| self.of_lan(source, count, &clock)));
        subjects.sort_by_key(|subject| (std::cmp::Reverse(subject.refused), std::cmp::Reverse(subject.last)));
        Ok(subjects)
    }

    fn of_lan(&mut self, source: &LanSource, count: &SubjectCount, clock: &Clock) -> Subject {
        let [allowed, refused, observed, local] = count.verdicts;
        let ip = Ipv6Addr::from(source.address).to_canonical();
        let whole: u16 = if ip.is_ipv4() { 32 } else { 128 };
        let length = source.prefix.saturating_sub(128 - whole).min(whole);
        let mac = Mac::from_bytes(&source.mac);
        let interface = nix::net::if_::if_indextoname(source.interface).ok().and_then(|name| name.into_string().ok());
        // That of no interface is empty.
        let interface = interface.filter(|name| !name.is_empty());
        let name = if length == whole { self.hosts.name_of(mac, ip, interface.as_deref(), clock.wall) } else { None };
        Subject {
            exe: None,
            exe_inode: 0,
            exe_device: 0,
            euid: 0,
            user: None,
            cgroup_id: 0,
            cgroup: None,
            allowed,
            refused,
            observed,
            local,
            first: clock.at(count.first),
            last: clock.at(count.last),
            host: Some(HostSubject {
                address: IpNet::new_assert(ip, u8::try_from(length).unwrap_or(u8::MAX)),
                mac,
                vlan: (source.vlan != 0).then(|| vlan_text(source.vlan)),
                interface,
                name,
            }),
        }
    }
}
