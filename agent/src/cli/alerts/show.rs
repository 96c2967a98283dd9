//! One alert, to be read.

use super::paint::{Paint, number, plain, span};
use super::{agent_or_store, say};
use crate::alert::{Alert, ChangeError, State};
use crate::attempt::Attempt;
use crate::cli::{Outcome, complain, read};
use crate::control::Request;
use crate::detect::{Evidence, Finding, Kind};
use crate::host::HostName;
use crate::instance::Instance;

/// How many destinations are listed one by one.
const LISTED: usize = 16;
/// How wide a line of prose may get.
const WIDTH: usize = 100;
/// How long the longest bar is.
const BAR: u64 = 40;

/// Shows an alert.
pub(super) fn run(id: u64, json: bool, instance: &Instance) -> Outcome {
    match alert(id, instance) {
        Ok(alert) if json => say(&(serde_json::to_string(&alert).unwrap_or_default() + "\n")),
        Ok(alert) => say(&text(&alert, Paint::for_stdout())),
        Err(outcome) => return outcome,
    }
    Outcome::Done
}

/// The alert of a number. An error is what the command ends with; everything is said already.
pub(super) fn alert(id: u64, instance: &Instance) -> Result<Alert, Outcome> {
    match agent_or_store(instance, &Request::Alert { id })? {
        Ok(client) => client.answer().map_err(|error| complain(&error)).and_then(read),
        Err(glimpse) => match glimpse.read(id) {
            Ok(Some(alert)) => Ok(alert),
            Ok(None) => Err(fail(&ChangeError::NoSuchAlert(id).to_string())),
            Err(why) => Err(fail(&why)),
        },
    }
}

fn fail(why: &str) -> Outcome {
    eprintln!("portreeve: {why}");
    Outcome::Failed
}

/// The whole story.
fn text(alert: &Alert, paint: Paint) -> String {
    let mut page = Page { paint, text: String::new() };
    let severity = paint.severity(alert.severity, &alert.severity.name().to_uppercase());
    page.line(&format!("Alert {}  {severity}  {}", alert.id, state(alert)));
    page.line(&plain(&alert.who.name));
    what(&mut page, alert);
    why(&mut page, alert);
    who(&mut page, alert);
    whither(&mut page, alert);
    page.list("What would have cleared it", &alert.clear);
    page.list("What to do next", &alert.next);
    history(&mut page, alert);
    page.text
}

fn state(alert: &Alert) -> String {
    let since = alert.quiet_since.map(|quiet| format!(", quiet since {}", quiet.strftime("%Y-%m-%d %H:%M:%SZ")));
    let resolution = alert.resolution.map(|resolution| format!(" as {resolution}"));
    let quiet = since.filter(|_| alert.state != State::Resolved);
    format!("{}{}{}", alert.state, resolution.unwrap_or_default(), quiet.unwrap_or_default())
}

fn what(page: &mut Page, alert: &Alert) {
    page.heading("What happened");
    let lasted = alert.last.as_second() - alert.first.as_second();
    page.field("attempts", &format!("{} in {}", number(alert.attempts), span(lasted)));
    let passed = alert.attempts.saturating_sub(alert.refused + alert.local);
    let mut became = vec![format!("{} refused", number(alert.refused))];
    if alert.local > 0 {
        became.push(format!("{} handed to the local mail server", number(alert.local)));
    }
    if passed > 0 {
        became.push(format!("{} allowed", number(passed)));
    }
    page.field("of these", &became.join(", "));
    page.field("first", &at(alert.first));
    let after = alert.opened.as_second() - alert.first.as_second();
    page.field("found", &format!("{}, after {}", at(alert.opened), span(after)));
    page.field("last", &at(alert.last));
    if alert.episodes > 1 {
        page.field("episodes", &alert.episodes.to_string());
    }
}

fn why(page: &mut Page, alert: &Alert) {
    page.heading("Why it is suspected");
    for kind in alert.tests() {
        let of_kind: Vec<&Finding> = alert.findings.iter().filter(|finding| finding.kind == kind).collect();
        let Some(latest) = of_kind.last() else { continue };
        let more = if of_kind.len() > 1 { format!(", the latest of {} times", of_kind.len()) } else { String::new() };
        let severity = page.paint.severity(latest.severity, latest.severity.name());
        page.line(&format!("  {} ({severity}), {}{more}", kind.name(), at(latest.time)));
        page.prose("    ", &format!("It {}: {}.", meaning(kind), numbers(latest)));
        page.prose("    ", &walk(&latest.evidence));
    }
}

