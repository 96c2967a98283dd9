//! The container or virtual machine behind an interface of this host: a veth whose other end is in a container, a TAP
//! device that an emulator holds.
//!
//! Looks through all of /proc, once for all interfaces, so it is for a thread that may wait.

mod cni;
mod runtime;

use std::collections::HashMap;
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
/// The length of a container's id in hexadecimal digits, where it is cut.
const SHORTEST_ID: usize = 12;
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

impl Behind {
    /// Whether its runtime's files have not told a name, so that its id stands for one.
    fn is_unnamed(&self) -> bool {
        self.name.len() >= SHORTEST_ID && self.name.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
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

/// What is behind each interface of the thread's network namespace, by the interface's index. Those that nothing of this
/// host's is behind, or nothing that can be seen, are left out.
#[must_use]
pub fn behind(links: &[Link]) -> HashMap<u32, Behind> {
    behind_below(Path::new("/"), links)
}

/// Whether a container or a machine can be behind an interface.
pub(super) fn may_have_one(link: &Link) -> bool {
    match link.kind.as_deref() {
        Some("veth" | "netkit") => link.peer_netns.is_some(),
        Some("tun") => true,
        _ => false,
    }
}

/// The same as [`behind`] with the runtimes' files below a folder.
fn behind_below(root: &Path, links: &[Link]) -> HashMap<u32, Behind> {
    let links: Vec<&Link> = links.iter().filter(|link| may_have_one(link)).collect();
    let (taps, wires): (Vec<&Link>, Vec<&Link>) =
        links.into_iter().partition(|link| link.kind.as_deref() == Some("tun"));
    let mut found = HashMap::new();
    if !wires.is_empty() {
        let (namespaces, pods) = (namespaces(), cni::pods(root));
        for link in wires {
            let processes = link.peer_netns.and_then(|number| namespaces.get(&number));
            let inside = processes.and_then(|processes| in_namespace(root, processes));
            found.extend(of_pod(inside, pods.get(&link.name)).map(|behind| (link.index, behind)));
        }
    }
    if !taps.is_empty() {
        let holders = holders();
        for link in taps {
            found.extend(holders.get(&link.name).and_then(|pid| holder(*pid)).map(|behind| (link.index, behind)));
        }
    }
    found
}

/// A container without a name of its own, or none that could be seen, by the name of the pod that the network was made for.
fn of_pod(inside: Option<Behind>, pod: Option<&cni::Pod>) -> Option<Behind> {
    let Some(pod) = pod else { return inside };
    match inside {
        Some(behind) if behind.kind == BehindKind::Container && !behind.is_unnamed() => Some(behind),
        other => Some(Behind {
            kind: BehindKind::Container,
            name: shown(&pod.name)?,
            runtime: other.as_ref().and_then(|behind| behind.runtime.clone()),
            pid: other.map_or(0, |behind| behind.pid),
        }),
    }
}

/// The processes in each network namespace that the thread's knows by a number, the first few of each.
fn namespaces() -> HashMap<i32, Vec<u32>> {
    // Every namespace is asked about once; most processes are in one of a few.
    let mut numbers: HashMap<u64, Option<i32>> = HashMap::new();
    let mut found: HashMap<i32, Vec<u32>> = HashMap::new();
    for pid in processes() {
        let Ok(inode) = fs::metadata(format!("/proc/{pid}/ns/net")).map(|meta| meta.ino()) else { continue };
        if let Some(number) = *numbers.entry(inode).or_insert_with(|| namespace_number(pid)) {
            let inside = found.entry(number).or_default();
            if inside.len() < MOST_PROCESSES {
                inside.push(pid);
            }
        }
    }
    found
}

/// Who is in a network namespace with these processes.
fn in_namespace(root: &Path, processes: &[u32]) -> Option<Behind> {
    if let Some(container) = processes.iter().find_map(|pid| contained(root, *pid)) {
        return Some(container);
    }
    let pid = *processes.first()?;
    let name = unit(pid).or_else(|| program(pid))?;
    Some(Behind { kind: BehindKind::Program, name, runtime: None, pid })
}

/// The container that a process is in, by its cgroup.
fn contained(root: &Path, pid: u32) -> Option<Behind> {
    let container = place(&cgroup(pid)?).container?;
    let name = runtime::name(root, &container.runtime, &container.id).unwrap_or(container.id);
    Some(Behind { kind: BehindKind::Container, name: shown(&name)?, runtime: Some(container.runtime), pid })
}

/// Who holds a TUN or TAP device open, by a process that does.
fn holder(pid: u32) -> Option<Behind> {
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

/// The process that holds each TUN or TAP device open: the kernel names the device in fdinfo (drivers/net/tun.c,
/// `tun_chr_show_fdinfo`). Of several, as of an emulator and the one that has started it, a machine's.
fn holders() -> HashMap<String, u32> {
    let mut found: HashMap<String, u32> = HashMap::new();
    for pid in processes() {
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for entry in open.flatten() {
            if !fs::read_link(entry.path()).is_ok_and(|path| path == Path::new("/dev/net/tun")) {
                continue;
            }
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy()));
            let info = info.unwrap_or_default();
            let Some(name) = info.lines().find_map(|line| line.strip_prefix("iff:")) else { continue };
            let better = |held: &u32| *held != pid && guest(&command_line(*held)).is_none();
            if found.get(name.trim()).is_none_or(better) {
                found.insert(name.trim().to_owned(), pid);
            }
        }
    }
    found
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
