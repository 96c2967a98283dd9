//! The agent under test.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::program::{Outcome, Program, Running};
use crate::until::{DEADLINE, patience, until};
use crate::{Cgroup, Lab};

/// The agent's binary: `PORTREEVE_BIN`, which `cargo xtask test` sets, or the one beside the tests.
#[must_use]
pub fn portreeve() -> PathBuf {
    std::env::var_os("PORTREEVE_BIN").map_or_else(
        || {
            let tests = std::env::current_exe().unwrap();
            tests.parent().unwrap().parent().unwrap().join("portreeve")
        },
        PathBuf::from,
    )
}

/// An agent that guards a cgroup of the lab and the devices of its first host, with its own instance, policy and state.
/// Detached on drop.
#[derive(Debug)]
pub struct Guard {
    instance: String,
    cgroup: String,
    policy: PathBuf,
    state: PathBuf,
    log: PathBuf,
    home: OwnedFd,
    agent: Option<Running>,
}

impl Guard {
    /// Starts an agent for the whole lab with this policy, and waits until it guards.
    #[track_caller]
    #[must_use]
    pub fn start(lab: &Lab, policy: &str) -> Self {
        Self::start_on(lab, lab.cgroup_root(), policy)
    }

    /// Starts an agent for a part of the lab.
    #[track_caller]
    #[must_use]
    pub fn start_on(lab: &Lab, cgroup: &Cgroup, policy: &str) -> Self {
        let dir = lab.scratch("agent");
        std::fs::create_dir_all(&dir).unwrap();
        let mut guard = Self {
            // Unique over labs, without the dots that the BPF file system does not take.
            instance: format!("{}-{}", lab.name(), dir.file_name().unwrap().to_string_lossy()).replace('.', "-"),
            cgroup: cgroup.name(),
            policy: dir.join("portreeve.toml"),
            state: dir.join("state"),
            log: dir.join("log"),
            home: lab.home(),
            agent: None,
        };
        guard.write_policy(policy);
        guard.resume();
        guard
    }

    /// Starts the agent again, after [`Self::kill`].
    #[track_caller]
    pub fn resume(&mut self) {
        self.launch();
        self.ready();
    }

    #[track_caller]
    fn ready(&self) {
        let wait = format!("--wait={}", 20 * patience());
        let ready = self.command(["status", &wait]);
        assert_eq!(ready.code, 0, "the agent is not ready: {ready:#?}\n{}", self.log());
    }

    /// Starts the agent without waiting for it.
    #[track_caller]
    pub fn launch(&mut self) {
        self.launch_with(&[]);
    }

    #[track_caller]
    fn launch_with(&mut self, more: &[&str]) {
        let agent = Program::new(portreeve()).args([
            "run",
            "--instance",
            &self.instance,
            "--cgroup",
            &self.cgroup,
            "--config",
            &self.policy.display().to_string(),
            "--state-dir",
            &self.state.display().to_string(),
        ]);
        let agent = agent.args(more);
        self.agent = Some(agent.in_netns(&self.home).spawn(&self.log));
    }

    /// Starts another agent for the same instance while this one runs, and returns the exit code of the first.
    #[track_caller]
    pub fn take_over(&mut self, more: &[&str]) -> i32 {
        let mut first = self.agent.take().unwrap();
        self.log = self.log.with_extension("second");
        self.launch_with(more);
        let code = first.wait();
        self.ready();
        code
    }

    /// Runs another agent for the same instance and cgroup, with a policy of its own, to its end.
    #[track_caller]
    pub fn second(&self, policy: &Path) -> Outcome {
        let policy = policy.display().to_string();
        let state = self.state.display().to_string();
        let arguments = ["run", "--instance", &self.instance, "--cgroup", &self.cgroup, "--config", &policy];
        let arguments = arguments.into_iter().chain(["--state-dir", &state]);
        Program::new(portreeve()).args(arguments).in_netns(&self.home).run()
    }

    /// Writes the policy file; a running agent notices by itself, or at `reload`.
    #[track_caller]
    pub fn write_policy(&self, text: &str) {
        // In one step, so that the agent never reads half a file.
        let new = self.policy.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &self.policy).unwrap();
    }

    /// The policy's file.
    #[must_use]
    pub fn policy(&self) -> &Path {
        &self.policy
    }

    /// The agent's instance.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The agent's state folder.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Runs a command of the agent for this instance.
    #[track_caller]
    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Outcome {
        Program::new(portreeve()).args(["--instance", &self.instance]).args(arguments).run()
    }

    /// `reload`, which must succeed.
    #[track_caller]
    pub fn reload(&self) {
        self.command(["reload"]).must_succeed();
    }

    /// `status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.command(["status", "--json"]).must_succeed().stdout).unwrap()
    }

    /// How a hook is doing, also while not all is well.
    #[track_caller]
    #[must_use]
    pub fn hook(&self, name: &str) -> Value {
        let status: Value = serde_json::from_str(&self.command(["status", "--json"]).stdout).unwrap();
        let hook = status["hooks"].as_array().unwrap().iter().find(|hook| hook["name"] == name).cloned();
        hook.unwrap_or_else(|| panic!("no hook {name}"))
    }

    /// By what means a hook works, and where.
    #[track_caller]
    #[must_use]
    pub fn means(&self, name: &str) -> String {
        self.hook(name)["by"].as_str().unwrap_or_default().to_owned()
    }

    /// Why a hook is not active, if it is not.
    #[track_caller]
    #[must_use]
    pub fn lacks(&self, name: &str) -> Option<String> {
        let hook = self.hook(name);
        (hook["state"] != "active").then(|| hook["why"].to_string())
    }

    /// The kernel's totals by name.
    #[track_caller]
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let status = self.status();
        let counters = status["counters"].as_object().unwrap();
        counters.iter().map(|(name, value)| (name.clone(), value.as_u64().unwrap())).collect()
    }

    /// The kernel's counters, subject by subject.
    #[track_caller]
    pub fn subjects(&self) -> Vec<Value> {
        let listed = self.command(["subjects", "--json"]).must_succeed();
        listed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// All attempts that are kept.
    #[track_caller]
    pub fn attempts(&self) -> Vec<Value> {
        let listed = self.command(["attempts", "--json"]).must_succeed();
        listed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for the attempt of a process.
    #[track_caller]
    pub fn attempt_of(&self, pid: u32) -> Value {
        until("the attempt's record", DEADLINE, || {
            let attempts = self.attempts();
            attempts.into_iter().rev().find(|attempt| attempt["pid"] == pid).ok_or("none of this process")
        })
    }

    /// The agent's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.agent.as_ref().unwrap().pid()
    }

    /// Ends the agent without a word. The guard stays.
    pub fn kill(&mut self) {
        self.stop(Signal::SIGKILL);
    }

    /// Ends the agent by a signal. The guard stays.
    pub fn stop(&mut self, signal: Signal) {
        if let Some(mut agent) = self.agent.take() {
            agent.end(signal);
        }
    }

    /// What the agent has printed.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends the agent and opens the port.
    #[track_caller]
    pub fn detach(mut self) {
        self.stop(Signal::SIGTERM);
        self.command(["detach"]).must_succeed();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop(Signal::SIGKILL);
        if std::thread::panicking() {
            eprintln!("--- the agent said:\n{}---", self.log());
        }
        let detached = Command::new(portreeve()).args(["detach", "--instance", &self.instance]).output();
        if !detached.is_ok_and(|output| output.status.success()) {
            eprintln!("could not detach {}", self.instance);
        }
    }
}