/// What a test says, after "it".
fn meaning(kind: Kind) -> String {
    match kind {
        Kind::ManyPrograms => format!("is many programs: {}", kind.means()),
        Kind::FanOut | Kind::Hammer | Kind::Persistent | Kind::LocalPath => kind.means().to_owned(),
    }
}

fn numbers(finding: &Finding) -> String {
    let evidence = &finding.evidence;
    let mut words = vec![counted(evidence.destinations.into(), "destination")];
    words.push(counted(evidence.attempts, "attempt"));
    if evidence.local > 0 {
        words.push(format!("{} handed to the local mail server", number(evidence.local)));
    }
    let first = evidence.first.map(|first| finding.time.as_second() - first.as_second());
    let within = first.map(|seconds| format!(" within {}", span(seconds))).unwrap_or_default();
    format!("{}{within}", words.join(", "))
}

/// The state of the test, in words.
fn walk(evidence: &Evidence) -> String {
    let reached = evidence.walk + evidence.prior;
    let signs: Vec<String> =
        evidence.signs.iter().map(|sign| format!("{} {:+.1}", plain(&sign.sign), sign.weight)).collect();
    let is = if signs.is_empty() {
        "nothing by what it is".to_owned()
    } else {
        format!("{:.1} by what it is ({})", evidence.prior, signs.join(", "))
    };
    let one_in = if evidence.alpha > 0.0 { (1.0 / evidence.alpha).round() } else { 0.0 };
    let rare = if (1.0..1e15).contains(&one_in) {
        format!(
            " A harmless program without signs gets that far in at most one test of {}; this was test {} of its day.",
            number(rounded(one_in)),
            evidence.tests_today
        )
    } else {
        String::new()
    };
    format!(
        "The test decides at {:.1} nats of evidence and came to {reached:.1}: {:.1} by what it did ({} against it, {} in its favour), {is}.{rare}",
        evidence.threshold,
        evidence.walk,
        counted(evidence.against.into(), "observation"),
        evidence.in_favour,
    )
}

/// Two digits are all that a bound is good for.
fn rounded(number: f64) -> u64 {
    let unit = 10f64.powf((number.log10().floor() - 1.0).max(0.0));
    ((number / unit).floor() * unit) as u64
}

fn who(page: &mut Page, alert: &Alert) {
    page.heading("Who it is");
    let who = &alert.who;
    let worst = alert.worst.as_ref();
    let or_unknown = |text: &Option<String>| text.as_deref().map_or("not known".to_owned(), plain);
    if let Some(address) = &who.address {
        page.field("host", &plain(address));
        let named = worst.and_then(|worst| worst.host.as_ref()).map(HostName::shown);
        let card = who.mac.as_ref().map(|mac| match &who.vendor {
            Some(vendor) => format!("{mac} ({vendor})"),
            None => mac.clone(),
        });
        for (name, value) in [("name", &named), ("card", &card), ("interface", &who.interface), ("vlan", &who.vlan)] {
            if let Some(value) = value {
                page.field(name, &plain(value));
            }
        }
        if let Some(count) = worst.filter(|worst| worst.has_many_addresses()).map(|worst| worst.mac_addresses) {
            page.field("addresses", &format!("{count} lately by this card: a router, or one that makes them up"));
        }
    } else {
        let gone = match worst {
            Some(worst) if worst.exe_in_memory => " (only in memory)",
            Some(worst) if worst.exe_deleted => " (its file is deleted)",
            _ => "",
        };
        let exe = who.exe.clone().or_else(|| worst.and_then(|worst| worst.exe.clone()));
        page.field("program", &(or_unknown(&exe) + gone));
        page.field("sha256", &or_unknown(&alert.sha256));
        page.field("package", &alert.package.as_deref().map_or("none that is known".to_owned(), plain));
    }
    let fields = [("script", &who.script), ("unit", &who.unit)];
    for (name, value) in fields {
        if let Some(value) = value {
            page.field(name, &plain(value));
        }
    }
    if let Some(container) = &who.container {
        page.field("container", &plain(&format!("{} {:.12}", container.runtime, container.id)));
    }
    if who.address.is_none() {
        let number = who.euid.map(|euid| format!(" ({euid})")).unwrap_or_default();
        page.field("user", &(plain(&who.user()) + &number));
    }
    if let Some(worst) = worst.filter(|worst| worst.pid != 0) {
        if let Some(cwd) = &worst.cwd {
            page.field("folder", &plain(cwd));
        }
        if !worst.taint.is_empty() {
            page.field("tainted", &worst.taint.join(", "));
        }
        page.line(&format!("  The processes at the worst moment, {}:", at(worst.time)));
        tree(page, worst);
    }
}

