//! Loading, attaching, pinning and taking over.
//!
//! Pins of an instance, below `<bpffs>/portreeve/<instance>/`:
//! `links/` holds the attached programs, whatever their version; `v<ABI_VERSION>/` holds the maps of one layout. A new
//! agent puts its programs behind the old links in one step each, so that there is no moment without a program.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, ProgramArray, RingBuf};
use aya::programs::links::FdLink;
use aya::programs::{
    CgroupSkb, CgroupSockAddr, CgroupSockopt, Iter, RawTracePoint, SchedClassifier, SocketFilter, TestRun as _,
    TestRunOptions,
};
use aya::{Ebpf, EbpfLoader, Pod};
use portreeve_abi::{
    ABI_VERSION, ExeId, ExecRecord, GuardedCgroup, Learned, MAPS, PROGRAM_CONNECT4, PROGRAM_CONNECT6, PROGRAM_EXEC,
    PROGRAM_EXISTING, PROGRAM_EXIT, PROGRAM_FORK, PROGRAM_FRAME, PROGRAM_FRAME_IP, PROGRAM_FRAME_NO, PROGRAM_LEARN,
    PROGRAM_PACKET, PROGRAM_PACKET_NO, PROGRAM_SETSOCKOPT, SubjectCount, SubjectKey, Tally, Total,
};

use super::btf::{Btf, VMLINUX};
use super::carry::added;
use super::frames::{self, Frames};
use super::sys::{self, Target};
use super::{KernelError, mounts, offsets};

/// The kernel programs, built into this binary.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("PORTREEVE_GUARD_OBJECT"));

/// The SHA-256 of the kernel programs, in hexadecimal.
pub const OBJECT_SHA256: &str = env!("PORTREEVE_GUARD_SHA256");

/// The programs on the guarded cgroup that judge calls; without each of them the port is not guarded.
pub(super) const CALLS: [(&str, &str); 3] =
    [("connect4", PROGRAM_CONNECT4), ("connect6", PROGRAM_CONNECT6), ("setsockopt", PROGRAM_SETSOCKOPT)];
