//! `portreeve run`: from the policy file to the loop.

use std::cell::RefCell;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use portreeve_abi::Event;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};

use super::upkeep::{DeviceEvents, stirred};
use super::{Agent, server, takeover};
use crate::instance::Instance;
use crate::kernel::{MapData, RingBuf, decode_event, event_stream};
use crate::policy;
use crate::rights;

/// How often the policy's files and executables are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How often alerts are looked after.
const LOOK_AFTER_ALERTS: Duration = Duration::from_secs(1);
/// How often network namespaces and their devices are looked for.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// How many events are taken before the control socket and the signals have a turn.
const BATCH: usize = 128;

/// What `portreeve run` was told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The policy file.
    pub config: PathBuf,
    /// The instance.
    pub instance: Instance,
    /// The sub-tree of the cgroup2 hierarchy to guard, in place of the policy's.
    pub cgroup: Option<String>,
    /// Attempts as JSON Lines instead of lines for people.
    pub json: bool,
    /// No line for each attempt.
    pub quiet: bool,
    /// Without a policy that can be put in force, refuse everything rather than not start.
    pub closed: bool,
    /// The version of the maps' layout, in place of this agent's: for tests of upgrades.
    pub map_version: Option<u32>,
}

/// Runs until SIGINT or SIGTERM. The guard stays.
///
/// # Errors
///
/// Why the guard could not be put in place, for people, whole.
pub fn run(options: &Options) -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("portreeve run needs root: it loads programs into the kernel; try sudo portreeve run".to_owned());
    }
    options
        .instance
        .make_folders()
        .map_err(|error| format!("cannot make {}: {error}; is /run writable?", options.instance.runtime.display()))?;
    rights::many_files();
    let _lock = takeover::lock(options)?;
    let agent = prepare(options)?;
    // Before there is another thread.
    let writes =
        [Some(options.instance.runtime.as_path()), Some(options.instance.state.as_path()), agent.guard.bpffs()];
    if let Err(error) =
        rights::read_only_but(&writes.into_iter().flatten().filter(|folder| folder.is_dir()).collect::<Vec<_>>())
    {
        tracing::info!("files that the agent need not write stay writable to it: {error}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, serve(options, agent))
}

/// Puts policy and programs in force: the policy first, so that the programs never judge without one.
///
/// A policy that cannot be put in force, for whatever reason, gives way to the last good one: after a boot nothing else
/// guards the port.
fn prepare(options: &Options) -> Result<Agent, String> {
    let mut agent = match start(options, &options.config) {
        Ok(agent) => agent,
        Err(error) => instead(options, &error)?,
    };
    // What runs already is on record before anything is judged by that record.
    let missing = agent.guard.missing();
    agent.guard.watch_execs();
    agent.remember_running();
    agent.guard.attach_calls().map_err(|error| error.to_string())?;
    // Before the second lock, which would let nobody turn them off.
    agent.end_raw_senders();
    agent.guard.attach_more();
    // Before packets are judged, what is connected already gets its verdict.
    agent.guard.end_refused();
    agent.guard.attach_packets().map_err(|error| error.to_string())?;
    // And what was on its way through connect() meanwhile.
    agent.guard.end_refused();
    if let Err(error) = agent.guard.finish_forgetting() {
        tracing::error!("{error}");
    }
    if let Err(error) = agent.guard.carry_over() {
        tracing::error!("counters of another version are not taken over: {error}");
    }
    agent.alarm(missing);
    agent.keep_policy();
    Ok(agent)
}

/// What is put in force when the policy cannot be: the last good one, or with `--closed` one that allows nobody.
fn instead(options: &Options, error: &str) -> Result<Agent, String> {
    let mut error = error.to_owned();
    if let Some(kept) = options.instance.last_good() {
        tracing::error!("{error}");
        tracing::error!("the policy cannot be put in force; the last good one is tried: {}", kept.display());
        match start(options, &kept) {
            Ok(agent) => return Ok(agent),
            Err(other) => error = other,
        }
    }
    if !options.closed {
        return Err(format!("{error}\nthe policy cannot be put in force, and nothing was changed"));
    }
    tracing::error!("{error}");
    tracing::error!("the policy cannot be put in force; until it can, nobody may send");
    let mut nobody = policy::load_text(&options.config, String::new());
    if let (Some(cgroup), Some(policy)) = (&options.cgroup, &mut nobody.policy) {
        policy.guard.cgroup.clone_from(cgroup);
    }
    Agent::start(options, nobody, true)
}

/// Reads a policy and puts it in force, with nothing attached yet.
fn start(options: &Options, config: &Path) -> Result<Agent, String> {
    let mut loaded = policy::load(config);
    if let (Some(cgroup), Some(policy)) = (&options.cgroup, &mut loaded.policy) {
        policy.guard.cgroup.clone_from(cgroup);
    }
    Agent::start(options, loaded, config != options.config)
}

async fn serve(options: &Options, agent: Agent) -> Result<(), String> {
    let fail = |error: io::Error| format!("cannot start: {error}");
    let mut agent = agent;
    let ring = agent.guard.take_events().map_err(|error| error.to_string())?;
    let events = event_stream(ring).map_err(fail)?;
    let stirs = agent.guard.take_stirs().map_err(|error| error.to_string())?;
    let mut stirs = event_stream(stirs).map_err(fail)?;
    let listener = server::bind(&options.instance.socket())
        .map_err(|error| format!("cannot listen at {}: {error}", options.instance.socket().display()))?;
    let (mut interrupt, mut terminate, mut hangup) = (
        signal(SignalKind::interrupt()).map_err(fail)?,
        signal(SignalKind::terminate()).map_err(fail)?,
        signal(SignalKind::hangup()).map_err(fail)?,
    );
    agent.bind_relay();
    if let Err(error) = rights::drop_unneeded() {
        tracing::warn!("rights that are not needed are kept: {error}");
    }
    // They have threads of their own, which must not have more rights.
    agent.start_alerts();
    agent.follow_hosts();
    agent.relay.start();
    let agent = Rc::new(RefCell::new(agent));
    tokio::task::spawn_local(server::serve(listener, Rc::clone(&agent)));
    say(&banner(options, &mut agent.borrow_mut()));
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!("nobody to notify: {error}");
    }
    let print = Rc::new(Printer { json: options.json, quiet: options.quiet });
    tokio::task::spawn_local(pump(events, Rc::clone(&agent), print));
    let leave = agent.borrow().leave.clone();
    let mut devices = DeviceEvents::listen();
    let mut look = tokio::time::interval(LOOK);
    let mut look_around = tokio::time::interval(LOOK_AROUND);
    let mut look_after_alerts = tokio::time::interval(LOOK_AFTER_ALERTS);
    for timer in [&mut look, &mut look_around, &mut look_after_alerts] {
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    }
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hangup.recv() => {
                // The outcome is logged, and shown by `status`.
                if agent.borrow_mut().reload().is_err() {
                    tracing::debug!("not reloaded");
                }
            }
            () = leave.notified() => break,
            _ = look.tick() => {
                let mut agent = agent.borrow_mut();
                agent.look();
                agent.look_after_programs()?;
            }
            () = stirred(&mut stirs, &agent) => agent.borrow_mut().look_after_programs()?,
            _ = look_around.tick() => {
                let mut agent = agent.borrow_mut();
                agent.look_after_devices();
                agent.look_after_senders();
                agent.forget_sources();
            }
            _ = look_after_alerts.tick() => {
                agent.borrow_mut().look_after_alerts();
            }
            () = devices.next() => agent.borrow_mut().look_after_devices(),
        }
    }
    // While it takes its leave, the agent goes on answering on its socket.
    let draining = agent.borrow_mut().relay.drain();
    draining.done().await;
    agent.borrow_mut().end_alerts();
    if let Err(error) = std::fs::remove_file(options.instance.socket()) {
        tracing::debug!("the control socket: {error}");
    }
    let instance = instance_flag(options);
    say(&format!(
        "\nThe agent ends; the port stays guarded, attempts are still counted.\nStart it again: portreeve run{instance}   \
         Open the port: portreeve detach{instance}\n"
    ));
    Ok(())
}

