//! What each command needs, how to tell that it is missing, and what installs it.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, Result};

use super::Group;
use crate::exec::{cargo, program, target_dir};
use xtask::ebpf::{self, Error, Toolchain, toolchain::Kind};

/// The linker as tried with Debian's LLVM; its features name the LLVM it is for.
pub(super) const LINKER: &str = "bpf-linker@0.13.0";
pub(super) const LINKER_FEATURE: &str = "llvm-22";
pub(super) const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// Its `rust-version` is 1.88, below ours.
const DENY: &str = "cargo-deny@0.20.2";
const FUZZ: &str = "cargo-fuzz@0.13.2";

const COMPILER: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];
const CLIPPY: &[&str] = &["rust-web-clippy"];
const LLVM: &[&str] = &["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev"];

/// The emulator of this machine's kind, and its package.
const EMULATOR: (&str, &str) = if cfg!(target_arch = "aarch64") {
    ("qemu-system-aarch64", "qemu-system-arm")
} else {
    ("qemu-system-x86_64", "qemu-system-x86")
};

/// The linker for the architecture that nothing is developed on, and its packages; on that architecture itself the usual
/// one.
const OTHER: (&str, &[&str]) = if cfg!(target_arch = "aarch64") {
    ("cc", &["gcc"])
} else {
    (crate::other::LINKER, &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"])
};

/// Something that is missing.
pub(super) struct Need {
    pub what: String,
    pub why: String,
    pub remedy: Remedy,
}

/// What installs it.
#[derive(Clone, Copy)]
pub(super) enum Remedy {
    /// Debian packages.
    Apt(&'static [&'static str]),
    /// `bpf-linker`, built here against Debian's LLVM; `force` replaces one that is there but does not fit.
    Linker { force: bool },
    /// A program from crates.io, `name@version`.
    Crate(&'static str),
    /// A component of rustup's toolchain.
    Component(&'static str),
}

impl Remedy {
    /// The Debian packages it takes.
    pub(super) fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Apt(packages) => packages,
            Self::Linker { .. } => LLVM,
            Self::Crate(_) | Self::Component(_) => &[],
        }
    }
}

/// Programs by group: the group, the program (or a file, if it starts with a slash), its package, and what for.
///
/// The mail servers are not among them: Debian's packages exclude one another, so the lab unpacks each for itself.
const PROGRAMS: &[(Group, &str, &[&str], &str)] = &[
    (Group::Test, "ip", &["iproute2"], "network namespaces and the links between them"),
    (Group::Test, "swaks", &["swaks"], "an SMTP client that spam scripts are written with"),
    (Group::Test, "curl", &["curl"], "an SMTP client that is installed nearly everywhere"),
    (Group::Test, "python3", &["python3"], "a bot as they are found in the wild"),
    (
        Group::Test,
        "/etc/ssl/certs/ca-certificates.crt",
        &["ca-certificates"],
        "downloads of the mail servers' packages",
    ),
    (Group::Test, "ethtool", &["ethtool"], "devices that leave checksums to the kernel"),
    (Group::Test, "dnsmasq", &["dnsmasq-base"], "a gateway's DHCP server and resolver"),
    (Group::Test, "/usr/sbin/udhcpc", &["udhcpc"], "a DHCP client that runs in the LAN"),
    (Group::Test, "nft", &["nftables"], "the firewall that the guard is measured against"),
    (Group::Test, "mkfs.btrfs", &["btrfs-progs"], "a mail server's binary on btrfs"),
    (Group::Test, "mkfs.xfs", &["xfsprogs"], "a mail server's binary on xfs"),
    (Group::Test, "mkfs.ext4", &["e2fsprogs"], "a mail server's binary on ext4"),
    (Group::Test, "bpftool", &["bpftool"], "a second opinion on what is attached"),
    (Group::Test, "setcap", &["libcap2-bin"], "programs with single capabilities"),
    (Group::Test, "dpkg-deb", &["dpkg"], "unpacking the mail servers side by side"),
    (Group::Test, "openssl", &["openssl"], "certificates for the server that alerts go to"),
    (Group::Test, "/lib/systemd/systemd-journald", &["systemd"], "a journal for alerts, apart from the machine's own"),
    (Group::Vm, EMULATOR.0, &[EMULATOR.1], "virtual machines"),
    (Group::Vm, "depmod", &["kmod"], "what depends on what among a kernel's modules"),
    (Group::Vm, "dpkg-deb", &["dpkg"], "unpacking kernels, and programs for the virtual machines"),
    (Group::Lint, OTHER.0, OTHER.1, "links the agent for the other architecture"),
    (Group::Demo, "ip", &["iproute2"], "network namespaces and the links between them"),
    (Group::Demo, "swaks", &["swaks"], "one of those who try"),
    (Group::Demo, "python3", &["python3"], "the bot"),
    (Group::Demo, "dpkg-deb", &["dpkg"], "unpacking the mail server"),
    (Group::Fuzz, "c++", &["g++"], "libFuzzer, which is built from its source"),
];

