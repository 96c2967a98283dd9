//! From a refused connect() to the line that says so.

use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use lab::{Host, Lab};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::arms::{Guarded, WEB, install, other_end};
use crate::driver::Worker;
use crate::figures::{median, percentile, section};
use crate::worker::boottime;

const SAMPLES: usize = 500;

/// `portreeve attempts --follow`; killed on drop.
struct Follower {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Follower {
    fn start(guarded: &Guarded) -> Self {
        let mut command = Command::new(lab::portreeve());
        command.args(["--instance", guarded.guard.instance(), "attempts", "--follow", "--json"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next line, and when it came.
    fn next(&mut self, patience: Duration) -> Option<(u64, serde_json::Value)> {
        if self.lines.buffer().is_empty() {
            let mut fds = [PollFd::new(self.lines.get_ref().as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::try_from(patience).unwrap()).unwrap() == 0 {
                return None;
            }
        }
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        let now = boottime();
        Some((now, serde_json::from_str(&line).unwrap()))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

/// Section 6.
pub(crate) fn measure(lab: &Lab, host: &Host, guarded: &Guarded, wrong: &mut Vec<String>) {
    section(&format!("6. from a refused connect() to its line in `attempts --follow --json`, {SAMPLES} one at a time"));
    let mut worker = Worker::start(&install(lab, "worker"));
    worker.go(&guarded.others, host);
    let mut follower = Follower::start(guarded);
    let order = format!("stamp {} {WEB}", other_end(host, 25));
    // Until the follower is heard of: what comes before it follows is not for it.
    let mut follows = false;
    for _ in 0..50 {
        worker.order(&order);
        worker.answer();
        if follower.next(Duration::from_millis(200)).is_some() {
            follows = true;
            break;
        }
    }
    if !follows {
        wrong.push("latency: no line ever came".to_owned());
        return;
    }
    let mut taken = Vec::new();
    for sample in 0..SAMPLES {
        // So that the agent sleeps, each time for another while.
        std::thread::sleep(Duration::from_millis(5 + sample as u64 % 7));
        worker.order(&order);
        let line = follower.next(Duration::from_secs(10));
        let answer = worker.answer();
        let (returned, errno) = answer.split_once(' ').unwrap();
        let Some((came, line)) = line else {
            wrong.push(format!("latency: no line for sample {sample} within 10 s"));
            return;
        };
        if line["pid"] != worker.pid() || line["verdict"] != "deny" || errno != libc::EPERM.to_string() {
            wrong.push(format!("latency: errno {errno}, and the line says {line}"));
        }
        // The record is on its way before connect() returns: the line may be the faster of the two.
        taken.push(came as f64 - returned.parse::<f64>().unwrap());
    }
    let at = |percent| percentile(taken.iter().copied(), percent) / 1000.0;
    println!(
        "median {:.0} µs, p90 {:.0} µs, p99 {:.0} µs, longest {:.0} µs",
        median(taken.iter().copied()) / 1000.0,
        at(90.0),
        at(99.0),
        at(100.0)
    );
}
