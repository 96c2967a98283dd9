//! Which Rust can build for BPF here.
//!
//! The BPF targets come without a compiled `core`, so it takes the unstable `-Z build-std`, the compiler's own library
//! source, and a `bpf-linker` that reads the LLVM bitcode of that very compiler. Two toolchains can have all of it:
//! rustup's nightly with the `rust-src` component, and Debian's `rustc-web cargo-web rust-web-src`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{CHOICE, Error, Request, target};

/// Debian's compiler and its library source.
const DEBIAN: [&str; 3] = ["/usr/bin/rustc", "/usr/bin/cargo", "/usr/lib/rustlib/src/rust/library/core/src/lib.rs"];

/// Enough for the linker to show whether it can read this compiler's bitcode; a host target needs no `build-std`.
const PROBE: &str = "#![no_std]\n#[unsafe(no_mangle)]\npub fn probe(x: u64) -> u64 { x + 1 }\n";

/// A toolchain that has passed its probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// What it is, for people.
    pub name: String,
    /// Where it comes from.
    pub kind: Kind,
    /// `bpf-linker`.
    pub linker: PathBuf,
}

/// Where a toolchain comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// rustup's nightly with the `rust-src` component.
    Nightly,
    /// Debian's `rustc-web`, told by `RUSTC_BOOTSTRAP` to take unstable options.
    Debian,
}

/// bpf-linker's default turns every small `memset` into a call. One call makes a program one with several functions,
/// and for those Linux 6.1 tracks every number exactly (`__mark_reg_unknown`, kernel/bpf/verifier.c) and gives up at a
/// million instructions.
const INLINE_MEMSET: &str = "-Clink-arg=--disable-expand-memcpy-in-order";

impl Kind {
    /// The value of `PORTREEVE_EBPF_TOOLCHAIN` that asks for it.
    fn word(self) -> &'static str {
        match self {
            Self::Nightly => "nightly",
            Self::Debian => "debian",
        }
    }

    /// A program of this toolchain, untouched by the toolchain that runs us.
    fn program(self, name: &str) -> Command {
        let mut command = match self {
            Self::Nightly => {
                let mut rustup = Command::new("rustup");
                // To look for a toolchain must not download one.
                rustup.args(["run", "nightly", name]).env("RUSTUP_AUTO_INSTALL", "0");
                rustup
            }
            Self::Debian => {
                let mut program = Command::new(Path::new("/usr/bin").join(name));
                program.env("RUSTC", "/usr/bin/rustc").env("CARGO", "/usr/bin/cargo").env("RUSTC_BOOTSTRAP", "1");
                program
            }
        };
        for name in
            env::vars_os().filter_map(|(name, _)| name.into_string().ok()).filter(|name| is_of_outer_cargo(name))
        {
            command.env_remove(name);
        }
        if self == Self::Nightly {
            command.env_remove("RUSTC").env_remove("CARGO");
        }
        command
    }

    /// Whether the compiler and its library source are here: its name, or why not.
    ///
    /// # Errors
    /// The part that is missing, for people.
    pub fn present(self) -> Result<String, String> {
        match self {
            Self::Nightly => {
                let sysroot = first_line(self.program("rustc").args(["--print", "sysroot"]))
                    .ok_or("rustup has no nightly toolchain")?;
                if !Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file() {
                    return Err("rustup's nightly lacks the component rust-src".to_owned());
                }
            }
            Self::Debian => {
                if let Some(missing) = DEBIAN.iter().find(|path| !Path::new(path).is_file()) {
                    return Err(format!("Debian's packages rustc-web, cargo-web and rust-web-src lack {missing}"));
                }
            }
        }
        let version = first_line(self.program("rustc").arg("--version")).ok_or("its rustc does not start")?;
        // Debian adds how it was built.
        let version = version.split(" (built").next().unwrap_or_default();
        Ok(match self {
            Self::Nightly => format!("rustup's nightly, {version}"),
            Self::Debian => format!("Debian's {version}"),
        })
    }

    /// Links a trivial program: the linker's LLVM must be able to read the compiler's bitcode.
    fn probe(self, linker: &Path, scratch: &Path) -> Result<(), String> {
        let dir = scratch.join(format!("probe-{}", self.word()));
        fs::create_dir_all(&dir).map_err(|error| format!("cannot create {}: {error}", dir.display()))?;
        let source = dir.join("probe.rs");
        fs::write(&source, PROBE).map_err(|error| format!("cannot write {}: {error}", source.display()))?;
        let bitcode = dir.join("probe.bc");

        let mut rustc = self.program("rustc");
        rustc.args(["--edition=2024", "--crate-type=lib", "--emit=llvm-bc", "-Cpanic=abort", "-o"]);
        if !succeeds(rustc.arg(&bitcode).arg(&source)) {
            return Err(format!("rustc ({}) does not compile a trivial program", self.word()));
        }
        let mut link = Command::new(linker);
        link.args(["--target=bpfel", "--export=probe", "-o"]);
        if !succeeds(link.arg(dir.join("probe.o")).arg(&bitcode)) {
            return Err(format!(
                "{} is for another LLVM than rustc ({}), or its LLVM is not installed",
                linker.display(),
                self.word()
            ));
        }
        Ok(())
    }
}

