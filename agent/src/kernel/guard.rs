//! Loading, attaching, pinning and taking over.
//!
//! Pins of an instance, below `<bpffs>/portreeve/<instance>/`:
//! `links/` holds the attached programs, whatever their version; `v<ABI_VERSION>/` holds the maps of one layout. A new
//! agent puts its programs behind the old links in one step each, so that there is no moment without a program.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{
    CgroupSkb, CgroupSockAddr, CgroupSockopt, Iter, RawTracePoint, SchedClassifier, SockOps, SocketFilter,
    TestRun as _, TestRunOptions,
};
use aya::{Ebpf, EbpfLoader, Pod};
use portreeve_abi::{
    ABI_VERSION, ExeId, ExecRecord, GuardedCgroup, Learned, MAPS, Map, PROGRAM_CONNECT4, PROGRAM_CONNECT6,
    PROGRAM_EXISTING, PROGRAM_FRAME, PROGRAM_FRAME_IN, PROGRAM_FRAME_IP, PROGRAM_FRAME_IP_IN, PROGRAM_FRAME_LOOK,
    PROGRAM_FRAME_NO, PROGRAM_LAN, PROGRAM_LAN_COUNT, PROGRAM_LAN_IP, PROGRAM_LAN_JUDGE, PROGRAM_LAN_LOOK,
    PROGRAM_LAN_REFUSE, PROGRAM_LEARN, PROGRAM_PACKET, PROGRAM_PACKET_NO, PROGRAM_PEERNAME4, PROGRAM_PEERNAME6,
    PROGRAM_SETSOCKOPT, PROGRAM_SOCKOPS, SOCKETS_VERSION, SubjectCount, SubjectKey, Tally, Total,
};

use super::attach::{NEXT, PACKETS, WATCHES};
use super::btf::{Btf, VMLINUX};
use super::carry::added;
use super::frames::{self, Frames};
use super::links::{Links, wait_for_end};
use super::{Ended, KernelError, kfunc, mounts, offsets, sys, trampoline};

/// The kernel programs, built into this binary.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("PORTREEVE_GUARD_OBJECT"));

/// The SHA-256 of the kernel programs, in hexadecimal.
pub const OBJECT_SHA256: &str = env!("PORTREEVE_GUARD_SHA256");

/// The folder of an instance's pins.
///
/// # Errors
///
/// When the mounts cannot be read.
pub fn pin_folder(instance: &str) -> io::Result<Option<PathBuf>> {
    Ok(mounts::bpffs()?.map(|root| root.join("portreeve").join(instance)))
}

/// The loaded programs and their maps.
pub struct Guard {
    pub(super) ebpf: Ebpf,
    pub(super) pins: PathBuf,
    /// The folder of this layout's maps.
    pub(super) map_pins: PathBuf,
    /// The maps' pins, and the maps themselves, so that a pin that is taken away can be put back.
    pub(super) maps: Vec<(PathBuf, OwnedFd)>,
    pub(super) links: Links,
    pub(super) exec_watch: Result<(), String>,
    /// The programs on kernel functions that this kernel does not take, and why.
    pub(super) absent: BTreeMap<&'static str, String>,
    /// The guarded cgroup.
    pub(super) cgroup: PathBuf,
    pub(super) cgroup_id: u64,
    pub(super) frames: Frames,
    /// What became of connections that were there already.
    pub(super) ended: Ended,
    /// Connections are brought to the relay.
    pub(super) relays: bool,
    /// Once the programs are attached, a new policy is held against the connections that are there.
    pub(super) attached: bool,
}

