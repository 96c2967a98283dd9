//! Calls of kernel functions that are no helpers, which aya does not know how to write.

use portreeve_abi::KERN_CTX_CALL;

use super::btf::Btf;

/// `BPF_JMP | BPF_CALL`, and what `src_reg` says of a call: a helper or a function of the kernel's
/// (`BPF_PSEUDO_KFUNC_CALL`, include/uapi/linux/bpf.h).
const CALL: u8 = 0x85;
const HELPER: u8 = 0;
const KERNEL: u8 = 2;
/// `bpf_ktime_get_ns`, which is harmless. Where the kernel lacks the function the call stands in code that is never
/// reached.
const HARMLESS: i32 = 5;

/// The instruction of a call.
fn call(source: u8, number: i32) -> [u8; 8] {
    let registers = if cfg!(target_endian = "little") { source << 4 } else { source };
    let mut instruction = [CALL, registers, 0, 0, 0, 0, 0, 0];
    instruction[4..].copy_from_slice(&number.to_ne_bytes());
    instruction
}

/// Puts the calls of `bpf_cast_to_kern_ctx()` into an object; whether the kernel has it.
pub(super) fn link(object: &mut [u8], btf: &Btf<'_>) -> bool {
    let found = btf.function("bpf_cast_to_kern_ctx").and_then(|id| i32::try_from(id).ok());
    let (marked, linked) = (call(HELPER, KERN_CTX_CALL), found.map_or(call(HELPER, HARMLESS), |id| call(KERNEL, id)));
    // Instructions are aligned like this in the sections, and the sections in the object.
    for instruction in object.chunks_exact_mut(8).filter(|instruction| **instruction == marked) {
        instruction.copy_from_slice(&linked);
    }
    found.is_some()
}

#[cfg(test)]
mod tests {
    use super::super::btf::VMLINUX;
    use super::*;

    #[test]
    fn every_mark_becomes_a_call_and_nothing_else_changes() {
        let kernel = std::fs::read(VMLINUX).expect("the running kernel has BTF");
        let btf = Btf::parse(&kernel).unwrap();
        let other = call(HELPER, 1);
        let mut object = [other, call(HELPER, KERN_CTX_CALL), other, call(HELPER, KERN_CTX_CALL)].concat();
        let has = link(&mut object, &btf);
        let linked = btf.function("bpf_cast_to_kern_ctx").map_or(call(HELPER, HARMLESS), |id| call(KERNEL, id as i32));
        assert_eq!(object, [other, linked, other, linked].concat());
        assert_eq!(has, btf.function("bpf_cast_to_kern_ctx").is_some());
        assert_eq!(btf.function("portreeve_is_no_function_of_the_kernel"), None);
    }
}
