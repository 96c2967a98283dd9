//! Putting the programs in their places, and an agent's programs in the places of the one before it.
//!
//! A new agent puts its programs behind the old links in one step each, so that there is no moment without a program. The
//! tables of programs that the old ones end in stay until the last of them is replaced.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::fd::AsFd as _;

use aya::maps::{Map, ProgramArray};
use portreeve_abi::{
    PROGRAM_CONNECT4, PROGRAM_CONNECT6, PROGRAM_EXEC, PROGRAM_EXIT, PROGRAM_FORK, PROGRAM_FRAME_LOOK, PROGRAM_FRAME_NO,
    PROGRAM_LAN_COUNT, PROGRAM_LAN_JUDGE, PROGRAM_LAN_LOOK, PROGRAM_LAN_REFUSE, PROGRAM_PACKET, PROGRAM_PACKET_NO,
    PROGRAM_PEERNAME4, PROGRAM_PEERNAME6, PROGRAM_SETSOCKOPT, PROGRAM_SOCKOPS,
};

use super::guard::{Guard, program_fd};
use super::sys::{self, Target};
use super::{KernelError, trampoline};

/// The programs on the guarded cgroup that judge calls; without each of them the port is not guarded.
pub(super) const CALLS: [(&str, &str); 3] =
    [("connect4", PROGRAM_CONNECT4), ("connect6", PROGRAM_CONNECT6), ("setsockopt", PROGRAM_SETSOCKOPT)];
/// The program on the guarded cgroup that judges packets, likewise.
pub(super) const PACKETS: (&str, &str) = ("packet", PROGRAM_PACKET);
/// The programs on the guarded cgroup that bring connections to the relay, where the policy has such rules. Without one of
/// them nothing goes out: what is not announced the relay puts off.
pub(super) const RELAY: [(&str, &str); 3] =
    [("sockops", PROGRAM_SOCKOPS), ("peername4", PROGRAM_PEERNAME4), ("peername6", PROGRAM_PEERNAME6)];
/// The programs that watch execs; without them taints are not seen, and the rest works.
pub(super) const WATCHES: [(&str, &str, &str); 3] = [
    ("exec", PROGRAM_EXEC, "sched_process_exec"),
    ("fork", PROGRAM_FORK, "sched_process_fork"),
    ("exit", PROGRAM_EXIT, "sched_process_exit"),
];
/// The programs that others end in: the table, the beginning of its pin's name, and what is in it.
pub(super) const NEXT: [(&str, &str, &[&str]); 3] = [
    ("PR_NEXT_PACKET", "next_packet", &[PROGRAM_PACKET_NO]),
    ("PR_NEXT_FRAME", "next_frame", &[PROGRAM_FRAME_LOOK, PROGRAM_FRAME_NO]),
    ("PR_NEXT_LAN", "next_lan", &[PROGRAM_LAN_LOOK, PROGRAM_LAN_JUDGE, PROGRAM_LAN_COUNT, PROGRAM_LAN_REFUSE]),
];
/// Says, beside the links, that the guard has once been whole: what stands in for it at a boot need not.
const WHOLE: &str = "whole";

impl Guard {
    /// Attaches the programs that watch execs. Without them, which [`Self::exec_watch`] tells, taints are not seen.
    pub fn watch_execs(&mut self) {
        for (name, program, _) in WATCHES {
            if self.exec_watch.is_ok()
                && let Err(error) = self.attach_witness(name, program)
            {
                self.exec_watch = Err(error.to_string());
            }
        }
    }

