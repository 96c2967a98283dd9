//! The agent: one policy in force, one guard, one record.

mod alerts;
mod execs;
mod explain;
mod explain_lan;
mod follow_up;
mod forget;
mod hosts;
mod judging;
mod respond;
mod run;
mod senders;
mod server;
mod status;
mod subjects;
mod takeover;
mod upkeep;
mod watch;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::rc::Rc;

use portreeve_abi::{Event, Hook, MODE_ENFORCE, MODE_OBSERVE};
use serde::Serialize;
use tokio::sync::Notify;

use crate::attempt::{Attempt, Recorder, RuleNames, Store};
use crate::clock::Clock;
use crate::instance::Instance;
use crate::kernel::{Guard, mounts};
use crate::policy::{self, Compiled, Diagnostic, Loaded, Policy, Resolved, SystemHost};
use crate::relay::Relay;

pub use alerts::{Alerts, AlertsStatus, BySeverity, Order};
pub use explain::Explanation;
use follow_up::FollowUp;
use forget::Forgetting;
use hosts::Hosts;
use judging::Judging;
pub use run::{Options, run};
pub use status::Status;
pub use subjects::{HostSubject, Subject};
pub use upkeep::Alarm;
use upkeep::{Alarms, Stirs};
use watch::Watched;

/// The agent's whole state, owned by its one thread.
pub struct Agent {
    instance: Instance,
    guard: Guard,
    recorder: Recorder,
    attempts: Store,
    alerts: Alerts,
    judging: Judging,
    follow_up: FollowUp,
    hosts: Hosts,
    relay: Relay,
    forgetting: Forgetting,
    policy_path: PathBuf,
    /// The sub-tree of the command line, in place of the policy's.
    cgroup_override: Option<String>,
    in_force: InForce,
    /// What `portreeve mode` asked for, until the policy is read again.
    mode_override: Option<bool>,
    /// Why the last reload changed nothing.
    last_failure: Option<String>,
    /// Why the policy in force could last not be renewed.
    not_renewed: Option<String>,
    watched: Watched,
    started: jiff::Timestamp,
    undecoded: u64,
    alarms: Alarms,
    stirs: Stirs,
    /// Senders past every packet hook that have been said, by their inode numbers.
    raw_senders: BTreeSet<u64>,
    /// Told when another agent takes over.
    leave: Rc<Notify>,
}

/// The policy that decides.
struct InForce {
    policy: Policy,
    resolved: Resolved,
    compiled: Compiled,
    /// The text of the policy, so that a switch or a renewal needs no file.
    digest: String,
    /// The files it was read from.
    files: Vec<PathBuf>,
    since: jiff::Timestamp,
    warnings: Vec<Diagnostic>,
    /// It comes from the copy of the last good policy.
    last_good: bool,
}

/// What a reload did.
#[derive(Debug, Serialize)]
pub struct Reloaded {
    /// The generation in force.
    pub generation: u32,
    /// How many rules it has.
    pub rules: usize,
    /// What the policy's author should know.
    pub warnings: Vec<Diagnostic>,
}

impl Agent {
    /// Loads the programs and puts the policy in force, attaching nothing yet.
    ///
    /// # Errors
    ///
    /// What is wrong, with the remedy; the guard is what it was before.
    fn start(options: &Options, loaded: Loaded, last_good: bool) -> Result<Self, String> {
        let mut watched = Watched::default();
        if last_good {
            // The copy does not change; the file that cannot be put in force will be mended.
            watched.only_files([&options.config]);
        } else {
            watched.files(&loaded);
        }
        let files = loaded.files.clone();
        let (policy, digest, warnings) = usable(loaded)?;
        let cgroup = guarded(&policy)?;
        let mut guard =
            Guard::load(&options.instance.name, &cgroup, options.map_version).map_err(|error| error.to_string())?;
        let door = guard.door().map_err(|error| error.to_string())?;
        let mut agent = Self {
            guard,
            recorder: Recorder::default(),
            attempts: Store::open(&options.instance.state, "attempts"),
            alerts: Alerts::new(&options.instance.state, Self::keep(&policy), policy.detect.quiet),
            judging: Judging::open(&options.instance.state, policy.detect.clone()),
            follow_up: FollowUp::default(),
            hosts: Hosts::default(),
            relay: Relay::new(&options.instance.state, Some(door)),
            forgetting: Forgetting::default(),
            instance: options.instance.clone(),
            policy_path: options.config.clone(),
            cgroup_override: options.cgroup.clone(),
            in_force: InForce {
                policy,
                resolved: Resolved::default(),
                compiled: Compiled::default(),
                digest,
                files,
                since: jiff::Timestamp::now(),
                warnings,
                last_good,
            },
            mode_override: None,
            last_failure: None,
            not_renewed: None,
            watched,
            started: jiff::Timestamp::now(),
            undecoded: 0,
            alarms: Alarms::new(),
            stirs: Stirs::new(),
            raw_senders: BTreeSet::new(),
            leave: Rc::new(Notify::new()),
        };
        agent.renew()?;
        Ok(agent)
    }

