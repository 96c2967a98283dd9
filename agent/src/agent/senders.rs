//! Senders past every packet hook that no hook has judged: put back among the others where that can be done, and said.

use portreeve_abi::Verdict;
use portreeve_decide::{Identity, judge_raw_sender};

use super::Agent;
use super::explain::Names;
use crate::clock::Clock;
use crate::kernel::{RawSender, RawSenderKind};

impl Agent {
    /// Looks at all sockets there are, once, before the second lock is in place.
    pub(super) fn end_raw_senders(&mut self) {
        self.guard.look_into_processes();
        let senders = self.guard.raw_senders();
        self.judge_senders(senders);
    }

    /// Looks at the packet sockets, where the kernel has no second lock. Called once a second.
    pub(super) fn look_after_senders(&mut self) {
        if !self.guard.has_second_lock() {
            let senders = self.guard.packet_senders();
            self.judge_senders(senders);
        }
    }

    fn judge_senders(&mut self, senders: Vec<RawSender>) {
        let mut alarms = Vec::new();
        for sender in senders {
            // Said once; what cannot be turned off is seen again at each look.
            if self.may_send_raw(sender.pid) || self.raw_senders.contains(&sender.inode) {
                continue;
            }
            let exe = std::fs::read_link(format!("/proc/{}/exe", sender.pid));
            let who = format!("{}[{}]", exe.map_or("?".to_owned(), |exe| exe.display().to_string()), sender.pid);
            alarms.push(match (sender.kind, sender.turn_off()) {
                (RawSenderKind::Packet, Ok(())) => {
                    format!("{who} had a packet socket that passes every packet hook; it was turned back")
                }
                (RawSenderKind::Packet, Err(error)) => {
                    format!("{who} has a packet socket that passes every packet hook, until it ends: {error}")
                }
                (RawSenderKind::Xdp, _) => {
                    format!("{who} has an AF_XDP socket from before the guard, which may pass every packet hook until it ends")
                }
            });
            self.raw_senders.insert(sender.inode);
        }
        self.alarm(alarms);
    }

    /// What the setsockopt hook would have said, by the same code.
    fn may_send_raw(&mut self, pid: u32) -> bool {
        let Ok(who) = self.process(pid) else { return false };
        let Some(exe) = who.exe.as_ref().and_then(|(_, id)| *id) else { return false };
        let (euid, egid) = (who.euid.unwrap_or(u32::MAX), who.egid.unwrap_or(u32::MAX));
        let identity = Identity { exe, euid, egid, taint: who.taint };
        let path = Names::of(who.cgroup.as_deref().unwrap_or("/"));
        let decision = judge_raw_sender(&self.in_force.compiled, Ok(&identity), &path, Clock::now().boot);
        !matches!(decision.verdict, Verdict::Deny)
    }
}
