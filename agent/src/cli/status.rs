//! `portreeve status`

mod relay;

use std::time::{Duration, Instant};

use clap::Args as ClapArgs;

use super::{Outcome, ask, complain, read, say};
use crate::agent::Status;
use crate::control::{Client, ClientError, Request};
use crate::instance::Instance;

/// Say what is guarded, by which hooks, and what was counted
#[derive(Debug, ClapArgs)]
#[command(after_help = "Exit code 0: guarding; 1: a hook is not attached; 3: no agent is running.\n\n\
                        Example: portreeve status --wait=10 --json | jq .counters")]
pub(super) struct Args {
    /// As one line of JSON
    #[arg(long)]
    json: bool,
    /// Wait until the agent is ready, at most so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "30", require_equals = true)]
    wait: Option<u64>,
}

pub(super) fn run(args: &Args, instance: &Instance) -> Outcome {
    if let Some(seconds) = args.wait
        && let Err(outcome) = wait(instance, Duration::from_secs(seconds))
    {
        return outcome;
    }
    let value = match ask(instance, &Request::Status) {
        Ok(value) => value,
        Err(outcome) => return outcome,
    };
    let status: Status = match read(value.clone()) {
        Ok(status) => status,
        Err(outcome) => return outcome,
    };
    if args.json {
        say(&format!("{value}\n"));
    } else {
        say(&text(&status));
    }
    if status.state == "guarding" { Outcome::Done } else { Outcome::Failed }
}

/// The agent listens once its guard is in place, so that an answer is all there is to wait for.
fn wait(instance: &Instance, patience: Duration) -> Result<(), Outcome> {
    let deadline = Instant::now() + patience;
    loop {
        match Client::ask(&instance.socket(), &Request::Status).and_then(Client::answer) {
            Ok(_) => return Ok(()),
            Err(ClientError::NotRunning(_) | ClientError::Broken(_)) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(complain(&error)),
        }
    }
}

fn text(status: &Status) -> String {
    let policy = &status.policy;
    let ports: Vec<String> = policy.ports.iter().map(u16::to_string).collect();
    let mode = match (policy.mode.as_str(), policy.mode_by_command) {
        ("observe", true) => "observe, by command: nothing is refused",
        ("observe", false) => "observe: nothing is refused",
        (_, true) => "enforce, by command",
        (_, false) => "enforce",
    };
    let below = match policy.cgroup.as_str() {
        "" | "/" => String::new(),
        cgroup => format!("; only below {cgroup}"),
    };
    let mut lines = vec![
        format!("{:<12}{} (agent {}, pid {})", "state", status.state, status.version, status.pid),
        format!("{:<12}{mode}; TCP {}; refused with {}{below}", "guard", ports.join(", "), policy.refuse_with),
    ];
    for hook in &status.hooks {
        let name = hook["name"].as_str().unwrap_or("?");
        let state = hook["state"].as_str().unwrap_or("?");
        let ids = match (hook["link"].as_u64(), hook["program"].as_u64()) {
            (Some(link), Some(program)) => format!(" (link {link}, program {program})"),
            _ => String::new(),
        };
        let by = hook["by"].as_str().map(|by| format!(" ({by})")).unwrap_or_default();
        let why = hook["why"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
        lines.push(format!("{:<12}{name} {state}{ids}{by}{why}", if name == "connect4" { "hooks" } else { "" }));
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        lines.push(format!("{:<12}{rule}", if index == 0 { "sanctioned" } else { "" }));
    }
    if let Some(gateway) = &status.gateway {
        let ports: Vec<String> = gateway.ports.iter().map(u16::to_string).collect();
        lines.push(format!(
            "{:<12}{}; TCP {} for LAN hosts; refused with {}; {} hosts counted",
            "gateway",
            gateway.mode,
            ports.join(", "),
            gateway.refuse_with,
            gateway.sources
        ));
        lines.extend(gateway.rules.iter().map(|rule| format!("{:<12}{rule}", "")));
        lines.extend(gateway.troubles.iter().map(|trouble| format!("{:<12}{trouble}", "warning")));
        if gateway.networks > 0 {
            let count = gateway.networks;
            lines.push(format!(
                "{:<12}{count} of these are networks: of too many hosts, or of some not seen for long",
                ""
            ));
        }
        if gateway.uncounted > 0 {
            let count = gateway.uncounted;
            lines.push(format!("{:<12}{count} attempts of LAN hosts are in the totals alone: too many sources", ""));
        }
    }
    if let Some(relay) = &status.relay {
        lines.extend(relay::lines(relay));
    }
    let since = policy.since.strftime("%Y-%m-%dT%H:%M:%SZ");
    lines.push(format!("{:<12}{}, generation {}, since {since}", "policy", policy.file, policy.generation));
    if policy.last_good {
        lines.push(format!("{:<12}the file does not check: this is the last good policy", ""));
    }
    let counters = &status.counters;
    lines.push(format!(
        "{:<12}{} refused, {} allowed, {} observed, {} local, by {} subjects",
        "attempts", counters.refused, counters.allowed, counters.observed, counters.local, status.subjects
    ));
    if counters.dropped > 0 {
        lines.push(format!("{:<12}{} packets and frames dropped", "", counters.dropped));
    }
    let ended = &status.connections_ended;
    if ended.destroyed + ended.starved > 0 {
        lines.push(format!(
            "{:<12}of connections that were there already, {} ended and {} left without a way out",
            "", ended.destroyed, ended.starved
        ));
    }
    let lost = &status.lost;
    if lost.shed + lost.not_stored + lost.uncounted_by_subject > 0 {
        lines.push(format!(
            "{:<12}details of {} attempts shed, {} not written to disk, {} in no subject's count; the figures above are exact",
            "", lost.shed, lost.not_stored, lost.uncounted_by_subject
        ));
    }
    for alarm in &status.alarms {
        lines.push(format!("{:<12}{} {}", "ALARM", alarm.time.strftime("%Y-%m-%dT%H:%M:%SZ"), alarm.what));
    }
    let alerts = &status.alerts;
    let unresolved = alerts.open + alerts.acknowledged;
    if unresolved > 0 {
        lines.push(format!(
            "{:<12}{} open, {} acknowledged; {} critical (portreeve alerts)",
            "alerts", alerts.open, alerts.acknowledged, alerts.by_severity.critical
        ));
    }
    if let Some(why) = &alerts.broken {
        lines.push(format!("{:<12}alerts are only kept in memory: {why}", "warning"));
    }
    for (index, sink) in status.sinks.iter().enumerate() {
        let mut line = format!("{}: {} delivered", sink.name, sink.delivered);
        for (number, what) in [(sink.queued, "waiting"), (sink.dropped, "dropped"), (sink.dead, "given up")] {
            if number > 0 {
                line.push_str(&format!(", {number} {what}"));
            }
        }
        if let Some(error) = &sink.last_error {
            line.push_str(&format!("; last error: {error}"));
        }
        lines.push(format!("{:<12}{line}", if index == 0 { "told" } else { "" }));
    }
    if let Some(why) = &status.store_broken {
        lines.push(format!("{:<12}attempts are only kept in memory: {why}", "warning"));
    }
    if let Some(failure) = &policy.last_failure {
        lines.push(format!("{:<12}the last reload changed nothing:\n{failure}", "warning"));
    }
    lines.extend(policy.warnings.iter().cloned());
    lines.join("\n") + "\n"
}
