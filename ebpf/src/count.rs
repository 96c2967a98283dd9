//! Exact counters. Programs can be preempted by others of the same CPU, so that all additions are atomic.

use core::arch::asm;

use aya_ebpf::bindings::BPF_NOEXIST;
use portreeve_abi::{LAN_BESIDE, LAN_COME, LAN_GONE, LanSource, SubjectCount, SubjectKey, Total, Verdict};

use crate::maps::{PR_LAN_KNOWN, PR_LAN_LEAVING, PR_LAN_SOURCES, PR_SUBJECTS, PR_TOTALS};
use crate::report::Seen;

/// Counts an attempt in the totals and for its subject.
#[inline(always)]
pub(crate) fn attempt(seen: &Seen) {
    let (verdict, now) = (seen.decision.verdict, seen.now);
    let subject = &SubjectKey::new(&seen.who.exe, seen.who.euid, seen.cgroup);
    total(by_verdict(verdict));
    if !of_subject(subject, verdict, now) {
        total(match verdict {
            Verdict::Allow => Total::UncountedAllowed,
            Verdict::Deny => Total::UncountedRefused,
            Verdict::Observe => Total::UncountedObserved,
            Verdict::Local => Total::UncountedLocal,
        });
    }
}

/// Counts an attempt of a LAN host in the totals and for its source, or where the policy's number of those is reached, or
/// the table full, for its network.
#[inline(always)]
pub(crate) fn lan(source: &LanSource, verdict: Verdict, now: u64, most: u32) {
    total(by_verdict(verdict));
    if of_source(source, verdict, now, most) {
        return;
    }
    let mut network = *source;
    network.mac = [0; 6];
    // 10 zero bytes and 0xffff: an IPv4 address in its mapped form, of which a /24 is left, of others a /64.
    let v4 = matches!(network.address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, _, _, _, _]);
    network.prefix = if v4 { 120 } else { 64 };
    network.address[15] = 0;
    if !v4 {
        for byte in &mut network.address[8..15] {
            *byte = 0;
        }
    }
    if !of_source(&network, verdict, now, u32::MAX) {
        total(Total::LanUncounted);
    }
}

#[inline(always)]
fn of_source(source: &LanSource, verdict: Verdict, now: u64, most: u32) -> bool {
    let mut place = *source;
    if PR_LAN_LEAVING.get_ptr(place).is_some() {
        // The agent is about to read that entry for the last time.
        place.prefix |= LAN_BESIDE;
    }
    if let Some(entry) = PR_LAN_SOURCES.get_ptr_mut(place) {
        // SAFETY: a live map value.
        unsafe { add(entry, verdict, now) };
        return true;
    }
    let host = most != u32::MAX;
    if host && hosts() >= u64::from(most) {
        return false;
    }
    let first = SubjectCount { verdicts: [0; 4], first: now, last: now };
    if PR_LAN_SOURCES.insert(place, first, u64::from(BPF_NOEXIST)).is_ok()
        && host
        && let Some(come) = PR_LAN_KNOWN.get_ptr_mut(LAN_COME)
    {
        // SAFETY: a live map value, aligned.
        unsafe { increment(come) };
    }
    let Some(entry) = PR_LAN_SOURCES.get_ptr_mut(place) else { return false };
    // SAFETY: a live map value.
    unsafe { add(entry, verdict, now) };
    true
}

/// How many hosts have an entry. One CPU may see another's number a moment late: the bound is not exact.
#[inline(always)]
fn hosts() -> u64 {
    let (Some(come), Some(gone)) = (PR_LAN_KNOWN.get_ptr(LAN_COME), PR_LAN_KNOWN.get_ptr(LAN_GONE)) else {
        return u64::MAX;
    };
    // SAFETY: live map values, aligned; loads of words.
    unsafe { come.read_volatile().saturating_sub(gone.read_volatile()) }
}

#[inline(always)]
fn by_verdict(verdict: Verdict) -> Total {
    match verdict {
        Verdict::Allow => Total::Allowed,
        Verdict::Deny => Total::Refused,
        Verdict::Observe => Total::Observed,
        Verdict::Local => Total::Local,
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
    // SAFETY: a live map value.
    unsafe { add(entry, verdict, now) };
    true
}

/// Counts in an entry.
///
/// # Safety
///
/// `entry` must be a live map value.
#[inline(always)]
unsafe fn add(entry: *mut SubjectCount, verdict: Verdict, now: u64) {
    let place = match verdict {
        Verdict::Allow => 0,
        Verdict::Deny => 1,
        Verdict::Observe => 2,
        Verdict::Local => 3,
    };
    // SAFETY: the caller's; the number is atomic, the time is one store of a word.
    unsafe {
        let counter = (&raw mut (*entry).verdicts).cast::<u64>().add(place);
        increment(counter);
        (&raw mut (*entry).last).write_volatile(now);
    }
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
