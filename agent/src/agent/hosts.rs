//! Who the hosts of a gateway's LAN are: what other threads find out of the lease files, the kernel and the containers'
//! runtimes, and the names in the policy.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use jiff::{SignedDuration, Timestamp};
use portreeve_abi::Hook;

use super::Agent;
use crate::attempt::Attempt;
use crate::host::lease::{self, LeaseFile, Report};
use crate::host::reverse::{self, Answer};
use crate::host::{self, Behind, Change, HostName, Listed, Mac, Names};
use crate::policy::Gateway;

/// How many messages of a thread wait. It waits itself when there are more.
const WAITING: usize = 64;

/// How many questions to resolvers wait; more are not asked, and asked again with a later attempt.
const QUESTIONS: usize = 256;
/// After how long a question that was not answered may be asked again.
const UNANSWERED: SignedDuration = SignedDuration::from_mins(2);

/// The names of hosts, and where they come from.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    names: Names,
    changes: Option<Receiver<Vec<Change>>>,
    guests: Option<Receiver<HashMap<u32, Behind>>>,
    leases: Option<Receiver<Report>>,
    resolver: Option<Resolver>,
    /// The files that are followed.
    files: Vec<LeaseFile>,
    /// What is wrong with them.
    pub(super) troubles: Vec<String>,
}

/// The thread that asks resolvers.
#[derive(Debug)]
struct Resolver {
    servers: Vec<IpAddr>,
    questions: SyncSender<IpAddr>,
    answers: Receiver<Answer>,
}

impl Resolver {
    fn start(servers: &[IpAddr]) -> Option<Self> {
        let (questions, asked) = sync_channel(QUESTIONS);
        let (out, answers) = sync_channel(QUESTIONS);
        match reverse::follow(servers.to_vec(), asked, out) {
            Ok(_runs_by_itself) => Some(Self { servers: servers.to_vec(), questions, answers }),
            Err(error) => {
                tracing::warn!("no resolver is asked: {error}");
                None
            }
        }
    }
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
        if self.guests.is_none() {
            let (out, guests) = sync_channel(WAITING);
            match host::guests(out) {
                Ok(_runs_by_itself) => self.guests = Some(guests),
                Err(error) => tracing::warn!("containers and virtual machines are not known: {error}"),
            }
        }
        if self.resolver.as_ref().map_or(&[][..], |resolver| &resolver.servers) != gateway.reverse_dns {
            self.names.forget_resolved();
            // The thread before ends when nobody asks it any more.
            self.resolver =
                Some(&gateway.reverse_dns).filter(|servers| !servers.is_empty()).and_then(|s| Resolver::start(s));
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
        if let Some(guests) = self.guests.as_ref().and_then(|guests| guests.try_iter().last()) {
            self.names.set_guests(guests);
        }
        for Answer { address, name, holds } in self.resolver.iter().flat_map(|resolver| resolver.answers.try_iter()) {
            self.names.set_resolved(address, name, now + holds, now);
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

    /// What a host is called; `interface` is the one that it is behind, where that is known.
    pub(super) fn name_of(
        &mut self,
        mac: Option<Mac>,
        address: IpAddr,
        interface: Option<&str>,
        now: Timestamp,
    ) -> Option<HostName> {
        self.take(now);
        self.names.name_of(mac, address, interface, now)
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
        attempt.host = self.names.name_of(attempt.mac, source, attempt.interface.as_deref(), now);
        if attempt.host.is_none() {
            self.inquire(source, now);
        }
    }

    /// Has a resolver asked for the name of an address; the answer is for later attempts.
    fn inquire(&mut self, address: IpAddr, now: Timestamp) {
        if let Some(resolver) = &self.resolver
            && self.names.is_to_be_asked(address, now)
            && resolver.questions.try_send(address).is_ok()
        {
            self.names.set_resolved(address, None, now + UNANSWERED, now);
        }
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