/// The process below its ancestors, the oldest first.
fn tree(page: &mut Page, worst: &Attempt) {
    let mut depth = 0;
    for parent in worst.parents.iter().rev() {
        page.branch(depth, &format!("{} {} (uid {})", parent.pid, plain(&parent.comm), parent.uid));
        depth += 1;
    }
    let line = if worst.cmdline.is_empty() { worst.comm.clone() } else { worst.cmdline.join(" ") };
    page.branch(depth, &format!("{} {} (uid {})", worst.pid, plain(&line), worst.euid));
}

fn whither(page: &mut Page, alert: &Alert) {
    if alert.attempts == 0 {
        return;
    }
    page.heading("Where it went");
    let most = alert.destinations.iter().map(|to| to.attempts).max().unwrap_or(1).max(1);
    let listed = &alert.destinations[..alert.destinations.len().min(LISTED)];
    let width = listed.iter().map(|to| to.to.len()).max().unwrap_or(0);
    for to in listed {
        let bar = "#".repeat(usize::try_from((to.attempts * BAR / most).max(1)).unwrap_or(1));
        page.line(&format!("  {:<width$} {:>9}  {bar}", plain(&to.to), number(to.attempts)));
    }
    let more: u64 = alert.destinations.iter().skip(LISTED).map(|to| to.attempts).sum();
    if more > 0 {
        let others = counted((alert.destinations.len() - LISTED) as u64, "other");
        page.line(&format!("  {:<width$} {:>9}", others, number(more)));
    }
    if alert.elsewhere > 0 {
        let elsewhere = "elsewhere, or before it was found";
        page.line(&format!("  {elsewhere:<width$} {:>9}", number(alert.elsewhere)));
    }
}

fn history(page: &mut Page, alert: &Alert) {
    page.heading("History");
    for change in &alert.history {
        let note = change.note.as_ref().map(|note| format!(": {}", plain(note))).unwrap_or_default();
        page.line(&format!("  {}  {}  {}{note}", at(change.time), plain(&change.who), plain(&change.what)));
    }
}

fn at(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

fn counted(n: u64, what: &str) -> String {
    format!("{} {what}{}", number(n), if n == 1 { "" } else { "s" })
}

/// What is being written.
struct Page {
    paint: Paint,
    text: String,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn heading(&mut self, heading: &str) {
        let heading = self.paint.heading(heading);
        self.line(&format!("\n{heading}"));
    }

    fn field(&mut self, name: &str, value: &str) {
        self.line(&format!("  {name:<10} {value}"));
    }

    fn branch(&mut self, depth: usize, text: &str) {
        let mark = if depth == 0 { String::new() } else { " ".repeat(3 * (depth - 1)) + "\\_ " };
        self.line(&format!("    {mark}{text}"));
    }

    fn list(&mut self, heading: &str, points: &[String]) {
        if points.is_empty() {
            return;
        }
        self.heading(heading);
        for point in points {
            let mut lines = point.lines();
            self.prose("  - ", &plain(lines.next().unwrap_or_default()));
            // Commands stay whole, to be copied.
            for command in lines {
                self.line(&format!("      {}", plain(command)));
            }
        }
    }

    /// Text in lines, the second and later ones below the first.
    fn prose(&mut self, indent: &str, text: &str) {
        let mut line = indent.to_owned();
        let below = " ".repeat(indent.len());
        let mut empty = true;
        for word in text.split(' ') {
            if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.line(&line);
                line.clone_from(&below);
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
            empty = false;
        }
        self.line(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::examples;

    /// What an administrator reads. Written anew with `UPDATE_EXPECTED=1`, and to be read then.
    #[test]
    fn an_alert_tells_its_whole_story() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/alerts/show.txt");
        let shown = text(&examples::alert(), Paint::off());
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(file, &shown).unwrap();
        }
        assert_eq!(shown, std::fs::read_to_string(file).unwrap());
    }

    #[test]
    fn every_test_reads_as_a_sentence_and_no_control_character_gets_through() {
        for kind in Kind::ALL {
            let mut alert = examples::alert();
            alert.findings[0].kind = kind;
            alert.who.name = "/tmp/\x1b[2J".to_owned();
            alert.history[0].note = Some("\x07".to_owned());
            let shown = text(&alert, Paint::off());
            assert!(shown.contains(kind.means().split(' ').next().unwrap()));
            assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown}");
        }
    }

    #[test]
    fn odds_are_rounded_to_what_they_are_worth() {
        assert_eq!([1.0, 9.0, 16_393.4, 123_456.0].map(rounded), [1, 9, 16_000, 120_000]);
    }
}
