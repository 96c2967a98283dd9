//! A million refused attempts from 64 processes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lab::{Guard, Host, Lab};
use nix::sys::wait::wait;
use nix::unistd::{ForkResult, fork};
use serde_json::Value;
use socket2::{SockAddr, Type};

use crate::arms::{Guarded, install, other_end};
use crate::figures::section;
use crate::{kernel, machine, worker};

const PROCESSES: u64 = 64;
const EACH: u64 = 15_625;
const LIMIT: Duration = Duration::from_secs(120);

/// `lab-bench flood`: prints how many were refused, how many were not, and the nanoseconds it took.
pub(crate) fn child(to: SocketAddr, processes: u64, each: u64) {
    let (reader, writer) = std::io::pipe().unwrap();
    let start = Instant::now();
    for _ in 0..processes {
        // SAFETY: this process has one thread.
        if let ForkResult::Child = unsafe { fork() }.unwrap() {
            let [refused, other] = hammer(to, each, start);
            let mut line = [0; 16];
            line[..8].copy_from_slice(&refused.to_ne_bytes());
            line[8..].copy_from_slice(&other.to_ne_bytes());
            // So few bytes go into a pipe in one piece (pipe(7)).
            (&writer).write_all(&line).unwrap();
            std::process::exit(0);
        }
    }
    drop(writer);
    let mut all = Vec::new();
    File::from(std::os::fd::OwnedFd::from(reader)).read_to_end(&mut all).unwrap();
    let taken = start.elapsed().as_nanos();
    while wait().is_ok() {}
    let sum = |at: usize| -> u64 {
        all.chunks_exact(16).map(|line| u64::from_ne_bytes(line[at..at + 8].try_into().unwrap())).sum()
    };
    println!("{} {} {taken}", sum(0), sum(8));
}

/// One socket: a refused one can be tried again, so that nothing but connect() takes time.
fn hammer(to: SocketAddr, each: u64, start: Instant) -> [u64; 2] {
    let (address, socket) = (SockAddr::from(to), worker::socket(to, Type::STREAM));
    let mut outcome = [0; 2];
    for number in 0..each {
        if number % 1024 == 0 && start.elapsed() > LIMIT {
            break;
        }
        outcome[usize::from(worker::connect(&socket, &address) != libc::EPERM)] += 1;
    }
    outcome
}

