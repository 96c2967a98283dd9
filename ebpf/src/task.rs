//! Who a task is, read through the offsets of the running kernel.

use aya_ebpf::helpers::generated::bpf_get_current_task;
use portreeve_abi::{CGROUP_NAME_LEN, ExeId, Reason, TICK, Taint};
use portreeve_decide::{CgroupNames, Identity};

use crate::maps::PR_EXECS;
use crate::offsets::{exec_watch, guarded_cgroup, offset};
use crate::read::{self, Address};

/// Bit 31 of the nanoseconds of a change time is a flag on kernels with multigrain timestamps
/// (`I_CTIME_QUERIED`, include/linux/fs.h since Linux 6.13).
const CTIME_NSEC: u32 = 0x7fff_ffff;

/// Stands in the record when nobody could be found behind an attempt.
pub(crate) const NOBODY: Identity = Identity {
    exe: ExeId { ino: 0, ctime_sec: 0, ctime_nsec: 0, dev: 0, generation: 0, _pad: 0 },
    euid: u32::MAX,
    egid: u32::MAX,
    taint: 0,
};

/// A task and its cgroup.
#[derive(Clone, Copy)]
pub(crate) struct Task {
    address: Address,
    /// Address of the cgroup, 0 when it cannot be read.
    cgroup: Address,
}

impl Task {
    /// The current task.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: the helper has no precondition.
        Self::at(unsafe { bpf_get_current_task() } as Address)
    }

    /// The task at an address.
    #[inline(always)]
    pub(crate) fn at(address: Address) -> Self {
        let cgroup =
            read::pointer(address + offset!(task_cgroups)).and_then(|set| read::pointer(set + offset!(css_set_cgroup)));
        Self { address, cgroup: cgroup.unwrap_or(0) }
    }

    /// Nobody, in a cgroup.
    #[inline(always)]
    pub(crate) fn nobody(cgroup: Address) -> Self {
        Self { address: 0, cgroup }
    }

    /// Whether the cgroup is the guarded one or below it.
    #[inline(always)]
    pub(crate) fn is_guarded(&self) -> bool {
        let guarded = guarded_cgroup();
        guarded.level == 0 || (guarded.level <= self.cgroup_level() && self.ancestor_id(guarded.level) == guarded.id)
    }

    /// The id of the cgroup's ancestor at a level that it has.
    #[inline(always)]
    fn ancestor_id(&self, level: u32) -> u64 {
        let ancestors = self.cgroup + offset!(cgroup_ancestors);
        read::pointer(ancestors + level as usize * size_of::<Address>())
            .and_then(|ancestor| read::pointer(ancestor + offset!(cgroup_kn)))
            .and_then(|node| read::kernel(node + offset!(kernfs_id)))
            .unwrap_or(0)
    }

    /// Address of a field.
    #[inline(always)]
    pub(crate) fn field(&self, offset: usize) -> Address {
        self.address + offset
    }

    /// The process id in the host's pid namespace.
    #[inline(always)]
    pub(crate) fn tgid(&self) -> u32 {
        read::kernel(self.field(offset!(task_tgid))).unwrap_or(0)
    }

    /// The thread id in the host's pid namespace.
    #[inline(always)]
    pub(crate) fn tid(&self) -> u32 {
        read::kernel(self.field(offset!(task_pid))).unwrap_or(0)
    }

    /// When the process (the thread group's leader) started, CLOCK_BOOTTIME nanoseconds.
    #[inline(always)]
    pub(crate) fn start(&self) -> u64 {
        read::pointer(self.field(offset!(task_group_leader)))
            .and_then(|leader| read::kernel(leader + offset!(task_start_boottime)))
            .unwrap_or(0)
    }

    /// The memory map; `None` for kernel threads and dying processes.
    #[inline(always)]
    pub(crate) fn mm(&self) -> Option<Address> {
        read::pointer(self.field(offset!(task_mm)))
    }

    /// The open executable file (`struct file`).
    #[inline(always)]
    pub(crate) fn exe_file(&self) -> Option<Address> {
        self.mm().and_then(|mm| read::pointer(mm + offset!(mm_exe_file)))
    }

    /// The credentials in force (`struct cred`).
    #[inline(always)]
    pub(crate) fn cred(&self) -> Option<Address> {
        read::pointer(self.field(offset!(task_cred)))
    }

    /// The id of the cgroup, 0 when it cannot be read.
    #[inline(always)]
    pub(crate) fn cgroup_id(&self) -> u64 {
        read::pointer(self.cgroup + offset!(cgroup_kn))
            .and_then(|node| read::kernel(node + offset!(kernfs_id)))
            .unwrap_or(0)
    }

    /// How deep the cgroup is; the root is 0.
    #[inline(always)]
    pub(crate) fn cgroup_level(&self) -> u32 {
        read::kernel(self.cgroup + offset!(cgroup_level)).unwrap_or(0)
    }

    /// Address of the name of the cgroup at a level that the task has.
    #[inline(always)]
    pub(crate) fn cgroup_name(&self, level: u32) -> Option<Address> {
        let ancestors = self.cgroup + offset!(cgroup_ancestors);
        let ancestor = read::pointer(ancestors + level as usize * size_of::<Address>())?;
        let node = read::pointer(ancestor + offset!(cgroup_kn))?;
        read::pointer(node + offset!(kernfs_name))
    }

    /// Finds out what the verdict asks about. The error says why nobody can be named.
    #[inline(always)]
    pub(crate) fn identify(&self, who: &mut Identity) -> Result<(), Reason> {
        let file = self.exe_file().ok_or(Reason::NoProcess)?;
        let exe = exe_id(file).ok_or(Reason::Unreadable)?;
        let cred = self.cred().ok_or(Reason::Unreadable)?;
        who.euid = read::kernel(cred + offset!(cred_euid)).ok_or(Reason::Unreadable)?;
        who.egid = read::kernel(cred + offset!(cred_egid)).ok_or(Reason::Unreadable)?;
        who.exe = exe;
        who.taint = read::forget(&self.taint(&who.exe)).unwrap_or(Taint::EXE_CHANGED);
        Ok(())
    }

    /// Whether a debugger is attached. Unreadable counts as traced: a taint errs towards suspicion.
    #[inline(always)]
    pub(crate) fn is_traced(&self) -> bool {
        read::kernel::<u32>(self.field(offset!(task_ptrace))).unwrap_or(1) != 0
    }

    /// What speaks against the process being its executable.
    #[inline(always)]
    fn taint(&self, exe: &ExeId) -> u32 {
        let mut taint = 0;
        if self.is_traced() {
            taint |= Taint::TRACED;
        }
        if !exec_watch() {
            return taint;
        }
        // SAFETY: an entry belongs to one live process; it is deleted when that process ends, and this is one of its
        // threads.
        let Some(record) = (unsafe { PR_EXECS.get(self.tgid()) }) else { return taint | Taint::EXEC_UNSEEN };
        if record.start != self.start() / TICK {
            return taint | Taint::EXEC_UNSEEN;
        }
        // Not the change time, which moves when the file is linked, renamed or removed.
        let same = record.exe.ino == exe.ino && record.exe.dev == exe.dev && record.exe.generation == exe.generation;
        if !same {
            taint |= Taint::EXE_CHANGED;
        }
        taint | record.taint
    }
}

