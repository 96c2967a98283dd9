//! The maps. What each is for, and what happens when it is full, is in `portreeve_abi::MAPS`.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use portreeve_abi::{
    ActivePolicy, Brought, BroughtKey, CgroupKey, CgroupNode, DestKey, ExeKey, ExecRecord, FlowKey, IdKey, LAN_LEAVING,
    LAN_ON, LanFlow, LanHeader, LanMove, LanSource, Learned, MODE_OBSERVE, MacKey, OwnAddress, PORT_WORDS, Pass,
    PassKey, PolicyHeader, PortKey, RuleSet, SocketState, SubjectCount, SubjectKey, Total,
};
use portreeve_decide::{LanTables, Tables};

use crate::hooks::lan::Answer;
use crate::report::LanSeen;

#[map]
static PR_ACTIVE: Array<ActivePolicy> = Array::with_max_entries(1, 0);
#[map]
static PR_HEADER: Array<PolicyHeader> = Array::with_max_entries(2, 0);
#[map]
static PR_PORTS: Array<u64> = Array::with_max_entries(2 * PORT_WORDS as u32, 0);
#[map]
static PR_EXE: HashMap<ExeKey, RuleSet> = HashMap::with_max_entries(4096, 0);
#[map]
static PR_USER: HashMap<IdKey, RuleSet> = HashMap::with_max_entries(8192, 0);
#[map]
static PR_GROUP: HashMap<IdKey, RuleSet> = HashMap::with_max_entries(8192, 0);
#[map]
static PR_CGROUP: HashMap<CgroupKey, CgroupNode> = HashMap::with_max_entries(8192, 0);
#[map]
static PR_DEST: LpmTrie<DestKey, RuleSet> = LpmTrie::with_max_entries(32_768, BPF_F_NO_PREALLOC);
#[map]
static PR_PORT: HashMap<PortKey, RuleSet> = HashMap::with_max_entries(8192, 0);
#[map]
pub(crate) static PR_SUBJECTS: HashMap<SubjectKey, SubjectCount> = HashMap::with_max_entries(16_384, 0);
#[map]
pub(crate) static PR_TOTALS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Total::COUNT, 0);
#[map]
pub(crate) static PR_EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);
#[map]
pub(crate) static PR_EXECS: HashMap<u32, ExecRecord> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static PR_LEARNED: Array<Learned> = Array::with_max_entries(1, 0);
#[btf_map]
pub(crate) static PR_VERDICTS: SkStorage<SocketState> = SkStorage::new();
#[map]
pub(crate) static PR_PASSES: LruHashMap<PassKey, Pass> = LruHashMap::with_max_entries(4096, 0);
#[map]
pub(crate) static PR_FLOWS: LruHashMap<FlowKey, Pass> = LruHashMap::with_max_entries(16_384, 0);

#[btf_map]
pub(crate) static PR_BROUGHT: SkStorage<Brought> = SkStorage::new();
#[map]
pub(crate) static PR_ARRIVING: LruHashMap<BroughtKey, Brought> = LruHashMap::with_max_entries(4096, 0);

#[map]
static PR_OLD_TOTALS: Array<u64> = Array::with_max_entries(Total::COUNT, 0);
#[map]
static PR_OLD_SUBJECTS: HashMap<SubjectKey, SubjectCount> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static PR_NEXT_PACKET: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
pub(crate) static PR_NEXT_FRAME: ProgramArray = ProgramArray::with_max_entries(2, 0);
#[map]
pub(crate) static PR_STIRS: RingBuf = RingBuf::with_byte_size(4096, 0);

