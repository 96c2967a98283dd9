//! The agent's build script: the BPF object goes into the agent's binary, so that one file is all there is to install.
//!
//! The agent's sources read two variables that are set here at compile time:
//! `PORTREEVE_GUARD_OBJECT`, the path for `include_bytes!`, and `PORTREEVE_GUARD_SHA256`, the object's digest in hex.
//! Under `PORTREEVE_EBPF_SKIP=1` the object is an empty file and the digest an empty string.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::ebpf::{self, Error, Output, Request};

/// Builds the object, copies it to `OUT_DIR` and tells cargo about it; the whole of `agent/build.rs`.
///
/// An error is a directive too: cargo fails the build by it, and would print everything a second time if the script's
/// exit code said the same.
#[expect(clippy::print_stdout, reason = "cargo reads a build script's directives from its standard output")]
pub fn embed() {
    let lines = directives()
        .unwrap_or_else(|error| error.to_string().lines().map(|line| format!("cargo::error={line}")).collect());
    println!("{}", lines.join("\n"));
}

fn directives() -> Result<Vec<String>, Error> {
    let agent = variable("CARGO_MANIFEST_DIR")?;
    let out = variable("OUT_DIR")?;
    let workspace = agent.parent().unwrap_or(&agent);
    let object = out.join("portreeve-guard.o");

    // The lock file decides aya-ebpf's version and the root manifest the profile; neither lies in ebpf/.
    let mut lines: Vec<String> = ["ebpf", "Cargo.toml", "Cargo.lock"]
        .iter()
        .map(|path| format!("cargo::rerun-if-changed={}", workspace.join(path).display()))
        .collect();
    lines.extend([ebpf::SKIP, ebpf::CHOICE].map(|name| format!("cargo::rerun-if-env-changed={name}")));

    let bytes = if env::var_os(ebpf::SKIP).is_some_and(|value| value == "1") {
        lines.push(format!("cargo::warning={}=1: this agent is built without the kernel programs", ebpf::SKIP));
        Vec::new()
    } else {
        let built = ebpf::object(&Request {
            workspace,
            scratch: &ebpf::scratch(&out),
            arch: &variable("CARGO_CFG_TARGET_ARCH")?.to_string_lossy(),
            big_endian: env::var_os("CARGO_CFG_TARGET_ENDIAN").is_some_and(|endian| endian == "big"),
            output: Output::Capture,
        })?;
        lines.extend(built.warnings.lines().map(|line| format!("cargo::warning={line}")));
        lines.push(format!("cargo::rerun-if-changed={}", built.toolchain.linker.display()));
        fs::read(&built.path).map_err(Error::io("read", &built.path))?
    };
    fs::write(&object, &bytes).map_err(Error::io("write", &object))?;

    lines.push(format!("cargo::rustc-env=PORTREEVE_GUARD_OBJECT={}", object.display()));
    lines.push(format!("cargo::rustc-env=PORTREEVE_GUARD_SHA256={}", digest(&bytes)));
    Ok(lines)
}

/// The SHA-256 of an object in hex; empty for the empty object of a build without kernel programs.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return String::new();
    }
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn variable(name: &str) -> Result<PathBuf, Error> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "cargo sets it for build scripts");
    env::var_os(name).map(PathBuf::from).ok_or_else(|| Error::io("read the variable", Path::new(name))(missing()))
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn the_digest_is_the_one_sha256sum_prints() {
        assert_eq!(digest(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn an_agent_without_kernel_programs_has_no_digest() {
        assert_eq!(digest(b""), "");
    }
}