    /// Copies the policy in force for the next boot, unless it is that copy.
    fn keep_policy(&self) {
        if self.in_force.last_good {
            return;
        }
        if let Err(error) = self.instance.keep_last_good(&self.policy_path, &self.in_force.files) {
            tracing::warn!("the last good policy is not kept for the next boot: {error}");
        }
    }

    /// Reads the policy file again and puts it in force.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it; the policy before it stays in force.
    pub fn reload(&mut self) -> Result<Reloaded, String> {
        let loaded = policy::load(&self.policy_path);
        self.watched.files(&loaded);
        let outcome = self.put_in_force(loaded);
        match &outcome {
            Ok(reloaded) => {
                self.last_failure = None;
                tracing::info!("policy reloaded: generation {}, {} rules", reloaded.generation, reloaded.rules);
            }
            Err(error) => {
                self.last_failure = Some(error.clone());
                tracing::error!("the policy was not reloaded, the one before it stays in force:\n{error}");
            }
        }
        outcome
    }

    fn put_in_force(&mut self, loaded: Loaded) -> Result<Reloaded, String> {
        let files = loaded.files.clone();
        if loaded.diagnostics.iter().any(Diagnostic::is_error) {
            // What the draft names is looked up all the same: everything that is wrong is said in one go.
            let resolved = policy::resolve(&loaded.draft, &mut host(&mut self.guard));
            return Err(errors(loaded.diagnostics.iter().chain(&resolved.diagnostics)));
        }
        let (mut policy, digest, warnings) = usable(loaded)?;
        if let Some(cgroup) = &self.cgroup_override {
            policy.guard.cgroup.clone_from(cgroup);
        }
        if policy.guard.cgroup != self.in_force.policy.guard.cgroup {
            return Err("guard.cgroup has changed; that takes effect when the agent is started again".to_owned());
        }
        let resolved = policy::resolve(&policy, &mut host(&mut self.guard));
        // A rule that names what is not there is a mistake of whoever writes the policy now, and is said so.
        if resolved.diagnostics.iter().any(Diagnostic::is_error) {
            return Err(errors(&resolved.diagnostics));
        }
        let before = (self.mode_override.take(), self.in_force.since);
        let sinks_before = self.in_force.policy.alert.clone();
        let replaced = std::mem::replace(
            &mut self.in_force,
            InForce {
                policy,
                resolved,
                compiled: Compiled::default(),
                digest,
                files,
                since: jiff::Timestamp::now(),
                warnings,
                last_good: false,
            },
        );
        if let Err(error) = self.renew() {
            self.in_force = replaced;
            (self.mode_override, self.in_force.since) = before;
            return Err(error);
        }
        self.keep_policy();
        self.judging.settings(&self.in_force.policy.detect);
        self.alerts.settings(Self::keep(&self.in_force.policy), self.in_force.policy.detect.quiet);
        self.look_after_devices();
        self.follow_hosts();
        self.relay.settings(self.in_force.policy.relay.as_ref());
        if self.in_force.policy.alert != sinks_before {
            self.start_sinks();
        }
        Ok(self.reloaded())
    }

    fn reloaded(&self) -> Reloaded {
        Reloaded {
            generation: self.in_force.compiled.header.generation,
            rules: self.in_force.compiled.rule_names.len(),
            warnings: self.warnings(),
        }
    }

