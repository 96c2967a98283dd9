//! Exact counters. Programs can be preempted by others of the same CPU, so that all additions are atomic.

use core::arch::asm;

use aya_ebpf::bindings::BPF_NOEXIST;
use portreeve_abi::{SubjectCount, SubjectKey, Total, Verdict};

use crate::maps::{PR_SUBJECTS, PR_TOTALS};
use crate::report::Seen;

/// Counts an attempt in the totals and for its subject.
#[inline(always)]
pub(crate) fn attempt(seen: &Seen) {
    let (verdict, now) = (seen.decision.verdict, seen.now);
    let subject = &SubjectKey::new(&seen.who.exe, seen.who.euid, seen.cgroup);
    total(match verdict {
        Verdict::Allow => Total::Allowed,
        Verdict::Deny => Total::Refused,
        Verdict::Observe => Total::Observed,
        Verdict::Local => Total::Local,
    });
    if !of_subject(subject, verdict, now) {
        total(match verdict {
            Verdict::Allow => Total::UncountedAllowed,
            Verdict::Deny => Total::UncountedRefused,
            Verdict::Observe => Total::UncountedObserved,
            Verdict::Local => Total::UncountedLocal,
        });
    }
}

/// Counts a packet that was dropped because the program that judges it was not there: of whom, nobody knows.
#[inline(always)]
pub(crate) fn unfollowed() {
    for index in [Total::Refused, Total::UncountedRefused, Total::Dropped, Total::Shed] {
        total(index);
    }
}

/// Adds one to a total.
#[inline(always)]
pub(crate) fn total(index: Total) {
    if let Some(counter) = PR_TOTALS.get_ptr_mut(index as u32) {
        // SAFETY: the value of this CPU, aligned, alive as long as the map.
        unsafe { increment(counter) };
    }
}

/// Counts for the subject; false when the table has no room for a new one.
#[inline(always)]
fn of_subject(subject: &SubjectKey, verdict: Verdict, now: u64) -> bool {
    let entry = match PR_SUBJECTS.get_ptr_mut(subject) {
        Some(entry) => entry,
        None => {
            let first = SubjectCount { verdicts: [0; 4], first: now, last: now };
            // Another CPU may have been faster, which is as good: what counts is the look-up after it.
            let _raced_or_full = PR_SUBJECTS.insert(subject, first, u64::from(BPF_NOEXIST));
            match PR_SUBJECTS.get_ptr_mut(subject) {
                Some(entry) => entry,
                None => return false,
            }
        }
    };
    let place = match verdict {
        Verdict::Allow => 0,
        Verdict::Deny => 1,
        Verdict::Observe => 2,
        Verdict::Local => 3,
    };
    // SAFETY: a live map value; the number is atomic, the time is one store of a word.
    unsafe {
        let counter = (&raw mut (*entry).verdicts).cast::<u64>().add(place);
        increment(counter);
        (&raw mut (*entry).last).write_volatile(now);
    }
    true
}

/// Adds one, atomically.
///
/// The instruction itself, because the target has no compare-and-swap before BPF v3 and Rust therefore offers no
/// atomic type for it.
///
/// # Safety
///
/// `counter` must be a live map value, aligned to 8 bytes.
#[inline(always)]
unsafe fn increment(counter: *mut u64) {
    // SAFETY: one aligned addition in memory the caller vouches for.
    unsafe { asm!("lock *(u64 *)({place} + 0) += {one}", place = in(reg) counter, one = in(reg) 1_u64) };
}