impl Guard {
    /// Loads the programs for a cgroup, with the instance's pinned maps where there are some. Attaches nothing.
    ///
    /// # Errors
    ///
    /// What is missing, in one sentence; nothing has changed then.
    pub fn load(instance: &str, cgroup: &Path, map_version: Option<u32>) -> Result<Self, KernelError> {
        if OBJECT.is_empty() {
            return Err(KernelError::NoObject);
        }
        let pins = mounts::ensure_bpffs().map_err(KernelError::Bpffs)?.join("portreeve").join(instance);
        let map_pins = pins.join(format!("v{}", map_version.unwrap_or(ABI_VERSION)));
        let socket_pins = pins.join(format!("sockets{SOCKETS_VERSION}"));
        let link_pins = pins.join("links");
        for folder in [&map_pins, &socket_pins, &link_pins] {
            fs::create_dir_all(folder).map_err(|source| KernelError::Pin { path: folder.clone(), source })?;
        }
        let places: Vec<(&'static str, PathBuf)> = pinned_maps()
            .map(|map| (map.name, if map.of_sockets { &socket_pins } else { &map_pins }.join(map.name)))
            .collect();
        let guarded = guarded_cgroup(cgroup)?;
        // The exec programs come and go together: first with them, then, on a kernel that does not let them load,
        // without. The constant tells the connect programs which it was.
        let mut ebpf = load_object(&places, &guarded, true)?;
        let exec_watch = load_watches(&mut ebpf);
        if exec_watch.is_err() {
            ebpf = load_object(&places, &guarded, false)?;
        }
        load_programs(&mut ebpf)?;
        let absent = trampoline::load(&mut ebpf);
        for (name, count) in verified(&ebpf) {
            tracing::debug!("{name}: the verifier followed {count} instructions");
        }
        let links = Links::open(link_pins);
        // A guard of before stands: what is connected is judged by a policy before that comes into force.
        let attached = links.held(PACKETS.0).is_some_and(|(_, info)| info.cgroup == guarded.id);
        Ok(Self {
            ebpf,
            pins,
            map_pins,
            maps: places
                .into_iter()
                .filter_map(|(_, path)| Some((path.clone(), sys::open_pinned(&path).ok()?)))
                .collect(),
            links,
            exec_watch,
            absent,
            cgroup: cgroup.to_owned(),
            cgroup_id: guarded.id,
            frames: Frames::new(instance, guarded.level == 0),
            ended: Ended::default(),
            relays: false,
            attached,
        })
    }

    /// Has the kernel verify the programs for a cgroup, and lets go of them: nothing is pinned or attached.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn rehearse(cgroup: &Path) -> Result<(), KernelError> {
        if OBJECT.is_empty() {
            return Err(KernelError::NoObject);
        }
        let mut ebpf = load_object(&[], &guarded_cgroup(cgroup)?, false)?;
        load_programs(&mut ebpf)
    }

