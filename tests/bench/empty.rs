//! Two programs that do nothing, where Portreeve's packet and frame programs are: what the hooks cost by themselves.

use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use lab::{Cgroup, Host};

/// `bpf(2)` commands, program and attach types, include/uapi/linux/bpf.h.
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const SCHED_CLS: u32 = 3;
const CGROUP_SKB: u32 = 8;
const CGROUP_INET_EGRESS: u32 = 1;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;

/// `struct bpf_insn` of `r0 = VALUE` and `exit`, a word each.
fn instructions(value: i32) -> [u64; 2] {
    [0xb7 | (value as u32 as u64) << 32, 0x95]
}

/// The programs, attached as long as this lives.
pub(crate) struct Empty(#[expect(dead_code, reason = "what is held keeps them attached")] Vec<OwnedFd>);

impl Empty {
    /// On a cgroup, and on a device of a host; `None` where the kernel has no tcx.
    pub(crate) fn attach(cgroup: &Cgroup, host: &Host, device: &str) -> Option<Self> {
        let folder = File::open(cgroup.path()).unwrap();
        // 1 lets a packet go.
        let packet = load(CGROUP_SKB, CGROUP_INET_EGRESS, 1)?;
        let on_cgroup = link(&packet, folder.as_raw_fd() as u32, CGROUP_INET_EGRESS)?;
        let mut held = on_device(host, device, TCX_EGRESS)?;
        held.extend([packet, on_cgroup]);
        Some(Self(held))
    }

    /// Where frames come into a gateway and where they leave it.
    pub(crate) fn forwarding(gateway: &Host, lan: &str, wan: &str) -> Option<Self> {
        let mut held = on_device(gateway, lan, TCX_INGRESS)?;
        held.extend(on_device(gateway, wan, TCX_EGRESS)?);
        Some(Self(held))
    }
}

fn on_device(host: &Host, device: &str, attach: u32) -> Option<Vec<OwnedFd>> {
    // -1 is the next program's turn.
    let frame = load(SCHED_CLS, attach, -1)?;
    let index: u32 = host.run("ip", &["-oneline", "link", "show", device]).split(':').next()?.parse().ok()?;
    let namespace = File::open(host.path()).unwrap();
    let on_device = std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            link(&frame, index, attach)
        });
        inside.join().unwrap()
    })?;
    Some(vec![frame, on_device])
}

fn load(kind: u32, attach: u32, value: i32) -> Option<OwnedFd> {
    let (instructions, licence) = (instructions(value), b"GPL\0");
    // `bpf_attr` of PROG_LOAD up to expected_attach_type.
    let mut attributes = [0_u64; 10];
    attributes[0] = u64::from(kind) | 2 << 32;
    attributes[1] = instructions.as_ptr() as u64;
    attributes[2] = licence.as_ptr() as u64;
    attributes[8] = u64::from(attach) << 32;
    bpf(PROG_LOAD, &mut attributes)
}

fn link(program: &OwnedFd, target: u32, attach: u32) -> Option<OwnedFd> {
    let mut attributes = [0_u64; 4];
    attributes[0] = program.as_raw_fd() as u64 | u64::from(target) << 32;
    attributes[1] = u64::from(attach);
    bpf(LINK_CREATE, &mut attributes)
}

fn bpf(command: libc::c_int, attributes: &mut [u64]) -> Option<OwnedFd> {
    // SAFETY: attributes of the size named, which point to memory of the caller's.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    if fd < 0 {
        return None;
    }
    // SAFETY: a descriptor the kernel has just made for us.
    Some(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
