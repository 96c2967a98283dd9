//! All that touches BPF. Nothing outside this module imports aya.

mod attach;
pub mod btf;
mod carry;
mod clsact;
mod devices;
pub mod door;
mod existing;
mod forget;
pub mod frames;
pub mod guard;
mod kfunc;
mod lan;
mod links;
pub mod mounts;
mod netlink;
pub mod netns;
pub mod offsets;
mod senders;
mod status;
pub mod sys;
mod tables;
mod trampoline;
mod watch;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use aya::maps::{MapData, RingBuf};
pub use existing::Ended;
pub use guard::{Guard, OBJECT_SHA256, detach, pin_folder};
pub use senders::{Kind as RawSenderKind, RawSender};
pub use status::HookStatus;
pub use sys::{decode_event, decode_stir, event_stream};

/// What went wrong between the agent and the kernel.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The binary was built with PORTREEVE_EBPF_SKIP.
    #[error("this portreeve was built without its kernel programs; build it with cargo xtask build")]
    NoObject,
    /// No type information.
    #[error("the kernel shows no type information at {path}: {0}; it needs CONFIG_DEBUG_INFO_BTF", path = btf::VMLINUX)]
    NoBtf(#[source] io::Error),
    /// A field is missing.
    #[error("{0}; Portreeve needs Linux 6.1 or newer, with its type information whole")]
    Btf(#[from] btf::BtfError),
    /// The BPF file system.
    #[error("the BPF file system is not mounted and cannot be: {0}; mount it: mount -t bpf bpf {path}", path = mounts::BPFFS)]
    Bpffs(#[source] io::Error),
    /// A pin.
    #[error("cannot pin at {}: {source}", path.display())]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cgroup to guard.
    #[error("cannot open the cgroup {}: {source}", path.display())]
    Cgroup {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The object as a whole.
    #[error("the kernel refused the programs' maps: {}", chain(.0.as_ref()))]
    Load(#[source] Box<aya::EbpfError>),
    /// One program.
    #[error("the kernel refused the {what} program: {}", chain(.source.as_ref()))]
    Program {
        /// Its kind or hook.
        what: String,
        /// Why.
        source: Box<aya::programs::ProgramError>,
    },
    /// Attaching.
    #[error("cannot attach {hook}: {source}")]
    Attach {
        /// The hook.
        hook: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The search for connections that are there.
    #[error("cannot look for connections that are there already: {0}")]
    Existing(#[source] io::Error),
    /// A map operation.
    #[error("map {name}: {}", chain(.source.as_ref()))]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        source: Box<aya::maps::MapError>,
    },
    /// The object lacks a map.
    #[error("the kernel programs have no map {0}; the binary is damaged")]
    NoMap(&'static str),
    /// The object lacks a program.
    #[error("the kernel programs have no program {0}; the binary is damaged")]
    NoProgram(&'static str),
}

impl KernelError {
    fn program(what: &str, source: aya::programs::ProgramError) -> Self {
        Self::Program { what: what.to_owned(), source: Box::new(source) }
    }

    fn map(name: &'static str, source: aya::maps::MapError) -> Self {
        Self::Map { name, source: Box::new(source) }
    }
}

/// An error and its causes in one line; aya's own messages leave the causes out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
