//! The detector on a live host: fed with attempts, kept over restarts.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Agent;
use crate::alert::Told;
use crate::attempt::{Attempt, Store};
use crate::detect::{Detector, Finding, Settings, SubjectId};

/// How often the detector's state is kept. What came after that is taken from the attempts kept, at the next start.
const KEEP: Duration = Duration::from_secs(60);

/// The detector and where its state is kept.
#[derive(Debug)]
pub(super) struct Judging {
    detector: Detector,
    path: PathBuf,
    kept: Instant,
    /// Takes states to be written; a file of some megabytes must not hold up the agent.
    writer: Option<Writer>,
}

/// A thread that writes, and the way to it.
type Writer = (SyncSender<Vec<u8>>, JoinHandle<()>);

impl Judging {
    /// Goes on from the state that an earlier agent kept, where there is one.
    pub(super) fn open(folder: &Path, settings: Settings) -> Self {
        let path = folder.join("detector.state");
        let detector = match fs::read(&path) {
            Ok(state) => Detector::load(settings.clone(), &state).unwrap_or_else(|error| {
                tracing::warn!("{}: {error}; the detector begins anew", path.display());
                Detector::new(settings)
            }),
            Err(_none) => Detector::new(settings),
        };
        Self { detector, path, kept: Instant::now(), writer: None }
    }

    /// The detector.
    #[cfg(test)]
    pub(super) fn detector(&self) -> &Detector {
        &self.detector
    }

    /// What attempts since the kept state show, which an agent that was killed had no time to keep.
    pub(super) fn catch_up(&mut self, attempts: &Store) -> Vec<(Arc<Attempt>, Vec<Finding>)> {
        let kept = jiff::Timestamp::from_microsecond(self.detector.latest() + 1).ok();
        let missed = attempts.since(kept);
        missed
            .into_iter()
            .map(|attempt| {
                let findings = self.judge(&attempt);
                (attempt, findings)
            })
            .collect()
    }

    /// What an attempt shows.
    pub(super) fn judge(&mut self, attempt: &Attempt) -> Vec<Finding> {
        let expected =
            attempt.pid == 0 && attempt.source.is_some_and(|source| self.detector.settings().expects(source.ip()));
        match attempt.observation() {
            Some(observation) if !expected => self.detector.observe(&observation),
            _ => Vec::new(),
        }
    }

    /// Judges by other settings from now on; what is known of subjects stays.
    pub(super) fn settings(&mut self, settings: &Settings) {
        if self.detector.settings() == settings {
            return;
        }
        match Detector::load(settings.clone(), &self.detector.save()) {
            Ok(detector) => self.detector = detector,
            Err(error) => tracing::error!("the detector's new settings do not count: {error}"),
        }
    }

    /// Keeps the state, if it is time.
    pub(super) fn tick(&mut self) {
        if self.kept.elapsed() < KEEP {
            return;
        }
        self.kept = Instant::now();
        let state = self.detector.save();
        let path = &self.path;
        if self.writer.is_none() {
            self.writer = writer(path.clone());
        }
        if self.writer.as_ref().is_some_and(|(way, _)| way.try_send(state).is_err()) {
            tracing::debug!("the detector's state before is still being written");
        }
    }

    /// Keeps the state now: the agent ends.
    pub(super) fn keep(&mut self) {
        if let Some((way, thread)) = self.writer.take() {
            // What it still writes is older than what follows.
            drop(way);
            if thread.join().is_err() {
                tracing::debug!("the thread that keeps the detector's state has panicked");
            }
        }
        if let Err(error) = write(&self.path, &self.detector.save()) {
            tracing::warn!("the detector's state is not kept: {}: {error}", self.path.display());
        }
    }
}

impl Agent {
    /// What an attempt shows of its subject and its owner, and what follows from that.
    pub(super) fn judge(&mut self, attempt: &Attempt) {
        let findings = self.judging.judge(attempt);
        self.take_findings(attempt, findings);
    }

    /// What attempts show that an earlier agent has recorded and had no time to judge.
    pub(super) fn judge_missed(&mut self) {
        for (attempt, findings) in self.judging.catch_up(&self.attempts) {
            // The alerts are kept every second, the detector every minute: what an alert has counted, it has counted.
            let counted = |subject| {
                let alert = self.alerts.book().of_subject(subject).and_then(|id| self.alerts.book().get(id));
                alert.is_some_and(|alert| alert.last >= attempt.time)
            };
            if !counted(attempt.subject()) && !counted(attempt.owner()) {
                self.take_findings(&attempt, findings);
            }
        }
    }

