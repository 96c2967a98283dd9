//! The kernel's exact counters, subject by subject, with the names that are known.

use std::collections::HashMap;

use jiff::Timestamp;
use portreeve_abi::SubjectKey;
use serde::{Deserialize, Serialize};

use super::Agent;
use crate::clock::Clock;

/// One subject and what was counted for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The executable's path, where an attempt of it is still remembered.
    pub exe: Option<String>,
    /// The executable's inode number.
    pub exe_inode: u64,
    /// The executable's device, as the kernel numbers it.
    pub exe_device: u32,
    /// The effective user.
    pub euid: u32,
    /// The effective user's name.
    pub user: Option<String>,
    /// The cgroup's id.
    pub cgroup_id: u64,
    /// The cgroup's path, where an attempt of it is still remembered.
    pub cgroup: Option<String>,
    /// Attempts allowed by a rule.
    pub allowed: u64,
    /// Attempts refused.
    pub refused: u64,
    /// Attempts that passed and would have been refused.
    pub observed: u64,
    /// Mail handed to this host's own loopback.
    pub local: u64,
    /// The first attempt.
    pub first: Timestamp,
    /// The last attempt.
    pub last: Timestamp,
}

impl Agent {
    /// Every subject that the kernel counts for, the most refused first.
    ///
    /// # Errors
    ///
    /// When the counters cannot be read.
    pub fn subjects(&mut self) -> Result<Vec<Subject>, String> {
        let counted = self.guard.subjects().map_err(|error| error.to_string())?;
        let (mut programs, mut cgroups) = (HashMap::new(), HashMap::new());
        for attempt in self.attempts.since(None) {
            programs.insert((attempt.exe_device, attempt.exe_inode), attempt.exe.clone());
            cgroups.insert(attempt.cgroup_id, attempt.cgroup.clone());
        }
        let clock = Clock::now();
        let mut subjects: Vec<Subject> = counted
            .into_iter()
            .map(|(SubjectKey { ino, cgroup, dev, euid }, count)| {
                let [allowed, refused, observed, local] = count.verdicts;
                Subject {
                    exe: programs.get(&(dev, ino)).cloned().flatten(),
                    exe_inode: ino,
                    exe_device: dev,
                    euid,
                    user: self.recorder.user(euid),
                    cgroup_id: cgroup,
                    cgroup: cgroups.get(&cgroup).cloned(),
                    allowed,
                    refused,
                    observed,
                    local,
                    first: clock.at(count.first),
                    last: clock.at(count.last),
                }
            })
            .collect();
        subjects.sort_by_key(|subject| (std::cmp::Reverse(subject.refused), std::cmp::Reverse(subject.last)));
        Ok(subjects)
    }
}
