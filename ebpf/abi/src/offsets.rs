//! Where the fields that the programs read are in this kernel's structures.

/// Byte offsets, found in the running kernel's BTF by the agent and handed to the programs as constants.
///
/// Each field is named `struct_field`; the structures are those of include/linux/{sched,mm_types,fs,dcache,cred,
/// cgroup-defs,kernfs,net,ipv6,skbuff}.h, fs/mount.h, include/linux/nsproxy.h and include/net/{net_namespace,sock,inet_sock}.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `task_struct.mm`
    pub task_mm: u32,
    /// `task_struct.cred`
    pub task_cred: u32,
    /// `task_struct.real_parent`
    pub task_real_parent: u32,
    /// `task_struct.group_leader`
    pub task_group_leader: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.comm`
    pub task_comm: u32,
    /// `task_struct.start_boottime`
    pub task_start_boottime: u32,
    /// `task_struct.ptrace`
    pub task_ptrace: u32,
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `task_struct.nsproxy`
    pub task_nsproxy: u32,
    /// `task_struct.files`
    pub task_files: u32,
    /// `task_struct.signal`
    pub task_signal: u32,
    /// `signal_struct.live`
    pub signal_live: u32,
    /// `mm_struct.exe_file`
    pub mm_exe_file: u32,
    /// `mm_struct.arg_start`
    pub mm_arg_start: u32,
    /// `mm_struct.arg_end`
    pub mm_arg_end: u32,
    /// `mm_struct.env_start`
    pub mm_env_start: u32,
    /// `mm_struct.env_end`
    pub mm_env_end: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `file.f_path.mnt`
    pub file_mnt: u32,
    /// `file.f_path.dentry`
    pub file_dentry: u32,
    /// `inode.i_ino`
    pub inode_ino: u32,
    /// `inode.i_sb`
    pub inode_sb: u32,
    /// `inode.i_generation`
    pub inode_generation: u32,
    /// `inode.i_nlink`
    pub inode_nlink: u32,
    /// The seconds of the change time: `i_ctime_sec`, `__i_ctime.tv_sec` or `i_ctime.tv_sec`
    pub inode_ctime_sec: u32,
    /// The nanoseconds of the change time
    pub inode_ctime_nsec: u32,
    /// `super_block.s_dev`
    pub super_dev: u32,
    /// `dentry.d_parent`
    pub dentry_parent: u32,
    /// `dentry.d_name.name`
    pub dentry_name: u32,
    /// `vfsmount.mnt_root`
    pub vfsmount_root: u32,
    /// `mount.mnt`
    pub mount_mnt: u32,
    /// `mount.mnt_parent`
    pub mount_parent: u32,
    /// `mount.mnt_mountpoint`
    pub mount_mountpoint: u32,
    /// `cred.uid`
    pub cred_uid: u32,
    /// `cred.gid`
    pub cred_gid: u32,
    /// `cred.euid`
    pub cred_euid: u32,
    /// `cred.egid`
    pub cred_egid: u32,
    /// `css_set.dfl_cgrp`
    pub css_set_cgroup: u32,
    /// `cgroup.level`
    pub cgroup_level: u32,
    /// `cgroup.ancestors`
    pub cgroup_ancestors: u32,
    /// `cgroup.kn`
    pub cgroup_kn: u32,
    /// `kernfs_node.name`
    pub kernfs_name: u32,
    /// `kernfs_node.id`
    pub kernfs_id: u32,
    /// `nsproxy.net_ns`
    pub nsproxy_net: u32,
    /// `net.ns.inum`
    pub net_inum: u32,
    /// `files_struct.fdt`
    pub files_fdt: u32,
    /// `fdtable.max_fds`
    pub fdtable_max: u32,
    /// `fdtable.fd`
    pub fdtable_fd: u32,
    /// `sock_common.skc_family`
    pub sock_family: u32,
    /// `sock_common.skc_state`
    pub sock_state: u32,
    /// `sock_common.skc_dport`, network order
    pub sock_dport: u32,
    /// `sock_common.skc_num`, the local port in host order
    pub sock_num: u32,
    /// `sock_common.skc_daddr`
    pub sock_daddr: u32,
    /// `sock_common.skc_rcv_saddr`
    pub sock_saddr: u32,
    /// `sock_common.skc_v6_daddr`
    pub sock_daddr6: u32,
    /// `sock_common.skc_v6_rcv_saddr`
    pub sock_saddr6: u32,
    /// `sock_common.skc_net`
    pub sock_net: u32,
    /// `sock_common.skc_cookie`
    pub sock_cookie: u32,
    /// `sock.sk_type`
    pub sock_type: u32,
    /// `sock.sk_protocol`
    pub sock_protocol: u32,
    /// `sock.sk_lock.owned`
    pub sock_owned: u32,
    /// `sock.sk_socket`
    pub sock_socket: u32,
    /// `sock.sk_cgrp_data.cgroup`
    pub sock_cgroup: u32,
    /// `task_struct.pid`
    pub task_pid: u32,
    /// `socket.sk`
    pub socket_sk: u32,
    /// `socket.file`
    pub socket_file: u32,
    /// `inet_sock.mc_index`
    pub inet_mc_index: u32,
    /// `inet_sock.pinet6`, 0 on a kernel without IPv6
    pub inet_pinet6: u32,
    /// `ipv6_pinfo.mcast_oif`
    pub ipv6_mcast_oif: u32,
    /// `sk_buff.head`
    pub skb_head: u32,
    /// `sk_buff.data`
    pub skb_data: u32,
    /// `sk_buff.csum_start`
    pub skb_csum_start: u32,
    /// `sk_buff.csum_offset`
    pub skb_csum_offset: u32,
    /// The byte that `sk_buff.ip_summed` is in
    pub skb_summed: u32,
    /// How many bits of that byte come before it
    pub skb_summed_shift: u32,
}

/// What stands in the object for a call of `bpf_cast_to_kern_ctx()` (kernel/bpf/helpers.c, since Linux 6.2), which the agent
/// puts in its place: the number of a helper that there is not.
pub const KERN_CTX_CALL: i32 = 0x5052_0001;

/// Which part of the cgroup2 hierarchy is guarded, and by whom.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardedCgroup {
    /// The cgroup's id.
    pub id: u64,
    /// How deep it is; 0 is the root, and everything is guarded.
    pub level: u32,
    /// The agent's process, which looks into others without doing anything to them.
    pub agent: u32,
}

crate::pod!(Offsets, GuardedCgroup);
