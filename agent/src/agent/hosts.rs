//! Who the hosts of a gateway's LAN are: what other threads find out of the lease files and the kernel, and the names in the
//! policy.

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, sync_channel};

use jiff::Timestamp;
use portreeve_abi::Hook;

use super::Agent;
use crate::attempt::Attempt;
use crate::host::lease::{self, LeaseFile, Report};
use crate::host::{self, Change, HostName, Listed, Mac, Names};
use crate::policy::Gateway;

/// How many messages of a thread wait. It waits itself when there are more.
const WAITING: usize = 64;

/// The names of hosts, and where they come from.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    names: Names,
    changes: Option<Receiver<Vec<Change>>>,
    leases: Option<Receiver<Report>>,
    /// The files that are followed.
    files: Vec<LeaseFile>,
    /// What is wrong with them.
    pub(super) troubles: Vec<String>,
}

impl Hosts {
    /// Takes what a policy says of hosts. Threads are started for what it needs; to be called when the agent has given up
    /// the rights that they must not have.
    fn follow(&mut self, gateway: &Gateway) {
        let listed = gateway.hosts.iter().map(|host| Listed {
            name: host.name.clone(),
            macs: host.mac.clone(),
            addresses: host.address.clone(),
        });
        self.names.set_listed(listed.collect());
        if self.changes.is_none() {
            let (out, changes) = sync_channel(WAITING);
            match host::follow(out) {
                Ok(_runs_by_itself) => self.changes = Some(changes),
                Err(error) => tracing::warn!("neighbours are not known: {error}"),
            }
        }
        let files: Vec<LeaseFile> =
            gateway.leases.iter().map(|path| LeaseFile { path: path.value.clone(), kind: None }).collect();
        if files == self.files {
            return;
        }
        self.files.clone_from(&files);
        self.troubles.clear();
        self.names.set_leases(Vec::new());
        // The thread before ends when nobody hears it any more.
        self.leases = None;
        if files.is_empty() {
            return;
        }
        let (out, leases) = sync_channel(WAITING);
        match lease::watch(files, out) {
            Ok(_runs_by_itself) => self.leases = Some(leases),
            Err(error) => tracing::warn!("leases are not read: {error}"),
        }
    }

    /// Takes what the threads have found meanwhile.
    fn take(&mut self, now: Timestamp) {
        for changes in self.changes.iter().flat_map(Receiver::try_iter) {
            changes.iter().for_each(|change| self.names.apply(change, now));
        }
        for report in self.leases.iter().flat_map(Receiver::try_iter) {
            for trouble in report.troubles.iter().filter(|trouble| !self.troubles.contains(trouble)) {
                tracing::warn!("{trouble}");
            }
            self.troubles = report.troubles;
            self.names.set_leases(report.leases);
        }
    }

    /// The card that has an address.
    pub(super) fn mac_of(&mut self, address: IpAddr, now: Timestamp) -> Option<Mac> {
        self.take(now);
        self.names.mac_of(address, now)
    }

    /// What a host is called.
    pub(super) fn name_of(&mut self, mac: Option<Mac>, address: IpAddr, now: Timestamp) -> Option<HostName> {
        self.names.name_of(mac, address, now)
    }

    /// Adds to a LAN host's attempt what is known of the host.
    fn name(&mut self, attempt: &mut Attempt, source: IpAddr) {
        let now = attempt.time;
        self.take(now);
        if let Some(mac) = attempt.mac {
            self.names.saw(mac, source, now);
            let claims = self.names.addresses_of(mac, now);
            attempt.mac_addresses = u32::try_from(claims.v4 + claims.v6).unwrap_or(u32::MAX);
            attempt.vendor = host::vendor(&mac).map(str::to_owned);
        }
        attempt.host = self.names.name_of(attempt.mac, source, now);
    }
}

impl Agent {
    /// Follows what the policy in force says of LAN hosts.
    pub(super) fn follow_hosts(&mut self) {
        if let Some(gateway) = &self.in_force.policy.gateway {
            self.hosts.follow(gateway);
        }
    }

    /// Names the LAN host behind an attempt, if there is one.
    pub(super) fn name_host(&mut self, hook: Option<Hook>, attempt: &mut Attempt) {
        if hook == Some(Hook::Lan)
            && let Some(source) = attempt.source
        {
            self.hosts.name(attempt, source.ip().to_canonical());
        }
    }
}