impl Toolchain {
    /// The first toolchain that works; `scratch` is an existing directory for the probe.
    ///
    /// # Errors
    /// When there is no linker, or none of the toolchains is complete.
    pub fn find(scratch: &Path) -> Result<Self, Error> {
        let linker = linker().ok_or(Error::NoLinker)?;
        let choice = env::var(CHOICE).ok();
        let mut reasons = Vec::new();
        for kind in [Kind::Nightly, Kind::Debian] {
            if choice.as_deref().is_some_and(|choice| choice != kind.word()) {
                reasons.push(format!("{CHOICE} rules out {}", kind.word()));
                continue;
            }
            match kind.present().and_then(|name| kind.probe(&linker, scratch).map(|()| name)) {
                Ok(name) => return Ok(Self { name, kind, linker }),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(Error::NoToolchain(reasons))
    }

    /// Its cargo, with everything set for the BPF target but the subcommand.
    #[must_use]
    pub fn cargo(&self, request: &Request<'_>) -> Command {
        let mut cargo = self.kind.program("cargo");
        self.prepare(&mut cargo, request);
        cargo
    }

    /// Its clippy, likewise; `None` if it is not installed.
    #[must_use]
    pub fn clippy(&self, request: &Request<'_>) -> Option<Command> {
        // Called by its own name: as a subcommand, cargo would find rustup's proxy of the same name first.
        let mut clippy = self.kind.program("cargo-clippy");
        if !succeeds(self.kind.program("cargo-clippy").arg("--version")) {
            return None;
        }
        clippy.arg("clippy");
        self.prepare(&mut clippy, request);
        Some(clippy)
    }

    /// Environment rather than arguments, because the subcommand has to come first.
    fn prepare(&self, command: &mut Command, request: &Request<'_>) {
        let target = target(request.big_endian);
        let linker_key = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
        // aya-ebpf chooses the register layout by this cfg. BTF is made from the debug information.
        let flags = [
            &format!("--cfg=bpf_target_arch=\"{}\"", request.arch),
            "-Cdebuginfo=2",
            "-Clink-arg=--btf",
            INLINE_MEMSET,
        ]
        .join("\u{1f}");
        command
            .current_dir(request.workspace)
            .env("CARGO_BUILD_TARGET", target)
            .env("CARGO_UNSTABLE_BUILD_STD", "core")
            .env("CARGO_TARGET_DIR", request.scratch)
            .env("CARGO_ENCODED_RUSTFLAGS", flags)
            .env(linker_key, &self.linker);
    }
}

/// `bpf-linker`, which is where `cargo install` puts it if that is not in PATH.
fn linker() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    env::split_paths(&path)
        .chain(cargo_home.map(|home| home.join("bin")))
        .map(|dir| dir.join("bpf-linker"))
        .find(|file| file.is_file())
}

/// Whether a variable tells of the build that runs us. That one has another compiler (or clippy) and another target in
/// mind, and aya-ebpf's own build script runs anew whenever `HOST` comes or goes.
fn is_of_outer_cargo(name: &str) -> bool {
    const NAMES: [&str; 11] = [
        "RUSTUP_TOOLCHAIN",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "HOST",
        "TARGET",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
        "OUT_DIR",
    ];
    NAMES.contains(&name) || ["CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PKG_"].iter().any(|start| name.starts_with(start))
}

fn first_line(command: &mut Command) -> Option<String> {
    let done = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(done.stdout).ok()?;
    done.status.success().then(|| text.lines().next().map(str::to_owned))?
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).output().is_ok_and(|done| done.status.success())
}
