//! Waiting for a condition without fixed sleeps.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long fixtures wait for anything before they give up.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Calls `probe` until it answers `Ok`, and returns what it answered.
///
/// # Panics
/// When `deadline` has passed: with `what` was waited for and the last `Err`.
#[track_caller]
pub fn until<T, E: Debug>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        match probe() {
            Ok(value) => return value,
            Err(last) if start.elapsed() > deadline => {
                panic!("waited {deadline:?} for {what}; last seen: {last:?}")
            }
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