#[map]
static PR_LAN_HEADER: Array<LanHeader> = Array::with_max_entries(2, 0);
#[map]
static PR_LAN_PORTS: Array<u64> = Array::with_max_entries(2 * PORT_WORDS as u32, 0);
#[map]
static PR_LAN_FROM: LpmTrie<DestKey, RuleSet> = LpmTrie::with_max_entries(2048, BPF_F_NO_PREALLOC);
#[map]
static PR_LAN_MAC: HashMap<MacKey, RuleSet> = HashMap::with_max_entries(2048, 0);
#[map]
static PR_LAN_VLAN: HashMap<IdKey, RuleSet> = HashMap::with_max_entries(2048, 0);
#[map]
static PR_LAN_TO: LpmTrie<DestKey, RuleSet> = LpmTrie::with_max_entries(2048, BPF_F_NO_PREALLOC);
#[map]
static PR_LAN_PORT: HashMap<PortKey, RuleSet> = HashMap::with_max_entries(2048, 0);
#[map]
pub(crate) static PR_LAN_DEVICES: HashMap<u32, u32> = HashMap::with_max_entries(1024, 0);
#[map]
static PR_OWN: HashMap<OwnAddress, u8> = HashMap::with_max_entries(1024, 0);
#[map]
pub(crate) static PR_LAN_SOURCES: HashMap<LanSource, SubjectCount> =
    HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static PR_LAN_KNOWN: Array<u64> = Array::with_max_entries(2, 0);
#[map]
pub(crate) static PR_LAN_LEAVING: HashMap<LanSource, u32> = HashMap::with_max_entries(LAN_LEAVING, BPF_F_NO_PREALLOC);
#[map]
static PR_LAN_MOVE: Array<LanMove> = Array::with_max_entries(1, 0);
#[map]
static PR_OLD_SOURCES: HashMap<LanSource, SubjectCount> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static PR_LAN_FLOWS: LruHashMap<FlowKey, LanFlow> = LruHashMap::with_max_entries(8192, 0);
#[map]
pub(crate) static PR_LAN_SEEN: PerCpuArray<LanSeen> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static PR_LAN_ANSWER: PerCpuArray<Answer> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static PR_NEXT_LAN: ProgramArray = ProgramArray::with_max_entries(4, 0);

/// The generation in force; 0 before the first policy.
#[inline(always)]
pub(crate) fn active_generation() -> u32 {
    PR_ACTIVE.get(0).map_or(0, |active| active.generation)
}

/// The generation that is about to be in force, while there is one; else the one in force.
#[inline(always)]
pub(crate) fn coming_generation() -> u32 {
    PR_ACTIVE.get(0).map_or(0, |active| if active.coming != 0 { active.coming } else { active.generation })
}

/// Whether a generation guards a port.
#[inline(always)]
pub(crate) fn guarded(generation: u32, port: u16) -> bool {
    marked(&PR_PORTS, generation, port)
}

/// Whether a generation guards a port for LAN hosts.
#[inline(always)]
pub(crate) fn lan_guarded(generation: u32, port: u16) -> bool {
    marked(&PR_LAN_PORTS, generation, port)
}

/// Whether a device is a LAN interface; 0 is none.
#[inline(always)]
pub(crate) fn is_lan(device: u32) -> bool {
    device != 0 && PR_LAN_DEVICES.get_ptr(device).is_some()
}

/// Whether a frame has come in by a LAN interface, and the generation does not guard its port for LAN hosts.
#[inline(always)]
pub(crate) fn lan_lets_alone(generation: u32, port: u16, came_by: u32) -> bool {
    lan_of(generation, came_by).is_some() && !lan_guarded(generation, port)
}

/// Whether a frame has come in by a LAN interface where nothing is refused: whatever it is, it was judged and counted there.
#[inline(always)]
pub(crate) fn lan_observes(generation: u32, came_by: u32) -> bool {
    lan_of(generation, came_by).is_some_and(|header| header.mode == MODE_OBSERVE)
}

/// What holds for LAN hosts in a generation that guards them, if a device is a LAN interface.
#[inline(always)]
fn lan_of(generation: u32, device: u32) -> Option<&'static LanHeader> {
    if !is_lan(device) {
        return None;
    }
    PR_LAN_HEADER.get(generation & 1).filter(|header| header.generation == generation && header.flags & LAN_ON != 0)
}

