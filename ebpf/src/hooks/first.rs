//! The first look at a frame: what the rest of the machine's traffic pays for.
//!
//! What it does not let go it leaves to another program, by a tail call. One program would do, were it not for Linux 6.1,
//! whose verifier follows a program on from each way that leads to the second look.

use aya_ebpf::bindings::__sk_buff;
use portreeve_decide::packet::{NOWHERE, Quick, quick_end, quick_frame, quick_ip};

use super::checksum::unfinished;
use super::packet::{Direct, Sender};
use super::plain::Plain;

/// True when a frame is nothing of the guard's, or belongs to a connection that `goes_on` knows.
#[inline(always)]
pub(super) fn look(
    skb: *mut __sk_buff,
    ethernet: bool,
    guarded: impl Fn(u16) -> bool,
    goes_on: impl Fn(&Plain) -> bool,
) -> bool {
    let direct = Direct::of(skb);
    let mut quick = if ethernet { quick_frame(&direct) } else { quick_ip(&direct, 0) };
    let mut checksum = NOWHERE;
    // SAFETY: a valid context.
    if Sender::of(unsafe { (*skb).__bindgen_anon_2.sk }) != Sender::Internet {
        checksum = unfinished(skb);
        if checksum < quick_end(&direct, ethernet) {
            quick = Quick::Look;
        }
    }
    match quick {
        Quick::Other => return true,
        Quick::Look => {}
        Quick::Port(port) if !guarded(port) => return true,
        Quick::Port(_) => {
            let plain = Plain::of(&direct, ethernet);
            if !plain.opens && plain.is_finished_by(checksum) && goes_on(&plain) {
                return true;
            }
        }
    }
    First { ethernet, checksum }.hand_over(skb);
    false
}

/// What the second look needs of the first.
pub(super) struct First {
    /// The frame has an Ethernet header.
    pub(super) ethernet: bool,
    /// See [`unfinished`].
    pub(super) checksum: u32,
}

impl First {
    /// Writes it where the program that follows finds it: see [`super::packet::Found::hand_over`].
    #[inline(always)]
    fn hand_over(&self, skb: *mut __sk_buff) {
        // SAFETY: a valid context. Each store is of a word.
        unsafe {
            let cb = (&raw mut (*skb).cb).cast::<u32>();
            cb.write_volatile(self.checksum);
            cb.add(4).write_volatile(u32::from(self.ethernet));
        }
    }

    #[inline(always)]
    pub(super) fn handed_over(skb: *mut __sk_buff) -> Self {
        // SAFETY: as above.
        unsafe {
            let cb = (&raw const (*skb).cb).cast::<u32>();
            Self { ethernet: cb.add(4).read_volatile() & 1 != 0, checksum: cb.read_volatile() }
        }
    }
}
