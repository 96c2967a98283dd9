//! The frame programs on every device, new ones included.
//!
//! Which namespaces: the agent's own always. When all of the cgroup2 hierarchy is guarded, every other one that has a
//! process, a thread, a name or somebody who has it open; when a sub-tree is, those that a process of it is in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::clsact::{self, Occupant, Place};
use super::devices::{self, Found, Framing};
use super::guard::{Guard, program_fd};
use super::status::HookStatus;
use super::sys::{self, Target, Way};
use super::{KernelError, netns};
use crate::policy::matches;

/// The beginning of the names of the devices' links, by the way the frames go.
const OUT: &str = "frame-";
const IN: &str = "lan-";
/// The beginning of the names that say which devices' queueing discipline is this project's.
const DISCIPLINE: &str = "clsact-";

/// How often namespaces are looked for in places where there are seldom any.
const THOROUGH: Duration = Duration::from_secs(10);

/// One side of a device: its network namespace, its index there, and the way the frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// The namespace's inode number.
    pub netns: u64,
    /// The device's index.
    pub index: u32,
    /// Out of this host; or in, by a LAN interface.
    pub way: Way,
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
    /// The names of LAN interfaces of the agent's own namespace, with `*` and `?`.
    pub(super) lan: Vec<String>,
    /// The agent's own namespace.
    own: u64,
    /// This host's own addresses, as the programs know them.
    pub(super) addresses: BTreeSet<[u8; 16]>,
    /// The LAN interfaces as the programs know them.
    pub(super) lan_devices: BTreeMap<u32, u32>,
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
        let tcx =
            sys::tcx_links(1, Way::Out).inspect_err(|error| tracing::info!("the kernel has no tcx: {error}")).is_ok();
        Self {
            instance: instance.to_owned(),
            everywhere,
            inside: Vec::new(),
            lan: Vec::new(),
            own: fs::metadata("/proc/self/ns/net").map_or(0, |own| own.ino()),
            addresses: BTreeSet::new(),
            // No device has this number: what an agent before this one has told is compared with what is there now.
            lan_devices: BTreeMap::from([(0, 0)]),
            devices: BTreeMap::new(),
            tcx,
            before: BTreeSet::new(),
            skipped: BTreeMap::new(),
            thorough: Instant::now(),
            remote: BTreeMap::new(),
        }
    }

    /// The devices of one way.
    fn of(&self, way: Way) -> impl Iterator<Item = &(Found, State)> {
        self.devices.iter().filter(move |(device, _)| device.way == way).map(|(_, found)| found)
    }

    /// What could not be attached.
    fn failed(&self, way: Way) -> Option<String> {
        self.of(way).find_map(|(found, state)| match state {
            State::Failed(why) => Some(format!("{}: {why}", found.name)),
            State::Tcx | State::Clsact | State::Foreign => None,
        })
    }

    /// How the LAN interfaces stand; `None` where the policy names none.
    pub(super) fn lan_status(&self) -> Option<HookStatus> {
        if self.lan.is_empty() {
            return None;
        }
        let foreign = self.of(Way::In).find(|(_, state)| *state == State::Foreign);
        let foreign = foreign.map(|(found, _)| format!("{}: its frames carry no IP that could be parsed", found.name));
        let failed = self.failed(Way::In).or(foreign);
        let on: Vec<&str> = self.of(Way::In).map(|(found, _)| found.name.as_str()).collect();
        let missing = self.lan.iter().filter(|pattern| !on.iter().any(|name| matches(pattern, name)));
        let missing: Vec<&str> = missing.map(String::as_str).collect();
        let state = match (&failed, on.is_empty()) {
            (Some(_), _) => "failed",
            (None, false) => "active",
            // Nothing of a LAN can come in.
            (None, true) => "waiting",
        };
        let mut status = HookStatus::new("lan", state, None, failed);
        let means = if self.tcx { "tcx" } else { "clsact" };
        let mut by = if on.is_empty() { "on no interface".to_owned() } else { format!("{means} on {}", on.join(", ")) };
        if !missing.is_empty() {
            by.push_str(&format!("; there is no {} yet", missing.join(", ")));
        }
        status.by = Some(by);
        status.optional = state == "waiting";
        Some(status)
    }

    pub(super) fn status(&self) -> HookStatus {
        let failed = self.failed(Way::Out);
        let skipped = self.skipped.iter().next().map(|(netns, why)| format!("network namespace {netns}: {why}"));
        let failed = failed.or(skipped);
        let state = if failed.is_none() && !self.devices.is_empty() { "active" } else { "failed" };
        let mut status = HookStatus::new("frame", state, None, failed);
        let names = |wanted: &State, inside: bool| {
            let leads_inside = |framing| matches!(framing, Framing::Inside | Framing::IpInside);
            let wanted =
                self.of(Way::Out).filter(|(found, state)| state == wanted && leads_inside(found.framing) == inside);
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
    format!("{}{}-{}", beginning(device.way), device.netns, device.index)
}

fn beginning(way: Way) -> &'static str {
    match way {
        Way::In => IN,
        Way::Out => OUT,
    }
}

