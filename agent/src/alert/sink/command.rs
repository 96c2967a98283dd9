//! A program that is run for each message. No shell is involved.

use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::message::Message;
use super::text::printable;
use super::worker::{Deliver, Failure};

/// The PATH it gets, and all it gets of the agent's surroundings.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of what it says about its failure is kept, in bytes.
const SAID: u64 = 300;

pub(super) struct Program {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) timeout: Duration,
    pub(super) host: String,
}

impl Deliver for Program {
    fn deliver(&mut self, message: &Message) -> Result<(), Failure> {
        let shown = self.program.display().to_string();
        let mut child = self.start(message).map_err(|error| Failure::later("start", &shown, error))?;
        let input = message.json(&self.host).to_string();
        feed(&mut child, input).map_err(|error| Failure::later("write to", &shown, error))?;
        let said = listen(&mut child);
        match wait(&mut child, self.timeout) {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => {
                let said = said.recv_timeout(Duration::from_millis(100)).unwrap_or_default();
                let said = if said.is_empty() { said } else { format!(": {said}") };
                Err(Failure::Later { why: format!("{shown} failed with {status}{said}") })
            }
            Ok(None) => Err(Failure::Later { why: format!("{shown} was killed after {:?}", self.timeout) }),
            Err(error) => Err(Failure::later("wait for", shown, error)),
        }
    }
}

impl Program {
    fn start(&self, message: &Message) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().env("PATH", PATH).env("PORTREEVE_HOST", &self.host);
        for (name, value) in message.fields() {
            if matches!(name, "event" | "occasion" | "alert_id" | "subject" | "severity") {
                command.env(format!("PORTREEVE_{}", name.to_ascii_uppercase()), value);
            }
        }
        // A group of its own, so that its children go with it when it takes too long.
        command.process_group(0).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
    }
}

/// Writes the input on a thread: a program that does not read it must not hold up the sink.
fn feed(child: &mut Child, input: String) -> io::Result<()> {
    let Some(mut pipe) = child.stdin.take() else { return Ok(()) };
    let write = move || {
        if let Err(error) = pipe.write_all(input.as_bytes()) {
            tracing::debug!("a command has not read its input: {error}");
        }
    };
    std::thread::Builder::new().name("sink-input".to_owned()).spawn(write).map(drop)
}

/// The beginning of what it says on standard error; the rest is read and forgotten, so that it does not wait.
fn listen(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, said) = mpsc::channel();
    if let Some(mut pipe) = child.stderr.take() {
        let read = move || {
            let mut first = Vec::new();
            let read = pipe.by_ref().take(SAID).read_to_end(&mut first);
            let text = printable(String::from_utf8_lossy(&first).trim());
            let heard = sender.send(text).is_ok();
            let rest = io::copy(&mut pipe, &mut io::sink());
            tracing::trace!("a command's standard error: {read:?}, heard {heard}, and the rest {rest:?}");
        };
        if let Err(error) = std::thread::Builder::new().name("sink-error".to_owned()).spawn(read) {
            tracing::debug!("a command's standard error is not read: {error}");
        }
    }
    said
}

/// Waits for its end; none if it had to be killed.
fn wait(child: &mut Child, timeout: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let now = Instant::now();
        if now >= deadline {
            // Its group still has its number: it is not waited for yet.
            if let Ok(group) = i32::try_from(child.id())
                && let Err(error) = killpg(Pid::from_raw(group), Signal::SIGKILL)
            {
                tracing::debug!("a command's group is not killed: {error}");
            }
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause.min(deadline - now));
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{alert, notice};
    use super::*;
    use crate::alert::Occasion;

    fn shell(script: &str, timeout: Duration) -> Program {
        Program {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            timeout,
            host: "mail.example".to_owned(),
        }
    }

    #[test]
    fn it_gets_the_json_and_nothing_of_the_agent_s_environment() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let script = format!("cat > {0}.json; env | sort > {0}.env", out.display());
        let patience = Duration::from_secs(20);
        shell(&script, patience).deliver(&notice(Occasion::Opened, alert(7))).unwrap();
        let json: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(out.with_extension("json")).unwrap()).unwrap();
        assert_eq!((&json["alert"]["id"], &json["occasion"]), (&7.into(), &"opened".into()));
        let env = std::fs::read_to_string(out.with_extension("env")).unwrap();
        let names: Vec<&str> = env.lines().filter_map(|line| line.split('=').next()).collect();
        // PWD is the shell's own.
        let ours = names.into_iter().filter(|name| !matches!(*name, "PWD" | "OLDPWD" | "SHLVL" | "_"));
        let expected = [
            "PATH",
            "PORTREEVE_ALERT_ID",
            "PORTREEVE_EVENT",
            "PORTREEVE_HOST",
            "PORTREEVE_OCCASION",
            "PORTREEVE_SEVERITY",
            "PORTREEVE_SUBJECT",
        ];
        assert_eq!(ours.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn one_that_takes_too_long_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", out.display());
        let start = Instant::now();
        let failure = shell(&script, Duration::from_millis(300)).deliver(&notice(Occasion::Opened, alert(7)));
        assert!(failure.unwrap_err().to_string().contains("was killed after 300ms"));
        assert!(start.elapsed() < Duration::from_secs(10));
        let child = std::fs::read_to_string(&out).unwrap();
        let stat = PathBuf::from(format!("/proc/{}/stat", child.trim()));
        // Gone, or a zombie that whoever adopted it has not buried.
        let alive = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        let deadline = Instant::now() + Duration::from_secs(10);
        while alive() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!alive(), "the child outlived its command");
    }

    #[test]
    fn what_it_says_about_its_failure_is_told_and_input_that_nobody_reads_is_no_trouble() {
        let mut big = alert(7);
        big.next = vec!["x".repeat(1 << 20)];
        let script = "echo 'no such pager' >&2; exec <&-; exit 3";
        let failure = shell(script, Duration::from_secs(20)).deliver(&notice(Occasion::Opened, big)).unwrap_err();
        assert!(failure.to_string().contains("exit status: 3: no such pager"), "{failure}");
        let missing = Program { program: "/nonexistent".into(), ..shell("", Duration::from_secs(1)) };
        let failure = { missing }.deliver(&notice(Occasion::Opened, alert(7))).unwrap_err();
        assert!(failure.to_string().starts_with("cannot start /nonexistent:"), "{failure}");
    }
}
