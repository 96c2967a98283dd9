use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portreeve_abi::{CGROUP_PATH_LEN, COMM_LEN, EXE_PATH_LEN, ExeId, PARENTS, TICK, Taint};
use procfs::process::Process;

use super::*;

#[test]
fn names_are_put_together_and_control_characters_are_escaped() {
    let mut buffer = [0_u8; 32];
    buffer[..12].copy_from_slice(b"smtp\0sbin\0u\x1b");
    assert_eq!(parts(&buffer, 13), ["smtp", "sbin", "u\\u{1b}"]);
    assert_eq!(path_up(&["a".into(), "b".into()], false).as_deref(), Some("/b/a"));
    assert_eq!(path_up(&["a".into()], true).as_deref(), Some("…/a"));
    assert_eq!(path_up(&[], false), None);
}

#[test]
fn every_taint_and_reason_has_a_word() {
    assert_eq!(taints(0x7f).len(), 7);
    for reason in 0..=16 {
        assert!(Reason::from_u8(reason).is_some());
    }
    assert_eq!(Reason::from_u8(17), None);
}

/// A shell that waits, and the event of an attempt of its as the kernel would tell it.
struct Shell {
    child: Child,
    event: Event,
}

impl Shell {
    fn new() -> Self {
        let child = Command::new("/bin/sh").stdin(Stdio::piped()).spawn().unwrap();
        let exe = fs::canonicalize("/bin/sh").unwrap();
        let meta = fs::metadata(&exe).unwrap();
        let start = Process::new(child.id() as i32).unwrap().stat().unwrap().starttime * TICK;
        let names: Vec<&str> = exe.to_str().unwrap().split('/').skip(1).collect();
        let (exe_path, exe_path_used) = buffer::<EXE_PATH_LEN>(names.into_iter().rev());
        let (cgroup_path, cgroup_path_used) = buffer::<CGROUP_PATH_LEN>(["system.slice", "cron.service"]);
        let (cmdline, cmdline_used) = buffer::<CMDLINE_LEN>(["sh", SCRIPT, "x"]);
        let event = Event {
            vlan: 0,
            mac: [0; 6],
            time: start,
            start,
            exe: ExeId { ino: meta.ino(), ctime_sec: 0, ctime_nsec: 0, dev: meta.dev() as u32, generation: 0, _pad: 0 },
            cgroup: 1,
            cookie: 1,
            pid: child.id(),
            tid: child.id(),
            uid: 0,
            euid: 0,
            gid: 0,
            egid: 0,
            netns: 1,
            generation: 1,
            rule: RULE_NONE,
            nlink: 1,
            taint: 0,
            verdict: Verdict::Deny as u8,
            reason: Reason::NoRule as u8,
            hook: Hook::Connect4 as u8,
            tcp_flags: 0,
            daddr: [0; 16],
            saddr: [0; 16],
            dport: 25,
            sport: 0,
            exe_path_used,
            cgroup_path_used,
            cmdline_used,
            truncated: 0,
            protocol: 6,
            _pad: 0,
            interface: 0,
            _pad2: 0,
            comm: [0; COMM_LEN],
            parents: [portreeve_abi::Parent { pid: 0, uid: 0, ino: 0, comm: [0; COMM_LEN] }; PARENTS],
            exe_path,
            cgroup_path,
            cmdline,
        };
        Self { child, event }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

/// A script of libc-bin's, where everybody has it.
const SCRIPT: &str = "/usr/bin/ldd";

fn buffer<'a, const LENGTH: usize>(parts: impl IntoIterator<Item = &'a str>) -> ([u8; LENGTH], u16) {
    let text: String = parts.into_iter().flat_map(|part| [part, "\0"]).collect();
    let mut bytes = [0; LENGTH];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    (bytes, text.len() as u16)
}

/// The record, once the package is known.
fn settled(event: &Event) -> Attempt {
    let (mut recorder, clock, begun) = (Recorder::default(), Clock::now(), Instant::now());
    loop {
        let attempt = recorder.record(event, &clock).unwrap();
        if attempt.package_known || begun.elapsed() > Duration::from_secs(2) {
            return attempt;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_script_is_roots_only_of_a_program_that_is_what_it_seems() {
    if !Path::new("/var/lib/dpkg/info/coreutils.list").exists() {
        return;
    }
    let shell = Shell::new();
    let attempt = settled(&shell.event);
    assert_eq!((attempt.script.as_deref(), attempt.package.is_some()), (Some(SCRIPT), true));
    assert!(attempt.script_of_root, "{attempt}");
    let (docker, docker_used) =
        buffer(["system.slice", "docker-a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1.scope"]);
    let (alone, alone_used) = buffer(["sh", SCRIPT]);
    let (stdin, stdin_used) = buffer(["sh", "-s", SCRIPT]);
    let (nowhere, nowhere_used) = buffer(["sh", "/usr/bin/none"]);
    let cut = Truncated::CMDLINE;
    for (what, event) in [
        ("tainted", Event { taint: Taint::LD_PRELOAD, ..shell.event }),
        ("deleted", Event { nlink: 0, ..shell.event }),
        ("in a container", Event { cgroup_path: docker, cgroup_path_used: docker_used, ..shell.event }),
        ("cut", Event { cmdline: alone, cmdline_used: alone_used, truncated: cut, ..shell.event }),
        ("told by its input", Event { cmdline: stdin, cmdline_used: stdin_used, ..shell.event }),
        ("not there", Event { cmdline: nowhere, cmdline_used: nowhere_used, ..shell.event }),
        ("another process", Event { start: shell.event.start + TICK, ..shell.event }),
    ] {
        let attempt = settled(&event);
        assert!(!attempt.script_of_root, "{what}: {attempt}");
    }
}
