//! Putting a compiled policy in force.
//!
//! The new generation's entries are written beside the old ones, then one number is flipped, then the programs that
//! may still read the old generation are waited for, and only then its entries are deleted.

use aya::Pod;
use aya::maps::MapError;
use aya::maps::lpm_trie::{Key, LpmTrie};
use portreeve_abi::{
    ActivePolicy, CgroupKey, CgroupNode, DestKey, ExeKey, IdKey, LanHeader, MacKey, PORT_WORDS, PolicyHeader, PortKey,
    RuleSet,
};

use super::guard::Guard;
use super::{Ended, KernelError, sys};
use crate::policy::Compiled;

impl Guard {
    /// The generation in force, 0 before the first policy.
    ///
    /// # Errors
    ///
    /// Those of the map.
    pub fn active_generation(&mut self) -> Result<u32, KernelError> {
        let active = self.array::<ActivePolicy>("PR_ACTIVE")?;
        Ok(active.get(&0, 0).map_err(|source| KernelError::map("PR_ACTIVE", source))?.generation)
    }

    /// The generation to compile the next policy for.
    ///
    /// # Errors
    ///
    /// Those of the map.
    pub fn next_generation(&mut self) -> Result<u32, KernelError> {
        // 0 means "none yet" and is passed over when the number wraps.
        Ok(self.active_generation()?.checked_add(1).unwrap_or(1))
    }

    /// Puts a policy in force, in one step.
    ///
    /// # Errors
    ///
    /// Why it could not be written; the policy before it stays in force then, whole.
    pub fn apply(&mut self, policy: &Compiled) -> Result<(), KernelError> {
        let before = self.active_generation()?;
        let relays = !policy.header.relayed.is_empty();
        if relays {
            self.follow_relay(true)?;
        }
        // What an agent that died in the middle of this has left.
        self.sweep(before)?;
        if let Err(error) = self.write(policy) {
            self.sweep(before)?;
            return Err(error);
        }
        let generation = policy.header.generation;
        if self.is_attached() {
            // What is connected already has its verdict before the packet programs ask for it.
            self.activate(ActivePolicy { generation: before, coming: generation })?;
            self.end_refused();
        }
        self.activate(ActivePolicy { generation, coming: 0 })?;
        self.frames.inside.clone_from(&policy.inside);
        self.frames.lan.clone_from(&policy.lan.interfaces);
        sys::wait_for_running_programs();
        if !relays {
            self.follow_relay(false)?;
        }
        if self.is_attached() {
            // What connected in the meantime, to a port that was not guarded yet.
            self.end_refused();
        }
        self.sweep(generation)
    }

    fn activate(&mut self, active: ActivePolicy) -> Result<(), KernelError> {
        self.array("PR_ACTIVE")?.set(0, active, 0).map_err(|source| KernelError::map("PR_ACTIVE", source))
    }

    /// Ends connections that the policy refuses. Where the kernel does not look for them, the packet programs let
    /// nothing through that has no verdict.
    pub fn end_refused(&mut self) {
        let ended = self.judge_existing();
        if let Ok(ended) = &ended {
            self.ended.destroyed += ended.destroyed;
            self.ended.starved += ended.starved;
        }
        match ended {
            Ok(ended) if ended == Ended::default() => {}
            Ok(Ended { destroyed, starved }) => tracing::warn!(
                "connections to guarded ports that were there already and are refused: {destroyed} ended, {starved} left \
                 without a way out"
            ),
            Err(error) => tracing::error!("{error}"),
        }
    }

