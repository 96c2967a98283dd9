//! Checksums that are still to be written when a frame is looked at.

use aya_ebpf::bindings::__sk_buff;
use portreeve_decide::packet::NOWHERE;

use crate::offsets::{has_kern_ctx, offset};
use crate::read::{self, Address};

/// `CHECKSUM_PARTIAL`, include/linux/skbuff.h.
const PARTIAL: u8 = 3;

/// Where in the packet a checksum is yet to be written, if one is (`CHECKSUM_PARTIAL`; `skb_checksum_help`,
/// net/core/dev.c). The senders of packet sockets and TUN devices choose the place (`virtio_net_hdr_to_skb`,
/// include/linux/virtio_net.h), and may choose one that makes another packet of it.
///
/// Every frame that is no socket's pays for this. On processors that guard returns (safe RET, Linux's
/// Documentation/admin-guide/hw-vuln/srso.rst) a call costs more than all else here, so there is none where the kernel has
/// the means.
#[inline(always)]
pub(super) fn unfinished(skb: *mut __sk_buff) -> u32 {
    let place = if has_kern_ctx() {
        place(&InPlace(read::kern_ctx(skb)))
    } else {
        // The context is the kernel's `sk_buff`, which the verifier shows a part of only.
        place(&Copied(skb as Address))
    };
    // Nothing is known to make a read fail: as if it were at the place that says most.
    place.unwrap_or(0)
}

/// The same, from the fields that say it.
#[inline(always)]
fn place(fields: &impl Fields) -> Option<u32> {
    if fields.get::<u8>(offset!(skb_summed))? >> (offset!(skb_summed_shift) & 7) & 3 != PARTIAL {
        return Some(NOWHERE);
    }
    let start = fields.get::<u16>(offset!(skb_csum_start))?;
    let offset = fields.get::<u16>(offset!(skb_csum_offset))?;
    let head = fields.get::<Address>(offset!(skb_head))?;
    let data = fields.get::<Address>(offset!(skb_data))?;
    // Counted from the buffer's start. Were it before the packet, it would not be in it.
    Some((u32::from(start) + u32::from(offset)).wrapping_sub(data.wrapping_sub(head) as u32) & 0x7fff_ffff)
}

/// An `sk_buff`.
trait Fields {
    /// An integer in it.
    fn get<T: Copy>(&self, at: usize) -> Option<T>;
}

/// By a call for each field.
struct Copied(Address);

impl Fields for Copied {
    #[inline(always)]
    fn get<T: Copy>(&self, at: usize) -> Option<T> {
        read::kernel(self.0 + at)
    }
}

/// In place.
struct InPlace(*const u8);

impl Fields for InPlace {
    #[inline(always)]
    fn get<T: Copy>(&self, at: usize) -> Option<T> {
        // SAFETY: an integer; the place is a constant to the verifier, which checks that a field of this size is there.
        // Volatile, or the compiler may read several at once.
        Some(unsafe { self.0.wrapping_add(at).cast::<T>().read_volatile() })
    }
}