impl Agent {
    fn bind_relay(&mut self) {
        let wanted = self.in_force.policy.relay.clone();
        self.relay.bind(wanted.as_ref());
    }
}

/// Takes events from the ring buffer, records and shows them.
async fn pump(mut events: AsyncFd<RingBuf<MapData>>, agent: Rc<RefCell<Agent>>, print: Rc<Printer>) {
    loop {
        match tokio::time::timeout(LOOK, events.readable_mut()).await {
            Ok(Ok(mut ready)) => {
                if take(ready.get_inner_mut(), &agent, &print) < BATCH {
                    ready.clear_ready();
                }
            }
            Ok(Err(error)) => {
                tracing::error!("the event stream ended: {error}; attempts are still counted");
                return;
            }
            // The kernel wakes the agent only for a record that finds it waiting, and the reactor hears of it once. Should
            // a wake-up ever be missed, records wait no longer than this.
            Err(_quiet) => {
                while take(events.get_mut(), &agent, &print) == BATCH {
                    tokio::task::yield_now().await;
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Takes at most a batch of events, and says how many there were.
fn take(ring: &mut RingBuf<MapData>, agent: &RefCell<Agent>, print: &Printer) -> usize {
    let mut taken = 0;
    while taken < BATCH
        && let Some(bytes) = ring.next()
    {
        taken += 1;
        let mut agent = agent.borrow_mut();
        match decode_event(&bytes) {
            Some(event) => print.attempt(&mut agent, &event),
            None => agent.undecoded += 1,
        }
    }
    taken
}

/// Shows attempts on standard output.
struct Printer {
    json: bool,
    quiet: bool,
}

impl Printer {
    fn attempt(&self, agent: &mut Agent, event: &Event) {
        let Some(attempt) = agent.event(event) else { return };
        if self.quiet {
            return;
        }
        let line = if self.json {
            serde_json::to_string(&*attempt).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
        } else {
            attempt.to_string()
        };
        say(&format!("{line}\n"));
    }
}

/// Writes to standard output; when nobody reads it any more, the agent goes on.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        tracing::trace!("standard output is closed");
    }
}

fn instance_flag(options: &Options) -> String {
    match options.instance.name.as_str() {
        crate::instance::DEFAULT => String::new(),
        name => format!(" --instance {name}"),
    }
}

/// What is guarded, by which hooks, who is sanctioned.
fn banner(options: &Options, agent: &mut Agent) -> String {
    let status = agent.status();
    let ports: Vec<String> = status.policy.ports.iter().map(u16::to_string).collect();
    let does = if agent.observes() { "OBSERVES (nothing is refused)" } else { "guards" };
    let active: Vec<&str> =
        status.hooks.iter().filter(|hook| hook["state"] == "active").filter_map(|hook| hook["name"].as_str()).collect();
    let mut text = format!(
        "Portreeve {} {does} TCP port {} for everything below {}\n  hooks       {}\n",
        status.version,
        ports.join(", "),
        agent.in_force.policy.guard.cgroup,
        active.join(", "),
    );
    if let Err(why) = agent.guard.exec_watch() {
        text.push_str(&format!("              no exec watch, taints are not seen: {why}\n"));
    }
    for (index, rule) in status.policy.rules.iter().enumerate() {
        let label = if index == 0 { "sanctioned" } else { "" };
        text.push_str(&format!("  {label:<10}  {rule}\n"));
    }
    if status.policy.rules.is_empty() {
        text.push_str("  sanctioned  nobody\n");
    }
    text.push_str(&format!("  policy      {}, sha256 {:.12}\n", status.policy.file, status.policy.sha256));
    for warning in &status.policy.warnings {
        text.push_str(warning);
        text.push('\n');
    }
    let instance = instance_flag(options);
    text.push_str(&format!(
        "Ready. One line for each attempt follows. Ctrl-C ends the agent, not the guard; portreeve detach{instance} opens \
         the port.\n\n"
    ));
    text
}