#[inline(always)]
fn marked(ports: &Array<u64>, generation: u32, port: u16) -> bool {
    let slot = (generation & 1) * PORT_WORDS as u32 + u32::from(port >> 6);
    // An index that is out of range cannot be; were it so, the port is guarded.
    ports.get(slot).is_none_or(|word| *word >> (port & 63) & 1 == 1)
}

/// The rules that name an executable.
#[inline(always)]
pub(crate) fn exe_rules(key: &ExeKey) -> Option<RuleSet> {
    // SAFETY: entries of a generation in force are neither changed nor deleted.
    unsafe { PR_EXE.get(key) }.copied()
}

/// The policy of one generation, in the maps.
pub(crate) struct MapTables {
    generation: u32,
}

impl MapTables {
    /// The tables of a generation.
    #[inline(always)]
    pub(crate) fn new(generation: u32) -> Self {
        Self { generation }
    }
}

impl Tables for MapTables {
    #[inline(always)]
    fn header(&self) -> Option<&PolicyHeader> {
        let header = PR_HEADER.get(self.generation & 1)?;
        (header.generation == self.generation && self.generation != 0).then_some(header)
    }

    #[inline(always)]
    fn exe(&self, key: &ExeKey) -> Option<RuleSet> {
        exe_rules(key)
    }

    #[inline(always)]
    fn user(&self, key: &IdKey) -> Option<RuleSet> {
        // SAFETY: as in `exe_rules`.
        unsafe { PR_USER.get(key) }.copied()
    }

    #[inline(always)]
    fn group(&self, key: &IdKey) -> Option<RuleSet> {
        // SAFETY: as in `exe_rules`.
        unsafe { PR_GROUP.get(key) }.copied()
    }

    #[inline(always)]
    fn cgroup(&self, key: &CgroupKey) -> Option<CgroupNode> {
        // SAFETY: as in `exe_rules`.
        unsafe { PR_CGROUP.get(key) }.copied()
    }

    #[inline(always)]
    fn destination(&self, key: &DestKey) -> Option<RuleSet> {
        PR_DEST.get(Key::new(8 * size_of::<DestKey>() as u32, *key)).copied()
    }

    #[inline(always)]
    fn port(&self, key: &PortKey) -> Option<RuleSet> {
        // SAFETY: as in `exe_rules`.
        unsafe { PR_PORT.get(key) }.copied()
    }
}

/// The gateway's part of the policy of one generation, in the maps.
pub(crate) struct LanMaps {
    generation: u32,
}

impl LanMaps {
    /// The tables of a generation.
    #[inline(always)]
    pub(crate) fn new(generation: u32) -> Self {
        Self { generation }
    }
}

impl LanTables for LanMaps {
    #[inline(always)]
    fn header(&self) -> Option<&LanHeader> {
        let header = PR_LAN_HEADER.get(self.generation & 1)?;
        (header.generation == self.generation && self.generation != 0).then_some(header)
    }

    #[inline(always)]
    fn from(&self, key: &DestKey) -> Option<RuleSet> {
        PR_LAN_FROM.get(Key::new(8 * size_of::<DestKey>() as u32, *key)).copied()
    }

    #[inline(always)]
    fn mac(&self, key: &MacKey) -> Option<RuleSet> {
        // SAFETY: as in `exe_rules`.
        unsafe { PR_LAN_MAC.get(key) }.copied()
    }

    #[inline(always)]
    fn vlan(&self, key: &IdKey) -> Option<RuleSet> {
        // SAFETY: as in `exe_rules`.
        unsafe { PR_LAN_VLAN.get(key) }.copied()
    }

    #[inline(always)]
    fn to(&self, key: &DestKey) -> Option<RuleSet> {
        PR_LAN_TO.get(Key::new(8 * size_of::<DestKey>() as u32, *key)).copied()
    }

    #[inline(always)]
    fn port(&self, key: &PortKey) -> Option<RuleSet> {
        // SAFETY: as in `exe_rules`.
        unsafe { PR_LAN_PORT.get(key) }.copied()
    }

    #[inline(always)]
    fn is_own(&self, address: &[u8; 16]) -> bool {
        PR_OWN.get_ptr(OwnAddress { address: *address }).is_some()
    }
}
