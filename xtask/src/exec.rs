//! What the commands share: the workspace's places, other programs, and root.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// Something this machine lacks; the exit code tells it from a failure.
#[derive(Debug)]
pub(crate) struct Missing(pub String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// The root of the workspace.
pub(crate) fn workspace() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// The target directory this program was built in, wherever the user has put it.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let program = env::current_exe().context("cannot tell where this program lies")?;
    let root = program.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file());
    Ok(root.with_context(|| format!("{} lies in no cargo target directory", program.display()))?.to_owned())
}

/// The cargo that runs us, in the workspace.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Without it an inner cargo in a tree built by the outer one may look for artefacts elsewhere.
    cargo.current_dir(workspace()).env_remove("CARGO_BUILD_TARGET");
    cargo
}

/// A headline above the output of a long step.
pub(crate) fn headline(text: &str) {
    println!("==> {text}");
}

/// Runs a program with its output shown, and fails when it fails.
pub(crate) fn show(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// A command as a person would type it.
pub(crate) fn line(command: &Command) -> String {
    let set = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let variables = set.map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()));
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args()).map(|word| word.to_string_lossy().into_owned());
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

/// A program in PATH, or in the directories for the administrator's programs, which a user's PATH may lack.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Whether we may do what only root may.
pub(crate) fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// Fails with one sentence unless we are root; `what` needs it.
pub(crate) fn require_root(what: &str, command: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    // -E and PATH, because rustup finds its toolchains by HOME and sudo has a PATH of its own.
    let how = if program("sudo").is_some() {
        format!("run `sudo -E env \"PATH=$PATH\" cargo xtask {command}`")
    } else {
        format!("become root (`su`) and run `cargo xtask {command}`")
    };
    bail!(Missing(format!("{what} needs root: {how}")))
}

/// The mount points of one type of file system.
pub(crate) fn mounts(kind: &str) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    Ok(mounts_in(&text, kind))
}

fn mounts_in(mountinfo: &str, kind: &str) -> Vec<PathBuf> {
    let of_kind = |line: &&str| line.split_once(" - ").is_some_and(|(_, rest)| rest.split(' ').next() == Some(kind));
    mountinfo.lines().filter(of_kind).filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, process::Command};

    use super::{line, mounts_in};

    #[test]
    fn a_file_system_is_found_by_its_type_and_not_by_its_usual_place() {
        let text = "30 24 0:26 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
                    31 24 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup2 rw,cpu\n";
        assert_eq!(mounts_in(text, "cgroup2"), [PathBuf::from("/sys/fs/cgroup/unified")]);
        assert_eq!(mounts_in(text, "bpf"), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_command_reads_as_it_is_typed() {
        let mut command = Command::new("/usr/bin/cargo");
        command.env("LLVM_PREFIX", "/usr/lib/llvm").args(["install", "x"]).env_remove("RUSTC");
        assert_eq!(line(&command), "LLVM_PREFIX=/usr/lib/llvm cargo install x");
    }
}
