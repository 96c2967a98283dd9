//! Field offsets from the running kernel's type information.
//!
//! A reader of our own for the few records it needs (Documentation/bpf/btf.rst): aya's does not show members, and
//! the other crate for it is under the LGPL, which does not fit one static binary under MIT or Apache-2.0.

use std::collections::HashMap;

use thiserror::Error;

/// Where the kernel shows its type information.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why an offset is not known.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BtfError {
    /// The file is cut short or no BTF at all.
    #[error("the kernel's type information is damaged at byte {0}")]
    Damaged(usize),
    /// None of the spellings of a field exists.
    #[error("this kernel has no field {0}")]
    NoField(String),
}

/// `BTF_KIND_*`, include/uapi/linux/btf.h.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Parsed type information.
pub struct Btf<'a> {
    data: &'a [u8],
    strings: usize,
    /// Where each type's record begins; type ids start at 1.
    types: Vec<usize>,
    structs: HashMap<&'a [u8], u32>,
}

impl<'a> Btf<'a> {
    /// Reads the type section of a BTF file in native byte order.
    ///
    /// # Errors
    ///
    /// [`BtfError::Damaged`] when it is none or ends early.
    pub fn parse(data: &'a [u8]) -> Result<Self, BtfError> {
        let word = |at| read_u32(data, at).ok_or(BtfError::Damaged(at));
        if data.get(..2).map(|magic| u16::from_ne_bytes([magic[0], magic[1]])) != Some(0xeb9f) {
            return Err(BtfError::Damaged(0));
        }
        let header = word(4)? as usize;
        let (mut at, end) = (header + word(8)? as usize, header + (word(8)? + word(12)?) as usize);
        let strings = header + word(16)? as usize;
        let mut btf = Self { data, strings, types: vec![0], structs: HashMap::new() };
        while at < end {
            let info = word(at + 4)?;
            if matches!(info >> 24 & 0x1f, kind::STRUCT | kind::UNION) {
                let id = btf.types.len() as u32;
                btf.structs.entry(btf.string(word(at)? as usize)).or_insert(id);
            }
            btf.types.push(at);
            at += 12 + extra_bytes(info);
        }
        Ok(btf)
    }

    /// The byte offset of a member, `"struct.member.member"`, anonymous structures and unions looked through; the
    /// first of several spellings that exists.
    ///
    /// # Errors
    ///
    /// [`BtfError::NoField`] when none does.
    pub fn offset(&self, spellings: &[&str]) -> Result<u32, BtfError> {
        spellings.iter().find_map(|path| self.offset_of(path)).ok_or_else(|| BtfError::NoField(spellings.join(" or ")))
    }

    /// The bit offset of a member, for those that are no whole bytes.
    ///
    /// # Errors
    ///
    /// [`BtfError::NoField`] when there is none.
    pub fn bits(&self, path: &str) -> Result<u32, BtfError> {
        self.bits_of(path).ok_or_else(|| BtfError::NoField(path.to_owned()))
    }

    /// The id of a function.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<u32> {
        let is_it = |at: usize| {
            let info = read_u32(self.data, at + 4)?;
            (info >> 24 & 0x1f == kind::FUNC && self.string(read_u32(self.data, at)? as usize) == name.as_bytes())
                .then_some(())
        };
        // Type 0 is none (void).
        let id = self.types.iter().skip(1).position(|at| is_it(*at).is_some())? + 1;
        u32::try_from(id).ok()
    }

    fn offset_of(&self, path: &str) -> Option<u32> {
        // A bit field inside a byte has no offset the programs could read at.
        self.bits_of(path).filter(|bits| bits % 8 == 0).map(|bits| bits / 8)
    }

    fn bits_of(&self, path: &str) -> Option<u32> {
        let mut parts = path.split('.');
        let mut id = *self.structs.get(parts.next()?.as_bytes())?;
        let mut bits = 0;
        for part in parts {
            let (member, at) = self.member(id, part.as_bytes())?;
            id = member;
            bits += at;
        }
        Some(bits)
    }

    /// The type and bit offset of a member.
    fn member(&self, id: u32, name: &[u8]) -> Option<(u32, u32)> {
        let at = *self.types.get(self.plain(id) as usize)?;
        let info = read_u32(self.data, at + 4)?;
        if !matches!(info >> 24 & 0x1f, kind::STRUCT | kind::UNION) {
            return None;
        }
        for index in 0..(info & 0xffff) as usize {
            let member = at + 12 + 12 * index;
            let (name_at, ty, mut bits) =
                (read_u32(self.data, member)?, read_u32(self.data, member + 4)?, read_u32(self.data, member + 8)?);
            if info >> 31 == 1 {
                bits &= 0xff_ffff;
            }
            let own = self.string(name_at as usize);
            if own == name {
                return Some((ty, bits));
            }
            if own.is_empty()
                && let Some((inner, offset)) = self.member(ty, name)
            {
                return Some((inner, bits + offset));
            }
        }
        None
    }

    /// The type behind qualifiers and typedefs.
    fn plain(&self, mut id: u32) -> u32 {
        while let Some(&at) = self.types.get(id as usize) {
            let Some(info) = read_u32(self.data, at + 4) else { break };
            let qualifies = [kind::TYPEDEF, kind::VOLATILE, kind::CONST, kind::RESTRICT, kind::TYPE_TAG];
            if id == 0 || !qualifies.contains(&(info >> 24 & 0x1f)) {
                break;
            }
            id = read_u32(self.data, at + 8).unwrap_or(0);
        }
        id
    }

    fn string(&self, offset: usize) -> &'a [u8] {
        let rest = self.data.get(self.strings + offset..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

/// The bytes behind a type's twelve common ones.
fn extra_bytes(info: u32) -> usize {
    let members = (info & 0xffff) as usize;
    match info >> 24 & 0x1f {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * members,
        kind::ENUM | kind::FUNC_PROTO => 8 * members,
        _ => 0,
    }
}

fn read_u32(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_btf_is_refused() {
        assert_eq!(Btf::parse(b"").err(), Some(BtfError::Damaged(0)));
        assert_eq!(Btf::parse(&[0; 64]).err(), Some(BtfError::Damaged(0)));
        let mut cut = vec![0x9f, 0xeb, 1, 0];
        cut.extend(24_u32.to_ne_bytes());
        assert!(Btf::parse(&cut).is_err());
    }

    #[test]
    fn a_field_that_is_nowhere_is_named_in_the_error() {
        let data = std::fs::read(VMLINUX).expect("the running kernel has BTF");
        let btf = Btf::parse(&data).unwrap();
        let error = btf.offset(&["task_struct.nothing", "nothing.at_all"]).unwrap_err();
        assert_eq!(error.to_string(), "this kernel has no field task_struct.nothing or nothing.at_all");
        assert!(btf.offset(&["dentry.d_name.name"]).unwrap() > 0);
    }
}
