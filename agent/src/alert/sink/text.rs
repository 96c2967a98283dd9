//! Notices and summaries as text, for people.

use jiff::Timestamp;

use super::message::{Message, Notice, Summary};
use crate::alert::{Alert, Occasion};
use crate::detect::Finding;

/// How many destinations a notice lists.
const DESTINATIONS: usize = 10;

/// A message as a text of several lines.
pub(super) fn text(message: &Message, host: &str) -> String {
    match message {
        Message::Notice(notice) => of_notice(notice, host),
        Message::Summary(summary) => of_summary(summary, host),
    }
}

/// A text of others, made harmless for terminals, logs and mail headers: whoever names a program chooses its bytes.
/// Control characters and those that turn the direction of writing become U+FFFD.
pub(super) fn printable(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|c| if harmful(c) { '\u{fffd}' } else { c }).collect()
}

/// The first `most` characters of a text, with an ellipsis if that is not all.
pub(super) fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// A summary's table, one line an alert, the worst first.
pub(super) fn table(summary: &Summary) -> String {
    let mut table = format!("{:>7}  {:<8}  {:>8}  {:>8}  {}\n", "alert", "severity", "attempts", "refused", "subject");
    for alert in &summary.top {
        let name = shorten(&printable(&alert.who.name), 80);
        let (id, severity, attempts, refused) = (alert.id, alert.severity.name(), alert.attempts, alert.refused);
        table += &format!("{id:>7}  {severity:<8}  {attempts:>8}  {refused:>8}  {name}\n");
    }
    let left = summary.alerts - summary.top.len();
    if left > 0 {
        table += &format!("and {left} more\n");
    }
    table
}

/// What happened to the alert, as one sentence.
pub(super) fn opening(notice: &Notice) -> String {
    let alert = &notice.alert;
    let id = alert.id;
    let by = |done: &str| match alert.history.last() {
        Some(change) => {
            let note = change.note.as_ref().map(|note| format!(": {}", printable(note))).unwrap_or_default();
            format!("Alert {id} was {done} by {}{note}.", printable(&change.who))
        }
        None => format!("Alert {id} was {done}."),
    };
    match notice.occasion {
        Occasion::Opened => format!("Alert {id} is new."),
        Occasion::Reopened => {
            format!("Alert {id} is open again: the subject came back, for episode {}.", alert.episodes)
        }
        Occasion::Worse => format!("Alert {id} is worse than it was."),
        Occasion::Quiet => format!("Alert {id}: the subject has made no attempt for a while."),
        Occasion::Acknowledged => by("acknowledged"),
        Occasion::Resolved => match alert.resolution {
            Some(resolution) => by(&format!("resolved as {resolution}")),
            None => by("resolved"),
        },
        Occasion::Responded => match alert.history.last() {
            Some(change) => format!("Alert {id}: the agent has acted: {}.", printable(&change.what)),
            None => format!("Alert {id}: the agent has acted."),
        },
    }
}

fn of_summary(summary: &Summary, host: &str) -> String {
    let counts = |counts: Vec<String>| counts.join(", ");
    let severities = counts(summary.by_severity.iter().map(|(name, count)| format!("{count} {name}")).collect());
    let tests = counts(summary.by_test.iter().map(|(name, count)| format!("{name} {count}")).collect());
    let seconds = summary.took().as_secs();
    let mut text = format!("{} alerts on {host} within {seconds} s, told together.\n\n", summary.alerts);
    text += &format!("  severity  {severities}\n  found by  {tests}\n  from      {}\n", time(summary.from));
    text += &format!("  to        {}\n  notices   {}\n", time(summary.to), summary.notices);
    if summary.uncounted > 0 {
        text += &format!("            {} of them came too fast to be counted above\n", summary.uncounted);
    }
    text += &format!("\n{}\nAll of them, on {host}:\n\n    portreeve alerts\n", table(summary));
    text
}

fn of_notice(notice: &Notice, host: &str) -> String {
    let alert = &notice.alert;
    let mut text = format!("{}\n\n  {}\n", opening(notice), printable(&alert.who.name));
    text += &format!("  on {host}: {}, {}\n", alert.severity, alert.state);
    section(&mut text, "What was found", &alert.findings.iter().rev().take(3).map(finding).collect::<Vec<_>>());
    section(&mut text, "Who", &who(alert));
    section(&mut text, "When and how much", &how_much(alert));
    section(&mut text, "Where to", &destinations(alert));
    section(&mut text, "The process tree at the worst moment", &tree(alert));
    section(&mut text, "What would have cleared it", &listed(&alert.clear));
    section(&mut text, "What to do next", &listed(&alert.next));
    let history: Vec<String> = alert.history.iter().rev().take(5).rev().map(change).collect();
    section(&mut text, "What was done", &history);
    text += &format!("\nAll of it, on {host}:\n\n    portreeve alerts show {}\n", alert.id);
    text
}

