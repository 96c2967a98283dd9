//! The event of an attempt: best-effort, written into the ring buffer in place, counted when there is no room.

use core::mem::offset_of;

use portreeve_abi::{
    CGROUP_DEPTH, CGROUP_PATH_LEN, CMDLINE_LEN, COMM_LEN, EXE_PATH_LEN, Event, Hook, PARENTS, PATH_PART_LEN, Parent,
    Total, Truncated,
};
use portreeve_decide::{Decision, Flow, Identity, LanPacket};

use crate::count;
use crate::maps::PR_EVENTS;
use crate::offsets::offset;
use crate::read::{self, Address};
use crate::task::{self, Task};

/// `IPPROTO_TCP`, include/uapi/linux/in.h.
pub(crate) const IPPROTO_TCP: u16 = 6;
/// How many names of a path, mounts crossed included, are followed upwards. Half again as many took the verifier of
/// Linux 6.1 to twice the work, three quarters of what it allows.
const PATH_PARTS: usize = 16;

/// What the hook has found out.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) now: u64,
    pub(crate) hook: Hook,
    pub(crate) task: Task,
    pub(crate) who: Identity,
    pub(crate) cgroup: u64,
    pub(crate) flow: Flow,
    pub(crate) decision: Decision,
    pub(crate) protocol: u16,
    pub(crate) cookie: u64,
    /// Zero when the socket is not bound.
    pub(crate) source: [u8; 16],
    pub(crate) source_port: u16,
    /// The device a frame was to leave by, 0 where none was seen.
    pub(crate) interface: u32,
    /// Of a segment, 0 where none was seen.
    pub(crate) tcp_flags: u8,
}

