//! The common segment, whose headers are at fixed places: what the connections through a gateway are made of.

use core::arch::asm;

use portreeve_abi::FlowKey;
use portreeve_decide::packet::{Bytes as _, NOWHERE, TCP_ACK, TCP_SYN};

use super::packet::Direct;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// The second half of an IPv4-mapped prefix, as it is in memory (RFC 4291 §2.5.5.2).
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// A segment by its packet's fixed places. Only of what the first look has found to be TCP to a port.
#[repr(C, align(8))]
pub(super) struct Plain {
    /// The connection.
    pub(super) flow: FlowKey,
    /// It opens one, or cannot be read.
    pub(super) opens: bool,
    /// Where the segment begins.
    at: u32,
}

/// Loads a word of the packet, whether or not it is aligned: the compiler would load bytes.
///
/// # Safety
///
/// The four bytes are in the packet, and the program has compared that.
#[inline(always)]
unsafe fn word(at: usize) -> u32 {
    let word: u64;
    // SAFETY: the caller vouches for the place, and the verifier checks it. The kernels of all processors that this is
    // built for take such loads (CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS).
    unsafe {
        asm!("{word} = *(u32 *)({at} + 0)", at = in(reg) at, word = lateout(reg) word, options(readonly, nostack))
    };
    word as u32
}

impl Plain {
    #[inline(always)]
    pub(super) fn of(packet: &Direct, ethernet: bool) -> Self {
        let ip = if ethernet { ETHERNET } else { 0 };
        let mut plain = Self { flow: FlowKey::default(), opens: true, at: 0 };
        let (from, to) = ((&raw mut plain.flow.saddr).cast::<u32>(), (&raw mut plain.flow.daddr).cast::<u32>());
        // The first byte alone would do, but see `quick_ip`.
        let tcp = match packet.get::<2>(ip as u32) {
            Some([0x45, _]) => {
                let Some(header) = packet.part(ip, 34) else { return plain };
                // SAFETY: as compared; and words of the key, which begins on a boundary of eight.
                unsafe {
                    from.add(2).write(MAPPED);
                    from.add(3).write(word(header + 12));
                    to.add(2).write(MAPPED);
                    to.add(3).write(word(header + 16));
                }
                plain.at = ip as u32 + 20;
                header + 20
            }
            _ => {
                let Some(header) = packet.part(ip, 54) else { return plain };
                // SAFETY: likewise.
                unsafe {
                    from.write(word(header + 8));
                    from.add(1).write(word(header + 12));
                    from.add(2).write(word(header + 16));
                    from.add(3).write(word(header + 20));
                    to.write(word(header + 24));
                    to.add(1).write(word(header + 28));
                    to.add(2).write(word(header + 32));
                    to.add(3).write(word(header + 36));
                }
                plain.at = ip as u32 + 40;
                header + 40
            }
        };
        // SAFETY: the last bytes of the parts compared.
        let (ports, flags) = unsafe { (u32::from_be(word(tcp)), word(tcp + 10).to_ne_bytes()[3]) };
        (plain.flow.sport, plain.flow.dport) = ((ports >> 16) as u16, ports as u16);
        plain.opens = flags & (TCP_SYN | TCP_ACK) == TCP_SYN;
        plain
    }

    /// See [`portreeve_decide::packet::Tcp::is_finished_by`].
    #[inline(always)]
    pub(super) fn is_finished_by(&self, checksum: u32) -> bool {
        checksum == NOWHERE || checksum == self.at + 16
    }
}
