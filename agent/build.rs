//! Puts the kernel programs into the agent's binary; see `xtask::build_script` for what the sources get to see.

fn main() {
    xtask::build_script::embed();
}