/// Hands an event to the agent. Returns nothing: no verdict depends on it.
#[inline(always)]
pub(crate) fn report(seen: &Seen) {
    let Some(mut entry) = PR_EVENTS.reserve::<Event>(0) else {
        count::total(Total::Shed);
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the reservation is as large as an event and ours until it is submitted; every field is written, those
    // behind a length up to it.
    unsafe {
        facts(event, seen);
        parents(event, &seen.task);
        let mut truncated = exe_path(event, seen.task.exe_file());
        truncated |= cgroup_path(event, &seen.task);
        truncated |= cmdline(event, seen);
        (*event).truncated = truncated;
    }
    // The agent is woken when it has caught up, not for every event of a flood.
    entry.submit(0);
}

/// What the gateway's program has found out.
#[derive(Clone, Copy)]
pub(crate) struct LanSeen {
    pub(crate) now: u64,
    pub(crate) packet: LanPacket,
    pub(crate) sport: u16,
    pub(crate) tcp_flags: u8,
    pub(crate) interface: u32,
    pub(crate) decision: Decision,
}

/// Hands the event of a LAN host to the agent: no process is behind it.
#[inline(always)]
pub(crate) fn lan(seen: &LanSeen) {
    let Some(mut entry) = PR_EVENTS.reserve::<Event>(0) else {
        count::total(Total::Shed);
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the reservation is as large as an event and ours until it is submitted. Everything before the texts is
    // zero, and then written; the texts have no length.
    unsafe {
        core::ptr::write_bytes(event.cast::<u64>(), 0, offset_of!(Event, exe_path) / 8);
        (*event).time = seen.now;
        (*event).generation = seen.decision.generation;
        (*event).rule = seen.decision.rule;
        (*event).verdict = seen.decision.verdict as u8;
        (*event).reason = seen.decision.reason as u8;
        (*event).hook = Hook::Lan as u8;
        (*event).protocol = IPPROTO_TCP;
        (*event).daddr = seen.packet.destination;
        (*event).saddr = seen.packet.source;
        (*event).dport = seen.packet.port;
        (*event).sport = seen.sport;
        (*event).tcp_flags = seen.tcp_flags;
        (*event).interface = seen.interface;
        (*event).vlan = seen.packet.vlan;
        (*event).mac = seen.packet.mac;
    }
    entry.submit(0);
}

/// Everything of fixed size.
#[inline(always)]
unsafe fn facts(event: *mut Event, seen: &Seen) {
    let task = &seen.task;
    let cred = task.cred().unwrap_or(0);
    let nlink = task.exe_file().and_then(task::inode).and_then(|inode| read::kernel(inode + offset!(inode_nlink)));
    let netns = read::pointer(task.field(offset!(task_nsproxy)))
        .and_then(|proxy| read::pointer(proxy + offset!(nsproxy_net)))
        .and_then(|net| read::kernel(net + offset!(net_inum)));
    // SAFETY: see `report`.
    unsafe {
        (*event).time = seen.now;
        (*event).start = task.start();
        (*event).exe = seen.who.exe;
        (*event).cgroup = seen.cgroup;
        (*event).cookie = seen.cookie;
        (*event).pid = task.tgid();
        (*event).tid = task.tid();
        (*event).uid = read::kernel(cred + offset!(cred_uid)).unwrap_or(u32::MAX);
        (*event).euid = seen.who.euid;
        (*event).gid = read::kernel(cred + offset!(cred_gid)).unwrap_or(u32::MAX);
        (*event).egid = seen.who.egid;
        (*event).netns = netns.unwrap_or(0);
        (*event).generation = seen.decision.generation;
        (*event).rule = seen.decision.rule;
        (*event).nlink = nlink.unwrap_or(0);
        (*event).taint = seen.who.taint;
        (*event).verdict = seen.decision.verdict as u8;
        (*event).reason = seen.decision.reason as u8;
        (*event).hook = seen.hook as u8;
        (*event).protocol = seen.protocol;
        (*event).daddr = seen.flow.address;
        (*event).saddr = seen.source;
        (*event).dport = seen.flow.port;
        (*event).sport = seen.source_port;
        (*event).tcp_flags = seen.tcp_flags;
        (*event).interface = seen.interface;
        (*event).vlan = 0;
        (*event).mac = [0; 6];
        (*event)._pad = 0;
        (*event)._pad2 = 0;
        thread_name((&raw mut (*event).comm).cast(), task.field(0));
    }
}

/// The ancestors, as far as there are places and they are not the swapper (pid 0).
#[inline(always)]
unsafe fn parents(event: *mut Event, task: &Task) {
    let mut child = Some(task.field(0));
    for place in 0..PARENTS {
        let parent = child
            .and_then(|task| read::pointer(task + offset!(task_real_parent)))
            .and_then(|parent| read::pointer(parent + offset!(task_group_leader)));
        // SAFETY: see `report`; the index is below the array's length.
        let entry = unsafe { (&raw mut (*event).parents).cast::<Parent>().add(place) };
        // SAFETY: see `report`.
        let pid = unsafe { parent_of(entry, parent.unwrap_or(0)) };
        child = parent.filter(|_| pid != 0);
    }
}

/// Fills in one ancestor, zeros where `leader` is no address, and returns its process id.
#[inline(always)]
unsafe fn parent_of(entry: *mut Parent, leader: Address) -> u32 {
    let pid = read::kernel(leader + offset!(task_tgid)).unwrap_or(0);
    let ino = read::pointer(leader + offset!(task_mm))
        .and_then(|mm| read::pointer(mm + offset!(mm_exe_file)))
        .and_then(task::inode)
        .and_then(|inode| read::kernel(inode + offset!(inode_ino)));
    let uid = read::pointer(leader + offset!(task_cred)).and_then(|cred| read::kernel(cred + offset!(cred_uid)));
    // SAFETY: see `report`.
    unsafe {
        (*entry).pid = pid;
        (*entry).uid = uid.unwrap_or(0);
        (*entry).ino = ino.unwrap_or(0);
        thread_name((&raw mut (*entry).comm).cast(), leader);
    }
    pid
}

/// Copies a task's thread name; the helper leaves zeros where it cannot read.
#[inline(always)]
unsafe fn thread_name(destination: *mut u8, task: Address) {
    // SAFETY: the caller's array has COMM_LEN bytes.
    unsafe { read::kernel_bytes(destination, COMM_LEN as u32, task + offset!(task_comm)) };
}

/// The names from the executable up to the root, across mounts, as `d_path()` would find them (fs/d_path.c).
///
/// `bpf_d_path` is refused in connect programs.
#[inline(always)]
unsafe fn exe_path(event: *mut Event, file: Option<Address>) -> u16 {
    let mut used = 0_usize;
    let mut complete = false;
    // SAFETY: see `report`.
    let buffer = unsafe { (&raw mut (*event).exe_path).cast::<u8>() };
    if let Some(file) = file {
        let mut dentry = read::pointer(file + offset!(file_dentry)).unwrap_or(0);
        let mut vfsmount = read::pointer(file + offset!(file_mnt)).unwrap_or(0);
        for _ in 0..PATH_PARTS {
            if dentry == 0 || vfsmount == 0 || used > EXE_PATH_LEN - PATH_PART_LEN {
                break;
            }
            let parent = read::pointer(dentry + offset!(dentry_parent)).unwrap_or(0);
            if Some(dentry) == read::pointer(vfsmount + offset!(vfsmount_root)) {
                // The root of a mount: go on where it is mounted, unless it is mounted on itself (the namespace's root).
                let mount = vfsmount - offset!(mount_mnt);
                let below = read::pointer(mount + offset!(mount_parent)).unwrap_or(0);
                if below == 0 || below == mount {
                    complete = true;
                    break;
                }
                dentry = read::pointer(mount + offset!(mount_mountpoint)).unwrap_or(0);
                vfsmount = below + offset!(mount_mnt);
                continue;
            }
            let Some(name) = read::pointer(dentry + offset!(dentry_name)) else { break };
            // SAFETY: `used` leaves a whole part's length to the end of the array.
            let written = unsafe { read::kernel_str(buffer.add(used), PATH_PART_LEN as u32, name) };
            if written <= 0 || written > PATH_PART_LEN as i64 {
                break;
            }
            used += written as usize;
            if parent == dentry {
                // A file that only ever was in memory hangs on nothing (`d_alloc_pseudo`, fs/dcache.c).
                complete = true;
                break;
            }
            dentry = parent;
        }
    }
    // SAFETY: see `report`.
    unsafe { (*event).exe_path_used = used as u16 };
    if complete { 0 } else { Truncated::EXE_PATH }
}

/// The names from the root's child down to the cgroup.
#[inline(always)]
unsafe fn cgroup_path(event: *mut Event, task: &Task) -> u16 {
    let depth = task.cgroup_level();
    let mut used = 0_usize;
    let mut complete = depth == 0;
    // SAFETY: see `report`.
    let buffer = unsafe { (&raw mut (*event).cgroup_path).cast::<u8>() };
    for level in 1..=CGROUP_DEPTH {
        if level > depth || used > CGROUP_PATH_LEN - PATH_PART_LEN {
            break;
        }
        let Some(name) = task.cgroup_name(level) else { break };
        // SAFETY: `used` leaves a whole part's length to the end of the array.
        let written = unsafe { read::kernel_str(buffer.add(used), PATH_PART_LEN as u32, name) };
        if written <= 0 || written > PATH_PART_LEN as i64 {
            break;
        }
        used += written as usize;
        complete = level == depth;
    }
    // SAFETY: see `report`.
    unsafe { (*event).cgroup_path_used = used as u16 };
    if complete { 0 } else { Truncated::CGROUP_PATH }
}

/// The beginning of the command line, from the process's own memory.
#[inline(always)]
unsafe fn cmdline(event: *mut Event, seen: &Seen) -> u16 {
    // The search for old connections runs in the agent, whose memory is another.
    let mm = if let Hook::Existing = seen.hook { None } else { seen.task.mm() };
    let Some((start, end)) = mm.and_then(|mm| {
        Some((read::kernel::<Address>(mm + offset!(mm_arg_start))?, read::kernel::<Address>(mm + offset!(mm_arg_end))?))
    }) else {
        // SAFETY: see `report`.
        unsafe { (*event).cmdline_used = 0 };
        return Truncated::CMDLINE;
    };
    let length = end.saturating_sub(start);
    let fits = length <= CMDLINE_LEN;
    let take = if fits { length } else { CMDLINE_LEN };
    // SAFETY: at most the array's length is written. See `report`.
    unsafe {
        let whole = read::user((&raw mut (*event).cmdline).cast::<u8>(), take as u32, start);
        (*event).cmdline_used = if whole { take as u16 } else { 0 };
        if fits && whole { 0 } else { Truncated::CMDLINE }
    }
}
