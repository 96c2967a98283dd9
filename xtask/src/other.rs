//! The agent for the architecture that nothing is developed on, to see that nothing assumes this one.
//!
//! Two toolchains can have that target: rustup's, and Debian's with the standard library of the other architecture's
//! package beside it. With Debian's cross compiler the agent is built to the end.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    exec::{cargo, headline, line, program, target_dir, workspace},
    vm::debian::unpack,
};

/// The target, as Rust names it, and Debian.
pub(crate) const TARGET: &str = "aarch64-unknown-linux-gnu";
const ARCHITECTURE: &str = "arm64";
/// What links for it.
pub(crate) const LINKER: &str = "aarch64-linux-gnu-gcc";
/// Debian's package of the compiler, and of its standard library.
const COMPILER: &str = "rustc-web";
const LIBRARY: &str = "libstd-rust-web-dev";

/// What checks or builds the agent for the other architecture; why nothing does where nothing can.
pub(crate) fn command() -> Result<Result<Command, String>> {
    if cfg!(target_arch = "aarch64") {
        return Ok(Err("this is the other architecture".to_owned()));
    }
    let folder = target_dir()?.join("other");
    let linker = program(LINKER);
    let mut command = if by_rustup() {
        cargo()
    } else {
        match by_debian(&folder) {
            Ok(command) => command,
            Err(error) => return Ok(Err(format!("rustup has no {TARGET} here and cannot get it, and {error:#}"))),
        }
    };
    // To the end where there is something to link with.
    command.arg(if linker.is_some() { "build" } else { "check" });
    if let Some(linker) = linker {
        command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", linker);
    }
    // Into a folder of its own: the object for the other architecture must not take this one's place.
    command.args(["--package=portreeve", "--target", TARGET, "--target-dir"]).arg(folder.join("target"));
    Ok(Ok(command))
}

fn by_rustup() -> bool {
    let added = Command::new("rustup").args(["target", "add", TARGET]).stdin(Stdio::null()).output();
    added.is_ok_and(|done| done.status.success())
}

fn by_debian(folder: &Path) -> Result<Command> {
    let library = library(folder)?;
    let mut command = Command::new("/usr/bin/cargo");
    command.current_dir(workspace()).env("RUSTC", "/usr/bin/rustc");
    for variable in ["CARGO_BUILD_TARGET", "CARGO", "RUSTC_WRAPPER", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(variable);
    }
    // For the target alone; build scripts and macros are this machine's.
    command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", format!("--sysroot={}", library.display()));
    Ok(command)
}

/// The other architecture's standard library, of the very compiler that is installed; fetched unless it is here.
fn library(folder: &Path) -> Result<PathBuf> {
    let version = output(Command::new("dpkg-query").args(["--show", "--showformat=${Version}", COMPILER]))?;
    let ready = folder.join(format!("library-{}", version.replace(['/', ':'], "-")));
    if ready.is_dir() {
        return Ok(ready.join("usr"));
    }
    headline(&format!("fetching Debian's {LIBRARY} {version} for {ARCHITECTURE}"));
    let partial = folder.join("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    // An apt of its own, to which this machine is of the other architecture and has nothing installed.
    for below in ["state/lists/partial", "cache/archives/partial", "root"] {
        let path = partial.join(below);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    fs::write(partial.join("status"), "").context("cannot write")?;
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.arg("-qq").current_dir(&partial).stdin(Stdio::null());
        let at = |name: &str| partial.join(name).display().to_string();
        for option in [
            format!("APT::Architecture={ARCHITECTURE}"),
            format!("APT::Architectures={ARCHITECTURE}"),
            format!("Dir::State={}", at("state")),
            format!("Dir::State::status={}", at("status")),
            format!("Dir::Cache={}", at("cache")),
            "APT::Sandbox::User=root".to_owned(),
        ] {
            apt.args(["-o", &option]);
        }
        apt
    };
    output(apt().arg("update"))?;
    output(apt().args(["download", &format!("{LIBRARY}={version}")]))?;
    let packages = fs::read_dir(&partial).with_context(|| format!("cannot list {}", partial.display()))?;
    let package =
        packages.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "deb"));
    unpack(&package.context("apt fetched no package")?, &partial.join("root"))?;
    // Last, so that a folder that is there is complete.
    fs::rename(partial.join("root"), &ready).with_context(|| format!("cannot create {}", ready.display()))?;
    fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    Ok(ready.join("usr"))
}

fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("cannot start {}", line(command)))?;
    if !done.status.success() {
        bail!("`{}` failed: {}", line(command), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}
