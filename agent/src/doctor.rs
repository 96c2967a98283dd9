//! What the guard needs of a host, and what on it does the same job or undoes it.

mod gateway;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::control::{Client, Request};
use crate::instance::Instance;
use crate::kernel::btf::{Btf, VMLINUX};
use crate::kernel::{self, mounts, offsets};
use crate::rights::Rights;

/// The unit that closes the port in the agent's place.
const STAND_IN: &str = "/etc/systemd/system/portreeve-closed.service";

/// How a finding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// The guard cannot work, or not whole.
    Bad,
}

/// One thing looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// Looks at everything; `config` is the policy, which says whether this host is to be a gateway.
#[must_use]
pub fn examine(instance: &Instance, config: &Path) -> Vec<Finding> {
    let mut findings = vec![rights(), kernel_version(), btf(), cgroup2(), bpffs(), lockdown(), lsms(), guard(instance)];
    findings.extend(agent_rights(instance));
    findings.extend(other_programs());
    findings.push(firewall("nftables", "nft", &["list", "ruleset"]));
    findings.push(firewall("iptables", "iptables-save", &[]));
    findings.push(firewall("ip6tables", "ip6tables-save", &[]));
    findings.extend(stand_in());
    findings.extend(gateway::examine(instance, config));
    findings
}

fn good(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { what, state: State::Good, found: found.into(), mend: None }
}

fn note(what: &'static str, found: impl Into<String>, mend: Option<&str>) -> Finding {
    Finding { what, state: State::Note, found: found.into(), mend: mend.map(str::to_owned) }
}

fn bad(what: &'static str, found: impl Into<String>, mend: &str) -> Finding {
    Finding { what, state: State::Bad, found: found.into(), mend: Some(mend.to_owned()) }
}

fn rights() -> Finding {
    if nix::unistd::geteuid().is_root() {
        good("rights", "root")
    } else {
        bad("rights", "not root: the rest is what can be seen without", "sudo portreeve doctor")
    }
}

fn kernel_version() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.trim().parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let release = release.trim().to_owned();
    if version >= (6, 1) { good("kernel", release) } else { bad("kernel", release, "boot Linux 6.1 or newer") }
}

fn btf() -> Finding {
    let data = match fs::read(VMLINUX) {
        Ok(data) => data,
        Err(error) => {
            return bad("type information", format!("{VMLINUX}: {error}"), "boot a kernel with CONFIG_DEBUG_INFO_BTF");
        }
    };
    match Btf::parse(&data).and_then(|btf| offsets::find(&btf)) {
        Ok(_) => good("type information", "every field the programs read is there"),
        Err(error) => bad("type information", error.to_string(), "boot Linux 6.1 or newer, or report this kernel"),
    }
}

fn cgroup2() -> Finding {
    match mounts::cgroup2() {
        Ok(path) => good("cgroup2", path.display().to_string()),
        Err(error) => bad("cgroup2", error.to_string(), "mount -t cgroup2 none /sys/fs/cgroup"),
    }
}

fn bpffs() -> Finding {
    match mounts::bpffs() {
        Ok(Some(path)) => good("BPF file system", path.display().to_string()),
        Ok(None) => note("BPF file system", "not mounted; portreeve run mounts it", None),
        Err(error) => bad("BPF file system", error.to_string(), "mount -t bpf bpf /sys/fs/bpf"),
    }
}

fn lockdown() -> Finding {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    match text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(level, _)| level) {
        Some("confidentiality") => bad(
            "lockdown",
            "confidentiality: programs may not read kernel memory, so nobody behind an attempt can be named",
            "boot with lockdown=integrity",
        ),
        Some(level) => good("lockdown", level),
        None => good("lockdown", "not in use"),
    }
}

fn lsms() -> Finding {
    match fs::read_to_string("/sys/kernel/security/lsm") {
        Ok(active) if active.contains("bpf") => good("security modules", active),
        Ok(active) => note(
            "security modules",
            format!("{active} (without bpf: no second lock on raw senders)"),
            Some("boot with lsm=…,bpf"),
        ),
        Err(_) => note("security modules", "securityfs is not mounted, cannot tell", None),
    }
}

fn guard(instance: &Instance) -> Finding {
    let links = kernel::pin_folder(&instance.name).ok().flatten().map(|pins| pins.join("links"));
    let all = ["connect4", "connect6", "setsockopt", "packet"];
    let attached = links.is_some_and(|links| all.iter().all(|hook| links.join(hook).exists()));
    let answers = std::os::unix::net::UnixStream::connect(instance.socket()).is_ok();
    match (attached, answers) {
        (true, true) => good("guard", "attached, the agent runs"),
        (true, false) => {
            note("guard", "attached, but no agent runs: attempts are counted, not shown", Some("portreeve run"))
        }
        (false, true) => bad("guard", "the agent runs, but its programs are gone", "restart the agent"),
        (false, false) => note("guard", "not attached", Some("portreeve run")),
    }
}

/// What the running agent holds.
fn agent_rights(instance: &Instance) -> Option<Finding> {
    let answer = Client::ask(&instance.socket(), &Request::Status).and_then(Client::answer).ok()?;
    let rights: Rights = serde_json::from_value(answer.get("rights")?.clone()).ok()?;
    let files = if rights.files_read_only { "can write no files but its own" } else { "can write files" };
    let also = match (rights.no_new_privileges, rights.seccomp) {
        (true, true) => "no new privileges, system calls filtered",
        (true, false) => "no new privileges; system calls are filtered only under the systemd unit",
        (false, _) => "new privileges possible",
    };
    Some(note("agent", format!("holds {}; {also}; {files}", rights.capabilities.join(", ")), None))
}

/// Programs of others on the same hooks at the root of the hierarchy.
fn other_programs() -> Option<Finding> {
    let root = mounts::cgroup2().ok()?;
    let shown = Command::new("bpftool").args(["cgroup", "show"]).arg(&root).output().ok()?;
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let others: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("connect4") || line.contains("connect6"))
        .filter(|line| !line.contains("pr_connect"))
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    Some(if others.is_empty() {
        good("other programs", "none on the connect hooks")
    } else {
        note(
            "other programs",
            format!(
                "{} on the connect hooks; theirs and ours both must agree to let a connection go",
                others.join(", ")
            ),
            None,
        )
    })
}

/// What closes the port at a boot at which the agent cannot start, if its unit is installed.
fn stand_in() -> Option<Finding> {
    fs::metadata(STAND_IN).ok()?;
    let works = Command::new("nft").arg("--version").output().is_ok_and(|done| done.status.success());
    Some(if works {
        good("stand-in at boot", "portreeve-closed.service, by nftables")
    } else {
        bad(
            "stand-in at boot",
            "portreeve-closed.service needs nftables, which is not installed",
            "apt-get install nftables",
        )
    })
}

/// Rules of a packet filter that speak of the mail ports.
fn firewall(what: &'static str, program: &str, arguments: &[&str]) -> Finding {
    let Ok(shown) = Command::new(program).args(arguments).output() else {
        return good(what, "not installed");
    };
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let speaks = |line: &&str| {
        line.contains("port")
            && line.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| matches!(word, "25" | "smtp"))
    };
    let rules: Vec<&str> = text.lines().filter(speaks).map(str::trim).collect();
    match rules.first() {
        None => good(what, "no rules about port 25"),
        Some(first) => note(
            what,
            format!("{} rules about port 25, the first: {first}", rules.len()),
            Some("see that they do not redirect mail past the guard, or drop what it allows"),
        ),
    }
}