/// Section 5.
pub(crate) fn measure(lab: &Lab, host: &Host, guarded: &Guarded, wrong: &mut Vec<String>) {
    let guard = &guarded.guard;
    section("5. a flood: one million refused connects from 64 processes");
    machine::pin(guard.pid(), None);
    // What we start inherits our processor: the flood is to have all of them.
    machine::pin(0, None);
    let program = install(lab, "bot");
    settle(guard);
    let (before, subjects, shown) = (guard.status(), kernel::refused_by_subject(guard), lines(guard));
    let memory = rss(guard);
    let log = lab.scratch("flood");
    let to = other_end(host, 25).to_string();
    let arguments = ["flood", &to, &PROCESSES.to_string(), &EACH.to_string()];
    let mut flood = lab.program(&program).args(arguments).in_host(host).in_cgroup(&guarded.others).spawn(&log);
    let mut peak = memory;
    while flood.runs() {
        peak = peak.max(rss(guard));
        std::thread::sleep(Duration::from_millis(10));
    }
    let code = flood.wait();
    let said = std::fs::read_to_string(&log).unwrap();
    let numbers: Vec<u64> = said.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [refused, other, taken] = numbers[..] else { panic!("the flood ended with {code}: {said}") };
    let late = accounted(guard, &before, shown, refused);
    let after = guard.status();
    let grown = |group: &str, key: &str| number(&after, group, key) - number(&before, group, key);
    let (shed, undecoded, shown) = (grown("lost", "shed"), grown("lost", "undecoded"), lines(guard) - shown);
    let by_subject = kernel::refused_by_subject(guard) - subjects;
    let (counted, uncounted) = (grown("counters", "refused"), grown("lost", "uncounted_by_subject"));

    let seconds = taken as f64 / 1e9;
    println!(
        "connects refused           {refused:>9}   in {seconds:.1} s, {:.0} a second; {other} others",
        refused as f64 / seconds
    );
    println!("counted as refused         {counted:>9}   {}", verdict(counted == refused));
    println!(
        "counted by subject         {by_subject:>9}   and {uncounted} without one: {}",
        verdict(by_subject + uncounted == counted)
    );
    println!("records shown              {shown:>9}   ({} of them not written to disk)", grown("lost", "not_stored"));
    println!(
        "details shed, counted      {shed:>9}   shown + shed = {}, {undecoded} not decoded: {}",
        shown + shed,
        verdict(shown + shed == refused)
    );
    println!("all of them accounted for  {late}");
    println!(
        "the agent's memory         {:>9} KiB before, {} peak, {} after (VmHWM {})",
        memory,
        peak.max(rss(guard)),
        rss(guard),
        status_field(guard, "VmHWM:"),
    );
    if refused != PROCESSES * EACH || other != 0 {
        wrong.push(format!("flood: {refused} refused, {other} others, of {}", PROCESSES * EACH));
    }
    if counted != refused || by_subject + uncounted != counted || shown + shed != refused {
        wrong.push(format!(
            "flood: {refused} refused, {counted} counted, {by_subject} by subject, {shown} shown, {shed} shed, {undecoded} not decoded; {late}"
        ));
    }
    for key in ["allowed", "observed", "local"] {
        if grown("counters", key) != 0 {
            wrong.push(format!("flood: {} counted as {key}", grown("counters", key)));
        }
    }
    let kept = guard.attempts();
    let exe = program.display().to_string();
    let false_ones = kept.iter().rev().take(5000).filter(|kept| {
        kept["verdict"] != "deny" || kept["exe"] != exe.as_str() || kept["destination"].as_str() != Some(&to)
    });
    let false_ones = false_ones.count();
    println!("of the last {} records kept, {false_ones} do not say deny, {exe} and {to}", kept.len().min(5000));
    if false_ones > 0 {
        wrong.push(format!("flood: {false_ones} records are wrong, the last kept is {}", kept[kept.len() - 1]));
    }
}

/// Waits until every attempt is shown or counted as shed, and says how long that took; gives up after ten seconds, and
/// says how many were missing when. Nothing is refused meanwhile that would wake an agent which has missed its turn.
fn accounted(guard: &Guard, before: &Value, shown: u64, refused: u64) -> String {
    let start = Instant::now();
    let mut missing = Vec::new();
    while start.elapsed() < Duration::from_secs(10) {
        let shed = number(&guard.status(), "lost", "shed") - number(before, "lost", "shed");
        let left = refused.saturating_sub(lines(guard) - shown + shed);
        if left == 0 {
            return format!("within {:.1} s of the last connect", start.elapsed().as_secs_f64());
        }
        if missing.last().is_none_or(|(_, last)| *last != left) {
            missing.push((start.elapsed().as_millis(), left));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    format!("not within 10 s; missing, by milliseconds: {missing:?}")
}

fn verdict(right: bool) -> &'static str {
    if right { "exact" } else { "WRONG" }
}

fn number(status: &Value, group: &str, key: &str) -> u64 {
    status[group][key].as_u64().unwrap_or_else(|| panic!("no {group}.{key} in {status}"))
}

/// Waits until the agent has shown all it has.
fn settle(guard: &Guard) {
    let mut last = u64::MAX;
    lab::until("the agent to catch up", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(300));
        let now = lines(guard);
        if std::mem::replace(&mut last, now) == now { Ok(()) } else { Err(now) }
    });
}

/// The attempts the agent has shown on its standard output.
fn lines(guard: &Guard) -> u64 {
    guard.log().lines().filter(|line| line.contains("Z  REFUSED ")).count() as u64
}

/// Resident memory in KiB.
fn rss(guard: &Guard) -> u64 {
    status_field(guard, "VmRSS:")
}

fn status_field(guard: &Guard, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", guard.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
