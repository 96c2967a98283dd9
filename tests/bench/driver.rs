//! Orders for the process that connects.

use std::io::{BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use lab::{Cgroup, Host};

use crate::worker::read_line;

/// The process that connects; killed on drop.
pub(crate) struct Worker {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// A mean over one slice, in nanoseconds a call.
#[derive(Clone, Copy)]
pub(crate) struct Slice {
    pub(crate) whole: f64,
    pub(crate) connect: f64,
    pub(crate) wrong: u64,
}

impl Worker {
    /// Starts a copy of this program.
    pub(crate) fn start(program: &Path) -> Self {
        let mut command = Command::new(program);
        let mut child = command.arg("work").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, orders, answers }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Moves to a cgroup and a host.
    pub(crate) fn go(&mut self, cgroup: &Cgroup, host: &Host) {
        self.order(&format!("go {}/cgroup.procs {}", cgroup.path().display(), host.path().display()));
        self.answer();
    }

    /// Connects so many times; `expected` is 0 or the errno of each.
    pub(crate) fn run(&mut self, kind: &str, to: SocketAddr, count: u64, user: u32, expected: i32) -> Slice {
        self.order(&format!("run {kind} {to} {count} {user} {expected}"));
        let answer = self.answer();
        let numbers: Vec<u64> = answer.split(' ').map(|word| word.parse().unwrap()).collect();
        Slice { whole: numbers[0] as f64, connect: numbers[1] as f64, wrong: numbers[2] }
    }

    /// Runs a program so many times, one after the other; nanoseconds each.
    pub(crate) fn exec(&mut self, program: &str, count: u64) -> f64 {
        self.order(&format!("exec {program} {count}"));
        self.answer().parse().unwrap()
    }

    pub(crate) fn order(&mut self, order: &str) {
        self.orders.write_all(format!("{order}\n").as_bytes()).unwrap();
    }

    pub(crate) fn answer(&mut self) -> String {
        read_line(&mut self.answers)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}
