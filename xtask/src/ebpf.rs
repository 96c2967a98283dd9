//! Builds the BPF object of package `portreeve-ebpf`.
//!
//! The object gets a target directory of its own, one for all profiles of the agent: cargo would otherwise wait for
//! the lock that it holds itself (cargo issue 6412), and `core` would be compiled once per profile.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::Stdio,
};

pub use toolchain::Toolchain;

pub mod toolchain;

/// Set to `1`, this variable makes the agent's build script embed an empty object: for editors and linters.
pub const SKIP: &str = "PORTREEVE_EBPF_SKIP";
/// Set to `nightly` or `debian`, this variable rules the other toolchain out: to compare what the two produce.
pub const CHOICE: &str = "PORTREEVE_EBPF_TOOLCHAIN";

const PACKAGE: &str = "portreeve-ebpf";
const BINARY: &str = "portreeve-guard";

/// What to build, and where.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The root of the workspace.
    pub workspace: &'a Path,
    /// A directory for what the build leaves behind; see [`scratch`].
    pub scratch: &'a Path,
    /// The architecture of the kernel the object is for, as Rust calls it (`x86_64`, `aarch64`).
    pub arch: &'a str,
    /// Whether that kernel is big-endian.
    pub big_endian: bool,
    /// What becomes of the compiler's output.
    pub output: Output,
}

/// What becomes of the compiler's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Kept: warnings are returned with the object, errors with the error.
    Capture,
    /// Shown as it comes, to a person who waits for it.
    Show,
}

/// The built object.
#[derive(Clone, Debug)]
pub struct Object {
    /// The ELF file.
    pub path: PathBuf,
    /// What built it.
    pub toolchain: Toolchain,
    /// What the compiler and the linker complained about; empty with [`Output::Show`].
    pub warnings: String,
}

/// Why there is no object.
#[derive(Debug)]
pub enum Error {
    /// `bpf-linker` is not installed.
    NoLinker,
    /// No toolchain can be used; one reason for each that was tried.
    NoToolchain(Vec<String>),
    /// The programs do not compile.
    Compile {
        /// The toolchain that refused them.
        toolchain: String,
        /// The compiler's errors; empty with [`Output::Show`].
        log: String,
    },
    /// A file or a process.
    Io {
        /// What was being done.
        op: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { op, path, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLinker => write!(
                f,
                "the kernel programs cannot be built because bpf-linker is neither in PATH nor in ~/.cargo/bin: run \
                 `cargo xtask setup`, or set {SKIP}=1 for an agent without them"
            ),
            Self::NoToolchain(reasons) => write!(
                f,
                "the kernel programs cannot be built because no toolchain for them is complete ({}): run \
                 `cargo xtask setup`, or set {SKIP}=1 for an agent without them",
                reasons.join("; ")
            ),
            Self::Compile { toolchain, log } => {
                write!(f, "the kernel programs do not compile with {toolchain}")?;
                if log.is_empty() { Ok(()) } else { write!(f, "\n{log}") }
            }
            // A build script's error is printed by itself, so the cause has to be in it.
            Self::Io { op, path, source } => write!(f, "cannot {op} {}: {source}", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        None
    }
}

/// The directory the object is built in: `ebpf` in the cargo target directory that `inside` is somewhere in.
#[must_use]
pub fn scratch(inside: &Path) -> PathBuf {
    let root = inside.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file());
    root.unwrap_or(inside).join("ebpf")
}

/// The BPF target of a kernel's byte order.
#[must_use]
pub fn target(big_endian: bool) -> &'static str {
    if big_endian { "bpfeb-unknown-none" } else { "bpfel-unknown-none" }
}

/// Finds a toolchain and builds the object with it.
///
/// # Errors
/// When nothing here can build it, and when the programs do not compile.
pub fn object(request: &Request<'_>) -> Result<Object, Error> {
    fs::create_dir_all(request.scratch).map_err(Error::io("create", request.scratch))?;
    let toolchain = Toolchain::find(request.scratch)?;
    let target = target(request.big_endian);

    let mut cargo = toolchain.cargo(request);
    cargo.args(["build", "--release", "--package", PACKAGE, "--bin", BINARY]).stdin(Stdio::null());
    if request.output == Output::Capture {
        cargo.args(["--quiet", "--color=never"]);
    } else {
        cargo.stdout(Stdio::inherit()).stderr(Stdio::inherit());
    }
    let done = cargo.output().map_err(Error::io("start", Path::new(cargo.get_program())))?;
    let log = String::from_utf8_lossy(&done.stderr).into_owned();
    if !done.status.success() {
        return Err(Error::Compile { toolchain: toolchain.name, log });
    }
    Ok(Object { path: request.scratch.join(target).join("release").join(BINARY), toolchain, warnings: log })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{Error, scratch};

    #[test]
    fn all_profiles_share_one_directory() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("CACHEDIR.TAG"), "").expect("a marker like cargo's");
        let debug = dir.path().join("debug/build/portreeve-1/out");
        let release = dir.path().join("release/build/portreeve-2/out");
        fs::create_dir_all(&debug).expect("a directory");
        assert_eq!(scratch(&debug), dir.path().join("ebpf"));
        assert_eq!(scratch(&debug), scratch(&release));
    }

    #[test]
    fn a_directory_outside_any_target_directory_is_used_itself() {
        assert_eq!(scratch(Path::new("/nowhere/out")), Path::new("/nowhere/out/ebpf"));
    }

    #[test]
    fn what_is_missing_is_said_in_one_line_with_the_mend() {
        for error in [Error::NoLinker, Error::NoToolchain(vec!["this".to_owned(), "that".to_owned()])] {
            let text = error.to_string();
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(text.contains("cargo xtask setup"), "{text}");
        }
    }
}
