//! The names of programs and maps. The kernel keeps 15 bytes of each.

/// The cgroup/connect4 program.
pub const PROGRAM_CONNECT4: &str = "pr_connect4";
/// The cgroup/connect6 program.
pub const PROGRAM_CONNECT6: &str = "pr_connect6";
/// Tells the agent how the kernel sees a file the agent has open; run by test-run only, never attached.
pub const PROGRAM_LEARN: &str = "pr_learn";
/// The raw tracepoint sched_process_exec.
pub const PROGRAM_EXEC: &str = "pr_exec";
/// The raw tracepoint sched_process_fork.
pub const PROGRAM_FORK: &str = "pr_fork";
/// The raw tracepoint sched_process_exit.
pub const PROGRAM_EXIT: &str = "pr_exit";

/// The cgroup_skb/egress program.
pub const PROGRAM_PACKET: &str = "pr_packet";
/// The tc egress program for devices with Ethernet headers.
pub const PROGRAM_FRAME: &str = "pr_frame";
/// The tc egress program for devices whose frames begin with the IP header.
pub const PROGRAM_FRAME_IP: &str = "pr_frame_ip";
/// What the packet program ends in when it does not let a packet go.
pub const PROGRAM_PACKET_NO: &str = "pr_packet_no";
/// The same for frames.
pub const PROGRAM_FRAME_NO: &str = "pr_frame_no";
/// The cgroup/setsockopt program.
pub const PROGRAM_SETSOCKOPT: &str = "pr_setsockopt";
/// The iterator over connections that are older than the guard.
pub const PROGRAM_EXISTING: &str = "pr_existing";

/// A map: its name, and the memory it is budgeted for.
#[derive(Clone, Copy, Debug)]
pub struct Map {
    /// The name in the object, in `bpftool map` and in the pin folder.
    pub name: &'static str,
    /// Entries at the most (bytes for the ring buffer).
    pub entries: u32,
    /// Bytes of key and value together.
    pub entry_bytes: u32,
}

/// Every map, with what happens when it is full in the comment beside it.
pub const MAPS: [Map; 21] = [
    // One entry; the agent alone writes it.
    Map { name: "PR_ACTIVE", entries: 1, entry_bytes: 8 },
    // Two slots, the agent alone writes them.
    Map { name: "PR_HEADER", entries: 2, entry_bytes: 592 },
    // Two bitmaps of guarded ports, the agent alone writes them.
    Map { name: "PR_PORTS", entries: 2048, entry_bytes: 8 },
    // The policy's tables: written by the agent alone; a policy that does not fit is refused as a whole.
    Map { name: "PR_EXE", entries: 4096, entry_bytes: 40 + 32 },
    Map { name: "PR_USER", entries: 8192, entry_bytes: 8 + 32 },
    Map { name: "PR_GROUP", entries: 8192, entry_bytes: 8 + 32 },
    Map { name: "PR_CGROUP", entries: 8192, entry_bytes: 104 + 40 },
    Map { name: "PR_DEST", entries: 32_768, entry_bytes: 24 + 32 },
    Map { name: "PR_PORT", entries: 8192, entry_bytes: 8 + 32 },
    // Written by the connect programs; when full, further subjects are counted together in the totals.
    Map { name: "PR_SUBJECTS", entries: 16_384, entry_bytes: 24 + 48 },
    // Written by the programs, one value a CPU.
    Map { name: "PR_TOTALS", entries: 11, entry_bytes: 8 },
    // Written by the connect programs; when full, details are shed and counted.
    Map { name: "PR_EVENTS", entries: 4 << 20, entry_bytes: 1 },
    // Written by the exec, fork and exit programs; when full, the process counts as one whose exec was not seen.
    Map { name: "PR_EXECS", entries: 65_536, entry_bytes: 4 + 48 },
    // One entry: the answer of the learn program.
    Map { name: "PR_LEARNED", entries: 1, entry_bytes: 40 },
    // One value in each socket that has a verdict, allocated with it; a connect() without room for it is refused.
    Map { name: "PR_VERDICTS", entries: 0, entry_bytes: 4 + 8 },
    // Written by the packet program, the least recently used go: their connections' first segments are refused at the
    // device, and sent again.
    Map { name: "PR_PASSES", entries: 4096, entry_bytes: 24 + 8 },
    // Written by the frame programs, the least recently used go: their next segments are refused.
    Map { name: "PR_FLOWS", entries: 16_384, entry_bytes: 36 + 8 },
    // Counters taken over from another layout: written and read by the agent alone.
    Map { name: "PR_OLD_TOTALS", entries: 11, entry_bytes: 8 },
    Map { name: "PR_OLD_SUBJECTS", entries: 16_384, entry_bytes: 24 + 48 },
    // Programs that others end in; the agent alone writes them.
    Map { name: "PR_NEXT_PACKET", entries: 1, entry_bytes: 8 },
    Map { name: "PR_NEXT_FRAME", entries: 1, entry_bytes: 8 },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_maps_together_stay_below_16_mib() {
        let bytes: u64 = MAPS.iter().map(|map| u64::from(map.entries) * u64::from(map.entry_bytes)).sum();
        assert!(bytes < 16 << 20, "{bytes} bytes");
    }

    #[test]
    fn the_kernel_keeps_every_name_whole() {
        let programs = [
            PROGRAM_CONNECT4,
            PROGRAM_CONNECT6,
            PROGRAM_LEARN,
            PROGRAM_EXEC,
            PROGRAM_FORK,
            PROGRAM_EXIT,
            PROGRAM_PACKET,
            PROGRAM_FRAME,
            PROGRAM_FRAME_IP,
            PROGRAM_SETSOCKOPT,
            PROGRAM_EXISTING,
            PROGRAM_PACKET_NO,
            PROGRAM_FRAME_NO,
        ];
        for name in MAPS.iter().map(|map| map.name).chain(programs) {
            assert!(name.len() <= 15, "{name}");
        }
    }
}