    fn take_findings(&mut self, attempt: &Attempt, findings: Vec<Finding>) {
        let (subject, owner) = (attempt.subject(), attempt.owner());
        // A finding about the owner counts the attempt for the owner's alert by itself.
        let of_owner = findings.iter().any(|finding| finding.subject == owner);
        let mut told = self.alert(subject, attempt, &findings);
        if !of_owner && self.alerts.book().of_subject(owner).is_some() {
            told.extend(self.alert(owner, attempt, &[]));
        }
        for told in told {
            self.follow_up(&told, attempt);
        }
        self.respond_again(subject, attempt);
    }

    fn alert(&mut self, subject: SubjectId, attempt: &Attempt, findings: &[Finding]) -> Vec<Told> {
        let attempts = &self.attempts;
        let earlier = || {
            let of = |earlier: &Arc<Attempt>| {
                // The user first, which costs nothing to compare.
                earlier.euid == attempt.euid
                    && earlier.time < attempt.time
                    && (earlier.subject() == subject || earlier.owner() == subject)
            };
            attempts.since(None).into_iter().filter(of).collect()
        };
        self.alerts.attempt(subject, attempt, findings, earlier)
    }
}

fn writer(path: PathBuf) -> Option<Writer> {
    let (sender, receiver) = sync_channel::<Vec<u8>>(1);
    let run = move || {
        let mut said = false;
        for state in receiver {
            match write(&path, &state) {
                Ok(()) => said = false,
                Err(error) if !said => {
                    tracing::warn!("the detector's state is not kept: {}: {error}", path.display());
                    said = true;
                }
                Err(_again) => {}
            }
        }
    };
    match thread::Builder::new().name("detector-state".to_owned()).spawn(run) {
        Ok(thread) => Some((sender, thread)),
        Err(error) => {
            tracing::warn!("the detector's state is not kept: {error}");
            None
        }
    }
}

/// In one step, so that no start ever reads half a state.
fn write(path: &Path, state: &[u8]) -> io::Result<()> {
    let new = path.with_extension("state.new");
    let mut file = File::create(&new)?;
    file.write_all(state)?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(second: i64, to: u8) -> Attempt {
        let line = serde_json::json!({
            "time": jiff::Timestamp::from_second(1_767_225_600 + second).unwrap().to_string(),
            "verdict": "deny", "reason": "no-rule", "rule": null, "severity": "notice", "generation": 1,
            "hook": "connect4", "destination": format!("10.0.{to}.1:25"), "source": null, "protocol": "tcp",
            "interface": null, "tcp_flags": [], "pid": 7, "tid": 7, "started": null, "comm": "bot",
            "exe": "/srv/bot", "exe_inode": 1, "exe_device": 1, "exe_deleted": false, "exe_in_memory": false,
            "cmdline": [], "script": null, "cwd": null, "uid": 33, "euid": 33, "gid": 33, "egid": 33, "user": null,
            "login_uid": null, "session": null, "cgroup": "/", "cgroup_id": 1, "unit": null, "container": null,
            "netns": 1, "socket": 1, "taint": [], "parents": [], "truncated": [],
        });
        serde_json::from_value(line).unwrap()
    }

    #[test]
    fn a_bot_is_found_over_restarts_with_a_state_and_over_a_kill_with_the_attempts_since() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), "attempts");
        let open = || Judging::open(folder.path(), Settings::default());
        let mut first = open();
        for n in 0..2 {
            assert_eq!(first.judge(&store.push(attempt(n, n as u8))), []);
        }
        first.keep();
        // This one is killed after its attempts were recorded.
        let mut second = open();
        assert_eq!(second.catch_up(&store).len(), 0, "all of it was kept");
        for n in 2..4 {
            assert_eq!(second.judge(&store.push(attempt(n, n as u8))), []);
        }
        drop(second);
        let mut third = open();
        let caught = third.catch_up(&store);
        assert_eq!(caught.iter().map(|(_, findings)| findings.len()).sum::<usize>(), 0);
        assert_eq!(caught.len(), 2);
        assert_eq!(third.judge(&attempt(4, 4)).len(), 1, "the fifth destination of three lives");
    }

    #[test]
    fn a_broken_state_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("detector.state"), "\u{1}no state").unwrap();
        let judging = Judging::open(folder.path(), Settings::default());
        assert_eq!(judging.detector().subjects(), 0);
    }
}
