//! The container or virtual machine behind an interface of this host: a veth whose other end is in a container, a TAP
//! device that an emulator holds.
//!
//! Looks through all of /proc, so it is for a thread that may wait, and its answer worth keeping while the interface is
//! there.

mod runtime;

use std::collections::HashSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use procfs::process::Process;
use serde::{Deserialize, Serialize};

use super::link::Link;
use super::netlink::{ask, attributes, number};
use crate::subject::place;

/// How much of a command line is read, in bytes: `-name` is among the first arguments of an emulator.
const COMMAND_LINE: u64 = 64 << 10;
/// The longest name that is shown, in bytes.
const LONGEST_NAME: usize = 128;
/// How many processes of a container are looked at for the one whose cgroup tells.
const MOST_PROCESSES: usize = 64;
/// The length of `struct rtgenmsg` with its padding, include/uapi/linux/rtnetlink.h.
const NSID_HEADER: usize = 4;
/// `NETNSA_NSID`, include/uapi/linux/net_namespace.h.
const NSID: u16 = 1;

/// What is behind an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// What it is.
    pub kind: BehindKind,
    /// What it is called: the container's name where its runtime's files tell it, else its id; the guest's name; else the
    /// unit's or the program's.
    pub name: String,
    /// Who runs it: `docker`, `podman`, `containerd`, `cri-o`, `lxc`, `nspawn`; the emulator's program for a machine.
    pub runtime: Option<String>,
    /// A process of it, or the one that holds the interface.
    pub pid: u32,
}

/// What can be behind an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BehindKind {
    /// A container.
    Container,
    /// A virtual machine.
    Machine,
    /// A program in a network namespace of its own that no known runtime has made, or one that reads and writes the
    /// interface's packets: a VPN.
    Program,
}

/// What is behind an interface of the thread's network namespace; `None` for nothing of this host's, and where it cannot
/// be seen.
#[must_use]
pub fn named(link: &Link) -> Option<Behind> {
    named_below(Path::new("/"), link)
}

/// The same with the runtimes' files below a folder.
fn named_below(root: &Path, link: &Link) -> Option<Behind> {
    match link.kind.as_deref() {
        Some("veth" | "netkit") => in_namespace(root, link.peer_netns?),
        Some("tun") => holder(&link.name),
        _ => None,
    }
}

/// Who is in the network namespace that the thread's knows by a number.
fn in_namespace(root: &Path, wanted: i32) -> Option<Behind> {
    // Every namespace is asked about once; most processes are in one of a few.
    let (mut others, mut found) = (HashSet::new(), None);
    let (mut first, mut looked) = (None, 0);
    for pid in processes() {
        let Ok(inode) = fs::metadata(format!("/proc/{pid}/ns/net")).map(|meta| meta.ino()) else { continue };
        if found.is_none() && !others.contains(&inode) {
            if namespace_number(pid) == Some(wanted) {
                found = Some(inode);
            } else {
                others.insert(inode);
            }
        }
        if found != Some(inode) {
            continue;
        }
        if let Some(container) = contained(root, pid) {
            return Some(container);
        }
        first.get_or_insert(pid);
        looked += 1;
        if looked == MOST_PROCESSES {
            break;
        }
    }
    let pid = first?;
    let name = unit(pid).or_else(|| program(pid))?;
    Some(Behind { kind: BehindKind::Program, name, runtime: None, pid })
}

/// The container that a process is in, by its cgroup.
fn contained(root: &Path, pid: u32) -> Option<Behind> {
    let container = place(&cgroup(pid)?).container?;
    let name = runtime::name(root, &container.runtime, &container.id).unwrap_or(container.id);
    Some(Behind { kind: BehindKind::Container, name: shown(&name)?, runtime: Some(container.runtime), pid })
}

/// Who holds a TUN or TAP device open.
fn holder(interface: &str) -> Option<Behind> {
    let pid = processes().find(|pid| holds(*pid, interface))?;
    let program = program(pid);
    let guest = guest(&command_line(pid)).and_then(|guest| shown(&guest));
    match guest {
        Some(name) => Some(Behind { kind: BehindKind::Machine, name, runtime: program, pid }),
        None => {
            let name = unit(pid).or(program)?;
            Some(Behind { kind: BehindKind::Program, name, runtime: None, pid })
        }
    }
}

/// Whether one of the files that a process has open is the device: the kernel names it in fdinfo (drivers/net/tun.c,
/// `tun_chr_show_fdinfo`).
fn holds(pid: u32, interface: &str) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    open.flatten().any(|entry| {
        let is_tun = fs::read_link(entry.path()).is_ok_and(|path| path == Path::new("/dev/net/tun"));
        is_tun && {
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy()));
            info.is_ok_and(|info| {
                info.lines().any(|line| line.strip_prefix("iff:").is_some_and(|name| name.trim() == interface))
            })
        }
    })
}

/// The guest's name in the command line of QEMU, qemu(1): `-name GUEST`, `-name guest=GUEST,debug-threads=on`. A comma in
/// it is doubled.
fn guest(arguments: &[String]) -> Option<String> {
    let mut arguments = arguments.iter();
    arguments.by_ref().find(|argument| ["-name", "--name"].contains(&argument.as_str()))?;
    let value = arguments.next()?.replace(",,", "\0");
    let mut parts = value.split(',');
    let named = parts.clone().find_map(|part| part.strip_prefix("guest="));
    let name = named.or_else(|| parts.next().filter(|part| !part.contains('=')))?;
    Some(name.replace('\0', ","))
}

/// The number by which the thread's network namespace knows that of a process, if it does.
fn namespace_number(pid: u32) -> Option<i32> {
    let mut question = NsidMessage::default();
    question.attributes = vec![NsidAttribute::Pid(pid)];
    let said = ask(RouteNetlinkMessage::GetNsId(question)).ok()??;
    let (_, value) = attributes(said.body.get(NSID_HEADER..)?).find(|(kind, _)| *kind == NSID)?;
    number(value).map(|id| id as i32).filter(|id| *id >= 0)
}

/// All processes, the lowest number first: a container's first process is before those that it starts.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut found: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    found.sort_unstable();
    found.into_iter()
}

fn cgroup(pid: u32) -> Option<String> {
    let groups = Process::new(i32::try_from(pid).ok()?).and_then(|process| process.cgroups()).ok()?;
    groups.into_iter().find(|group| group.hierarchy == 0).map(|group| group.pathname)
}

fn unit(pid: u32) -> Option<String> {
    place(&cgroup(pid)?).unit.and_then(|unit| shown(&unit))
}

fn program(pid: u32) -> Option<String> {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    shown(comm.trim_end())
}

fn command_line(pid: u32) -> Vec<String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(format!("/proc/{pid}/cmdline"));
    // What cannot be read is a command line without a name.
    if file.and_then(|file| file.take(COMMAND_LINE).read_to_end(&mut bytes)).is_err() {
        return Vec::new();
    }
    bytes.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

/// A name without what is not to be shown.
fn shown(name: &str) -> Option<String> {
    let mut shown = String::new();
    for letter in name.chars().filter(|letter| !letter.is_control()) {
        if shown.len() + letter.len_utf8() > LONGEST_NAME {
            break;
        }
        shown.push(letter);
    }
    (!shown.is_empty()).then_some(shown)
}

#[cfg(test)]
mod tests;
