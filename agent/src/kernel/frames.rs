//! The frame programs on every device, new ones included.
//!
//! Which namespaces: the agent's own always. When all of the cgroup2 hierarchy is guarded, every other one that has a
//! process, a thread, a name or somebody who has it open; when a sub-tree is, those that a process of it is in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::clsact::{self, Occupant, Place};
use super::devices::{self, Found, Framing};
use super::guard::{Guard, program_fd};
use super::status::HookStatus;
use super::sys::{self, Target};
use super::{KernelError, netns};

/// The beginning of the names of the devices' links.
const LINK: &str = "frame-";
/// The beginning of the names that say which devices' queueing discipline is this project's.
const DISCIPLINE: &str = "clsact-";

/// How often namespaces are looked for in places where there are seldom any.
const THOROUGH: Duration = Duration::from_secs(10);

/// A device: its network namespace, and its index there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// The namespace's inode number.
    pub netns: u64,
    /// The device's index.
    pub index: u32,
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

/// Whether a device has its program.
enum Standing {
    There,
    /// It is there, but the program of somebody else's link comes before it and decides what it gets to see.
    Behind(u32),
    /// Something is in the way, or nothing is there.
    Not(&'static str),
}

/// The devices that have their program.
#[derive(Debug)]
pub struct Frames {
    instance: String,
    pub(super) everywhere: bool,
    /// The names of devices that may lead inwards.
    pub(super) inside: Vec<String>,
    devices: BTreeMap<Device, (Found, State)>,
    /// The kernel has tcx.
    tcx: bool,
    /// Links of others that come before ours, which have been said.
    before: BTreeSet<(Device, u32)>,
    /// Namespaces that could not be looked at, and why.
    skipped: BTreeMap<u64, String>,
    /// When the next look goes everywhere.
    thorough: Instant,
    /// Namespaces that a look everywhere has found, and no other would.
    remote: BTreeMap<u64, File>,
}

impl Frames {
    pub(super) fn new(instance: &str, everywhere: bool) -> Self {
        // The loopback device has the same number in every namespace (LOOPBACK_IFINDEX, include/net/flow.h).
        let tcx = sys::tcx_links(1).inspect_err(|error| tracing::info!("the kernel has no tcx: {error}")).is_ok();
        Self {
            instance: instance.to_owned(),
            everywhere,
            inside: Vec::new(),
            devices: BTreeMap::new(),
            tcx,
            before: BTreeSet::new(),
            skipped: BTreeMap::new(),
            thorough: Instant::now(),
            remote: BTreeMap::new(),
        }
    }

