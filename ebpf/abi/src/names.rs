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
/// The tc egress program for devices that lead to containers and virtual machines of this host alone.
pub const PROGRAM_FRAME_IN: &str = "pr_frame_in";
/// The same for those whose frames begin with the IP header.
pub const PROGRAM_FRAME_IP_IN: &str = "pr_frame_ip_in";
/// The tc ingress program for LAN interfaces with Ethernet headers.
pub const PROGRAM_LAN: &str = "pr_lan";
/// The tc ingress program for LAN interfaces whose frames begin with the IP header.
pub const PROGRAM_LAN_IP: &str = "pr_lan_ip";
/// What these end in for what the first look has not let go.
pub const PROGRAM_LAN_LOOK: &str = "pr_lan_look";
/// What that ends in for a segment to a guarded port: the verdict.
pub const PROGRAM_LAN_JUDGE: &str = "pr_lan_judge";
/// What that ends in for what is to be counted.
pub const PROGRAM_LAN_COUNT: &str = "pr_lan_count";
/// What that ends in for a host that is refused: the answer.
pub const PROGRAM_LAN_REFUSE: &str = "pr_lan_refuse";
/// What the packet program ends in when it does not let a packet go.
pub const PROGRAM_PACKET_NO: &str = "pr_packet_no";
/// What the frame programs end in for what their first look has not let go.
pub const PROGRAM_FRAME_LOOK: &str = "pr_frame_look";
/// What that ends in when it does not let a frame go either.
pub const PROGRAM_FRAME_NO: &str = "pr_frame_no";
/// The cgroup/setsockopt program.
pub const PROGRAM_SETSOCKOPT: &str = "pr_setsockopt";
/// The sock_ops program: what is brought to the relay, by its own port.
pub const PROGRAM_SOCKOPS: &str = "pr_sockops";
/// The cgroup/getpeername4 program.
pub const PROGRAM_PEERNAME4: &str = "pr_peername4";
/// The cgroup/getpeername6 program.
pub const PROGRAM_PEERNAME6: &str = "pr_peername6";
/// The iterator over connections that are older than the guard.
pub const PROGRAM_EXISTING: &str = "pr_existing";

/// The second lock on senders that pass every packet hook: a program of the BPF security module.
pub const PROGRAM_LSM: &str = "pr_lsm";
/// At the end of the kernel's check whether one process may reach into another.
pub const PROGRAM_REACH: &str = "pr_reach";
/// At the end of `bpf(2)`.
pub const PROGRAM_BPF: &str = "pr_bpf";

/// A map: its name, and the memory it is budgeted for.
#[derive(Clone, Copy, Debug)]
pub struct Map {
    /// The name in the object, in `bpftool map` and in the pin folder.
    pub name: &'static str,
    /// Entries at the most (bytes for the ring buffer).
    pub entries: u32,
    /// Bytes of key and value together.
    pub entry_bytes: u32,
    /// It says what sockets and connections may do, and so has a version of its own: see [`crate::SOCKETS_VERSION`].
    pub of_sockets: bool,
}

const fn map(name: &'static str, entries: u32, entry_bytes: u32) -> Map {
    Map { name, entries, entry_bytes, of_sockets: false }
}

const fn of_sockets(name: &'static str, entries: u32, entry_bytes: u32) -> Map {
    Map { name, entries, entry_bytes, of_sockets: true }
}

