//! A minimal Debian root with one server in it, made once and kept below Cargo's target directory.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};

/// What the servers' scripts need beyond their packages' dependencies. `usr-is-merged` stands in for `usrmerge`,
/// which would bring Perl.
const BASE: &[&str] =
    &["usr-is-merged", "base-files", "bash", "dash", "coreutils", "diffutils", "findutils", "grep", "hostname", "sed"];

/// The unpacked root of a package and what it needs, never to be written to.
#[track_caller]
pub(crate) fn base_root(package: &str) -> PathBuf {
    let cache = cache().join(package);
    std::fs::create_dir_all(&cache).unwrap();
    let lock = File::create(cache.join("lock")).unwrap();
    // Other tests may want the same root at this moment.
    let lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    let root = cache.join("root");
    if !root.exists() {
        let debs = cache.join("debs");
        download(package, &debs);
        let partial = cache.join("partial");
        if partial.exists() {
            std::fs::remove_dir_all(&partial).unwrap();
        }
        unpack(&debs, &partial);
        // Last, so that a root that exists is a whole one.
        std::fs::rename(&partial, &root).unwrap();
        std::fs::remove_dir_all(&debs).unwrap();
    }
    drop(lock);
    root
}

/// `lab-debs` in Cargo's target directory: the same for tests, which lie in `deps`, and for the demonstration.
fn cache() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let target = program.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file());
    target.unwrap_or_else(|| panic!("{} lies in no cargo target directory", program.display())).join("lab-debs")
}

#[track_caller]
fn download(package: &str, debs: &Path) {
    std::fs::create_dir_all(debs.join("partial")).unwrap();
    let get = |update: bool| {
        let mut apt = Command::new("apt-get");
        apt.args(["-qq", "-y", "--no-install-recommends"]);
        // To apt nothing is installed, so it fetches all that the package needs; and it leaves the host's own caches
        // and locks alone.
        for option in [
            "Dir::State::status=/dev/null",
            "Dir::Cache::pkgcache=",
            "Dir::Cache::srcpkgcache=",
            "Debug::NoLocking=true",
            "APT::Sandbox::User=root",
        ] {
            apt.args(["-o", option]);
        }
        apt.args(["-o", &format!("Dir::Cache::archives={}", debs.display())]);
        if update {
            apt.arg("update");
        } else {
            apt.args(["--download-only", "install", package]);
            apt.args(BASE);
        }
        apt.stdin(Stdio::null()).output().unwrap()
    };
    let mut output = get(false);
    if !output.status.success() {
        // A machine without package lists, or with old ones.
        get(true);
        output = get(false);
    }
    assert!(
        output.status.success(),
        "download {package} and what it needs: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[track_caller]
fn unpack(debs: &Path, root: &Path) {
    std::fs::create_dir_all(root.join("usr")).unwrap();
    for dir in ["bin", "sbin", "lib", "lib64"] {
        std::fs::create_dir(root.join("usr").join(dir)).unwrap();
        symlink(format!("usr/{dir}"), root.join(dir)).unwrap();
    }
    for deb in std::fs::read_dir(debs).unwrap() {
        let deb = deb.unwrap().path();
        if deb.extension().is_none_or(|extension| extension != "deb") {
            continue;
        }
        let mut contents =
            Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&deb).stdout(Stdio::piped()).spawn().unwrap();
        // The packages still have /bin and /lib as directories, and tar would put them in the links' place.
        let tar = Command::new("tar")
            .args(["-x", "--keep-directory-symlink", "--same-owner", "-p", "-C"])
            .arg(root)
            .args(["--exclude=./usr/share/doc", "--exclude=./usr/share/locale"])
            .stdin(contents.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(
            tar.status.success() && contents.wait().unwrap().success(),
            "unpack {}: {}",
            deb.display(),
            String::from_utf8_lossy(&tar.stderr)
        );
    }
}
