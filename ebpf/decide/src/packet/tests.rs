//! The packet parsers against packets that were built on purpose, and against a receiver written independently of them.

mod build;
mod cases;
mod fragments;
mod properties;
#[expect(unreachable_pub, reason = "it is public to the fuzz target, which uses the file as its own module")]
mod receiver;

use super::{Packet, classify_frame};

/// A whole frame.
fn frame(bytes: &[u8]) -> Packet {
    classify_frame(bytes)
}
