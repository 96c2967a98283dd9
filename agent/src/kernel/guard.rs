//! Loading, attaching, pinning and taking over.
//!
//! Pins of an instance, below `<bpffs>/portreeve/<instance>/`:
//! `links/` holds the attached programs, whatever their version; `v<ABI_VERSION>/` holds the maps of one layout. A new
//! agent puts its programs behind the old links in one step each, so that there is no moment without a program.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr, RawTracePoint, SocketFilter, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader, Pod};
use portreeve_abi::{
    ABI_VERSION, ExeId, ExecRecord, Learned, MAPS, PROGRAM_CONNECT4, PROGRAM_CONNECT6, PROGRAM_EXEC, PROGRAM_EXIT,
    PROGRAM_FORK, PROGRAM_LEARN, SubjectCount, SubjectKey, Tally, Total,
};
use serde::Serialize;

use super::btf::{Btf, VMLINUX};
use super::{KernelError, mounts, offsets, sys};

/// The kernel programs, built into this binary.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("PORTREEVE_GUARD_OBJECT"));

/// The SHA-256 of the kernel programs, in hexadecimal.
pub const OBJECT_SHA256: &str = env!("PORTREEVE_GUARD_SHA256");

/// The programs that judge; without each of them the port is not guarded.
const GUARDS: [(&str, &str); 2] = [("connect4", PROGRAM_CONNECT4), ("connect6", PROGRAM_CONNECT6)];
/// The programs that watch execs; without them taints are not seen, and the rest works.
const WATCHES: [(&str, &str, &str); 3] = [
    ("exec", PROGRAM_EXEC, "sched_process_exec"),
    ("fork", PROGRAM_FORK, "sched_process_fork"),
    ("exit", PROGRAM_EXIT, "sched_process_exit"),
];

/// How a hook is doing.
#[derive(Clone, Debug, Serialize)]
pub struct HookStatus {
    /// `connect4`, `connect6`, `exec`, `fork`, `exit`.
    pub name: String,
    /// `active`, `failed` or `absent`.
    pub state: &'static str,
    /// The link's id.
    pub link: Option<u32>,
    /// The program's id.
    pub program: Option<u32>,
    /// Why it is not active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

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
    ebpf: Ebpf,
    pins: PathBuf,
    exec_watch: Result<(), String>,
}

