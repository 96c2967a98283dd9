//! What follows from an alert: its executable's sum and its process tree are taken down, and the policy's response is
//! carried out.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::Agent;
use crate::alert::response::{Action, Deed, Responder, Suspect};
use crate::alert::{Change, Keep, Occasion, PORTREEVE, SinkStatus, Sinks, State, Told};
use crate::attempt::Attempt;
use crate::clock::Clock;
use crate::detect::SubjectId;
use crate::policy::{Policy, Respond};
use crate::subject::digest::{Digested, Digests};
use crate::subject::{Member, tree};

/// How many alerts wait for their process tree.
const TREES: usize = 16;
/// How often what was done about a subject is done again while its attempts go on.
const AGAIN: Duration = Duration::from_millis(100);
/// How long sinks have for what they still have to tell when the agent ends.
const SINKS_END: Duration = Duration::from_secs(3);
/// And beside the sinks of a new policy: all tries of a message that waits, with the pauses between them.
const SINKS_RETIRE: Duration = Duration::from_secs(3600);

/// The threads that find out more about an alert's processes, and who carries out responses.
#[derive(Debug, Default)]
pub(super) struct FollowUp {
    digests: Option<(Digests, mpsc::Receiver<Digested>)>,
    trees: Option<Trees>,
    responder: Option<Responder>,
    /// Who is told; shared with the hook of the alerts.
    sinks: Rc<RefCell<Option<Sinks>>>,
    responded: Option<Instant>,
}

/// A process tree that is wanted: the alert, the process and when that started (CLOCK_BOOTTIME nanoseconds).
type Wanted = (u64, u32, u64);
/// The way to the thread that looks at processes, and back.
type Trees = (SyncSender<Wanted>, Receiver<(u64, Vec<Member>)>);

impl FollowUp {
    /// Starts the threads: after the agent has let go of the rights it does not need.
    pub(super) fn start(&mut self, guarded: &str) {
        match Digests::start() {
            Ok(digests) => self.digests = Some(digests),
            Err(error) => tracing::warn!("{error}"),
        }
        self.trees = trees();
        match Responder::new(guarded) {
            Ok(responder) => self.responder = Some(responder),
            Err(error) => tracing::warn!("nothing can be done about the subjects of alerts: {error}"),
        }
    }
}

fn trees() -> Option<Trees> {
    let (wanted, waiting) = sync_channel::<Wanted>(TREES);
    let (done, found) = sync_channel(TREES);
    let run = move || {
        for (id, pid, start) in waiting {
            if done.send((id, tree(pid, start))).is_err() {
                return;
            }
        }
    };
    match thread::Builder::new().name("portreeve-trees".to_owned()).spawn(run) {
        Ok(_runs_by_itself) => Some((wanted, found)),
        Err(error) => {
            tracing::warn!("no process trees: {error}");
            None
        }
    }
}

impl Agent {
    /// Starts the threads that work for alerts: after the agent has let go of the rights it does not need.
    pub(super) fn start_alerts(&mut self) {
        self.alerts.start();
        let guarded = self.in_force.policy.guard.cgroup.clone();
        self.follow_up.start(&guarded);
        self.start_sinks();
        let sinks = Rc::clone(&self.follow_up.sinks);
        self.alerts.tell_sinks(move |told| {
            if let Some(sinks) = &*sinks.borrow() {
                sinks.tell(told.occasion, &told.alert);
            }
        });
        self.judge_missed();
    }

    /// Tells whom the policy in force names; what the ones before still have to tell, they do in the background.
    pub(super) fn start_sinks(&mut self) {
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let new = Sinks::start(&self.in_force.policy.alert, host.as_deref().unwrap_or("localhost"));
        if let Some(old) = self.follow_up.sinks.borrow_mut().replace(new) {
            old.retire(SINKS_RETIRE);
        }
    }

    /// How those who are told are doing.
    pub(super) fn sinks_status(&self) -> Vec<SinkStatus> {
        self.follow_up.sinks.borrow().as_ref().map(Sinks::status).unwrap_or_default()
    }

    /// Writes and tells what there is, as the agent ends.
    pub(super) fn end_alerts(&mut self) {
        self.judging.keep();
        self.alerts.end();
        if let Some(sinks) = self.follow_up.sinks.borrow_mut().take() {
            // What is given up then, it says itself.
            drop(sinks.stop(SINKS_END));
        }
    }

    /// How long and how much of the alerts is kept.
    pub(super) fn keep(policy: &Policy) -> Keep {
        Keep { age: policy.alert.keep.as_secs(), bytes: policy.alert.keep_bytes }
    }

