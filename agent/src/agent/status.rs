//! How the agent is doing, for people and for scripts.

use jiff::Timestamp;
use portreeve_abi::{ABI_VERSION, LanSource, MODE_OBSERVE, SubjectCount, Tally, Total};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Agent, Alarm, AlertsStatus};
use crate::alert::SinkStatus;
use crate::kernel::{Ended, OBJECT_SHA256};
use crate::relay::RelayStatus;
use crate::rights::{self, Rights};

/// The answer to `portreeve status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// The version of the kernel maps' layout.
    pub abi_version: u32,
    /// The SHA-256 of the kernel programs.
    pub programs_sha256: String,
    /// The instance.
    pub instance: String,
    /// The agent's process.
    pub pid: u32,
    /// When it started.
    pub started: Timestamp,
    /// The agent's resident memory in KiB.
    pub memory_kib: Option<u64>,
    /// `guarding`, or `failed` when a hook that judges is not attached.
    pub state: String,
    /// Every hook.
    pub hooks: Vec<Value>,
    /// The policy in force.
    pub policy: PolicyStatus,
    /// The totals of the kernel.
    pub counters: Counters,
    /// How many subjects the kernel counts for, LAN hosts included.
    pub subjects: u64,
    /// How LAN hosts are guarded, where the policy has a `[gateway]`.
    #[serde(default)]
    pub gateway: Option<GatewayStatus>,
    /// What has become of refused connections that were there before the guard, or before a reload, since the agent
    /// started.
    #[serde(default)]
    pub connections_ended: Ended,
    /// Details that were lost; the counters above are exact all the same.
    pub lost: LostDetails,
    /// What the agent may do.
    pub rights: Rights,
    /// What somebody has done against the guard, and what was done about it; the latest 64, the oldest first.
    pub alarms: Vec<Alarm>,
    /// The relay, where the policy has a `[relay]`.
    #[serde(default)]
    pub relay: Option<RelayStatus>,
    /// The alerts.
    #[serde(default)]
    pub alerts: AlertsStatus,
    /// How those who are told of alerts are doing.
    #[serde(default)]
    pub sinks: Vec<SinkStatus>,
    /// Why attempts are not written to the state folder.
    pub store_broken: Option<String>,
}

/// The policy in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Its file.
    pub file: String,
    /// The SHA-256 over its text.
    pub sha256: String,
    /// Its generation.
    pub generation: u32,
    /// When it was read.
    pub since: Timestamp,
    /// `enforce` or `observe`.
    pub mode: String,
    /// The mode was switched by `portreeve mode`.
    pub mode_by_command: bool,
    /// It is the copy of the last good one, because the file does not check.
    pub last_good: bool,
    /// The sub-tree of the cgroup2 hierarchy that is guarded: the policy's, or that of `run --cgroup`. Empty from an agent
    /// that does not say.
    #[serde(default)]
    pub cgroup: String,
    /// The guarded ports.
    pub ports: Vec<u16>,
    /// The errno of a refused connect().
    pub refuse_with: String,
    /// The rules, in order.
    pub rules: Vec<String>,
    /// What its author should know.
    pub warnings: Vec<String>,
    /// Why the last reload changed nothing.
    pub last_failure: Option<String>,
}

/// How LAN hosts are guarded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// `enforce` or `observe`.
    pub mode: String,
    /// The ports that are guarded for them.
    pub ports: Vec<u16>,
    /// What a refused host gets.
    pub refuse_with: String,
    /// The rules, in order.
    pub rules: Vec<String>,
    /// How many hosts the kernel counts for one by one, or by their networks where there are more than the policy says, or
    /// they were not seen for long.
    pub sources: u64,
    /// How many of these are networks.
    #[serde(default)]
    pub networks: u64,
    /// Attempts of hosts beyond the kernel's table: in the totals alone.
    pub uncounted: u64,
    /// What is wrong with the lease files.
    pub troubles: Vec<String>,
}

/// Attempts by verdict.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Allowed by a rule.
    pub allowed: u64,
    /// Refused.
    pub refused: u64,
    /// Passed, and would have been refused.
    pub observed: u64,
    /// Handed to this host's own loopback.
    pub local: u64,
    /// Packets and frames dropped, each on its own.
    pub dropped: u64,
}