impl CgroupNames for Task {
    #[inline(always)]
    fn name(&self, level: u32, name: &mut [u8; CGROUP_NAME_LEN]) -> bool {
        if level > self.cgroup_level() {
            return false;
        }
        let Some(address) = self.cgroup_name(level) else { return false };
        // A read that fails leaves zeros, in one call of a helper instead of a row of stores in each turn of the loop.
        // SAFETY: the array is as long as the size says.
        unsafe { read::kernel_bytes(name.as_mut_ptr(), CGROUP_NAME_LEN as u32, 0) };
        // SAFETY: likewise.
        let written = unsafe { read::kernel_str(name.as_mut_ptr(), CGROUP_NAME_LEN as u32, address) };
        // A name that fills the array may have been cut.
        written > 1 && written < CGROUP_NAME_LEN as i64
    }
}

/// The identity of an open file (`struct file`).
#[inline(always)]
pub(crate) fn exe_id(file: Address) -> Option<ExeId> {
    let inode = inode(file)?;
    let super_block = read::pointer(inode + offset!(inode_sb))?;
    Some(ExeId {
        ino: read::kernel(inode + offset!(inode_ino))?,
        ctime_sec: read::kernel(inode + offset!(inode_ctime_sec))?,
        ctime_nsec: read::kernel::<u32>(inode + offset!(inode_ctime_nsec))? & CTIME_NSEC,
        dev: read::kernel(super_block + offset!(super_dev))?,
        generation: read::kernel(inode + offset!(inode_generation))?,
        _pad: 0,
    })
}

/// The inode of an open file.
#[inline(always)]
pub(crate) fn inode(file: Address) -> Option<Address> {
    read::pointer(file + offset!(file_inode))
}
