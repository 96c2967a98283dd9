//! Builds Portreeve's BPF object, for the agent's build script and for `cargo xtask`.
//!
//! The commands are in the binary of the same name; this library is what both need, with next to no dependencies.

pub mod build_script;
pub mod ebpf;
