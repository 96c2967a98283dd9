//! How fast the detector is, and how much it keeps of each subject.

use std::hint::black_box;
use std::time::Instant;

use portreeve::detect::{Detector, Observation, Settings};

/// The bar: attempts a second on one core, bytes a subject.
const RATE: f64 = 1e6;
const BYTES: usize = 512;

/// Runs the detector over attempts of all models in the order of time, and prints what is missed of the bar.
pub(crate) fn measure(mut mix: Vec<Observation>, missed: &mut Vec<String>) {
    mix.sort_by_key(|observation| observation.time);
    let mut detector = Detector::new(Settings::default());
    let began = Instant::now();
    let mut findings = 0;
    for observation in &mix {
        findings += black_box(detector.observe(black_box(observation))).len();
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = mix.len() as f64 / seconds;
    println!(
        "\n{} attempts of all models in {seconds:.2} s on one core: {rate:.0} a second ({findings} findings)",
        mix.len()
    );
    if rate < RATE {
        missed.push(format!("{rate:.0} attempts a second, not {RATE:.0}"));
    }
    let bytes = Detector::bytes_per_subject();
    println!("{bytes} bytes a subject");
    if bytes > BYTES {
        missed.push(format!("{bytes} bytes a subject, not {BYTES}"));
    }
}