    fn write(&mut self, policy: &Compiled) -> Result<(), KernelError> {
        self.fill("PR_EXE", &policy.exe)?;
        self.fill("PR_USER", &policy.user)?;
        self.fill("PR_GROUP", &policy.group)?;
        self.fill("PR_CGROUP", &policy.cgroup)?;
        self.fill("PR_PORT", &policy.port)?;
        self.fill_trie("PR_DEST", &policy.destination)?;
        self.fill("PR_LAN_MAC", &policy.lan.mac)?;
        self.fill("PR_LAN_VLAN", &policy.lan.vlan)?;
        self.fill("PR_LAN_PORT", &policy.lan.port)?;
        self.fill_trie("PR_LAN_FROM", &policy.lan.from)?;
        self.fill_trie("PR_LAN_TO", &policy.lan.to)?;
        let slot = policy.header.generation & 1;
        for (name, words) in [("PR_PORTS", &policy.ports), ("PR_LAN_PORTS", &policy.lan.ports)] {
            let mut ports = self.array::<u64>(name)?;
            for (index, word) in (slot * PORT_WORDS as u32..).zip(words.iter()) {
                ports.set(index, *word, 0).map_err(|source| KernelError::map(name, source))?;
            }
        }
        let mut lan = self.array::<LanHeader>("PR_LAN_HEADER")?;
        lan.set(slot, policy.lan.header, 0).map_err(|source| KernelError::map("PR_LAN_HEADER", source))?;
        let mut header = self.array::<PolicyHeader>("PR_HEADER")?;
        header.set(slot, policy.header, 0).map_err(|source| KernelError::map("PR_HEADER", source))
    }

    fn fill<K: Pod, V: Pod>(&mut self, name: &'static str, entries: &[(K, V)]) -> Result<(), KernelError> {
        let mut map = self.hash::<K, V>(name)?;
        for (key, value) in entries {
            map.insert(key, value, 0).map_err(|source| KernelError::map(name, source))?;
        }
        Ok(())
    }

    fn fill_trie(&mut self, name: &'static str, entries: &[(u32, DestKey, RuleSet)]) -> Result<(), KernelError> {
        let mut trie = self.trie(name)?;
        for (bits, key, rules) in entries {
            trie.insert(&Key::new(*bits, *key), rules, 0).map_err(|source| KernelError::map(name, source))?;
        }
        Ok(())
    }

    fn trie(&mut self, name: &'static str) -> Result<LpmTrie<&mut aya::maps::MapData, DestKey, RuleSet>, KernelError> {
        let map = self.ebpf.map_mut(name).ok_or(KernelError::NoMap(name))?;
        map.try_into().map_err(|source| KernelError::map(name, source))
    }

    /// Deletes every entry of another generation than `keep`.
    fn sweep(&mut self, keep: u32) -> Result<(), KernelError> {
        self.sweep_map::<ExeKey, RuleSet>("PR_EXE", |key| key.generation == keep)?;
        self.sweep_map::<IdKey, RuleSet>("PR_USER", |key| key.generation == keep)?;
        self.sweep_map::<IdKey, RuleSet>("PR_GROUP", |key| key.generation == keep)?;
        self.sweep_map::<CgroupKey, CgroupNode>("PR_CGROUP", |key| key.generation == keep)?;
        self.sweep_map::<PortKey, RuleSet>("PR_PORT", |key| key.generation == keep)?;
        self.sweep_map::<MacKey, RuleSet>("PR_LAN_MAC", |key| key.generation == keep)?;
        self.sweep_map::<IdKey, RuleSet>("PR_LAN_VLAN", |key| key.generation == keep)?;
        self.sweep_map::<PortKey, RuleSet>("PR_LAN_PORT", |key| key.generation == keep)?;
        for name in ["PR_DEST", "PR_LAN_FROM", "PR_LAN_TO"] {
            let mut trie = self.trie(name)?;
            let stale: Vec<_> = trie
                .keys()
                .filter(|key| key.as_ref().map_or(true, |key| key.data().generation != keep.to_ne_bytes()))
                .collect::<Result<_, MapError>>()
                .map_err(|source| KernelError::map(name, source))?;
            for key in stale {
                trie.remove(&key).map_err(|source| KernelError::map(name, source))?;
            }
        }
        Ok(())
    }

    fn sweep_map<K: Pod, V: Pod>(&mut self, name: &'static str, keep: impl Fn(&K) -> bool) -> Result<(), KernelError> {
        let mut map = self.hash::<K, V>(name)?;
        let stale: Vec<K> = map
            .keys()
            .filter(|key| key.as_ref().map_or(true, |key| !keep(key)))
            .collect::<Result<_, MapError>>()
            .map_err(|source| KernelError::map(name, source))?;
        for key in stale {
            map.remove(&key).map_err(|source| KernelError::map(name, source))?;
        }
        Ok(())
    }
}