/// What the groups need and this machine lacks.
pub(super) fn missing(groups: &[Group]) -> Result<Vec<Need>> {
    let mut missing = Vec::new();
    if groups.contains(&Group::Build) {
        missing.extend(toolchain()?);
    }
    if groups.contains(&Group::Lint) {
        missing.extend(lint_tools());
    }
    if groups.contains(&Group::Fuzz) && !answers("fuzz") {
        let why = "runs the fuzz targets; built here from source in about a minute".to_owned();
        missing.push(Need { what: "cargo-fuzz".to_owned(), why, remedy: Remedy::Crate(FUZZ) });
    }
    for &(group, name, packages, why) in PROGRAMS {
        let known = missing.iter().any(|need: &Need| need.what == name);
        if groups.contains(&group) && !known && !is_here(name) {
            missing.push(Need { what: name.to_owned(), why: why.to_owned(), remedy: Remedy::Apt(packages) });
        }
    }
    Ok(missing)
}

fn is_here(name: &str) -> bool {
    if name.starts_with('/') { Path::new(name).is_file() } else { program(name).is_some() }
}

/// Debian's toolchain is the one that is installed, because its compiler and its LLVM are known to fit.
fn toolchain() -> Result<Vec<Need>> {
    let scratch = ebpf::scratch(&target_dir()?);
    std::fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    let force = match Toolchain::find(&scratch) {
        Ok(_) => return Ok(Vec::new()),
        Err(Error::NoLinker) => false,
        Err(Error::NoToolchain(_)) => true,
        Err(error @ (Error::Compile { .. } | Error::Io { .. })) => return Err(error.into()),
    };
    let compiler = Kind::Debian.present();
    let mut missing = Vec::new();
    if let Err(reason) = &compiler {
        let why = format!("a compiler and core's source for the kernel programs ({reason})");
        missing.push(Need { what: "rustc-web".to_owned(), why, remedy: Remedy::Apt(COMPILER) });
    }
    // A linker beside a missing compiler may fit it all the same: its turn comes when the compiler is there.
    if compiler.is_ok() || !force {
        let why = format!("links the kernel programs; built here from source in about a minute, for {LLVM_PREFIX}");
        missing.push(Need { what: "bpf-linker".to_owned(), why, remedy: Remedy::Linker { force } });
    }
    Ok(missing)
}

fn lint_tools() -> Vec<Need> {
    let mut missing = Vec::new();
    for component in ["rustfmt", "clippy"] {
        let subcommand = if component == "rustfmt" { "fmt" } else { "clippy" };
        if !answers(subcommand) {
            let why = format!("`cargo {subcommand}`");
            missing.push(Need { what: component.to_owned(), why, remedy: Remedy::Component(component) });
        }
    }
    if !answers("deny") {
        let why = "the licences and sources of the dependencies; built here from source in about three minutes";
        missing.push(Need { what: "cargo-deny".to_owned(), why: why.to_owned(), remedy: Remedy::Crate(DENY) });
    }
    // rustup's nightly brings a clippy of its own; rustup's stable one cannot read the core that Debian's rustc builds.
    if Kind::Nightly.present().is_err() && !is_here("/usr/bin/clippy-driver") {
        let why = "lints of the kernel programs, for the BPF target";
        missing.push(Need { what: "rust-web-clippy".to_owned(), why: why.to_owned(), remedy: Remedy::Apt(CLIPPY) });
    }
    missing
}

/// Whether cargo has a subcommand.
fn answers(subcommand: &str) -> bool {
    let mut version = cargo();
    version.args([subcommand, "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::{PROGRAMS, is_here};

    #[test]
    fn a_program_of_the_administrator_is_found_whatever_path_says() {
        assert!(is_here("sh"));
        assert!(!is_here("portreeve-no-such-program"));
    }

    #[test]
    fn every_need_has_a_package_and_a_reason() {
        for (_, name, packages, why) in PROGRAMS {
            assert!(!packages.is_empty() && !why.is_empty(), "{name}");
        }
    }
}