    /// Asks the kernel how it sees a file that is open here. The file may be open with O_PATH.
    ///
    /// # Errors
    ///
    /// When the program cannot be run or found nothing behind the descriptor.
    pub fn learn(&mut self, file: &File) -> io::Result<ExeId> {
        use std::os::fd::AsRawFd as _;
        let question = Learned { fd: file.as_raw_fd() as u32, ..Learned::default() };
        let mut slot: Array<_, Learned> = self.array("PR_LEARNED").map_err(io::Error::other)?;
        slot.set(0, question, 0).map_err(io::Error::other)?;
        let program: &mut SocketFilter = program_mut(&mut self.ebpf, PROGRAM_LEARN).map_err(io::Error::other)?;
        // The smallest frame the kernel takes; the program looks at the caller, not at it.
        let frame = [0_u8; 64];
        program
            .test_run(TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() })
            .map_err(io::Error::other)?;
        let slot: Array<_, Learned> = self.array("PR_LEARNED").map_err(io::Error::other)?;
        let answer = slot.get(&0, 0).map_err(io::Error::other)?;
        if answer.found == 1 { Ok(answer.exe) } else { Err(io::Error::other("the kernel knows no such open file")) }
    }

    /// Keeps what a process that is older than the exec programs is known to be.
    ///
    /// # Errors
    ///
    /// Those of the map.
    pub fn remember_exec(&mut self, pid: u32, record: ExecRecord) -> Result<(), KernelError> {
        let mut execs: HashMap<_, u32, ExecRecord> = self.hash("PR_EXECS")?;
        execs.insert(pid, record, 0).map_err(|source| KernelError::map("PR_EXECS", source))
    }

    /// The exec record of a process.
    #[must_use]
    pub fn exec_record(&mut self, pid: u32) -> Option<ExecRecord> {
        self.hash::<u32, ExecRecord>("PR_EXECS").ok()?.get(&pid, 0).ok()
    }

    /// Whether execs are watched.
    ///
    /// # Errors
    ///
    /// Why they are not.
    pub fn exec_watch(&self) -> Result<(), &str> {
        self.exec_watch.as_ref().copied().map_err(String::as_str)
    }

    /// The stream of events. Can be taken once.
    ///
    /// # Errors
    ///
    /// When it was taken before.
    pub fn take_events(&mut self) -> Result<RingBuf<MapData>, KernelError> {
        self.take_ring("PR_EVENTS")
    }

    /// The stream of what may have moved a program. Can be taken once.
    ///
    /// # Errors
    ///
    /// When it was taken before.
    pub fn take_stirs(&mut self) -> Result<RingBuf<MapData>, KernelError> {
        self.take_ring("PR_STIRS")
    }

    fn take_ring(&mut self, name: &'static str) -> Result<RingBuf<MapData>, KernelError> {
        let map = self.ebpf.take_map(name).ok_or(KernelError::NoMap(name))?;
        RingBuf::try_from(map).map_err(|source| KernelError::map(name, source))
    }

    /// Where the pins are: the mount point of the BPF file system.
    #[must_use]
    pub fn bpffs(&self) -> Option<&Path> {
        self.pins.parent().and_then(Path::parent)
    }

    /// What has become of refused connections that were there already, since this agent started.
    #[must_use]
    pub fn ended(&self) -> Ended {
        self.ended
    }

    /// The totals, summed over CPUs.
    ///
    /// # Errors
    ///
    /// Those of the map.
    pub fn totals(&mut self) -> Result<Tally, KernelError> {
        let map = self.ebpf.map("PR_TOTALS").ok_or(KernelError::NoMap("PR_TOTALS"))?;
        let map: PerCpuArray<_, u64> = map.try_into().map_err(|source| KernelError::map("PR_TOTALS", source))?;
        let mut tally = Tally::default();
        for (index, total) in (0..Total::COUNT).zip(&mut tally) {
            let values = map.get(&index, 0).map_err(|source| KernelError::map("PR_TOTALS", source))?;
            *total = values.iter().sum();
        }
        for (total, more) in tally.iter_mut().zip(self.carried_totals()?) {
            *total += more;
        }
        Ok(tally)
    }

    /// Every subject's counters.
    ///
    /// # Errors
    ///
    /// Those of the map.
    pub fn subjects(&mut self) -> Result<Vec<(SubjectKey, SubjectCount)>, KernelError> {
        let map: HashMap<_, SubjectKey, SubjectCount> = self.hash("PR_SUBJECTS")?;
        let counted = map.iter().collect::<Result<std::collections::HashMap<_, _>, _>>();
        let mut counted = counted.map_err(|source| KernelError::map("PR_SUBJECTS", source))?;
        for (key, count) in self.carried_subjects()? {
            counted.entry(key).and_modify(|sum| *sum = added(sum, &count)).or_insert(count);
        }
        Ok(counted.into_iter().collect())
    }

    pub(super) fn array<V: Pod>(&mut self, name: &'static str) -> Result<Array<&mut MapData, V>, KernelError> {
        let map = self.ebpf.map_mut(name).ok_or(KernelError::NoMap(name))?;
        map.try_into().map_err(|source| KernelError::map(name, source))
    }

    pub(super) fn hash<K: Pod, V: Pod>(
        &mut self,
        name: &'static str,
    ) -> Result<HashMap<&mut MapData, K, V>, KernelError> {
        let map = self.ebpf.map_mut(name).ok_or(KernelError::NoMap(name))?;
        map.try_into().map_err(|source| KernelError::map(name, source))
    }
}

/// The maps that outlive the agent. The tables of programs are each agent's own: see `Guard::set_next`.
fn pinned_maps() -> impl Iterator<Item = &'static Map> {
    MAPS.iter().filter(|map| !NEXT.iter().any(|(table, ..)| *table == map.name))
}

/// The guarded cgroup's number and depth, for the programs.
fn guarded_cgroup(cgroup: &Path) -> Result<GuardedCgroup, KernelError> {
    let fail = |source| KernelError::Cgroup { path: cgroup.to_owned(), source };
    let root = mounts::cgroup2().map_err(fail)?;
    let id = fs::metadata(cgroup).map_err(fail)?.ino();
    let level = cgroup.strip_prefix(&root).map_or(0, |below| below.components().count());
    Ok(GuardedCgroup { id, level: level as u32, agent: std::process::id() })
}

