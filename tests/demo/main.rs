//! `lab-demo`: what Portreeve does, shown with real programs in network namespaces of its own.
//!
//! `cargo xtask demo` builds and runs it. What it makes ends with it, and nothing outside is touched.
#![expect(clippy::print_stdout, reason = "a demonstration is there to be read")]

mod gateway;
mod relay;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use lab::mta::{Mta, Package};
use lab::{DEADLINE, Guard, Lab, Program, Sink, until};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use serde_json::Value;

/// Debian's www-data: who a hacked web site's scripts run as.
const WWW_DATA: u32 = 33;

/// A bot of a few lines, as they are dropped into upload folders.
const BOT: &str = "import smtplib, sys
smtplib.SMTP(sys.argv[1], 25, timeout=5).sendmail('bot@host.example', 'victim@mx.example', 'Subject: Buy!')";

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    on_interrupt();
    let scenario = match std::env::args().nth(1).as_deref() {
        Some("gateway") => gateway::show,
        Some("relay") => relay::show,
        _ => show,
    };
    let shown = std::panic::catch_unwind(scenario);
    match shown {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(_) => {
            // Otherwise the panic has said why.
            if INTERRUPTED.load(Ordering::Relaxed) {
                println!("\nInterrupted; everything is taken down again.");
            }
            ExitCode::FAILURE
        }
    }
}

/// The whole scenario; whether everything came out as it should.
fn show() -> bool {
    step("Two machines, a wire between them: \"host\" sends mail, \"mx\" takes it. Both are network namespaces.");
    let lab = Lab::new("demo");
    let (host, mx) = (lab.host("host"), lab.host("mx"));
    lab.wire(&host, &mx);
    let sink = Sink::listen(&mx, 25);
    said(&format!("host {}, {}", host.v4(), host.v6()));
    said(&format!("mx   {}, {}, an SMTP server on port 25", mx.v4(), mx.v6()));

    step("On host, Debian's Postfix, unpacked into a root of its own (downloaded the first time).");
    let unit = lab.cgroup("system.slice/postfix@-.service");
    let postfix = Mta::start(&lab, Package::Postfix, &host, &unit, mx.v4());
    said(&format!("running as {}, user id {}; it sends everything to mx", Package::Postfix.unit(), postfix.user()));

    let site = lab.cgroup("system.slice/php-fpm.service");
    let run = |program: Program| program.in_host(&host).in_cgroup(&site).as_user(WWW_DATA, WWW_DATA);
    let address = mx.v4().to_string();
    let bash = format!("exec 3<>/dev/tcp/{address}/25 && echo 'EHLO bot' >&3");
    let swaks = ["--server", &address, "--helo", "bot", "--from", "bot@host.example", "--to", "victim@mx.example"];
    let bots = || {
        [
            Bot::new("a Python bot", "/usr/bin/python3", lab.program("/usr/bin/python3").args(["-c", BOT, &address])),
            Bot::new("swaks", "/usr/bin/perl", lab.program("/usr/bin/swaks").args(swaks)),
            Bot::new("bash's /dev/tcp", "/usr/bin/bash", lab.program("/usr/bin/bash").args(["-c", &bash])),
        ]
    };

    step("Port 25 is still open: on host a hacked web site (www-data in php-fpm.service) sends spam three ways.");
    for (number, bot) in bots().into_iter().enumerate() {
        let outcome = run(bot.program).run();
        let came = u64::try_from(number).unwrap_or(u64::MAX).saturating_add(1);
        until(&format!("{} to reach mx without a guard: {outcome:#?}", bot.name), DEADLINE, || {
            if sink.accepted() >= came { Ok(()) } else { Err(sink.accepted()) }
        });
        said(&format!("{:<16} reaches mx", bot.name));
    }
    let spam = sink.messages().len();

    step("Now Portreeve guards port 25, with this policy:");
    let policy = format!("[[allow]]\nmta  = \"postfix\"\nroot = \"{}\"\n", postfix.root().display());
    policy.lines().for_each(said);
    let guard = Guard::start(&lab, &policy);
    let quiet = quiet(&lab, &mx);

    step("The hacked web site tries again.");
    let mut refused = Vec::new();
    for bot in bots() {
        let outcome = run(bot.program).run();
        let says = format!("{}{}", outcome.stdout, outcome.stderr);
        let word = says.lines().rfind(|line| line.contains("Operation not permitted"));
        refused.push((outcome.code != 0 && word.is_some(), bot.exe));
        said(&format!("{:<16} {}", bot.name, word.map_or_else(|| format!("IS NOT REFUSED: {says}"), shorten)));
    }
    let leaked = mx.segments_in().saturating_sub(quiet);
    said(&format!("mx has received {leaked} TCP segments meanwhile"));

    step("And Postfix sends a message, handed to it by the web site over the host's own loopback.");
    postfix.submit_by_smtp(&site, "www-data@host.example", "customer@mx.example", "Your order");
    let messages = sink.wait_for_messages(spam + 1, DEADLINE);
    let delivered = messages.iter().filter(|message| message.data.contains("Subject: Your order")).count();
    said(&format!("mx has taken {delivered} message with the subject \"Your order\""));

    let records = until("the records of all attempts", DEADLINE, || {
        let records = guard.attempts();
        // Three refused, one to loopback, one by Postfix.
        if records.len() >= 5 { Ok(records) } else { Err(records) }
    });
    command(&guard, &["attempts"]);
    command(&guard, &["status"]);

    let count = |verdict: &str, exe: &Path, user: u32, unit: &str| {
        let are_said = |record: &Value| record["euid"] == user && record["unit"] == unit;
        records.iter().filter(|record| is(record, verdict, exe) && are_said(record)).count()
    };
    let recorded = |exe: &Path| count("deny", exe, WWW_DATA, "php-fpm.service") == 1;
    let kept_out = refused.iter().filter(|(refused, exe)| *refused && recorded(exe)).count();
    let allowed = count("allow", &postfix.exe(), postfix.user(), Package::Postfix.unit());
    let all = refused.len();
    println!();
    let proved = delivered == 1 && allowed == 1 && kept_out == all && leaked == 0 && sink.messages().len() == spam + 1;
    if proved {
        println!(
            "Proved: {delivered} message left through Postfix; {kept_out} of {all} other programs were refused before a \
             single packet left; every attempt is on record with its program, user and unit."
        );
    } else {
        println!(
            "NOT proved: {delivered} messages left through Postfix ({allowed} on record); {kept_out} of {all} other \
             programs were refused and recorded; {leaked} TCP segments got out."
        );
    }
    proved
}

