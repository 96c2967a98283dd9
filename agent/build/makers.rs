//! The table of the makers of network cards: two files without a pointer in them, read by src/host/mac/maker.rs.
//!
//! The crate that has the IEEE's registries has them as a table of references. In a binary that may be loaded anywhere, each
//! of them is written anew at every start: 9 MiB of binary and 3 MiB of memory, for names that are seldom asked for.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::{env, fs};

/// Writes `makers.blocks` and `makers.names`.
///
/// A block is nine bytes: its first 36 bits and the number of those that count, as six bytes, and three bytes that say where
/// in the names its maker is; all in the network's order, the blocks in ascending order. A name ends with a new line.
pub(super) fn write() -> Result<(), Box<dyn Error>> {
    let (mut names, mut places) = (String::new(), BTreeMap::new());
    let mut blocks = Vec::new();
    let mut entries: Vec<_> = oui_data::OUI_ENTRIES.values().collect();
    entries.sort_unstable_by_key(|entry| entry.oui());
    for entry in entries {
        let Some(name) = shown(entry.organization()) else { continue };
        let place = *places.entry(name).or_insert_with(|| {
            let place = names.len();
            names.push_str(name);
            names.push('\n');
            place
        });
        let bits = entry.oui().len() * 4;
        let prefix =
            u64::from_str_radix(entry.oui(), 16)? << 36_usize.checked_sub(bits).ok_or("a block of too many bits")?;
        let key = (prefix << 8 | bits as u64).to_be_bytes();
        let place = u32::try_from(place)?.to_be_bytes();
        if place[0] != 0 {
            return Err("the names of the makers are more than three bytes can count".into());
        }
        blocks.push([&key[2..], &place[1..]].concat());
    }
    blocks.sort_unstable();
    let folder = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    fs::write(Path::new(&folder).join("makers.blocks"), blocks.concat())?;
    fs::write(Path::new(&folder).join("makers.names"), names)?;
    Ok(())
}

/// A name as it is shown, in one line; none for those of whom the registry does not tell.
fn shown(name: &str) -> Option<&str> {
    // The crate turns a doubled blank into a new line.
    let name = name.lines().next()?.trim();
    // Who keeps a block secret is "Private" in the registry, and the IEEE's own blocks are those that it divides further.
    let nobody = name.is_empty() || ["Private", "IEEE Registration Authority"].contains(&name);
    (!nobody && !name.chars().any(char::is_control)).then_some(name)
}
