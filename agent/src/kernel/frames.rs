//! The frame programs on every device, new ones included.
//!
//! Which namespaces: the agent's own always. When all of the cgroup2 hierarchy is guarded, every other one that has a
//! process or a name; when a sub-tree is, those that a process of it is in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact};
use aya::programs::{Link as _, ProgramError, SchedClassifier, TcAttachType};
use portreeve_abi::{PROGRAM_FRAME, PROGRAM_FRAME_IP};

use super::guard::{Guard, pin_over, program_fd, program_mut};
use super::status::HookStatus;
use super::sys::{self, Target};
use super::{KernelError, netns};

/// The priority of the filter on kernels without tcx: before all others.
const PRIORITY: u16 = 1;

/// A device: its network namespace, and its index there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// The namespace's inode number.
    pub netns: u64,
    /// The device's index.
    pub index: u32,
}

/// What the frames of a device begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// An Ethernet header.
    Ethernet,
    /// The IP header.
    Ip,
    /// Something that carries no IP, or in a way of its own.
    Foreign,
}

impl Framing {
    /// The framing of a type of device (`ARPHRD_…`, include/uapi/linux/if_arp.h).
    fn of(kind: u16) -> Self {
        match kind {
            // ETHER, LOOPBACK.
            1 | 772 => Self::Ethernet,
            // PPP, RAWIP, TUNNEL, TUNNEL6, SIT, IPGRE, IP6GRE, VOID, NONE (TUN, WireGuard).
            512 | 519 | 768 | 769 | 776 | 778 | 823 | 0xffff | 0xfffe => Self::Ip,
            _ => Self::Foreign,
        }
    }

    fn program(self) -> Option<&'static str> {
        match self {
            Self::Ethernet => Some(PROGRAM_FRAME),
            Self::Ip => Some(PROGRAM_FRAME_IP),
            Self::Foreign => None,
        }
    }
}

/// A device as it is found.
#[derive(Clone, Debug)]
struct Found {
    index: u32,
    name: String,
    framing: Framing,
}

/// How a device stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Tcx,
    Clsact,
    /// Frames of a kind that is not parsed.
    Foreign,
    Failed(String),
}

/// The devices that have their program.
#[derive(Debug)]
pub struct Frames {
    /// Where the links are pinned.
    folder: PathBuf,
    handle: TcHandle,
    everywhere: bool,
    devices: BTreeMap<Device, (String, State)>,
    /// The kernel has tcx, or it has not been asked yet.
    tcx: bool,
}

impl Frames {
    pub(super) fn new(instance: &str, pins: &Path, everywhere: bool) -> Self {
        Self { folder: pins.join("links"), handle: handle(instance), everywhere, devices: BTreeMap::new(), tcx: true }
    }

