//! What the kernel tests need in the virtual machine, on top of a small Debian root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};

use super::cpio::Archive;
use crate::exec::{cargo, headline, line, target_dir};

/// What the tests and the lab run, beyond what these depend on. `usr-is-merged` stands in for `usrmerge`, which would
/// bring Perl.
pub(super) const PACKAGES: &[&str] = &[
    "usr-is-merged",
    "base-files",
    "bash",
    "bpftool",
    "btrfs-progs",
    "coreutils",
    "dash",
    "dnsmasq-base",
    "e2fsprogs",
    "ethtool",
    "findutils",
    "grep",
    "iproute2",
    "kmod",
    "libcap2-bin",
    "libgcc-s1",
    "mount",
    "nftables",
    "procps",
    "python3",
    "sed",
    "strace",
    "udhcpc",
    "util-linux",
    "wireguard-tools",
    "xfsprogs",
];

/// Test executables that stay out: `mta`, `relay` and `sinks` fetch Debian's servers, which the machine without a network
/// cannot, and what they are about is those servers, not the kernel. What the kernel does for the relay is in `redirect`.
const LEFT_OUT: &[&str] = &["mta", "relay", "sinks"];

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
mail:x:8:8:mail:/var/mail:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\ntty:x:5:\nmail:x:8:\nwww-data:x:33:\nnogroup:x:65534:\n";

/// The programs to put into the machine.
pub(super) struct Lab {
    agent: PathBuf,
    client: PathBuf,
    /// Name and executable of each test program.
    tests: Vec<(String, PathBuf)>,
}

impl Lab {
    /// Builds the tests; the agent is there already.
    pub(super) fn build(agent: &Path) -> Result<Self> {
        headline("building the tests");
        let mut build = cargo();
        build.args(["test", "--release", "--package", "portreeve-tests", "--no-run", "--message-format=json"]);
        let done = build.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {}", line(&build)))?;
        if !done.status.success() {
            bail!("`{}` failed", line(&build));
        }
        let mut tests: Vec<_> = String::from_utf8_lossy(&done.stdout).lines().filter_map(test_executable).collect();
        tests.sort();
        if tests.is_empty() {
            bail!("`{}` names no test executable", line(&build));
        }
        tests.retain(|(name, _)| !LEFT_OUT.contains(&name.as_str()));
        Ok(Self { agent: agent.to_owned(), client: target_dir()?.join("release/lab-client"), tests })
    }

    /// How many test programs there are.
    pub(super) fn tests(&self) -> usize {
        self.tests.len()
    }

    /// Puts everything into an archive, with the job that init runs. As in Cargo's target directory, the tests lie in
    /// `deps` and find the other programs above them.
    pub(super) fn pack(&self, into: &mut Archive, job: &str) -> Result<()> {
        users(into)?;
        for dir in ["opt", "opt/lab", "opt/lab/release", "opt/lab/release/deps"] {
            into.directory(dir, 0o755)?;
        }
        into.file("opt/lab/release/portreeve", 0o755, &self.agent)?;
        into.file("opt/lab/release/lab-client", 0o755, &self.client)?;
        for (name, executable) in &self.tests {
            into.file(&format!("opt/lab/release/deps/{name}"), 0o755, executable)?;
        }
        into.text("opt/lab/job", 0o644, job)?;
        into.text("init", 0o755, include_str!("init.sh"))
    }
}

/// Debian's base-passwd makes them when it is installed, which nothing is here.
pub(super) fn users(into: &mut Archive) -> Result<()> {
    into.text("etc/passwd", 0o644, PASSWD)?;
    into.text("etc/group", 0o644, GROUP)
}

/// The job that runs every test, with arguments for the test harness.
pub(super) fn test_job(arguments: &[String], patience: u32) -> String {
    let words: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
    format!("{}set -- {}\n{}", environment(patience), words.join(" "), include_str!("tests.sh"))
}

/// The job that runs one command.
pub(super) fn command_job(command: &str, patience: u32) -> String {
    format!(
        "{}bash -c {}\nstatus=$?\necho \"exit code $status\"\n\
         echo \"portreeve-vm: end ran=1 failed=$((status != 0))\"\n",
        environment(patience),
        quoted(command)
    )
}

fn environment(patience: u32) -> String {
    format!(
        "export PORTREEVE_BIN=/opt/lab/release/portreeve PORTREEVE_SKIPS=/run/skipped-tests LAB_PATIENCE={patience} \
         RUST_BACKTRACE=0\n"
    )
}

/// A word that the shell leaves as it is.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The name and path in one of Cargo's messages, if it announces a program of `tests/` (no unit tests of a library).
///
/// By hand, because these few words are all that is wanted of the messages, and none of them is ever escaped.
fn test_executable(message: &str) -> Option<(String, PathBuf)> {
    let test = message.contains(r#""reason":"compiler-artifact""#) && message.contains(r#""kind":["test"]"#);
    let executable = after(message, r#""executable":""#).filter(|_| test)?;
    let file = Path::new(executable).file_name()?.to_str()?;
    // Cargo adds a hash of everything the program is built from.
    let (name, _) = file.rsplit_once('-')?;
    Some((name.to_owned(), executable.into()))
}

/// The text between `start` and the next quotation mark.
fn after<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split('"').next()
}

/// The agent that `PORTREEVE_BIN` names, for who has one already.
pub(super) fn given_agent() -> Result<Option<PathBuf>> {
    let Some(given) = std::env::var_os("PORTREEVE_BIN").map(PathBuf::from) else { return Ok(None) };
    fs::metadata(&given).with_context(|| format!("PORTREEVE_BIN names {}", given.display()))?;
    Ok(Some(given))
}

#[cfg(test)]
mod tests {
    use super::{command_job, quoted, test_executable, test_job};

    #[test]
    fn cargo_names_the_test_programs() {
        let message = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"connect"},"executable":"/t/release/deps/connect-28c4","fresh":true}"#;
        assert_eq!(test_executable(message), Some(("connect".to_owned(), "/t/release/deps/connect-28c4".into())));
        assert_eq!(test_executable(&message.replace("[\"test\"]", "[\"bin\"]")), None);
        assert_eq!(test_executable(&message.replace("\"/t/release/deps/connect-28c4\"", "null")), None);
    }

    #[test]
    fn arguments_reach_the_tests_as_they_were_typed() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert!(test_job(&["a b".to_owned()], 5).contains("set -- 'a b'\n"));
        assert!(command_job("uname -r; false", 1).contains("bash -c 'uname -r; false'\n"));
    }
}
