//! Whether every program is where it belongs, and putting back what is not.

use std::io;
use std::os::fd::AsFd as _;

use super::guard::{CALLS, Guard, PACKETS, WATCHES, pin_over};
use super::status::HookStatus;
use super::sys;

impl Guard {
    /// How every hook is doing, asked of the kernel now.
    #[must_use]
    pub fn hooks(&self) -> Vec<HookStatus> {
        let calls = CALLS.iter().chain([&PACKETS]).map(|(name, program)| self.hook(name, program, false));
        let watches = WATCHES.iter().map(|(name, program, _)| match &self.exec_watch {
            Err(why) => HookStatus::new(name, "absent", None, Some(why.clone())),
            Ok(()) => self.hook(name, program, true),
        });
        calls.chain([self.frames.status()]).chain(watches).collect()
    }

    /// One hook's link: there, on the cgroup, and with this agent's program behind it.
    fn hook(&self, name: &str, program: &'static str, watch: bool) -> HookStatus {
        let info = sys::open_pinned(&self.link_pin(name)).and_then(|link| sys::link_info(link.as_fd()));
        let why = match &info {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some("its pin is gone".to_owned()),
            Err(error) => Some(error.to_string()),
            Ok(info) if !watch && info.cgroup != self.cgroup_id => Some("it is detached".to_owned()),
            Ok(info) if self.program_id(program) != Some(info.program) => {
                Some("another program is in its place".to_owned())
            }
            Ok(_) => None,
        };
        HookStatus::new(name, if why.is_none() { "active" } else { "failed" }, info.ok(), why)
    }

    /// The kernel's number of a loaded program.
    fn program_id(&self, name: &str) -> Option<u32> {
        self.ebpf.program(name)?.info().ok().map(|info| info.id())
    }

    /// Puts back what somebody has detached or replaced, and says what it was.
    pub fn repair(&mut self) -> Vec<String> {
        let mut repaired = Vec::new();
        let watches = if self.exec_watch.is_ok() { &WATCHES[..] } else { &[] };
        let all = CALLS.into_iter().chain([PACKETS]).map(|(name, program)| (name, program, false));
        for (name, program, watch) in all.chain(watches.iter().map(|(name, program, _)| (*name, *program, true))) {
            let Some(why) = self.hook(name, program, watch).why else { continue };
            let back = if watch { self.attach_watch(name, program) } else { self.attach_to_cgroup(name, program) };
            repaired.push(match back {
                Ok(()) => format!("{name}: {why}; it was put back"),
                Err(error) => format!("{name}: {why}, and it cannot be put back: {error}"),
            });
        }
        for (name, table) in &self.next {
            let pin = self.link_pin(name);
            if !pin.exists()
                && let Err(error) = pin_over(table.as_fd(), &pin)
            {
                repaired.push(format!("{name}: its pin is gone, and it cannot be put back: {error}"));
            }
        }
        repaired
    }
}
