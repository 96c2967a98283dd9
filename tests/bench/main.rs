//! `lab-bench`: what the guard costs, beside nftables and beside nothing. `cargo xtask bench guard` runs it. With `detect`:
//! how good the detector is, on made-up traces.
//!
//! One process does all the connecting. From one slice of a few milliseconds to the next it moves between cgroups
//! (with and without a guard) and network namespaces (with and without nftables), so that whatever else the machine
//! does meets all of them alike. Times are never asserted: the exit code says whether everything worked and whether
//! every counter is right.
#![expect(clippy::print_stdout, reason = "the report is for a person at a terminal")]
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be taken ends the run at once, and says why")]

use std::process::ExitCode;

mod arms;
mod detect;
mod driver;
mod empty;
mod figures;
mod flood;
mod gateway;
mod kernel;
mod latency;
mod machine;
mod packets;
mod relay;
mod worker;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => bench(),
        ["packets"] => {
            lab::require_root();
            machine::introduce();
            machine::pin(0, machine::last_cpu());
            packets::measure();
            ExitCode::SUCCESS
        }
        ["gateway"] => {
            lab::require_root();
            machine::introduce();
            machine::pin(0, machine::last_cpu());
            gateway::measure();
            ExitCode::SUCCESS
        }
        ["relay"] => {
            lab::require_root();
            machine::introduce();
            relay::measure();
            ExitCode::SUCCESS
        }
        ["detect"] => detect::measure(false),
        ["detect", "tune"] => detect::measure(true),
        ["detect", "write", folder] => detect::write(folder.as_ref()),
        ["send", to] => {
            packets::send(to.parse().unwrap());
            ExitCode::SUCCESS
        }
        ["work"] => {
            worker::work();
            ExitCode::SUCCESS
        }
        ["answer", at] => worker::answer(at.parse().unwrap()),
        ["flood", to, processes, each] => {
            flood::child(to.parse().unwrap(), processes.parse().unwrap(), each.parse().unwrap());
            ExitCode::SUCCESS
        }
        _ => panic!("lab-bench takes no arguments: {arguments:?}"),
    }
}

fn bench() -> ExitCode {
    lab::require_root();
    let start = std::time::Instant::now();
    machine::introduce();
    machine::pin(0, machine::last_cpu());

    let mut bench = arms::Bench::new();
    let mut wrong = Vec::new();
    bench.rounds(&mut wrong);
    bench.kernel_figures(&mut wrong);
    let (lab, host, guard) = bench.keep_sixteen();
    kernel::execs(&guard);
    flood::measure(&lab, &host, &guard, &mut wrong);
    latency::measure(&lab, &host, &guard, &mut wrong);
    guard.guard.detach();

    println!("\nthe whole run took {:.0} s", start.elapsed().as_secs_f64());
    if wrong.is_empty() {
        println!("everything worked, and every counter is right");
        return ExitCode::SUCCESS;
    }
    println!("WRONG:");
    for line in &wrong {
        println!("  {line}");
    }
    ExitCode::FAILURE
}