    pub(super) fn status(&self) -> HookStatus {
        let failed = self.devices.values().find_map(|(found, state)| match state {
            State::Failed(why) => Some(format!("{}: {why}", found.name)),
            State::Tcx | State::Clsact | State::Foreign => None,
        });
        let skipped = self.skipped.iter().next().map(|(netns, why)| format!("network namespace {netns}: {why}"));
        let failed = failed.or(skipped);
        let state = if failed.is_none() && !self.devices.is_empty() { "active" } else { "failed" };
        let mut status = HookStatus::new("frame", state, None, failed);
        let names = |wanted: &State, inside: bool| {
            let wanted = self
                .devices
                .values()
                .filter(|(found, state)| state == wanted && (found.framing == Framing::Inside) == inside);
            wanted.map(|(found, _)| found.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        let means = if self.tcx { ("tcx", State::Tcx) } else { ("clsact", State::Clsact) };
        let mut by = format!("{} on {}", means.0, names(&means.1, false));
        let (inside, foreign) = (names(&means.1, true), names(&State::Foreign, false));
        if !inside.is_empty() {
            by.push_str(&format!("; for this host's own sockets on {inside}, which lead inwards"));
        }
        if !foreign.is_empty() {
            by.push_str(&format!("; not on {foreign}, which carry no IP that could be parsed"));
        }
        status.by = Some(by);
        status
    }
}

/// The name of a device's link.
fn link_name(device: Device) -> String {
    // The BPF file system takes no name with a dot in it.
    format!("{LINK}{}-{}", device.netns, device.index)
}

impl Guard {
    /// Puts the frame programs on every device that has none yet, and puts back what was taken away. Says what it put
    /// back, and what comes before it.
    pub fn follow_devices(&mut self) -> Vec<String> {
        let mut alarms = Vec::new();
        let mut seen = BTreeSet::new();
        let (namespaces, mut skipped) = match self.namespaces() {
            Ok(found) => found,
            Err(error) => {
                tracing::error!("cannot look for network namespaces: {error}");
                return alarms;
            }
        };
        for (inode, file) in namespaces {
            let result = netns::within(&file, || self.follow_here(inode, &mut seen, &mut alarms));
            if let Ok(Err(error)) | Err(error) = result {
                skipped.insert(inode, error.to_string());
            }
        }
        for (netns, why) in skipped.iter().filter(|(netns, why)| self.frames.skipped.get(netns) != Some(why)) {
            tracing::error!("the devices of network namespace {netns} are not guarded: {why}");
        }
        self.forget_gone(&seen, &skipped);
        self.frames.skipped = skipped;
        alarms
    }

    /// The namespaces whose devices are guarded, and those that cannot be opened.
    ///
    /// Now and then those as well that only a thread is in, or nobody who has it open, which takes longer to find.
    fn namespaces(&mut self) -> io::Result<(BTreeMap<u64, File>, BTreeMap<u64, String>)> {
        if !self.frames.everywhere {
            let members = self.members();
            return netns::all(|pid| members.contains(&pid));
        }
        let (mut all, mut skipped) = netns::all(|_| true)?;
        netns::add_named(&mut all, &mut skipped);
        if Instant::now() >= self.frames.thorough {
            let known: BTreeSet<u64> = all.keys().copied().collect();
            netns::add_threads(&mut all, &mut skipped);
            netns::add_held(&mut all, &mut skipped);
            self.frames.remote.clear();
            for (inode, file) in all.iter().filter(|(inode, _)| !known.contains(inode)) {
                self.frames.remote.insert(*inode, file.try_clone()?);
            }
            self.frames.thorough = Instant::now() + THOROUGH;
        } else {
            for (inode, file) in &self.frames.remote {
                all.entry(*inode).or_insert(file.try_clone()?);
            }
        }
        Ok((all, skipped))
    }

    /// In the namespace of the thread.
    fn follow_here(&mut self, netns: u64, seen: &mut BTreeSet<Device>, alarms: &mut Vec<String>) -> io::Result<()> {
        for found in devices::all(&self.frames.inside)? {
            let device = Device { netns, index: found.index };
            seen.insert(device);
            // One that leads elsewhere than before is as good as new.
            let known = self.frames.devices.get(&device).filter(|(before, _)| before.framing == found.framing);
            let known = known.map(|(_, state)| state.clone());
            let why = match self.standing(device, &found, known.as_ref()) {
                Standing::There => continue,
                Standing::Behind(link) => {
                    if self.frames.before.insert((device, link)) {
                        alarms.push(format!(
                            "frame: on {} the program of another's link (id {link}) comes before ours, which sees only what \
                             that lets on",
                            found.name
                        ));
                    }
                    continue;
                }
                Standing::Not(why) => why,
            };
            let state = match self.attach_device(device, &found) {
                Ok(state) => state,
                // The device has gone in the meantime.
                Err(KernelError::Attach { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => continue,
                Err(error) => State::Failed(error.to_string()),
            };
            if let (Some(State::Tcx | State::Clsact), State::Tcx | State::Clsact) = (&known, &state) {
                alarms.push(format!("frame: {why} {}; it was put back", found.name));
            }
            if let State::Failed(why) = &state
                && known.as_ref() != Some(&state)
            {
                tracing::error!("frames by {} are not guarded: {why}", found.name);
            }
            self.frames.devices.insert(device, (found, state));
        }
        Ok(())
    }

    /// Whether a device has this agent's program.
    fn standing(&self, device: Device, found: &Found, known: Option<&State>) -> Standing {
        let Some(program) = found.framing.program() else {
            let said = matches!(known, Some(State::Foreign));
            return if said { Standing::There } else { Standing::Not("") };
        };
        let program = self.program_id(program);
        match known {
            Some(State::Tcx) => {
                let name = link_name(device);
                let Some((_, info)) = self.links.held(&name) else { return Standing::Not("it is gone from") };
                if info.device != device.index {
                    return Standing::Not("it is gone from");
                }
                if Some(info.program) != program {
                    return Standing::Not("another program is in its place on");
                }
                if !self.links.is_pinned(&name) {
                    return Standing::Not("its pin is gone for");
                }
                match sys::tcx_links(device.index).ok().and_then(|links| links.first().copied()) {
                    Some(first) if first != info.id => Standing::Behind(first),
                    Some(_) | None => Standing::There,
                }
            }
            Some(State::Clsact) => match Place::of(&self.frames.instance, device.index).occupant() {
                Ok(Occupant::Ours(id)) if Some(id) == program => Standing::There,
                Ok(Occupant::Ours(_) | Occupant::Other) => Standing::Not("another program is in its place on"),
                Ok(Occupant::None) => Standing::Not("it is gone from"),
                // Asked again in a second.
                Err(error) => {
                    tracing::debug!("{}: {error}", found.name);
                    Standing::There
                }
            },
            Some(State::Failed(_) | State::Foreign) | None => Standing::Not("it is not on"),
        }
    }

    /// Attaches to one device.
    fn attach_device(&mut self, device: Device, found: &Found) -> Result<State, KernelError> {
        let Some(program) = found.framing.program() else { return Ok(State::Foreign) };
        if self.frames.tcx {
            self.attach_tcx(device, program)?;
            return Ok(State::Tcx);
        }
        let fail = |source| KernelError::Attach { hook: "tc egress", source };
        if clsact::add_discipline(device.index).map_err(fail)? {
            let mark = self.pins.join(format!("{DISCIPLINE}{}-{}", device.netns, device.index));
            if let Err(error) = fs::create_dir_all(&mark) {
                tracing::debug!("{}: {error}", mark.display());
            }
        }
        let place = Place::of(&self.frames.instance, device.index);
        place.put(program_fd(&self.ebpf, program)?, program).map_err(fail)?;
        Ok(State::Clsact)
    }

    fn attach_tcx(&mut self, device: Device, program: &'static str) -> Result<(), KernelError> {
        let fail = |source| KernelError::Attach { hook: "tcx egress", source };
        let name = link_name(device);
        let program = program_fd(&self.ebpf, program)?;
        // A device that came from another namespace has brought its link along.
        let there = sys::tcx_links(device.index).map_err(fail)?;
        let ours = self.links.names(|name, info| name.starts_with(LINK) && there.contains(&info.id));
        if let Some(ours) = ours.first()
            && let Some((link, _)) = self.links.held(ours)
        {
            sys::link_update(link, program).map_err(fail)?;
            return if *ours == name { self.links.pin_again(&name) } else { self.links.rename(ours, &name) };
        }
        let link = sys::link_create(program, Target::Device(device.index)).map_err(fail)?;
        self.links.keep(&name, link)
    }

    /// Lets the links go that an agent before this one has left for devices that are no more.
    pub(super) fn sweep_devices(&mut self) {
        for name in self.links.names(|name, info| name.starts_with(LINK) && info.device == 0) {
            self.links.release(&name);
        }
    }

    /// Forgets devices that are no more. A namespace that nobody is in any more, or that could not be entered, keeps its
    /// programs.
    fn forget_gone(&mut self, seen: &BTreeSet<Device>, skipped: &BTreeMap<u64, String>) {
        let gone = |device: &Device| !seen.contains(device) && !skipped.contains_key(&device.netns);
        let gone: Vec<Device> = self.frames.devices.keys().filter(|device| gone(device)).copied().collect();
        for device in gone {
            self.frames.devices.remove(&device);
            self.frames.before.retain(|(before, _)| *before != device);
            let name = link_name(device);
            if self.links.held(&name).is_some_and(|(_, info)| info.device == 0) {
                self.links.release(&name);
            }
        }
    }
}

/// Takes an instance's filters, and the queueing disciplines that were made for them, from every device of every
/// namespace, on kernels without tcx; the links of tcx go with their pins. What cannot be looked at is said.
///
/// # Errors
///
/// When /proc cannot be read.
pub(super) fn detach(instance: &str, pins: &Path) -> io::Result<()> {
    let (mut namespaces, mut skipped) = netns::all(|_| true)?;
    netns::add_named(&mut namespaces, &mut skipped);
    netns::add_held(&mut namespaces, &mut skipped);
    for (netns, file) in &namespaces {
        let cleared = netns::within(file, || {
            for found in devices::all(&[])? {
                let ours = pins.join(format!("{DISCIPLINE}{netns}-{}", found.index)).exists();
                let cleared = Place::of(instance, found.index)
                    .clear()
                    .and_then(|()| if ours { clsact::remove_discipline(found.index) } else { Ok(()) });
                if let Err(error) = cleared {
                    tracing::warn!("{}: {error}", found.name);
                }
            }
            Ok(())
        });
        if let Ok(Err(error)) | Err(error) = cleared {
            skipped.insert(*netns, error.to_string());
        }
    }
    for (netns, why) in skipped {
        tracing::warn!("network namespace {netns} was not looked at: {why}");
    }
    Ok(())
}