    /// Everything the policy's author should know: of the text, and of what it names on this host.
    fn warnings(&self) -> Vec<Diagnostic> {
        self.in_force.warnings.iter().chain(&self.in_force.resolved.diagnostics).cloned().collect()
    }

    /// Resolves and compiles the policy in force anew and flips to it: at the start, when a binary has been replaced,
    /// when a rule ends, when the mode is switched.
    ///
    /// # Errors
    ///
    /// Why not; what was in force stays so.
    pub fn renew(&mut self) -> Result<(), String> {
        // Before anything is looked up: what moves from here on is seen as a change.
        let seen = watch::signatures(&self.in_force.policy);
        let mut resolved = policy::resolve(&self.in_force.policy, &mut host(&mut self.guard));
        self.watched.superseded(&mut resolved, &mut self.guard);
        let generation = self.guard.next_generation().map_err(|error| error.to_string())?;
        let mut compiled = policy::compile(&self.in_force.policy, &resolved, generation, Clock::now())
            .map_err(|error| error.to_string())?;
        if let Some(observe) = self.mode_override {
            compiled.header.mode = if observe { MODE_OBSERVE } else { MODE_ENFORCE };
            if self.in_force.policy.gateway.as_ref().is_none_or(|gateway| gateway.mode.is_none()) {
                compiled.lan.header.mode = compiled.header.mode;
            }
        }
        self.relay.name_rules(generation, &compiled.rule_names);
        let names = RuleNames { host: compiled.rule_names.clone(), lan: compiled.lan.rule_names.clone() };
        self.recorder.policy(generation, names);
        self.guard.apply(&compiled).map_err(|error| error.to_string())?;
        self.watched.executables(seen, &resolved);
        self.in_force.resolved = resolved;
        self.in_force.compiled = compiled;
        Ok(())
    }

    /// Switches between enforce and observe, until the policy is read again.
    ///
    /// # Errors
    ///
    /// Why not; the mode stays what it was.
    pub fn switch_mode(&mut self, observe: bool) -> Result<Reloaded, String> {
        let before = self.mode_override.replace(observe);
        if let Err(error) = self.renew() {
            self.mode_override = before;
            return Err(error);
        }
        tracing::warn!("mode switched to {} by command", if observe { "observe" } else { "enforce" });
        Ok(self.reloaded())
    }

    /// Whether the policy in force only observes.
    #[must_use]
    pub fn observes(&self) -> bool {
        self.in_force.compiled.header.mode == MODE_OBSERVE
    }

    /// The attempts.
    #[must_use]
    pub fn attempts(&self) -> &Store {
        &self.attempts
    }

    /// The relay.
    #[must_use]
    pub fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Records an event of the kernel.
    fn event(&mut self, event: &Event) -> Option<std::sync::Arc<Attempt>> {
        match self.recorder.record(event, &Clock::now()) {
            Some(mut attempt) => {
                self.name_host(Hook::from_u8(event.hook), &mut attempt);
                let attempt = self.attempts.push(attempt);
                self.judge(&attempt);
                Some(attempt)
            }
            None => {
                self.undecoded += 1;
                None
            }
        }
    }
}

/// The folder of the cgroup that a policy guards.
fn guarded(policy: &Policy) -> Result<PathBuf, String> {
    let root = mounts::cgroup2().map_err(|error| error.to_string())?;
    Ok(root.join(policy.guard.cgroup.trim_start_matches('/')))
}

/// The policy of a load without errors; else all its errors in one text.
fn usable(loaded: Loaded) -> Result<(Policy, String, Vec<Diagnostic>), String> {
    match loaded.policy {
        Some(policy) if !loaded.diagnostics.iter().any(Diagnostic::is_error) => {
            Ok((policy, loaded.digest, loaded.diagnostics))
        }
        _ => Err(errors(&loaded.diagnostics)),
    }
}

/// The errors of several findings, in one text.
fn errors<'d>(found: impl IntoIterator<Item = &'d Diagnostic>) -> String {
    let errors: Vec<String> = found.into_iter().filter(|d| d.is_error()).map(ToString::to_string).collect();
    errors.join("\n")
}

/// The host as the policy's rules are looked up on it; the kernel is asked how it sees a file.
fn host(guard: &mut Guard) -> SystemHost<'_> {
    SystemHost::new(Some(Box::new(move |file: &File| guard.learn(file))))
}