    pub(super) fn status(&self) -> HookStatus {
        let failed = self.devices.iter().find_map(|(_, (name, state))| match state {
            State::Failed(why) => Some(format!("{name}: {why}")),
            State::Tcx | State::Clsact | State::Foreign => None,
        });
        let state = if failed.is_none() && !self.devices.is_empty() { "active" } else { "failed" };
        let mut status = HookStatus::new("frame", state, None, failed);
        let names = |wanted: &State| {
            let names = self.devices.values().filter(|(_, state)| state == wanted).map(|(name, _)| name.as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        let means = if self.tcx { ("tcx", State::Tcx) } else { ("clsact", State::Clsact) };
        let mut by = format!("{} on {}", means.0, names(&means.1));
        let foreign = names(&State::Foreign);
        if !foreign.is_empty() {
            by.push_str(&format!("; not on {foreign}, which carry no IP that could be parsed"));
        }
        status.by = Some(by);
        status
    }

    fn pin(&self, device: Device) -> PathBuf {
        // The BPF file system takes no name with a dot in it.
        self.folder.join(format!("frame-{}-{}", device.netns, device.index))
    }
}

impl Guard {
    /// Puts the frame programs on every device that has none yet, and puts back what was taken away. Says what it put
    /// back.
    pub fn follow_devices(&mut self) -> Vec<String> {
        let mut repaired = Vec::new();
        let mut seen = BTreeSet::new();
        let namespaces = match self.namespaces() {
            Ok(namespaces) => namespaces,
            Err(error) => {
                tracing::error!("cannot look for network namespaces: {error}");
                return repaired;
            }
        };
        for (inode, file) in namespaces {
            let result = netns::within(&file, || self.follow_here(inode, &mut seen, &mut repaired));
            match result {
                Ok(Ok(())) => {}
                Ok(Err(error)) | Err(error) => tracing::warn!("network namespace {inode}: {error}"),
            }
        }
        self.forget_gone(&seen);
        repaired
    }

    /// The namespaces whose devices are guarded.
    fn namespaces(&self) -> io::Result<BTreeMap<u64, File>> {
        if self.frames.everywhere {
            let mut all = netns::all(|_| true)?;
            netns::add_named(&mut all);
            return Ok(all);
        }
        let members = self.members();
        netns::all(|pid| members.contains(&pid))
    }

    /// In the namespace of the thread.
    fn follow_here(&mut self, netns: u64, seen: &mut BTreeSet<Device>, repaired: &mut Vec<String>) -> io::Result<()> {
        for found in devices()? {
            let device = Device { netns, index: found.index };
            seen.insert(device);
            let known = self.frames.devices.get(&device).map(|(_, state)| state.clone());
            let there = match &known {
                Some(State::Tcx) => self.tcx_is_there(device, &found),
                // Adding it again says whether it is there.
                Some(State::Clsact) => {
                    matches!(add_clsact(&mut self.ebpf, &found, self.frames.handle), Ok(false))
                }
                Some(State::Failed(_)) | None => false,
                Some(State::Foreign) => true,
            };
            if there {
                continue;
            }
            let (state, new) = self.attach_device(device, &found);
            if let Some(State::Tcx | State::Clsact) = known
                && new
            {
                repaired.push(format!("frame: it is gone from {}; it was put back", found.name));
            }
            if let State::Failed(why) = &state
                && known.as_ref() != Some(&state)
            {
                tracing::error!("frames by {} are not guarded: {why}", found.name);
            }
            self.frames.devices.insert(device, (found.name, state));
        }
        Ok(())
    }

    /// Whether a device has this agent's program, by the link that is pinned for it.
    fn tcx_is_there(&self, device: Device, found: &Found) -> bool {
        let Some(program) = found.framing.program().and_then(|name| self.ebpf.program(name)) else { return false };
        let (Ok(program), Ok(link)) = (program.info(), sys::open_pinned(&self.frames.pin(device))) else {
            return false;
        };
        sys::link_info(link.as_fd()).is_ok_and(|info| info.device == device.index && info.program == program.id())
    }

    /// Attaches to one device; true when nothing of ours was there before.
    fn attach_device(&mut self, device: Device, found: &Found) -> (State, bool) {
        let Some(program) = found.framing.program() else { return (State::Foreign, false) };
        if self.frames.tcx {
            match self.attach_tcx(device, program) {
                Ok(new) => return (State::Tcx, new),
                // Linux before 6.6 does not know this kind of link.
                Err(KernelError::Attach { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
                    tracing::info!("the kernel has no tcx; the frame programs go to clsact");
                    self.frames.tcx = false;
                }
                Err(error) => return (State::Failed(error.to_string()), false),
            }
        }
        match attach_clsact(&mut self.ebpf, found, self.frames.handle) {
            Ok(new) => (State::Clsact, new),
            Err(error) => (State::Failed(error.to_string()), false),
        }
    }

    fn attach_tcx(&self, device: Device, program: &'static str) -> Result<bool, KernelError> {
        let pin = self.frames.pin(device);
        let program = program_fd(&self.ebpf, program)?;
        if let Ok(link) = sys::open_pinned(&pin)
            && sys::link_info(link.as_fd()).is_ok_and(|info| info.device == device.index)
            && sys::link_update(link.as_fd(), program).is_ok()
        {
            return Ok(false);
        }
        let link = sys::link_create(program, Target::Device(device.index));
        let link = link.map_err(|source| KernelError::Attach { hook: "tcx egress", source })?;
        pin_over(link.as_fd(), &pin)?;
        Ok(true)
    }

    /// Lets the pins go that an agent before this one has left for devices that are no more.
    pub(super) fn sweep_devices(&self) {
        for entry in fs::read_dir(&self.frames.folder).into_iter().flatten().flatten() {
            let ours = entry.file_name().to_string_lossy().starts_with("frame-");
            let link = sys::open_pinned(&entry.path()).and_then(|link| sys::link_info(link.as_fd()));
            if ours
                && link.is_ok_and(|info| info.device == 0)
                && let Err(error) = fs::remove_file(entry.path())
            {
                tracing::debug!("{}: {error}", entry.path().display());
            }
        }
    }

    /// Lets the pins of devices go that are no more.
    fn forget_gone(&mut self, seen: &BTreeSet<Device>) {
        let gone: Vec<Device> = self.frames.devices.keys().filter(|device| !seen.contains(device)).copied().collect();
        for device in gone {
            self.frames.devices.remove(&device);
            let pin = self.frames.pin(device);
            let empty = sys::open_pinned(&pin).and_then(|link| sys::link_info(link.as_fd()));
            // A namespace that nobody is in any more, or that could not be entered, keeps its programs.
            if empty.is_ok_and(|info| info.device == 0)
                && let Err(error) = fs::remove_file(&pin)
            {
                tracing::debug!("{}: {error}", pin.display());
            }
        }
    }
}

/// Adds the program as a filter of the clsact queueing discipline; false when the instance has one there already.
fn add_clsact(ebpf: &mut Ebpf, found: &Found, handle: TcHandle) -> Result<bool, KernelError> {
    let Some(name) = found.framing.program() else { return Ok(false) };
    let fail = |error| KernelError::program("tc egress", error);
    // An error means that it is there already, or shows at the next step.
    if let Err(error) = qdisc_add_clsact(&found.name) {
        tracing::trace!("{}: {error}", found.name);
    }
    let program: &mut SchedClassifier = program_mut(ebpf, name)?;
    let options = TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle, classid: None });
    match program.attach_with_options(&found.name, TcAttachType::Egress, options) {
        // Dropped, the link would be detached. It stays with the device.
        Ok(id) => std::mem::forget(program.take_link(id).map_err(fail)?),
        Err(error) if is_taken(&error) => return Ok(false),
        Err(error) => return Err(fail(error)),
    }
    Ok(true)
}

/// The handle has a filter.
fn is_taken(error: &ProgramError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.raw_os_error() == Some(libc::EEXIST)) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Adds the program, or puts it in the place of the instance's filter. True when there was none.
fn attach_clsact(ebpf: &mut Ebpf, found: &Found, handle: TcHandle) -> Result<bool, KernelError> {
    if add_clsact(ebpf, found, handle)? {
        return Ok(true);
    }
    let Some(name) = found.framing.program() else { return Ok(false) };
    let fail = |error| KernelError::program("tc egress", error);
    let link = clsact_link(&found.name, handle).map_err(|error| fail(TcError::from(error).into()))?;
    let program: &mut SchedClassifier = program_mut(ebpf, name)?;
    let id = program.attach_to_link(link).map_err(fail)?;
    std::mem::forget(program.take_link(id).map_err(fail)?);
    Ok(false)
}

/// The filter of an instance on a device, as something to replace or detach.
fn clsact_link(device: &str, handle: TcHandle) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(device, TcAttachType::Egress, PRIORITY, handle, None)
}

