//! How the kernel sees a file that the agent has open.
//!
//! `stat()` does not tell: on btrfs and on overlayfs over several file systems its device number is not the one in
//! the inode that the connect programs read. So the agent opens the file and has this program look at it, in the
//! agent's own context, through the same code.

use aya_ebpf::programs::SkBuffContext;
use portreeve_abi::Learned;

use crate::maps::PR_LEARNED;
use crate::offsets::offset;
use crate::read;
use crate::task::{Task, exe_id};

/// Answers the question in the learned map; the return value means nothing.
#[inline(always)]
pub(crate) fn learn(_ctx: &SkBuffContext) -> i64 {
    let Some(slot) = PR_LEARNED.get_ptr_mut(0) else { return 0 };
    // SAFETY: the map's only value; the agent runs this program from one thread at a time.
    let fd = unsafe { (*slot).fd };
    let answer = open_file(fd).and_then(exe_id);
    // SAFETY: as above.
    unsafe {
        match answer {
            Some(exe) => *slot = Learned { fd, found: 1, exe },
            None => (*slot).found = 0,
        }
    }
    0
}

/// The `struct file` of a descriptor of the current process.
#[inline(always)]
fn open_file(fd: u32) -> Option<usize> {
    let files = read::pointer(Task::current().field(offset!(task_files)))?;
    let table = read::pointer(files + offset!(files_fdt))?;
    if fd >= read::kernel::<u32>(table + offset!(fdtable_max))? {
        return None;
    }
    let array = read::pointer(table + offset!(fdtable_fd))?;
    read::pointer(array + fd as usize * size_of::<usize>())
}