impl Guard {
    /// Loads the programs, with the instance's pinned maps where there are some. Attaches nothing.
    ///
    /// # Errors
    ///
    /// What is missing, in one sentence; nothing has changed then.
    pub fn load(instance: &str) -> Result<Self, KernelError> {
        if OBJECT.is_empty() {
            return Err(KernelError::NoObject);
        }
        let pins = mounts::ensure_bpffs().map_err(KernelError::Bpffs)?.join("portreeve").join(instance);
        let map_pins = pins.join(format!("v{ABI_VERSION}"));
        for folder in [&map_pins, &pins.join("links")] {
            fs::create_dir_all(folder).map_err(|source| KernelError::Pin { path: folder.clone(), source })?;
        }
        // The exec programs come and go together: first with them, then, on a kernel that does not let them load,
        // without. The constant tells the connect programs which it was.
        let mut ebpf = load_object(&map_pins, true)?;
        let exec_watch = load_watches(&mut ebpf);
        if exec_watch.is_err() {
            ebpf = load_object(&map_pins, false)?;
        }
        for (_, program) in GUARDS {
            let program: &mut CgroupSockAddr = program_mut(&mut ebpf, program)?;
            program.load().map_err(|source| KernelError::program("cgroup/connect", source))?;
        }
        let learn: &mut SocketFilter = program_mut(&mut ebpf, PROGRAM_LEARN)?;
        learn.load().map_err(|source| KernelError::program("socket filter", source))?;
        Ok(Self { ebpf, pins, exec_watch })
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

    /// Puts the programs that judge in place on a cgroup: behind the links that are pinned already, or on new ones.
    ///
    /// # Errors
    ///
    /// Which hook could not be attached; the ones before it stay.
    pub fn attach(&mut self, cgroup: &Path) -> Result<(), KernelError> {
        let root = File::open(cgroup).map_err(|source| KernelError::Cgroup { path: cgroup.to_owned(), source })?;
        let root_id = root.metadata().map_err(|source| KernelError::Cgroup { path: cgroup.to_owned(), source })?.ino();
        for (name, program) in GUARDS {
            let pin = self.link_pin(name);
            let program: &mut CgroupSockAddr = program_mut(&mut self.ebpf, program)?;
            if let Ok(link) = sys::open_pinned(&pin)
                && sys::link_info(link.as_fd()).is_ok_and(|info| info.cgroup == root_id)
            {
                let fd = program.fd().map_err(|source| KernelError::program(name, source))?;
                match sys::link_update(link.as_fd(), fd) {
                    Ok(()) => continue,
                    Err(error) => tracing::warn!("cannot take over the {name} link, attaching a new one: {error}"),
                }
            }
            let id = program
                .attach(&root, CgroupAttachMode::Single)
                .map_err(|source| KernelError::Attach { hook: name, source: Box::new(source) })?;
            let link = program.take_link(id).map_err(|source| KernelError::program(name, source))?;
            let link = FdLink::try_from(link).map_err(|source| KernelError::Link { hook: name, source })?;
            pin_over(link, &pin)?;
        }
        Ok(())
    }

    fn attach_watch(&mut self, name: &str, program: &'static str) -> Result<(), KernelError> {
        let pin = self.link_pin(name);
        let tracepoint = WATCHES.iter().find(|(hook, ..)| *hook == name).map_or(name, |(.., tracepoint)| tracepoint);
        let program: &mut RawTracePoint = program_mut(&mut self.ebpf, program)?;
        let id = program.attach(tracepoint).map_err(|source| KernelError::program("raw tracepoint", source))?;
        let link = program.take_link(id).map_err(|source| KernelError::program("raw tracepoint", source))?;
        let link = FdLink::from(link);
        // The old program goes when its pin is replaced; both do the same to the same map until then.
        pin_over(link, &pin)
    }

    fn link_pin(&self, name: &str) -> PathBuf {
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
        Ok(tally)
    }

    /// Every subject's counters.
    ///
    /// # Errors
    ///
    /// Those of the map.
    pub fn subjects(&mut self) -> Result<Vec<(SubjectKey, SubjectCount)>, KernelError> {
        let map: HashMap<_, SubjectKey, SubjectCount> = self.hash("PR_SUBJECTS")?;
        map.iter().collect::<Result<_, _>>().map_err(|source| KernelError::map("PR_SUBJECTS", source))
    }

    /// How every hook is doing, asked of the kernel now.
    #[must_use]
    pub fn hooks(&self) -> Vec<HookStatus> {
        let names = GUARDS.iter().map(|(name, _)| *name).chain(WATCHES.iter().map(|(name, ..)| *name));
        names
            .map(|name| {
                let watch = WATCHES.iter().any(|(hook, ..)| *hook == name);
                if watch && let Err(why) = &self.exec_watch {
                    return status(name, "absent", None, Some(why.clone()));
                }
                match sys::open_pinned(&self.link_pin(name)).and_then(|link| sys::link_info(link.as_fd())) {
                    Ok(info) if watch || info.cgroup != 0 => status(name, "active", Some(info), None),
                    Ok(info) => status(name, "failed", Some(info), Some("its cgroup is gone".to_owned())),
                    Err(error) => status(name, "failed", None, Some(error.to_string())),
                }
            })
            .collect()
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

    pub(super) fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

fn status(name: &str, state: &'static str, info: Option<sys::LinkInfo>, why: Option<String>) -> HookStatus {
    HookStatus {
        name: name.to_owned(),
        state,
        link: info.map(|info| info.id),
        program: info.map(|info| info.program),
        why,
    }
}

fn load_object(map_pins: &Path, exec_watch: bool) -> Result<Ebpf, KernelError> {
    let btf = fs::read(VMLINUX).map_err(KernelError::NoBtf)?;
    let offsets = offsets::find(&Btf::parse(&btf)?)?;
    let watch = u32::from(exec_watch);
    let mut loader = EbpfLoader::new();
    loader.override_global("PR_OFFSETS", &offsets, true).override_global("PR_EXEC_WATCH", &watch, true);
    for map in MAPS {
        loader.map_pin_path(map.name, map_pins.join(map.name));
    }
    loader.load(OBJECT).map_err(|source| KernelError::Load(Box::new(source)))
}

fn load_watches(ebpf: &mut Ebpf) -> Result<(), String> {
    for (_, program, _) in WATCHES {
        let program: &mut RawTracePoint = program_mut(ebpf, program).map_err(|error| error.to_string())?;
        program.load().map_err(|error| KernelError::program("raw tracepoint", error).to_string())?;
    }
    Ok(())
}

fn program_mut<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, KernelError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(KernelError::NoProgram(name))?;
    program.try_into().map_err(|source| KernelError::program(name, source))
}

/// Pins a link in the place of another, without a moment in which neither is pinned.
fn pin_over(link: FdLink, path: &Path) -> Result<(), KernelError> {
    let fail = |source| KernelError::Pin { path: path.to_owned(), source };
    // The BPF file system takes no name with a dot in it.
    let mut new = path.as_os_str().to_owned();
    new.push("-new");
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    link.pin(&new).map_err(|error| fail(io::Error::other(error)))?;
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
