//! What already ran when the exec programs came.

use portreeve_abi::{ExecRecord, Taint};

use super::Agent;
use crate::kernel::Guard;

impl Agent {
    /// Records what every process that is older than the guard is, as far as procfs tells, so that a long-running
    /// mail server does not look like one whose exec nobody saw.
    pub(super) fn remember_running(&mut self) {
        if self.guard.exec_watch().is_err() {
            return;
        }
        let Ok(processes) = procfs::process::all_processes() else { return };
        for process in processes.flatten() {
            let pid = process.pid as u32;
            // A record that is there was made by the kernel, which knows better.
            if self.guard.exec_record(pid).is_some() {
                continue;
            }
            if let Some(record) = record(&process, &mut self.guard)
                && let Err(error) = self.guard.remember_exec(pid, record)
            {
                tracing::debug!("process {pid}: {error}");
            }
        }
    }
}

fn record(process: &procfs::process::Process, guard: &mut Guard) -> Option<ExecRecord> {
    // Kernel threads have no executable.
    let file = std::fs::File::open(format!("/proc/{}/exe", process.pid)).ok()?;
    let exe = guard.learn(&file).ok()?;
    let start = process.stat().ok()?.starttime;
    let environment = process.environ().unwrap_or_default();
    let taint =
        [("LD_PRELOAD", Taint::LD_PRELOAD), ("LD_AUDIT", Taint::LD_AUDIT), ("LD_LIBRARY_PATH", Taint::LD_LIBRARY_PATH)];
    let taint = taint.iter().filter(|(name, _)| environment.contains_key(std::ffi::OsStr::new(name)));
    Some(ExecRecord { exe, start, taint: taint.fold(0, |bits, (_, bit)| bits | bit), _pad: 0 })
}
