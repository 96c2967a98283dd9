//! The one table of kernel fields that the programs read.

use portreeve_abi::Offsets;

use super::btf::{Btf, BtfError};

/// Finds every field; one that is missing is an error, never a guess.
///
/// # Errors
///
/// The first field this kernel does not have.
pub fn find(btf: &Btf<'_>) -> Result<Offsets, BtfError> {
    let at = |spellings: &[&str]| btf.offset(spellings);
    // Two bits of a byte, counted from its low end on little-endian machines and from its high end on the others.
    let summed = btf.bits("sk_buff.ip_summed")?;
    let summed = if cfg!(target_endian = "big") { summed / 8 * 8 + 6 - summed % 8 } else { summed };
    Ok(Offsets {
        task_mm: at(&["task_struct.mm"])?,
        task_cred: at(&["task_struct.cred"])?,
        task_real_parent: at(&["task_struct.real_parent"])?,
        task_group_leader: at(&["task_struct.group_leader"])?,
        task_tgid: at(&["task_struct.tgid"])?,
        task_comm: at(&["task_struct.comm"])?,
        // Before Linux 5.5: real_start_time.
        task_start_boottime: at(&["task_struct.start_boottime"])?,
        task_ptrace: at(&["task_struct.ptrace"])?,
        task_cgroups: at(&["task_struct.cgroups"])?,
        task_nsproxy: at(&["task_struct.nsproxy"])?,
        task_files: at(&["task_struct.files"])?,
        task_signal: at(&["task_struct.signal"])?,
        signal_live: at(&["signal_struct.live.counter"])?,
        mm_exe_file: at(&["mm_struct.exe_file"])?,
        mm_arg_start: at(&["mm_struct.arg_start"])?,
        mm_arg_end: at(&["mm_struct.arg_end"])?,
        mm_env_start: at(&["mm_struct.env_start"])?,
        mm_env_end: at(&["mm_struct.env_end"])?,
        file_inode: at(&["file.f_inode"])?,
        file_mnt: at(&["file.f_path.mnt"])?,
        file_dentry: at(&["file.f_path.dentry"])?,
        inode_ino: at(&["inode.i_ino"])?,
        inode_sb: at(&["inode.i_sb"])?,
        inode_generation: at(&["inode.i_generation"])?,
        inode_nlink: at(&["inode.i_nlink"])?,
        // Since 6.11, 6.6 to 6.10, before.
        inode_ctime_sec: at(&["inode.i_ctime_sec", "inode.__i_ctime.tv_sec", "inode.i_ctime.tv_sec"])?,
        inode_ctime_nsec: at(&["inode.i_ctime_nsec", "inode.__i_ctime.tv_nsec", "inode.i_ctime.tv_nsec"])?,
        super_dev: at(&["super_block.s_dev"])?,
        dentry_parent: at(&["dentry.d_parent"])?,
        dentry_name: at(&["dentry.d_name.name", "dentry.__d_name.name"])?,
        vfsmount_root: at(&["vfsmount.mnt_root"])?,
        mount_mnt: at(&["mount.mnt"])?,
        mount_parent: at(&["mount.mnt_parent"])?,
        mount_mountpoint: at(&["mount.mnt_mountpoint"])?,
        cred_uid: at(&["cred.uid"])?,
        cred_gid: at(&["cred.gid"])?,
        cred_euid: at(&["cred.euid"])?,
        cred_egid: at(&["cred.egid"])?,
        css_set_cgroup: at(&["css_set.dfl_cgrp"])?,
        cgroup_level: at(&["cgroup.level"])?,
        // Since 6.1; older kernels keep ids only.
        cgroup_ancestors: at(&["cgroup.ancestors"])?,
        cgroup_kn: at(&["cgroup.kn"])?,
        kernfs_name: at(&["kernfs_node.name"])?,
        kernfs_id: at(&["kernfs_node.id"])?,
        nsproxy_net: at(&["nsproxy.net_ns"])?,
        net_inum: at(&["net.ns.inum"])?,
        files_fdt: at(&["files_struct.fdt"])?,
        fdtable_max: at(&["fdtable.max_fds"])?,
        fdtable_fd: at(&["fdtable.fd"])?,
        sock_family: at(&["sock.__sk_common.skc_family"])?,
        sock_state: at(&["sock.__sk_common.skc_state"])?,
        sock_dport: at(&["sock.__sk_common.skc_dport"])?,
        sock_num: at(&["sock.__sk_common.skc_num"])?,
        sock_daddr: at(&["sock.__sk_common.skc_daddr"])?,
        sock_saddr: at(&["sock.__sk_common.skc_rcv_saddr"])?,
        // A kernel without IPv6 has no such addresses, nor sockets that would be asked for them.
        sock_daddr6: at(&["sock.__sk_common.skc_v6_daddr"]).unwrap_or_default(),
        sock_saddr6: at(&["sock.__sk_common.skc_v6_rcv_saddr"]).unwrap_or_default(),
        sock_net: at(&["sock.__sk_common.skc_net.net"])?,
        sock_cookie: at(&["sock.__sk_common.skc_cookie.counter"])?,
        sock_type: at(&["sock.sk_type"])?,
        sock_protocol: at(&["sock.sk_protocol"])?,
        sock_owned: at(&["sock.sk_lock.owned"])?,
        sock_socket: at(&["sock.sk_socket"])?,
        sock_cgroup: at(&["sock.sk_cgrp_data.cgroup"])?,
        task_pid: at(&["task_struct.pid"])?,
        socket_sk: at(&["socket.sk"])?,
        socket_file: at(&["socket.file"])?,
        inet_mc_index: at(&["inet_sock.mc_index"])?,
        inet_pinet6: at(&["inet_sock.pinet6"]).unwrap_or_default(),
        ipv6_mcast_oif: at(&["ipv6_pinfo.mcast_oif"]).unwrap_or_default(),
        skb_head: at(&["sk_buff.head"])?,
        skb_data: at(&["sk_buff.data"])?,
        skb_csum_start: at(&["sk_buff.csum_start"])?,
        skb_csum_offset: at(&["sk_buff.csum_offset"])?,
        skb_summed: summed / 8,
        skb_summed_shift: summed % 8,
    })
}
