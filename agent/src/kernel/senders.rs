//! Sockets that have what passes every packet hook: packet sockets with `PACKET_QDISC_BYPASS`, and those of AF_XDP.
//!
//! New ones are judged by the setsockopt hooks. These here are older than the guard, or were made by the entry for 32-bit
//! programs on a kernel without the second lock.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use super::guard::Guard;
use super::{netns, sys};

/// What kind of sender a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A packet socket that passes by the queueing discipline.
    Packet,
    /// A socket of AF_XDP; whether it has a transmit ring cannot be asked.
    Xdp,
}

/// A socket of a process of the guarded part.
#[derive(Debug)]
pub struct RawSender {
    /// The process.
    pub pid: u32,
    /// Which kind.
    pub kind: Kind,
    /// The socket's inode number, by which /proc knows it.
    pub inode: u64,
    socket: OwnedFd,
}

impl RawSender {
    /// Sends a packet socket's packets the ordinary way again.
    ///
    /// # Errors
    ///
    /// That of setsockopt(2); an AF_XDP socket stays what it is.
    pub fn turn_off(&self) -> io::Result<()> {
        match self.kind {
            Kind::Packet => sys::set_option(&self.socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 0),
            Kind::Xdp => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        }
    }
}

impl Guard {
    /// Every such socket.
    #[must_use]
    pub fn raw_senders(&self) -> Vec<RawSender> {
        let (listed, xdp) = listed();
        // Those of AF_XDP are in no list: where there are any, every socket is looked at.
        self.senders_among(|inode| xdp || listed.contains(&inode))
    }

    /// The packet sockets among them.
    #[must_use]
    pub fn packet_senders(&self) -> Vec<RawSender> {
        let (listed, _xdp) = listed();
        if listed.is_empty() { Vec::new() } else { self.senders_among(|inode| listed.contains(&inode)) }
    }

    fn senders_among(&self, of_interest: impl Fn(u64) -> bool) -> Vec<RawSender> {
        let members = (!self.guards_all()).then(|| self.members());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if members.as_ref().is_none_or(|members| members.contains(&pid)) {
                found.extend(senders_of(pid, &of_interest));
            }
        }
        found
    }
}

/// The senders that a process has open.
fn senders_of(pid: u32, of_interest: &impl Fn(u64) -> bool) -> Vec<RawSender> {
    let mut found = Vec::new();
    let mut process = None;
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let Some(inode) = fs::read_link(entry.path()).ok().and_then(|to| socket_inode(&to.to_string_lossy())) else {
            continue;
        };
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if !of_interest(inode) {
            continue;
        }
        // A process that is gone by now sends nothing.
        let Some(handle) = process.get_or_insert_with(|| sys::pidfd_open(pid).ok()) else { break };
        let Ok(socket) = sys::pidfd_getfd(handle, number) else { continue };
        let bypasses = || sys::option(&socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS).is_ok_and(|on| on != 0);
        let kind = match sys::option(&socket, libc::SOL_SOCKET, libc::SO_DOMAIN) {
            Ok(libc::AF_PACKET) if bypasses() => Kind::Packet,
            Ok(libc::AF_XDP) => Kind::Xdp,
            Ok(_) | Err(_) => continue,
        };
        tracing::debug!("process {pid}, descriptor {}: {kind:?}", socket.as_raw_fd());
        found.push(RawSender { pid, kind, inode, socket });
    }
    found
}

/// The number in `socket:[NUMBER]`, as descriptors of sockets read (proc_pid_fd(5)).
fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The packet sockets of all namespaces, and whether there are sockets of AF_XDP.
fn listed() -> (BTreeSet<u64>, bool) {
    let (mut packet, mut xdp) = (BTreeSet::new(), false);
    let (namespaces, _skipped) = netns::all(|_| true).unwrap_or_default();
    for file in namespaces.values() {
        let found = netns::within(file, || {
            packet.extend(packet_sockets(&fs::read_to_string("/proc/thread-self/net/packet")?));
            xdp |= uses_xdp(&fs::read_to_string("/proc/thread-self/net/protocols")?);
            io::Result::Ok(())
        });
        if let Ok(Err(error)) | Err(error) = found {
            tracing::debug!("sockets of a network namespace: {error}");
        }
    }
    (packet, xdp)
}

/// The inode numbers in /proc/net/packet: the last column (net/packet/af_packet.c, `packet_seq_show`).
fn packet_sockets(list: &str) -> impl Iterator<Item = u64> {
    list.lines().skip(1).filter_map(|line| line.split_whitespace().last()?.parse().ok())
}

/// Whether /proc/net/protocols counts sockets of AF_XDP: the third column (net/core/sock.c, `proto_seq_printf`).
fn uses_xdp(list: &str) -> bool {
    let count = |line: &str| line.split_whitespace().nth(2)?.parse::<u64>().ok();
    list.lines().filter(|line| line.starts_with("XDP ")).any(|line| count(line) != Some(0))
}

#[cfg(test)]
mod tests {
    use super::{packet_sockets, socket_inode, uses_xdp};

    #[test]
    fn a_sockets_number_is_read_from_its_link() {
        assert_eq!(socket_inode("socket:[4711]"), Some(4711));
        assert_eq!(socket_inode("pipe:[4711]"), None);
        assert_eq!(socket_inode("/tmp/socket:[1]"), None);
    }

    #[test]
    fn the_kernels_lists_are_read() {
        let packet = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n\
                      0000000000000000 3      3    0003   2     1 0      0      22841\n";
        assert_eq!(packet_sockets(packet).collect::<Vec<_>>(), [22841]);
        let protocols = "protocol  size sockets  memory press maxhdr  slab module     cl co\n\
                         XDP        960      1      -1   NI       0   no   kernel      n  n\n";
        assert!(uses_xdp(protocols) && !uses_xdp(&protocols.replace("      1      ", "      0      ")));
    }
}
