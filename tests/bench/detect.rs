//! How good the detector is: labelled traces from models that are written down with their sources, and the counters in use
//! today beside it. `cargo xtask bench detect` runs it. No network and no root: attempts are made up, not made.

mod actor;
mod benign;
mod bots;
mod counters;
mod model;
mod report;
mod score;
mod throughput;
mod world;
mod write;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use counters::COUNTERS;
use model::{MODELS, Sort};
use report::Report;
use world::World;

/// The seed to tune with, and the one to report. Who has looked at the second while tuning reports nothing.
const TUNING: u64 = 4;
const REPORT: u64 = 0x5eed_4e0b;

/// How many attempts the throughput is measured over, at least.
const MIX: usize = 5_000_000;

/// Prints the report. `tune` takes the seed to tune with.
pub(crate) fn measure(tune: bool) -> ExitCode {
    let seed = if tune { TUNING } else { REPORT };
    let began = Instant::now();
    println!(
        "seed {seed} ({}), {} days for programs that mean no harm",
        if tune { "tuning" } else { "report" },
        benign::DAYS
    );
    for counter in &COUNTERS {
        println!("{}: {}", counter.name, counter.reading);
    }
    let world = World::new(seed);
    let mut report = Report::default();
    let mut mix = Vec::with_capacity(MIX);
    Report::heading();
    for model in &MODELS {
        let mut attempts = Vec::new();
        let verdicts = score::judge(model, &world, seed, &mut attempts);
        report.row(model, &verdicts);
        // As much of each model as there is room for, the models that make many attempts not alone.
        attempts.truncate(MIX / 8);
        mix.append(&mut attempts);
    }
    println!(
        "bots: found, distinct destinations by prefix, provider and domain, distinct addresses, time since the first attempt (median/p95 each), by which test; {} \
         is not counted below",
        MODELS
            .iter()
            .filter(|model| model.sort == Sort::Uncounted)
            .map(|model| model.name)
            .collect::<Vec<_>>()
            .join(", ")
    );
    report.totals();
    if mix.len() < MIX {
        report.missed.push(format!("only {} attempts to measure the throughput with, not {MIX}", mix.len()));
    }
    throughput::measure(mix, &mut report.missed);
    println!();
    for line in &report.missed {
        println!("missed: {line}");
    }
    if report.missed.is_empty() {
        println!("every figure of the bar is met");
    }
    println!("the whole run took {:.0} s", began.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}

/// Writes the models' traces.
pub(crate) fn write(folder: &Path) -> ExitCode {
    write::write(folder, &World::new(REPORT), REPORT);
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests;