fn load_object(
    places: &[(&'static str, PathBuf)],
    guarded: &GuardedCgroup,
    exec_watch: bool,
) -> Result<Ebpf, KernelError> {
    let btf = fs::read(VMLINUX).map_err(KernelError::NoBtf)?;
    let btf = Btf::parse(&btf)?;
    let offsets = offsets::find(&btf)?;
    let mut object = OBJECT.to_vec();
    let (watch, kern_ctx) = (u32::from(exec_watch), u32::from(kfunc::link(&mut object, &btf)));
    let mut loader = EbpfLoader::new();
    loader
        .override_global("PR_OFFSETS", &offsets, true)
        .override_global("PR_GUARDED", guarded, true)
        .override_global("PR_EXEC_WATCH", &watch, true)
        .override_global("PR_KERN_CTX", &kern_ctx, true);
    for (name, path) in places {
        loader.map_pin_path(name, path);
    }
    loader.load(&object).map_err(|source| KernelError::Load(Box::new(source)))
}

/// Loads everything but the programs that watch execs.
fn load_programs(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let sockops: &mut SockOps = program_mut(ebpf, PROGRAM_SOCKOPS)?;
    sockops.load().map_err(|source| KernelError::program(PROGRAM_SOCKOPS, source))?;
    for program in [PROGRAM_CONNECT4, PROGRAM_CONNECT6, PROGRAM_PEERNAME4, PROGRAM_PEERNAME6] {
        let loaded: &mut CgroupSockAddr = program_mut(ebpf, program)?;
        loaded.load().map_err(|source| KernelError::program(program, source))?;
    }
    for program in [PROGRAM_PACKET, PROGRAM_PACKET_NO] {
        let loaded: &mut CgroupSkb = program_mut(ebpf, program)?;
        loaded.load().map_err(|source| KernelError::program(program, source))?;
    }
    for program in [
        PROGRAM_FRAME,
        PROGRAM_FRAME_IN,
        PROGRAM_FRAME_IP,
        PROGRAM_FRAME_IP_IN,
        PROGRAM_FRAME_LOOK,
        PROGRAM_FRAME_NO,
        PROGRAM_LAN,
        PROGRAM_LAN_IP,
        PROGRAM_LAN_COUNT,
        PROGRAM_LAN_LOOK,
        PROGRAM_LAN_JUDGE,
        PROGRAM_LAN_REFUSE,
    ] {
        let loaded: &mut SchedClassifier = program_mut(ebpf, program)?;
        loaded.load().map_err(|source| KernelError::program(program, source))?;
    }
    let setsockopt: &mut CgroupSockopt = program_mut(ebpf, PROGRAM_SETSOCKOPT)?;
    setsockopt.load().map_err(|source| KernelError::program(PROGRAM_SETSOCKOPT, source))?;
    let learn: &mut SocketFilter = program_mut(ebpf, PROGRAM_LEARN)?;
    learn.load().map_err(|source| KernelError::program(PROGRAM_LEARN, source))?;
    let btf = aya::Btf::from_sys_fs().map_err(|source| KernelError::NoBtf(io::Error::other(source)))?;
    let existing: &mut Iter = program_mut(ebpf, PROGRAM_EXISTING)?;
    existing.load("task_file", &btf).map_err(|source| KernelError::program(PROGRAM_EXISTING, source))
}

/// How many instructions the kernel's verifier has followed for each program; it gives up at a million. Since Linux
/// 5.16.
pub(super) fn verified(ebpf: &Ebpf) -> impl Iterator<Item = (&str, u32)> {
    ebpf.programs().filter_map(|(name, program)| Some((name, program.info().ok()?.verified_instruction_count()?)))
}

/// A loaded program.
pub(super) fn program_fd<'e>(ebpf: &'e Ebpf, name: &'static str) -> Result<BorrowedFd<'e>, KernelError> {
    let program = ebpf.program(name).ok_or(KernelError::NoProgram(name))?;
    Ok(program.fd().map_err(|source| KernelError::program(name, source))?.as_fd())
}

fn load_watches(ebpf: &mut Ebpf) -> Result<(), String> {
    for (_, program, _) in WATCHES {
        let program: &mut RawTracePoint = program_mut(ebpf, program).map_err(|error| error.to_string())?;
        program.load().map_err(|error| KernelError::program("raw tracepoint", error).to_string())?;
    }
    Ok(())
}

pub(super) fn program_mut<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, KernelError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(KernelError::NoProgram(name))?;
    program.try_into().map_err(|source| KernelError::program(name, source))
}

/// Takes everything of an instance out of the kernel, also what a version that this one does not know has left.
///
/// Returns whether there was anything.
///
/// # Errors
///
/// What could not be removed.
pub fn detach(instance: &str) -> Result<bool, KernelError> {
    let pins = pin_folder(instance).map_err(KernelError::Bpffs)?;
    // Filters stay on devices whether or not the BPF file system does.
    let known = pins.clone().unwrap_or_default();
    frames::detach(instance, &known).map_err(KernelError::Bpffs)?;
    let Some(pins) = pins else { return Ok(false) };
    let programs = Links::open(pins.join("links")).programs();
    match fs::remove_dir_all(&pins) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(KernelError::Pin { path: pins, source }),
    }
    wait_for_end(&programs);
    // The common folder goes with its last instance.
    if let Some(parent) = pins.parent()
        && let Err(error) = fs::remove_dir(parent)
        && error.kind() != io::ErrorKind::DirectoryNotEmpty
    {
        tracing::debug!("{} stays: {error}", parent.display());
    }
    Ok(true)
}