    /// Attaches the programs on functions of the kernel; what is missing of them, [`Self::hooks`] tells.
    pub fn attach_more(&mut self) {
        for (name, program) in trampoline::all() {
            if !self.absent.contains_key(name)
                && let Err(error) = self.attach_witness(name, program)
            {
                self.absent.insert(name, error.to_string());
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
        // A connect() that the programs have not seen has come so far that the search for connections sees it.
        sys::wait_for_running_programs();
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
        let new = self.set_next()?;
        self.attach_to_cgroup(PACKETS.0, PACKETS.1)?;
        self.attached = true;
        self.sweep_devices();
        self.follow_devices();
        // No program ends in these any more.
        for table in self.links.tables().into_iter().filter(|name| !new.contains(name)) {
            self.links.release(&table);
        }
        let whole = self.pins.join(WHOLE);
        fs::create_dir_all(&whole).map_err(|source| KernelError::Pin { path: whole, source })
    }

    /// Puts the programs in place that bring connections to the relay, or lets them go.
    pub(super) fn follow_relay(&mut self, wanted: bool) -> Result<(), KernelError> {
        for (name, program) in RELAY {
            if wanted {
                self.attach_to_cgroup(name, program)?;
            } else {
                self.links.release(name);
            }
        }
        self.relays = wanted;
        Ok(())
    }

    /// Whether the guard has been whole before this agent came.
    pub(super) fn was_whole(&self) -> bool {
        self.pins.join(WHOLE).exists()
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

    /// Ends the watch over who reaches into processes, which an agent before this one may have left: it would take this one
    /// for a debugger. Until [`Self::attach_more`].
    pub fn look_into_processes(&mut self) {
        self.links.release_for_good(trampoline::REACH);
    }

    /// Whether the security module's program is known to judge the senders that the setsockopt hook judges. Where nobody can
    /// tell, it is taken for missing.
    #[must_use]
    pub fn has_second_lock(&self) -> bool {
        !self.absent.contains_key(trampoline::SECOND_LOCK) && trampoline::security_module_is_known()
    }

    /// Whether the whole of the hierarchy is guarded.
    pub(super) fn guards_all(&self) -> bool {
        self.frames.everywhere
    }

    /// Whether the programs are attached, so that a policy holds for connections that are there.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.attached
    }

    /// Attaches one program to the cgroup, behind the link that is there if it is this cgroup's.
    pub(super) fn attach_to_cgroup(&mut self, name: &'static str, program: &'static str) -> Result<(), KernelError> {
        let fail = |source| KernelError::Cgroup { path: self.cgroup.clone(), source };
        let root = File::open(&self.cgroup).map_err(fail)?;
        let program = program_fd(&self.ebpf, program)?;
        if let Some((link, info)) = self.links.held(name)
            && info.cgroup == self.cgroup_id
        {
            match sys::link_update(link, program) {
                Ok(()) => return self.links.pin_again(name),
                Err(error) => tracing::warn!("cannot take over the {name} link, attaching a new one: {error}"),
            }
        }
        let target = match name {
            "connect4" => Target::Connect4(root.as_fd()),
            "connect6" => Target::Connect6(root.as_fd()),
            "setsockopt" => Target::Setsockopt(root.as_fd()),
            "sockops" => Target::SockOps(root.as_fd()),
            "peername4" => Target::PeerName4(root.as_fd()),
            "peername6" => Target::PeerName6(root.as_fd()),
            _ => Target::Egress(root.as_fd()),
        };
        let link = sys::link_create(program, target).map_err(|source| KernelError::Attach { hook: name, source })?;
        self.links.keep(name, link)
    }

    /// Fills the tables of programs that others end in, pins them (unpinned they would be emptied with the agent's end)
    /// and forbids every further write to them. Returns the names of their pins.
    fn set_next(&mut self) -> Result<Vec<String>, KernelError> {
        let mut names = Vec::new();
        for (table, beginning, next) in NEXT {
            let Some(Map::ProgramArray(map)) = self.ebpf.take_map(table) else {
                return Err(KernelError::NoMap(table));
            };
            let fd = map.fd().as_fd().try_clone_to_owned();
            let fd = fd.map_err(|source| KernelError::Pin { path: self.pins.clone(), source })?;
            let map = ProgramArray::try_from(Map::ProgramArray(map));
            let mut map = map.map_err(|source| KernelError::map(table, source))?;
            let mut id = 0;
            for (place, next) in (0..).zip(next) {
                let program = self.ebpf.program(next).ok_or(KernelError::NoProgram(next))?;
                id = program.info().map_err(|source| KernelError::program(next, source))?.id();
                let program = program.fd().map_err(|source| KernelError::program(next, source))?;
                map.set(place, program, 0).map_err(|source| KernelError::map(table, source))?;
            }
            if let Err(error) = sys::freeze(fd.as_fd()) {
                tracing::warn!("the table {table} is not frozen: {error}");
            }
            // Beside the one before, which the programs before end in until they are replaced.
            let name = format!("{beginning}_{id}");
            self.links.keep(&name, fd)?;
            names.push(name);
        }
        Ok(names)
    }

    /// Attaches a program that only watches, in the place of the one before. Both do the same to the same maps for a
    /// moment.
    pub(super) fn attach_witness(&mut self, name: &'static str, program: &'static str) -> Result<(), KernelError> {
        let tracepoint = WATCHES.iter().find(|(hook, ..)| *hook == name).map(|(.., tracepoint)| *tracepoint);
        let program = program_fd(&self.ebpf, program)?;
        let link = sys::raw_tracepoint_open(program, tracepoint);
        let link = link.map_err(|source| KernelError::Attach { hook: name, source })?;
        self.links.keep(name, link)
    }
}
