//! What the kernel itself says: the programs' run times, and the subjects' counts.

use std::collections::BTreeMap;

use lab::Guard;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

use crate::arms::{Guarded, SANCTIONED};
use crate::driver::Worker;
use crate::machine::bpftool;

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
const EXECS: u64 = 2000;
const OTHER: &str = "/usr/bin/true";

/// The kernel measures its BPF programs as long as this lives.
pub(crate) struct Stats(String);

impl Stats {
    pub(crate) fn on() -> Self {
        let before = std::fs::read_to_string(SWITCH).unwrap();
        std::fs::write(SWITCH, "1").unwrap();
        Self(before)
    }

    /// A guard's programs, as its agent says.
    pub(crate) fn programs(&self, guard: &Guard) -> Programs {
        let hooks = guard.status()["hooks"].as_array().cloned().unwrap_or_default();
        let entry = |hook: &Value| Some((hook["name"].as_str()?.to_owned(), hook["program"].as_u64()?));
        Programs(hooks.iter().filter_map(entry).collect())
    }
}

impl Drop for Stats {
    fn drop(&mut self) {
        std::fs::write(SWITCH, self.0.trim()).unwrap();
    }
}

/// The ids of a guard's programs by hook.
pub(crate) struct Programs(BTreeMap<String, u64>);

/// What a program has run.
#[derive(Clone, Copy)]
pub(crate) struct Ran {
    pub(crate) runs: u64,
    nanoseconds: u64,
}

impl Programs {
    #[track_caller]
    pub(crate) fn read(&self, hook: &str) -> Ran {
        let shown = bpftool(&["prog", "show", "id", &self.0[hook].to_string()]);
        // Absent as long as they are zero.
        let number = |key: &str| shown[key].as_u64().unwrap_or(0);
        Ran { runs: number("run_cnt"), nanoseconds: number("run_time_ns") }
    }
}

impl Ran {
    pub(crate) fn of(runs: u64, nanoseconds: u64) -> Self {
        Self { runs, nanoseconds }
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self { runs: self.runs - before.runs, nanoseconds: self.nanoseconds - before.nanoseconds }
    }

    /// Nanoseconds a run.
    pub(crate) fn each(self) -> f64 {
        self.nanoseconds as f64 / self.runs.max(1) as f64
    }
}

/// Sends a signal.
#[track_caller]
pub(crate) fn signal(pid: u32, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// The second half of section 4.
///
/// No wall time without the guard beside it: these programs see the whole machine's processes, so that on and off
/// cannot take turns, and one after the other they would show the machine's load.
pub(crate) fn execs(guard: &Guarded) {
    let mut worker = Worker::start(&std::env::current_exe().unwrap());
    println!(
        "{:<34}{:>9}{:>9}{:>9}{:>10}{:>12}",
        format!("{EXECS} processes one after another"),
        "pr_fork",
        "pr_exec",
        "pr_exit",
        "together",
        "a process"
    );
    for (program, label) in [(OTHER, "true, in no rule"), (SANCTIONED, "false, in the rules")] {
        let wall = worker.exec(program, EXECS);
        let stats = Stats::on();
        let programs = stats.programs(&guard.guard);
        let start = ["fork", "exec", "exit"].map(|hook| programs.read(hook));
        worker.exec(program, EXECS);
        let end = ["fork", "exec", "exit"].map(|hook| programs.read(hook));
        let each: Vec<f64> = end.iter().zip(start).map(|(end, start)| end.since(start).each()).collect();
        let sum: f64 = each.iter().sum();
        println!(
            "{label:<34}{:>9.0}{:>9.0}{:>9.0}{sum:>10.0}{wall:>12.0}   {:.2} % of fork+exec+exit+wait",
            each[0],
            each[1],
            each[2],
            sum / wall * 100.0,
        );
    }
}

/// The refused attempts over all subjects, as the kernel's map has them.
pub(crate) fn refused_by_subject(guard: &Guard) -> u64 {
    let version = guard.status()["abi_version"].as_u64().unwrap();
    let path = format!("/sys/fs/bpf/portreeve/{}/v{version}/PR_SUBJECTS", guard.instance());
    let dump = bpftool(&["map", "dump", "pinned", &path]);
    let refused = |entry: &Value| {
        // `SubjectCount`: a number for each verdict, the second is for the refused.
        let bytes: Vec<u8> = entry["value"].as_array()?[8..16].iter().filter_map(byte).collect();
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    };
    dump.as_array().unwrap().iter().map(|entry| refused(entry).unwrap()).sum()
}

fn byte(text: &Value) -> Option<u8> {
    u8::from_str_radix(text.as_str()?.trim_start_matches("0x"), 16).ok()
}
