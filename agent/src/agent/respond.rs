//! What the agent's responses to alerts ask the policy in force and the kernel.

use std::fs::File;

use portreeve_decide::Identity;

use super::Agent;
use super::explain::Names;
use crate::alert::response::Judge;
use crate::clock::Clock;

impl Judge for Agent {
    fn sanctioned(&mut self, pid: u32) -> bool {
        let Ok(who) = self.process(pid) else { return true };
        let (Some(euid), Some(egid)) = (who.euid, who.egid) else { return true };
        let exe = who.exe.and_then(|(_, id)| id).unwrap_or_default();
        let names = Names::of(&who.cgroup.unwrap_or_else(|| "/".to_owned()));
        let identity = Identity { exe, euid, egid, taint: who.taint };
        self.in_force.compiled.sanctions(&identity, &names, Clock::now().boot)
    }

    fn executable(&mut self, file: &File) -> Option<(u32, u64)> {
        self.guard.learn(file).ok().map(|exe| (exe.dev, exe.ino))
    }
}
