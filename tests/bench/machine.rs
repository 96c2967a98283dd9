//! The machine: what it is, and which processor runs what.

use std::process::Command;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// The first line of the report.
pub(crate) fn introduce() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let info = read("/proc/cpuinfo");
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(": ")?.1.to_owned())
    };
    println!(
        "{} ({} processors{}), Linux {}, clock {}, load {}",
        field("model name").unwrap_or_else(|| "unknown processor".to_owned()),
        processors(),
        if field("flags").is_some_and(|flags| flags.contains("hypervisor")) { ", virtual" } else { "" },
        read("/proc/sys/kernel/osrelease"),
        read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
    );
    let others = programs().into_iter().filter(|program| program["name"] == "pr_exec").count();
    if others > 0 {
        println!(
            "{others} other Portreeve agents are in this kernel: their exec programs run too, and the load is not ours"
        );
    }
}

/// Every loaded BPF program, as bpftool lists them.
pub(crate) fn programs() -> Vec<serde_json::Value> {
    bpftool(&["prog", "show"]).as_array().cloned().unwrap_or_default()
}

/// What bpftool says.
#[track_caller]
pub(crate) fn bpftool(arguments: &[&str]) -> serde_json::Value {
    let output = Command::new("bpftool").arg("--json").args(arguments).output().unwrap();
    assert!(output.status.success(), "bpftool {arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The processor for everything but the one process that is timed, which has the first.
pub(crate) fn last_cpu() -> Option<usize> {
    Some(processors() - 1)
}

/// Keeps a process (0: this one) on a processor, or lets it run on all again.
pub(crate) fn pin(pid: u32, cpu: Option<usize>) {
    let mut set = CpuSet::new();
    for each in 0..processors() {
        if cpu.is_none_or(|cpu| cpu == each) {
            set.set(each).unwrap();
        }
    }
    sched_setaffinity(Pid::from_raw(i32::try_from(pid).unwrap()), &set).unwrap();
}