/// What was shed.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct LostDetails {
    /// Events the ring buffer had no room for.
    pub shed: u64,
    /// Attempts of subjects beyond the kernel's table: in the totals, but in no subject's count.
    pub uncounted_by_subject: u64,
    /// Records the file did not get.
    pub not_stored: u64,
    /// Processes whose exec found no room in the record.
    pub exec_unrecorded: u64,
    /// Events of another version.
    pub undecoded: u64,
}

impl Agent {
    /// Looks at everything now.
    pub fn status(&mut self) -> Status {
        let hooks = self.guard.hooks();
        // Without a program that only watches less is seen; without any other a way is open.
        let guarding = hooks.iter().filter(|hook| !hook.optional).all(|hook| hook.state == "active");
        // A map that cannot be read shows as zeros, and in the hooks' state if it is gone.
        let tally = self.guard.totals().unwrap_or_default();
        let sources = self.guard.lan_sources().unwrap_or_default();
        let subjects = self.guard.subjects().map_or(0, |subjects| subjects.len() as u64) + sources.len() as u64;
        let at = |total: Total| tally[total as usize];
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi_version: ABI_VERSION,
            programs_sha256: OBJECT_SHA256.to_owned(),
            instance: self.instance.name.clone(),
            pid: std::process::id(),
            started: self.started,
            memory_kib: memory(),
            state: if guarding { "guarding" } else { "failed" }.to_owned(),
            hooks: hooks.iter().filter_map(|hook| serde_json::to_value(hook).ok()).collect(),
            policy: self.policy_status(),
            counters: counters(&tally),
            subjects,
            gateway: self.gateway_status(&sources, at(Total::LanUncounted)),
            relay: self.relay.status(),
            connections_ended: self.guard.ended(),
            lost: LostDetails {
                shed: at(Total::Shed),
                uncounted_by_subject: at(Total::UncountedAllowed)
                    + at(Total::UncountedRefused)
                    + at(Total::UncountedObserved)
                    + at(Total::UncountedLocal),
                not_stored: self.attempts.not_stored(),
                exec_unrecorded: at(Total::ExecUnrecorded),
                undecoded: self.undecoded,
            },
            rights: rights::held(),
            alarms: self.alarms.iter().cloned().collect(),
            alerts: self.alerts.status(),
            sinks: self.sinks_status(),
            store_broken: self.attempts.broken().map(str::to_owned),
        }
    }

    fn gateway_status(&self, sources: &[(LanSource, SubjectCount)], uncounted: u64) -> Option<GatewayStatus> {
        let gateway = self.in_force.policy.gateway.as_ref()?;
        let lan = &self.in_force.compiled.lan;
        Some(GatewayStatus {
            mode: if lan.header.mode == MODE_OBSERVE { "observe" } else { "enforce" }.to_owned(),
            ports: (1..=u16::MAX).filter(|port| lan.guards(*port)).collect(),
            refuse_with: gateway.refuse_with.word().to_owned(),
            rules: gateway.describe(),
            sources: sources.len() as u64,
            networks: sources.iter().filter(|(source, _)| source.prefix != 128).count() as u64,
            uncounted,
            troubles: self.hosts.troubles.clone(),
        })
    }

    fn policy_status(&self) -> PolicyStatus {
        let compiled = &self.in_force.compiled;
        PolicyStatus {
            file: self.policy_path.display().to_string(),
            sha256: self.in_force.digest.clone(),
            generation: compiled.header.generation,
            since: self.in_force.since,
            mode: if self.observes() { "observe" } else { "enforce" }.to_owned(),
            mode_by_command: self.mode_override.is_some(),
            last_good: self.in_force.last_good,
            cgroup: self.in_force.policy.guard.cgroup.clone(),
            ports: compiled.guarded_ports(),
            refuse_with: nix::errno::Errno::from_raw(compiled.header.refuse_errno as i32).to_string(),
            rules: self.in_force.resolved.describe(),
            warnings: self.warnings().iter().map(ToString::to_string).collect(),
            last_failure: self.last_failure.clone(),
        }
    }
}

fn counters(tally: &Tally) -> Counters {
    let at = |total: Total| tally[total as usize];
    Counters {
        allowed: at(Total::Allowed),
        refused: at(Total::Refused),
        observed: at(Total::Observed),
        local: at(Total::Local),
        dropped: at(Total::Dropped),
    }
}

/// The resident memory of this process in KiB.
fn memory() -> Option<u64> {
    procfs::process::Process::myself().ok()?.status().ok()?.vmrss
}
