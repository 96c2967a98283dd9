//! Waiting for a condition without fixed sleeps.

use std::fmt::Debug;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How long fixtures wait for anything before they give up.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// How many times longer than they say all waits may take: `LAB_PATIENCE`, which `cargo xtask vm` sets on an emulated
/// machine.
pub(crate) fn patience() -> u32 {
    static TIMES: LazyLock<u32> =
        LazyLock::new(|| std::env::var("LAB_PATIENCE").ok().and_then(|times| times.parse().ok()).unwrap_or(1));
    *TIMES
}

/// Calls `probe` until it answers `Ok`, and returns what it answered.
///
/// # Panics
/// When `deadline` has passed: with `what` was waited for and the last `Err`.
#[track_caller]
pub fn until<T, E: Debug>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Result<T, E>) -> T {
    let deadline = deadline * patience();
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
