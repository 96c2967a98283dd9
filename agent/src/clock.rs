//! The kernel counts from boot, people do not.

use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};

/// The two clocks, read at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// CLOCK_BOOTTIME in nanoseconds.
    pub boot: u64,
    /// The wall clock.
    pub wall: Timestamp,
}

impl Clock {
    /// Reads both.
    #[must_use]
    pub fn now() -> Self {
        // CLOCK_BOOTTIME cannot fail on any kernel this runs on; 0 only shifts the times shown.
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME)
            .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64);
        Self { boot, wall: Timestamp::now() }
    }

    /// The wall clock's time at a moment of CLOCK_BOOTTIME.
    #[must_use]
    pub fn at(&self, boot: u64) -> Timestamp {
        let offset =
            SignedDuration::from_nanos(boot as i64).saturating_sub(SignedDuration::from_nanos(self.boot as i64));
        self.wall.checked_add(offset).unwrap_or(self.wall)
    }

    /// The moment of CLOCK_BOOTTIME at a time of the wall clock, for times that [`Self::at`] has told not long ago: whoever
    /// sets the wall clock moves all others.
    #[must_use]
    pub fn boot_at(&self, wall: Timestamp) -> u64 {
        let before = self.wall.duration_since(wall).as_nanos();
        u64::try_from(i128::from(self.boot) - before).unwrap_or(0)
    }
}