fn is_link(name: &str) -> bool {
    name.starts_with(OUT) || name.starts_with(IN)
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
        let own = netns == self.frames.own;
        if own && !self.frames.lan.is_empty() {
            self.follow_addresses();
        }
        let lan: &[String] = if own { &self.frames.lan } else { &[] };
        let found = devices::all(&self.frames.inside, lan)?;
        if own {
            self.follow_lan_devices(&found);
        }
        let sides = found.into_iter().flat_map(|found| {
            let inwards = found.lan.then(|| (Way::In, found.clone()));
            [(Way::Out, found)].into_iter().chain(inwards)
        });
        for (way, found) in sides {
            let device = Device { netns, index: found.index, way };
            seen.insert(device);
            if own && !self.frames.tcx && way == Way::Out && !found.lan && !self.frames.devices.contains_key(&device) {
                // An agent before this one may have had it for a LAN interface.
                self.clear(Device { way: Way::In, ..device });
            }
            // One that leads elsewhere than before is as good as new.
            let known = self.frames.devices.get(&device).filter(|(before, _)| before.framing == found.framing);
            let known = known.map(|(_, state)| state.clone());
            let why = match self.standing(device, &found, known.as_ref()) {
                Standing::There => continue,
                Standing::Behind(link) => {
                    if self.frames.before.insert((device, link)) {
                        alarms.push(format!(
                            "{}: on {} the program of another's link (id {link}) comes before ours, which sees only what \
                             that lets on",
                            way.word(),
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
                alarms.push(format!("{}: {why} {}; it was put back", way.word(), found.name));
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
        let Some(program) = found.framing.program(device.way) else {
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
                match sys::tcx_links(device.index, device.way).ok().and_then(|links| links.first().copied()) {
                    Some(first) if first != info.id => Standing::Behind(first),
                    Some(_) | None => Standing::There,
                }
            }
            Some(State::Clsact) => match Place::of(&self.frames.instance, device.index, device.way).occupant() {
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
        let Some(program) = found.framing.program(device.way) else { return Ok(State::Foreign) };
        if self.frames.tcx {
            self.attach_tcx(device, program)?;
            return Ok(State::Tcx);
        }
        let fail = |source| KernelError::Attach { hook: "tc", source };
        if clsact::add_discipline(device.index).map_err(fail)? {
            let mark = self.pins.join(format!("{DISCIPLINE}{}-{}", device.netns, device.index));
            if let Err(error) = fs::create_dir_all(&mark) {
                tracing::debug!("{}: {error}", mark.display());
            }
        }
        let place = Place::of(&self.frames.instance, device.index, device.way);
        place.put(program_fd(&self.ebpf, program)?, program).map_err(fail)?;
        Ok(State::Clsact)
    }

    fn attach_tcx(&mut self, device: Device, program: &'static str) -> Result<(), KernelError> {
        let fail = |source| KernelError::Attach { hook: "tcx", source };
        let name = link_name(device);
        let program = program_fd(&self.ebpf, program)?;
        // A device that came from another namespace has brought its link along.
        let there = sys::tcx_links(device.index, device.way).map_err(fail)?;
        let ours = self.links.names(|name, info| name.starts_with(beginning(device.way)) && there.contains(&info.id));
        if let Some(ours) = ours.first()
            && let Some((link, _)) = self.links.held(ours)
        {
            sys::link_update(link, program).map_err(fail)?;
            return if *ours == name { self.links.pin_again(&name) } else { self.links.rename(ours, &name) };
        }
        let link = sys::link_create(program, Target::Device(device.index, device.way)).map_err(fail)?;
        self.links.keep(&name, link)
    }

    /// Lets the links go that an agent before this one has left for devices that are no more.
    pub(super) fn sweep_devices(&mut self) {
        for name in self.links.names(|name, info| is_link(name) && info.device == 0) {
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
            // A LAN interface may be one no longer, and still be there.
            if device.way == Way::In || self.links.held(&name).is_some_and(|(_, info)| info.device == 0) {
                self.links.release(&name);
            }
            if device.way == Way::In && !self.frames.tcx {
                self.clear(device);
            }
        }
        // What an agent before this one has left on interfaces that are none of a LAN's any more.
        if skipped.contains_key(&self.frames.own) {
            return;
        }
        let wanted: BTreeSet<String> = seen.iter().map(|device| link_name(*device)).collect();
        for name in self.links.names(|name, _| name.starts_with(IN) && !wanted.contains(name)) {
            self.links.release(&name);
        }
    }

    /// Takes the filter from a device of the agent's own namespace that is no LAN interface any more.
    fn clear(&self, device: Device) {
        match Place::of(&self.frames.instance, device.index, device.way).clear() {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => tracing::warn!("cannot take the filter from device {}: {error}", device.index),
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
            for found in devices::all(&[], &[])? {
                let ours = pins.join(format!("{DISCIPLINE}{netns}-{}", found.index)).exists();
                let cleared = Place::of(instance, found.index, Way::In)
                    .clear()
                    .and_then(|()| Place::of(instance, found.index, Way::Out).clear())
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