/// The number by which an instance knows its filters.
fn handle(instance: &str) -> TcHandle {
    // FNV-1a (Fowler, Noll, Vo), folded to 15 bits; 0 would let the kernel choose.
    let hash = instance.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    TcHandle::new(0, ((hash ^ hash >> 15) & 0x7fff) as u16 + 1)
}

/// Takes an instance's filters from every device of every namespace, on kernels without tcx; the links of tcx go with
/// their pins.
///
/// # Errors
///
/// When /proc cannot be read.
pub(super) fn detach(instance: &str) -> io::Result<()> {
    let handle = handle(instance);
    let mut namespaces = netns::all(|_| true)?;
    netns::add_named(&mut namespaces);
    netns::add_held(&mut namespaces);
    for file in namespaces.values() {
        netns::within(file, || {
            for found in devices().unwrap_or_default() {
                if let Ok(link) = clsact_link(&found.name, handle)
                    && let Err(error) = link.detach()
                {
                    tracing::trace!("{}: {error}", found.name);
                }
            }
        })?;
    }
    Ok(())
}

/// The devices of the thread's network namespace.
fn devices() -> io::Result<Vec<Found>> {
    let mut devices = BTreeMap::new();
    for address in nix::ifaddrs::getifaddrs()? {
        let Some(link) = address.address.as_ref().and_then(|address| address.as_link_addr()) else { continue };
        let (index, kind) = (link.ifindex() as u32, link.hatype());
        devices.insert(index, Found { index, name: address.interface_name, framing: Framing::of(kind) });
    }
    Ok(devices.into_values().collect())
}
