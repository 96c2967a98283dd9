//! Debian packages, fetched and unpacked without being installed: kernels, and small roots to run programs in.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::cpio::Archive;
use crate::exec::{headline, is_root, line};

/// What nobody reads in a virtual machine. ICU's tables alone are 30 MB, for a program of xfsprogs that stays unused.
const LEFT_OUT: &[&str] =
    &["./usr/share/doc", "./usr/share/locale", "./usr/share/man", "./usr/share/info", "*/libicu*"];

/// A kernel, ready to boot.
pub(super) struct Kernel {
    /// The image that QEMU loads.
    pub image: PathBuf,
    /// Its modules, as an archive to put into an initramfs.
    pub modules: PathBuf,
}

/// The newest kernel of a line such as `6.12`, fetched unless it is here.
pub(super) fn kernel(release_line: &str, cache: &Path) -> Result<Kernel> {
    let package = newest_kernel(release_line)?;
    let dir = cache.join(&package);
    let ready = Kernel { image: dir.join("vmlinuz"), modules: dir.join("modules.cpio") };
    if dir.is_dir() {
        return Ok(ready);
    }
    headline(&format!("fetching Debian's {package}"));
    let partial = fresh(&cache.join("partial"))?;
    run(apt().args(["download", &package]).current_dir(&partial), "download the kernel")?;
    let root = partial.join("root");
    skeleton(&root)?;
    unpack_all(&partial, &root)?;

    let version = package.trim_start_matches("linux-image-");
    rename(&root.join("boot").join(format!("vmlinuz-{version}")), &partial.join("vmlinuz"))?;
    // The package leaves the list of what depends on what to the machine it is installed on.
    run(depmod().arg("-b").arg(&root).arg(version), "list the kernel's modules")?;
    remove(&root.join("boot"))?;
    // Network cards that no emulator has: the bulk of it.
    remove(&root.join("lib/modules").join(version).join("kernel/drivers/net/ethernet"))?;
    let mut modules = Archive::create(&partial.join("modules.cpio"))?;
    modules.tree(&root)?;
    modules.finish()?;
    remove(&root)?;
    // Last, so that a folder that is there is complete.
    rename(&partial, &dir)?;
    Ok(ready)
}

/// A root with these packages and all they depend on, as an archive; fetched and unpacked unless it is here.
pub(super) fn root(name: &str, packages: &[&str], cache: &Path) -> Result<PathBuf> {
    let (archive, list) = (cache.join(format!("{name}.cpio")), cache.join(format!("{name}.packages")));
    let wanted = packages.join(" ");
    if archive.is_file() && fs::read_to_string(&list).is_ok_and(|made_of| made_of == wanted) {
        return Ok(archive);
    }
    headline(&format!("fetching Debian's packages for a small root ({name})"));
    let partial = fresh(&cache.join("partial"))?;
    let debs = partial.join("debs");
    fs::create_dir_all(debs.join("partial")).with_context(|| format!("cannot create {}", debs.display()))?;
    let mut get = apt();
    // To apt nothing is installed, so it fetches all that the packages need.
    for option in ["Dir::State::status=/dev/null", &format!("Dir::Cache::archives={}", debs.display())] {
        get.args(["-o", option]);
    }
    get.args(["-y", "--no-install-recommends", "--download-only", "install"]).args(packages);
    run(&mut get, "download the packages")?;
    let root = partial.join("root");
    skeleton(&root)?;
    unpack_all(&debs, &root)?;
    let mut made = Archive::create(&partial.join("root.cpio"))?;
    // The root itself too: other users than root must be able to enter it.
    made.directory(".", 0o755)?;
    made.tree(&root)?;
    made.finish()?;
    rename(&partial.join("root.cpio"), &archive)?;
    fs::write(&list, wanted).with_context(|| format!("cannot write {}", list.display()))?;
    remove(&partial)?;
    Ok(archive)
}