fn section(text: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    *text += &format!("\n{title}\n");
    for line in lines.iter().flat_map(|line| line.split('\n')) {
        *text += &format!("  {line}\n");
    }
}

fn listed(lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| format!("- {}", printable(line))).collect()
}

fn finding(finding: &Finding) -> String {
    let evidence = &finding.evidence;
    let mut text = format!("{}: {}\n", finding.kind, finding.kind.means());
    text += &format!(
        "    {} attempts, {} refused, {} destinations",
        evidence.attempts, evidence.refused, evidence.destinations
    );
    if evidence.local > 0 {
        text += &format!(", {} by the local mail server", evidence.local);
    }
    let reached = evidence.walk + evidence.prior;
    text += &format!("\n    evidence {reached:.1} of the {:.1} needed", evidence.threshold);
    if evidence.alpha > 0.0 {
        let once = 1.0 / evidence.alpha;
        text += &format!(", which a program without fault reaches in one of {once:.0} tests");
    }
    let signs: Vec<String> =
        evidence.signs.iter().map(|sign| format!("{} {:+.1}", printable(&sign.sign), sign.weight)).collect();
    if !signs.is_empty() {
        text += &format!("\n    signs: {}", signs.join(", "));
    }
    text
}

fn who(alert: &Alert) -> Vec<String> {
    let who = &alert.who;
    let user = match (&who.user, who.euid) {
        (Some(name), Some(euid)) => Some(format!("{name} ({euid})")),
        (Some(name), None) => Some(name.clone()),
        (None, euid) => euid.map(|euid| euid.to_string()),
    };
    let container = who.container.as_ref().map(|container| format!("{} {}", container.runtime, container.id));
    let known = [
        ("program", who.exe.clone()),
        ("script", who.script.clone()),
        ("user", user),
        ("unit", who.unit.clone()),
        ("container", container),
        ("address", who.address.clone()),
        ("mac", who.mac.clone()),
        ("vendor", who.vendor.clone()),
        ("interface", who.interface.clone()),
        ("vlan", who.vlan.clone()),
        ("package", alert.package.clone()),
        ("SHA-256", alert.sha256.clone()),
    ];
    known.into_iter().filter_map(|(name, value)| Some(format!("{name:<10} {}", printable(&value?)))).collect()
}

fn how_much(alert: &Alert) -> Vec<String> {
    let mut lines = vec![
        format!("{:<10} {}", "first", time(alert.first)),
        format!("{:<10} {}", "found", time(alert.opened)),
        format!("{:<10} {}", "last", time(alert.last)),
        format!("{:<10} {}, of them refused {}", "attempts", alert.attempts, alert.refused),
    ];
    if alert.local > 0 {
        lines.push(format!("{:<10} {} handed to the local mail server", "", alert.local));
    }
    lines
}

fn destinations(alert: &Alert) -> Vec<String> {
    let mut shown: Vec<String> = alert.destinations.iter().take(DESTINATIONS).map(destination).collect();
    let rest = alert.destinations.iter().skip(DESTINATIONS);
    let (count, attempts) = (rest.len(), rest.map(|rest| rest.attempts).sum::<u64>() + alert.elsewhere);
    if attempts > 0 {
        let more = if alert.elsewhere > 0 { "more than " } else { "" };
        shown.push(format!("{attempts:>7}  to {more}{count} others"));
    }
    shown
}

fn destination(destination: &crate::alert::Destination) -> String {
    format!("{:>7}  {}", destination.attempts, printable(&destination.to))
}

/// From the top down, each below its parent.
fn tree(alert: &Alert) -> Vec<String> {
    let Some(worst) = &alert.worst else { return Vec::new() };
    let above: Vec<String> = worst
        .parents
        .iter()
        .rev()
        .map(|parent| format!("{} {} (uid {})", parent.pid, printable(&parent.comm), parent.uid))
        .collect();
    let program = if worst.cmdline.is_empty() { worst.comm.clone() } else { worst.cmdline.join(" ") };
    let own = format!("{} {} (uid {})", worst.pid, shorten(&printable(&program), 120), worst.euid);
    let own = if worst.pid == 0 { Vec::new() } else { vec![own] };
    above.into_iter().chain(own).enumerate().map(|(depth, line)| format!("{}{line}", "  ".repeat(depth))).collect()
}

fn change(change: &crate::alert::Change) -> String {
    let note = change.note.as_ref().map(|note| format!(": {}", printable(note))).unwrap_or_default();
    format!("{}  {} by {}{note}", time(change.time), printable(&change.what), printable(&change.who))
}

fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}
