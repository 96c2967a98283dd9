//! Whether every program is where it belongs, and putting back what is not.

use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use portreeve_abi::{ActivePolicy, LanHeader, PolicyHeader};

use super::attach::{CALLS, PACKETS, RELAY, WATCHES};
use super::guard::Guard;
use super::links::pin_over;
use super::status::HookStatus;
use super::{KernelError, trampoline};
use crate::policy::Compiled;

impl Guard {
    /// How every hook is doing, asked of the kernel now.
    #[must_use]
    pub fn hooks(&self) -> Vec<HookStatus> {
        let calls = CALLS.iter().chain([&PACKETS]).chain(self.relay_hooks());
        let calls = calls.map(|(name, program)| self.hook(name, program, false));
        let watches = WATCHES.iter().map(|(name, program, _)| match &self.exec_watch {
            Err(why) => HookStatus::new(name, "absent", None, Some(why.clone())),
            Ok(()) => self.hook(name, program, true),
        });
        let more = trampoline::all().map(|(name, program)| match self.absent.get(name) {
            Some(why) => HookStatus::new(name, "absent", None, Some(why.clone())),
            None => self.hook(name, program, true),
        });
        calls.chain([self.frames.status()]).chain(self.frames.lan_status()).chain(watches).chain(more).collect()
    }

    fn relay_hooks(&self) -> &'static [(&'static str, &'static str)] {
        if self.relays { &RELAY } else { &[] }
    }

    /// One hook's link: there, on the cgroup, and with this agent's program behind it.
    fn hook(&self, name: &str, program: &'static str, watch: bool) -> HookStatus {
        let info = self.links.held(name).map(|(_, info)| info);
        let why = match &info {
            None => Some("it was never attached"),
            Some(info) if !watch && info.cgroup != self.cgroup_id => Some("it is detached"),
            Some(info) if self.program_id(program) != Some(info.program) => Some("another program is in its place"),
            Some(_) if !self.links.is_pinned(name) => Some("its pin is gone"),
            Some(_) => None,
        };
        let state = if why.is_none() { "active" } else { "failed" };
        let status = HookStatus::new(name, state, info, why.map(str::to_owned));
        if watch { status.only_watches() } else { status }
    }

    /// The kernel's number of a loaded program.
    pub(super) fn program_id(&self, name: &str) -> Option<u32> {
        self.ebpf.program(name)?.info().ok().map(|info| info.id())
    }

    /// Puts back what somebody has detached, replaced or unpinned, and says what it was.
    pub fn repair(&mut self) -> Vec<String> {
        let mut repaired = Vec::new();
        let mut done = |what: &str, why: &str, result: Result<(), KernelError>| {
            repaired.push(match result {
                Ok(()) => format!("{what}: {why}; it was put back"),
                Err(error) => format!("{what}: {why}, and it cannot be put back: {error}"),
            });
        };
        for (name, program) in CALLS.iter().chain([&PACKETS]).chain(self.relay_hooks()) {
            let (name, program) = (*name, *program);
            if let Some(why) = self.hook(name, program, false).why {
                done(name, &why, self.attach_to_cgroup(name, program));
            }
        }
        let watches = if self.exec_watch.is_ok() { &WATCHES[..] } else { &[] };
        let watches = watches.iter().map(|(name, program, _)| (*name, *program));
        let all: Vec<_> =
            watches.chain(trampoline::all().filter(|(name, _)| !self.absent.contains_key(name))).collect();
        for (name, program) in all {
            if let Some(why) = self.hook(name, program, true).why {
                let attached = if why == "its pin is gone" {
                    self.links.pin_again(name)
                } else {
                    self.attach_witness(name, program)
                };
                done(name, &why, attached);
            }
        }
        for name in self.links.tables() {
            if !self.links.table_is_pinned(&name) {
                done(&name, "its pin is gone", self.links.pin_table_again(&name));
            }
        }
        for (path, map) in self.maps.iter().filter(|(path, _)| !path.exists()) {
            let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            let pinned = folder
                .map_err(|source| KernelError::Pin { path: path.clone(), source })
                .and_then(|()| pin_over(map.as_fd(), path));
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            done(&format!("the table {name}"), "its pin is gone", pinned);
        }
        repaired
    }

    /// What somebody has taken away while no agent ran, of a guard that was whole: to be asked before anything is attached.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        if !self.was_whole() {
            return Vec::new();
        }
        let all = CALLS.into_iter().chain([PACKETS]).map(|(name, _)| name);
        let gone = all.filter(|name| self.links.held(name).is_none_or(|(_, info)| info.cgroup == 0));
        gone.map(|name| format!("{name}: it was taken away while no agent ran; it was put back")).collect()
    }

    /// Whether the tables say that a policy is in force, and it is this one.
    ///
    /// # Errors
    ///
    /// Those of the maps.
    pub fn is_in_force(&mut self, policy: &Compiled) -> Result<bool, KernelError> {
        let header = &policy.header;
        let active = self.array::<ActivePolicy>("PR_ACTIVE")?;
        let active = active.get(&0, 0).map_err(|source| KernelError::map("PR_ACTIVE", source))?;
        let slot = header.generation & 1;
        let headers = self.array::<PolicyHeader>("PR_HEADER")?;
        let written = headers.get(&slot, 0).map_err(|source| KernelError::map("PR_HEADER", source))?;
        let lan = self.array::<LanHeader>("PR_LAN_HEADER")?;
        let lan = lan.get(&slot, 0).map_err(|source| KernelError::map("PR_LAN_HEADER", source))?;
        let same = written == *header && lan == policy.lan.header;
        Ok(same && active.generation == header.generation && active.coming == 0)
    }

    /// Whether the guarded cgroup is the one the programs are on, and not one of its name that was made since.
    #[must_use]
    pub fn cgroup_is_there(&self) -> bool {
        std::fs::metadata(&self.cgroup).is_ok_and(|folder| folder.ino() == self.cgroup_id)
    }
}
