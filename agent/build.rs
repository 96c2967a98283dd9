//! Puts the kernel programs into the agent's binary (see `xtask::build_script` for what the sources get to see), and a table
//! of who makes which network cards.

#[path = "build/makers.rs"]
mod makers;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    xtask::build_script::embed();
    makers::write()
}
