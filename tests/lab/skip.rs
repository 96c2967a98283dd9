//! Tests that a kernel cannot run.

use std::io::Write as _;

/// Says that a test cannot run here, and why, to whoever sums up: the test harness knows no such outcome.
///
/// # Panics
/// When it cannot be said.
pub fn skip(test: &str, why: &str) {
    eprintln!("skipped: {test}: {why}");
    // Set by `cargo xtask test` and `cargo xtask vm`, which count the lines.
    if let Some(path) = std::env::var_os("PORTREEVE_SKIPS") {
        let mut file = std::fs::File::options().append(true).open(path).unwrap();
        writeln!(file, "{test}: {why}").unwrap();
    }
}