/// A program that should not send mail, and the executable that the kernel sees.
struct Bot {
    name: &'static str,
    exe: std::path::PathBuf,
    program: Program,
}

impl Bot {
    fn new(name: &'static str, exe: &str, program: Program) -> Self {
        let exe = std::fs::canonicalize(exe).unwrap_or_else(|error| panic!("{name} needs {exe}: {error}"));
        Self { name, exe, program }
    }
}

fn is(record: &Value, verdict: &str, exe: &Path) -> bool {
    record["verdict"] == verdict && record["exe"].as_str().is_some_and(|path| Path::new(path) == exe)
}

/// The last words of a program's complaint, without its own name and numbers of lines.
fn shorten(line: &str) -> String {
    line.trim_start_matches("*** ").trim().to_owned()
}

/// The segments that mx has received, once no connection is there that could bring more.
fn quiet(lab: &Lab, mx: &lab::Host) -> u64 {
    until("the end of all connections", DEADLINE, || {
        let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
        let sockets = lab.program("/usr/bin/cat").args(tables).in_host(mx).run().must_succeed().stdout;
        // TCP_LISTEN and TCP_TIME_WAIT, include/net/tcp_states.h
        let settled = |socket: &str| matches!(socket.split_whitespace().nth(3), Some("st" | "0A" | "06"));
        if sockets.lines().all(settled) { Ok(mx.segments_in()) } else { Err(sockets) }
    })
}

/// Shows a command of the agent and what it prints.
pub(crate) fn command(guard: &Guard, arguments: &[&str]) {
    step(&format!("# portreeve {}", arguments.join(" ")));
    print!("{}", guard.command(arguments.iter().copied()).must_succeed().stdout);
}

/// Begins a step; the place where an interrupted demonstration ends.
pub(crate) fn step(text: &str) {
    assert!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    println!("\n==> {text}");
}

pub(crate) fn said(text: &str) {
    println!("    {text}");
}

/// Ctrl-C ends the demonstration at its next step, by way of the fixtures' own ends: nothing is left.
fn on_interrupt() {
    extern "C" fn remember(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(remember), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores to an atomic.
        unsafe { sigaction(signal, &action) }.unwrap_or_else(|errno| panic!("handle {signal}: {errno}"));
    }
}