/// Every map, with what happens when it is full in the comment beside it.
pub const MAPS: [Map; 42] = [
    // One entry; the agent alone writes it.
    map("PR_ACTIVE", 1, 8),
    // Two slots, the agent alone writes them.
    map("PR_HEADER", 2, 704),
    // Two bitmaps of guarded ports, the agent alone writes them.
    map("PR_PORTS", 2048, 8),
    // The policy's tables: written by the agent alone; a policy that does not fit is refused as a whole.
    map("PR_EXE", 4096, 40 + 32),
    map("PR_USER", 8192, 8 + 32),
    map("PR_GROUP", 8192, 8 + 32),
    map("PR_CGROUP", 8192, 104 + 40),
    map("PR_DEST", 32_768, 24 + 32),
    map("PR_PORT", 8192, 8 + 32),
    // Written by the connect programs; when full, further subjects are counted together in the totals.
    map("PR_SUBJECTS", 16_384, 24 + 48),
    // Written by the programs, one value a CPU.
    map("PR_TOTALS", 12, 8),
    // Written by the connect programs; when full, details are shed and counted.
    map("PR_EVENTS", 4 << 20, 1),
    // Written by the exec, fork and exit programs; when full, the process counts as one whose exec was not seen.
    map("PR_EXECS", 65_536, 4 + 48),
    // One entry: the answer of the learn program.
    map("PR_LEARNED", 1, 40),
    // One value in each socket that has a verdict, allocated with it; a connect() without room for it is refused.
    of_sockets("PR_VERDICTS", 0, 4 + 8),
    // Written by the packet program, the least recently used go: their connections' first segments are refused at the
    // device, and sent again.
    of_sockets("PR_PASSES", 4096, 24 + 8),
    // Written by the frame programs, the least recently used go: their next segments are refused.
    of_sockets("PR_FLOWS", 16_384, 36 + 8),
    // One value in each socket that is brought to the relay; a connect() without room for it is refused.
    map("PR_BROUGHT", 0, 4 + 40),
    // Written by the sock_ops program, the least recently used go: the relay does not know who they are, and puts them off.
    map("PR_ARRIVING", 4096, 20 + 40),
    // Counters taken over from another layout: written and read by the agent alone.
    map("PR_OLD_TOTALS", 12, 8),
    map("PR_OLD_SUBJECTS", 16_384, 24 + 48),
    // Programs that others end in; the agent alone writes them.
    map("PR_NEXT_PACKET", 1, 8),
    map("PR_NEXT_FRAME", 2, 8),
    // Written by the program at the end of `bpf(2)`; when full, the agent knows already that it has to look.
    map("PR_STIRS", 4096, 1),
    // The gateway's part of the policy, likewise: two slots, two bitmaps, and tables that the agent alone writes.
    map("PR_LAN_HEADER", 2, 184),
    map("PR_LAN_PORTS", 2048, 8),
    map("PR_LAN_FROM", 2048, 24 + 32),
    map("PR_LAN_MAC", 2048, 12 + 32),
    map("PR_LAN_VLAN", 2048, 8 + 32),
    map("PR_LAN_TO", 2048, 24 + 32),
    map("PR_LAN_PORT", 2048, 8 + 32),
    // This host's own addresses, and the LAN interfaces: written by the agent alone.
    map("PR_OWN", 1024, 16 + 8),
    map("PR_LAN_DEVICES", 1024, 4 + 4),
    // Written by the gateway's programs; when full, further sources are counted by their networks, and when those are
    // full too, in the totals alone, which is counted.
    map("PR_LAN_SOURCES", 16_384, 32 + 48),
    // Two numbers: how many hosts have come, which the programs count, and how many have gone, which the agent does.
    map("PR_LAN_KNOWN", 2, 8),
    // The sources that are being taken out, at the most so many at once; the agent alone writes them.
    map("PR_LAN_LEAVING", 1024, 32 + 4),
    // One entry: what is being moved.
    map("PR_LAN_MOVE", 1, 120),
    // Counters of sources that were taken out, and those taken over from another layout: written and read by the agent
    // alone; when full, they are counted together.
    map("PR_OLD_SOURCES", 16_384, 32 + 48),
    // Written by the gateway's programs, the least recently used go: what is left of their connections is counted once
    // more.
    map("PR_LAN_FLOWS", 8192, 36 + 32),
    // One value a CPU each: what one program of the gateway tells the next, and what it answers.
    map("PR_LAN_SEEN", 1, 96),
    map("PR_LAN_ANSWER", 1, 80),
    map("PR_NEXT_LAN", 4, 8),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_maps_together_stay_below_19_mib() {
        let bytes: u64 = MAPS.iter().map(|map| u64::from(map.entries) * u64::from(map.entry_bytes)).sum();
        assert!(bytes < 19 << 20, "{bytes} bytes");
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
            PROGRAM_FRAME_IN,
            PROGRAM_FRAME_IP_IN,
            PROGRAM_LAN,
            PROGRAM_LAN_IP,
            PROGRAM_LAN_LOOK,
            PROGRAM_LAN_JUDGE,
            PROGRAM_LAN_COUNT,
            PROGRAM_LAN_REFUSE,
            PROGRAM_SETSOCKOPT,
            PROGRAM_EXISTING,
            PROGRAM_SOCKOPS,
            PROGRAM_PEERNAME4,
            PROGRAM_PEERNAME6,
            PROGRAM_PACKET_NO,
            PROGRAM_FRAME_LOOK,
            PROGRAM_FRAME_NO,
            PROGRAM_LSM,
            PROGRAM_REACH,
            PROGRAM_BPF,
        ];
        for name in MAPS.iter().map(|map| map.name).chain(programs) {
            assert!(name.len() <= 15, "{name}");
        }
    }
}