    /// An alert has opened, or is worse than it was.
    pub(super) fn follow_up(&mut self, told: &Told, attempt: &Attempt) {
        let worse = matches!(told.occasion, Occasion::Opened | Occasion::Reopened | Occasion::Worse);
        if !worse || attempt.pid == 0 {
            return;
        }
        let id = told.alert.id;
        let clock = Clock::now();
        let start = attempt.started.map_or(0, |started| clock.boot_at(started));
        self.alerts.identify(id, None, attempt.package.clone());
        if let Some((digests, _)) = &self.follow_up.digests
            && let Err(error) = digests.ask(id, attempt.pid, start)
        {
            tracing::debug!("no sum for alert {id}: {error}");
        }
        if let Some((wanted, _)) = &self.follow_up.trees
            && wanted.try_send((id, attempt.pid, start)).is_err()
        {
            tracing::debug!("no process tree for alert {id}: too many wait");
        }
        let action = Respond::choose(&self.in_force.policy.respond, &told.alert);
        // Somebody has undone it, and wants the subject left alone until they resolve the alert.
        let undone = told.alert.deeds.iter().any(|deed| deed.undone);
        if action != Action::None && !undone {
            self.respond(id, Some(action), attempt);
        }
    }

    /// What was done about a subject is done to what it has forked since.
    pub(super) fn respond_again(&mut self, subject: SubjectId, attempt: &Attempt) {
        let soon = self.follow_up.responded.is_some_and(|last| last.elapsed() < AGAIN);
        if self.in_force.policy.respond.is_empty() || attempt.pid == 0 || soon {
            return;
        }
        let Some(id) = self.alerts.book().of_subject(subject) else { return };
        let Some(alert) = self.alerts.book().get(id) else { return };
        if alert.state != State::Resolved && !alert.deeds.is_empty() {
            self.respond(id, None, attempt);
        }
    }

    /// Carries out an action, or the one before again, and puts down what was done.
    fn respond(&mut self, id: u64, action: Option<Action>, attempt: &Attempt) {
        let Some(responder) = self.follow_up.responder.clone() else { return };
        self.follow_up.responded = Some(Instant::now());
        let suspect = Suspect::of(attempt, &Clock::now());
        let mut deeds = self.alerts.book().get(id).map(|alert| alert.deeds.clone()).unwrap_or_default();
        let added = match action {
            Some(action) => responder.respond(action, &suspect, &mut deeds, self),
            None => responder.again(&suspect, &mut deeds, self),
        };
        if added == 0 {
            return;
        }
        let latest: Vec<String> = deeds.iter().rev().take(added).rev().take(8).map(ToString::to_string).collect();
        let what = match added {
            0..=8 => latest.join("; "),
            more => format!("{}; and {} more", latest.join("; "), more - latest.len()),
        };
        self.put_down(id, deeds, PORTREEVE, what);
    }

    fn put_down(&mut self, id: u64, deeds: Vec<Deed>, who: &str, what: String) {
        let change = Change { time: Timestamp::now(), who: who.to_owned(), what, note: None };
        if let Err(error) = self.alerts.responded(id, deeds, change) {
            tracing::error!("what was done is not put down: {error}");
        }
    }

    /// Lets the stopped go on and thaws the frozen.
    ///
    /// # Errors
    ///
    /// When there is nothing to undo, or it cannot be undone.
    pub(super) fn undo(&mut self, id: u64, who: &str) -> Result<(), String> {
        let alert = self.alerts.book().get(id).ok_or_else(|| format!("there is no alert {id} in memory"))?;
        let Some(responder) = self.follow_up.responder.clone() else {
            return Err("nothing can be undone: cgroup2 is not mounted".to_owned());
        };
        let mut deeds = alert.deeds.clone();
        let outcomes = responder.undo(&mut deeds);
        if outcomes.is_empty() {
            return Err(format!("nothing was done about alert {id} that could be undone"));
        }
        let failed: Vec<String> = outcomes.iter().filter_map(|o| o.as_ref().err().map(ToString::to_string)).collect();
        let undone = outcomes.len() - failed.len();
        self.put_down(id, deeds, who, format!("undone for {undone} of {}", outcomes.len()));
        match failed.first() {
            Some(first) if undone == 0 => Err(first.clone()),
            Some(_) | None => Ok(()),
        }
    }

    /// Once a second: what was found out, and the detector's state.
    pub(super) fn look_after_alerts(&mut self) {
        while let Some(digested) = self.follow_up.digests.as_mut().and_then(|(_, sums)| sums.try_recv().ok()) {
            match digested.sum {
                Ok(sum) => self.alerts.identify(digested.key, Some(sum), None),
                Err(error) => tracing::debug!("no sum for alert {}: {error}", digested.key),
            }
        }
        let trees: Vec<_> = self.follow_up.trees.iter().flat_map(|(_, found)| found.try_iter()).collect();
        for (id, tree) in trees {
            self.alerts.tree(id, tree);
        }
        self.alerts.tick(Timestamp::now());
        self.judging.tick();
    }
}
