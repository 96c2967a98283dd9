//! Checked reads of kernel and user memory. Every read can fail, none can fault.

use core::arch::asm;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user};
use portreeve_abi::KERN_CTX_CALL;

/// An address in kernel memory.
pub(crate) type Address = usize;

/// Reads a value of integers from kernel memory.
///
/// `T` is only ever an integer or a structure of them, for which any bytes are a value, or read from where a `T` stands.
#[inline(always)]
pub(crate) fn kernel<T: Copy>(address: Address) -> Option<T> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the destination is ours and of the size named; the helper checks the source.
    let failed = unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast::<c_void>(), size_of::<T>() as u32, address as *const c_void)
    };
    // SAFETY: the helper has filled it, with zeros if it failed.
    (failed == 0).then_some(unsafe { value.assume_init() })
}

/// The same value, of which the verifier forgets what it knew.
///
/// Linux 6.1 goes on separately from each value it has seen decide a branch, and walks all that follows once for each.
/// `None` when the helper fails, which nothing is known to make it do: the caller takes it for the worst.
#[inline(always)]
pub(crate) fn forget<T: Copy>(value: &T) -> Option<T> {
    kernel(core::ptr::from_ref(value) as Address)
}

/// The same in place: what has been found out stays, and the verifier walks what follows once instead of once for each
/// way that led here.
#[inline(always)]
pub(crate) fn forget_all<T: Copy>(value: &mut T) {
    let place = core::ptr::from_mut(value);
    // SAFETY: the value is read over itself. Should the helper fail it leaves zeros, which are a value of all that this
    // is used for, and refuse.
    unsafe { bpf_probe_read_kernel(place.cast::<c_void>(), size_of::<T>() as u32, place.cast::<c_void>()) };
}

/// Follows a pointer in kernel memory; a null pointer is `None`.
#[inline(always)]
pub(crate) fn pointer(address: Address) -> Option<Address> {
    kernel::<Address>(address).filter(|target| *target != 0)
}

/// The kernel's `sk_buff` behind a context. What is read there is read in place, without a call; the verifier knows the
/// structure and checks the fields.
///
/// Only where `offsets::has_kern_ctx` says so: see [`KERN_CTX_CALL`].
#[inline(always)]
pub(crate) fn kern_ctx(context: *mut __sk_buff) -> *const u8 {
    let structure: *const u8;
    // SAFETY: a call without side effects, with the registers that calls overwrite.
    unsafe {
        asm!(
            "call {call}",
            call = const KERN_CTX_CALL,
            inlateout("r1") context => _,
            lateout("r0") structure,
            lateout("r2") _,
            lateout("r3") _,
            lateout("r4") _,
            lateout("r5") _,
        );
    }
    structure
}

/// Copies bytes of kernel memory, or writes zeros where it cannot.
///
/// # Safety
///
/// `destination` must point to `size` writable bytes.
#[inline(always)]
pub(crate) unsafe fn kernel_bytes(destination: *mut u8, size: u32, address: Address) {
    // SAFETY: the caller vouches for the destination; the helper checks the source and clears what it cannot fill.
    unsafe { bpf_probe_read_kernel(destination.cast::<c_void>(), size, address as *const c_void) };
}

/// Copies a string of kernel memory, NUL included, and returns the bytes written.
///
/// # Safety
///
/// `destination` must point to `size` writable bytes.
#[inline(always)]
pub(crate) unsafe fn kernel_str(destination: *mut u8, size: u32, address: Address) -> i64 {
    // SAFETY: the caller vouches for the destination; the helper checks the source.
    unsafe { bpf_probe_read_kernel_str(destination.cast::<c_void>(), size, address as *const c_void) }
}

/// Copies bytes of the current process's memory; true when all were read.
///
/// # Safety
///
/// `destination` must point to `size` writable bytes.
#[inline(always)]
pub(crate) unsafe fn user(destination: *mut u8, size: u32, address: Address) -> bool {
    // SAFETY: the caller vouches for the destination; the helper checks the source.
    unsafe { bpf_probe_read_user(destination.cast::<c_void>(), size, address as *const c_void) == 0 }
}