/// The name of the newest cloud kernel (the small kind) of a line, for this machine's architecture.
fn newest_kernel(release_line: &str) -> Result<String> {
    let arch = output(Command::new("dpkg").arg("--print-architecture"))?;
    let prefix = format!("linux-image-{release_line}.");
    let suffix = format!("-cloud-{}", arch.trim());
    let names = || -> Result<Option<String>> {
        let listed = output(Command::new("apt-cache").args(["pkgnames", &prefix]))?;
        let of_line = listed.lines().filter(|name| name.starts_with(&prefix) && name.ends_with(&suffix));
        Ok(of_line.max_by_key(|name| numbers(name)).map(str::to_owned))
    };
    if let Some(name) = names()? {
        return Ok(name);
    }
    // A machine that has just been set up has no package lists yet.
    if is_root() {
        run(apt().arg("update"), "fetch the package lists")?;
    }
    names()?.with_context(|| {
        format!(
            "apt knows no package {prefix}*{suffix}: Debian 12 has the lines 6.1 and 6.12 \
             (is this Debian, and has `apt-get update` been run?)"
        )
    })
}

/// The numbers in a package's name, by which the newest one is found.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// The directories of a root whose /bin, /sbin and /lib are in /usr.
fn skeleton(root: &Path) -> Result<()> {
    for dir in ["bin", "sbin", "lib", "lib64"] {
        let below = root.join("usr").join(dir);
        fs::create_dir_all(&below).with_context(|| format!("cannot create {}", below.display()))?;
        symlink(format!("usr/{dir}"), root.join(dir)).with_context(|| format!("cannot link {dir}"))?;
    }
    Ok(())
}

fn unpack_all(debs: &Path, root: &Path) -> Result<()> {
    for entry in fs::read_dir(debs).with_context(|| format!("cannot list {}", debs.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", debs.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            unpack(&path, root)?;
        }
    }
    Ok(())
}

/// Unpacks a package below a folder.
pub(crate) fn unpack(deb: &Path, root: &Path) -> Result<()> {
    let trouble = || format!("cannot unpack {}", deb.display());
    let mut contents = Command::new("dpkg-deb");
    contents.arg("--fsys-tarfile").arg(deb).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut contents = contents.spawn().with_context(trouble)?;
    let mut tar = Command::new("tar");
    // The packages still have /bin and /lib as directories, and tar would put them in the links' place.
    tar.args(["-x", "--keep-directory-symlink", "--no-same-owner", "-p", "-C"]).arg(root);
    tar.args(LEFT_OUT.iter().map(|pattern| format!("--exclude={pattern}")));
    if let Some(archive) = contents.stdout.take() {
        tar.stdin(archive);
    }
    let unpacked = tar.status().with_context(trouble)?;
    let read = contents.wait().with_context(trouble)?;
    if !unpacked.success() || !read.success() {
        bail!(trouble());
    }
    Ok(())
}

/// An apt-get that leaves the host's own caches and locks alone, and needs no root to download.
fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    apt.arg("-qq").stdin(Stdio::null());
    for option in
        ["Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache=", "Debug::NoLocking=true", "APT::Sandbox::User=root"]
    {
        apt.args(["-o", option]);
    }
    apt
}

/// An ordinary user's PATH lacks it.
fn depmod() -> Command {
    Command::new(crate::exec::program("depmod").unwrap_or_else(|| "depmod".into()))
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    let done = command.output().with_context(|| format!("cannot start {}", line(command)))?;
    if !done.status.success() {
        bail!("cannot {what}: `{}`: {}", line(command), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("cannot start {}", line(command)))?;
    if !done.status.success() {
        bail!("`{}` failed: {}", line(command), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// An empty directory, whatever was there before.
fn fresh(dir: &Path) -> Result<PathBuf> {
    remove(dir)?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir.to_owned())
}

fn remove(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn the_newest_kernel_is_found_by_number_and_not_by_spelling() {
        let old = ["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.12.9+deb12-cloud-amd64"];
        let new = ["linux-image-6.1.0-56-cloud-amd64", "linux-image-6.12.117+deb12-cloud-amd64"];
        for (old, new) in old.into_iter().zip(new) {
            assert!(numbers(new) > numbers(old), "{new} is newer than {old}");
        }
    }
}