/// The program on the guarded cgroup that judges packets, likewise.
pub(super) const PACKETS: (&str, &str) = ("packet", PROGRAM_PACKET);
/// The programs that watch execs; without them taints are not seen, and the rest works.
pub(super) const WATCHES: [(&str, &str, &str); 3] = [
    ("exec", PROGRAM_EXEC, "sched_process_exec"),
    ("fork", PROGRAM_FORK, "sched_process_fork"),
    ("exit", PROGRAM_EXIT, "sched_process_exit"),
];
/// The programs that others end in: the table, its pin, and what is in it.
const NEXT: [(&str, &str, &str); 2] =
    [("PR_NEXT_PACKET", "next_packet", PROGRAM_PACKET_NO), ("PR_NEXT_FRAME", "next_frame", PROGRAM_FRAME_NO)];

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
    /// The tables of programs that others end in. Without an open descriptor and without their pins the kernel would
    /// empty them.
    pub(super) next: Vec<(&'static str, OwnedFd)>,
    pub(super) exec_watch: Result<(), String>,
    /// The guarded cgroup.
    cgroup: PathBuf,
    pub(super) cgroup_id: u64,
    pub(super) frames: Frames,
    /// Once the programs are attached, a new policy is held against the connections that are there.
    attached: bool,
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
        for folder in [&map_pins, &pins.join("links")] {
            fs::create_dir_all(folder).map_err(|source| KernelError::Pin { path: folder.clone(), source })?;
        }
        let guarded = guarded_cgroup(cgroup)?;
        // The exec programs come and go together: first with them, then, on a kernel that does not let them load,
        // without. The constant tells the connect programs which it was.
        let mut ebpf = load_object(&map_pins, &guarded, true)?;
        let exec_watch = load_watches(&mut ebpf);
        if exec_watch.is_err() {
            ebpf = load_object(&map_pins, &guarded, false)?;
        }
        load_programs(&mut ebpf)?;
        for (name, count) in verified(&ebpf) {
            tracing::debug!("{name}: the verifier followed {count} instructions");
        }
        let frames = Frames::new(instance, &pins, guarded.level == 0);
        Ok(Self {
            ebpf,
            pins,
            map_pins,
            next: Vec::new(),
            exec_watch,
            cgroup: cgroup.to_owned(),
            cgroup_id: guarded.id,
            frames,
            attached: false,
        })
    }

    /// Attaches the programs that watch execs. Without them, which [`Self::exec_watch`] tells, taints are not seen.
    pub fn watch_execs(&mut self) {
        for (name, program, _) in WATCHES {
            if self.exec_watch.is_ok()
                && let Err(error) = self.attach_watch(name, program)
            {
                self.exec_watch = Err(error.to_string());
            }
        }
    }

    /// Puts the programs that judge calls in place on the cgroup: behind the links that are pinned already, or on new
    /// ones.
    ///
    /// # Errors
    ///
    /// Which hook could not be attached; the ones before it stay.
    pub fn attach_calls(&mut self) -> Result<(), KernelError> {
        for (name, program) in CALLS {
            self.attach_to_cgroup(name, program)?;
        }
        Ok(())
    }

    /// Puts the programs that judge packets and frames in place, once connections that were there before have their
    /// verdict.
    ///
    /// # Errors
    ///
    /// Which hook could not be attached. A device that does not take its program is no error here: see
    /// [`Self::hooks`].
    pub fn attach_packets(&mut self) -> Result<(), KernelError> {
        self.set_next()?;
        self.attach_to_cgroup(PACKETS.0, PACKETS.1)?;
        self.attached = true;
        self.sweep_devices();
        self.follow_devices();
        Ok(())
    }

    /// The processes in the guarded cgroup.
    pub(super) fn members(&self) -> HashSet<u32> {
        let mut members = HashSet::new();
        let mut folders = vec![self.cgroup.clone()];
        while let Some(folder) = folders.pop() {
            let procs = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            members.extend(procs.lines().filter_map(|pid| pid.parse::<u32>().ok()));
            let below = fs::read_dir(&folder).into_iter().flatten().flatten();
            folders.extend(below.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
        }
        members
    }

    /// Whether the programs are attached, so that a policy holds for connections that are there.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.attached
    }

    /// Attaches one program to the cgroup.
    pub(super) fn attach_to_cgroup(&mut self, name: &'static str, program: &'static str) -> Result<(), KernelError> {
        let fail = |source| KernelError::Cgroup { path: self.cgroup.clone(), source };
        let root = File::open(&self.cgroup).map_err(fail)?;
        let pin = self.link_pin(name);
        let program = program_fd(&self.ebpf, program)?;
        if let Ok(link) = sys::open_pinned(&pin)
            && sys::link_info(link.as_fd()).is_ok_and(|info| info.cgroup == self.cgroup_id)
        {
            match sys::link_update(link.as_fd(), program) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!("cannot take over the {name} link, attaching a new one: {error}"),
            }
        }
        let target = match name {
            "connect4" => Target::Connect4(root.as_fd()),
            "connect6" => Target::Connect6(root.as_fd()),
            "setsockopt" => Target::Setsockopt(root.as_fd()),
            _ => Target::Egress(root.as_fd()),
        };
        let link = sys::link_create(program, target).map_err(|source| KernelError::Attach { hook: name, source })?;
        pin_over(link.as_fd(), &pin)
    }

    /// Fills the tables of programs that others end in, pins them (unpinned they would be emptied with the agent's end)
    /// and forbids every further write to them.
    fn set_next(&mut self) -> Result<(), KernelError> {
        for (table, name, next) in NEXT {
            let pin = self.link_pin(name);
            let fail = |source| KernelError::Pin { path: pin.clone(), source };
            let Some(Map::ProgramArray(map)) = self.ebpf.take_map(table) else {
                return Err(KernelError::NoMap(table));
            };
            let fd = map.fd().as_fd().try_clone_to_owned().map_err(fail)?;
            let map = ProgramArray::try_from(Map::ProgramArray(map));
            let mut map = map.map_err(|source| KernelError::map(table, source))?;
            let program = self.ebpf.program(next).ok_or(KernelError::NoProgram(next))?;
            let program = program.fd().map_err(|source| KernelError::program(next, source))?;
            map.set(0, program, 0).map_err(|source| KernelError::map(table, source))?;
            pin_over(fd.as_fd(), &pin)?;
            if let Err(error) = sys::freeze(fd.as_fd()) {
                tracing::debug!("the table {table} is not frozen: {error}");
            }
            self.next.push((name, fd));
        }
        Ok(())
    }

    pub(super) fn attach_watch(&mut self, name: &str, program: &'static str) -> Result<(), KernelError> {
        let pin = self.link_pin(name);
        let tracepoint = WATCHES.iter().find(|(hook, ..)| *hook == name).map_or(name, |(.., tracepoint)| tracepoint);
        let program: &mut RawTracePoint = program_mut(&mut self.ebpf, program)?;
        let id = program.attach(tracepoint).map_err(|source| KernelError::program("raw tracepoint", source))?;
        let link = program.take_link(id).map_err(|source| KernelError::program("raw tracepoint", source))?;
        let link = FdLink::from(link);
        // The old program goes when its pin is replaced; both do the same to the same map until then.
        pin_link_over(link, &pin)
    }

    pub(super) fn link_pin(&self, name: &str) -> PathBuf {
        self.pins.join("links").join(name)
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
        let map = self.ebpf.take_map("PR_EVENTS").ok_or(KernelError::NoMap("PR_EVENTS"))?;
        RingBuf::try_from(map).map_err(|source| KernelError::map("PR_EVENTS", source))
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

/// The guarded cgroup's number and depth, for the programs.
fn guarded_cgroup(cgroup: &Path) -> Result<GuardedCgroup, KernelError> {
    let fail = |source| KernelError::Cgroup { path: cgroup.to_owned(), source };
    let root = mounts::cgroup2().map_err(fail)?;
    let id = fs::metadata(cgroup).map_err(fail)?.ino();
    let level = cgroup.strip_prefix(&root).map_or(0, |below| below.components().count());
    Ok(GuardedCgroup { id, level: level as u32, _pad: 0 })
}

fn load_object(map_pins: &Path, guarded: &GuardedCgroup, exec_watch: bool) -> Result<Ebpf, KernelError> {
    let btf = fs::read(VMLINUX).map_err(KernelError::NoBtf)?;
    let offsets = offsets::find(&Btf::parse(&btf)?)?;
    let watch = u32::from(exec_watch);
    let mut loader = EbpfLoader::new();
    loader.override_global("PR_OFFSETS", &offsets, true).override_global("PR_GUARDED", guarded, true).override_global(
        "PR_EXEC_WATCH",
        &watch,
        true,
    );
    // The tables of programs are each agent's own: see `Guard::set_next`.
    let own = |name: &str| NEXT.iter().any(|(table, ..)| *table == name);
    for map in MAPS.iter().filter(|map| !own(map.name)) {
        loader.map_pin_path(map.name, map_pins.join(map.name));
    }
    loader.load(OBJECT).map_err(|source| KernelError::Load(Box::new(source)))
}

/// Loads everything but the programs that watch execs.
fn load_programs(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    for program in [PROGRAM_CONNECT4, PROGRAM_CONNECT6] {
        let loaded: &mut CgroupSockAddr = program_mut(ebpf, program)?;
        loaded.load().map_err(|source| KernelError::program(program, source))?;
    }
    for program in [PROGRAM_PACKET, PROGRAM_PACKET_NO] {
        let loaded: &mut CgroupSkb = program_mut(ebpf, program)?;
        loaded.load().map_err(|source| KernelError::program(program, source))?;
    }
    for program in [PROGRAM_FRAME, PROGRAM_FRAME_IP, PROGRAM_FRAME_NO] {
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

/// Pins an object in the place of another, without a moment in which neither is pinned.
pub(super) fn pin_over(object: BorrowedFd<'_>, path: &Path) -> Result<(), KernelError> {
    replace_pin(path, |new| sys::pin(object, new))
}

/// The same for a link of aya's, which does not show its descriptor.
fn pin_link_over(link: FdLink, path: &Path) -> Result<(), KernelError> {
    replace_pin(path, |new| link.pin(new).map(drop).map_err(io::Error::other))
}

fn replace_pin(path: &Path, pin: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), KernelError> {
    let fail = |source| KernelError::Pin { path: path.to_owned(), source };
    // The BPF file system takes no name with a dot in it.
    let mut new = path.as_os_str().to_owned();
    new.push("-new");
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    pin(&new).map_err(fail)?;
    fs::rename(&new, path).map_err(fail)
}

/// Takes everything of an instance out of the kernel, also what a version that this one does not know has left.
///
/// Returns whether there was anything.
///
/// # Errors
///
/// What could not be removed.
pub fn detach(instance: &str) -> Result<bool, KernelError> {
    let Some(pins) = pin_folder(instance).map_err(KernelError::Bpffs)? else { return Ok(false) };
    frames::detach(instance).map_err(KernelError::Bpffs)?;
    match fs::remove_dir_all(&pins) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(KernelError::Pin { path: pins, source }),
    }
    // The common folder goes with its last instance.
    if let Some(parent) = pins.parent()
        && let Err(error) = fs::remove_dir(parent)
        && error.kind() != io::ErrorKind::DirectoryNotEmpty
    {
        tracing::debug!("{} stays: {error}", parent.display());
    }
    Ok(true)
}
