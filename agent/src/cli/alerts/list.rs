//! The list of alerts, and what happens to them.

use std::cmp::Reverse;
use std::io::Write as _;

use serde_json::Value;

use super::paint::{Paint, number, plain};
use super::{agent_or_store, say};
use crate::alert::{Alert, DESTINATIONS, Filter, Glimpse, Occasion};
use crate::cli::{Outcome, complain};
use crate::control::{AlertLine, Client, Lost, Request};
use crate::instance::Instance;

/// Lists alerts; with `follow`, goes on with what happens to them.
pub(super) fn run(filter: &Filter, follow: bool, json: bool, instance: &Instance) -> Outcome {
    let request = Request::Alerts { filter: filter.clone(), follow };
    if follow {
        return match Client::ask(&instance.socket(), &request) {
            Ok(client) => go_on(client, json),
            Err(error) => complain(&error),
        };
    }
    let found = match agent_or_store(instance, &request) {
        Ok(Ok(client)) => ask(client),
        Ok(Err(glimpse)) => look(&glimpse, filter),
        Err(outcome) => Err(outcome),
    };
    let mut alerts = match found {
        Ok(alerts) => alerts,
        Err(outcome) => return outcome,
    };
    alerts.sort_by_key(|alert| (alert.state, Reverse(alert.severity), Reverse(alert.last), alert.id));
    if json {
        let mut out = std::io::stdout().lock();
        for alert in &alerts {
            let line = serde_json::to_string(alert).unwrap_or_default();
            // Whoever reads has seen enough (head).
            if writeln!(out, "{line}").is_err() {
                break;
            }
        }
    } else if alerts.is_empty() {
        say(if filter.all {
            "no alerts\n"
        } else {
            "no alerts (portreeve alerts --all lists the resolved ones too)\n"
        });
    } else {
        say(&table(&alerts, Paint::for_stdout()));
    }
    Outcome::Done
}

fn ask(mut client: Client) -> Result<Vec<Alert>, Outcome> {
    let mut alerts = Vec::new();
    while let Some(value) = client.next_line().map_err(|error| complain(&error))? {
        alerts.push(crate::cli::read(value)?);
    }
    Ok(alerts)
}

fn look(glimpse: &Glimpse, filter: &Filter) -> Result<Vec<Alert>, Outcome> {
    let (mut alerts, mut before) = (Vec::new(), Some(u64::MAX));
    while let Some(from) = before {
        let page = glimpse.list(filter, from).map_err(|why| {
            eprintln!("portreeve: {why}");
            Outcome::Failed
        })?;
        alerts.extend(page.alerts);
        before = page.before;
    }
    Ok(alerts)
}

fn go_on(mut client: Client, json: bool) -> Outcome {
    let paint = Paint::for_stdout();
    loop {
        match client.next_line() {
            Ok(Some(value)) => {
                if show(value, json, paint).is_err() {
                    return Outcome::Done;
                }
            }
            Ok(None) => return Outcome::Done,
            Err(error) => return complain(&error),
        }
    }
}

fn show(value: Value, json: bool, paint: Paint) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{value}")?;
    } else if let Ok(line) = serde_json::from_value::<AlertLine>(value.clone()) {
        writeln!(out, "{}", told(&line, paint))?;
    } else if let Ok(Lost { lost }) = serde_json::from_value(value) {
        writeln!(out, "({lost} messages came too fast to be shown; `portreeve alerts` has what they were about)")?;
    }
    out.flush()
}

/// What has happened to an alert, in one line.
fn told(line: &AlertLine, paint: Paint) -> String {
    let alert = &line.alert;
    let change = alert.history.last();
    let time = change.map_or(alert.last, |change| change.time).strftime("%Y-%m-%dT%H:%M:%SZ");
    let occasion = line.occasion.map_or(alert.state.name(), Occasion::name);
    let by = change.filter(|change| change.who != crate::alert::PORTREEVE).map(|change| format!(" by {}", change.who));
    let severity = paint.severity(alert.severity, &format!("{:<8}", alert.severity.name()));
    format!(
        "{time}  {severity}  alert {} {occasion}{}: {} ({}; {} attempts)",
        alert.id,
        plain(&by.unwrap_or_default()),
        plain(&alert.who.name),
        tests(alert),
        number(alert.attempts)
    )
}

/// The alerts as a table.
fn table(alerts: &[Alert], paint: Paint) -> String {
    let heads = ["ID", "SEVERITY", "STATE", "LAST", "SUBJECT", "TESTS", "ATTEMPTS", "TO"].map(str::to_owned);
    let rows: Vec<[String; 8]> = alerts.iter().map(row).collect();
    let mut widths = [0; 8];
    for row in rows.iter().chain([&heads]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = paint.heading(&line(&heads, &widths)) + "\n";
    for (alert, row) in alerts.iter().zip(&rows) {
        let plain = line(row, &widths);
        // The colour goes around the word, so that the columns stay where they are.
        let word = alert.severity.name();
        text.push_str(&plain.replacen(word, &paint.severity(alert.severity, word), 1));
        text.push('\n');
    }
    text
}

fn row(alert: &Alert) -> [String; 8] {
    let more = if alert.destinations.len() == DESTINATIONS { "+" } else { "" };
    [
        alert.id.to_string(),
        alert.severity.name().to_owned(),
        state(alert),
        alert.last.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        plain(&alert.who.name),
        tests(alert),
        number(alert.attempts),
        format!("{}{more}", alert.destinations.len()),
    ]
}

/// The numbers to the right, the words to the left.
fn line(cells: &[String; 8], widths: &[usize; 8]) -> String {
    let mut text = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let space = " ".repeat(width - cell.chars().count());
        let gap = if column == 0 { "" } else { "  " };
        if matches!(column, 0 | 6 | 7) {
            text.push_str(&format!("{gap}{space}{cell}"));
        } else {
            text.push_str(&format!("{gap}{cell}{space}"));
        }
    }
    text
}

fn state(alert: &Alert) -> String {
    match (alert.resolution, alert.quiet_since) {
        (Some(resolution), _) => resolution.name().to_owned(),
        (None, Some(_)) => format!("{}, quiet", alert.state),
        (None, None) => alert.state.name().to_owned(),
    }
}

fn tests(alert: &Alert) -> String {
    alert.tests().into_iter().map(crate::detect::Kind::name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::examples::{self, at};
    use crate::alert::{Resolution, State};
    use crate::detect::Severity;

    #[test]
    fn the_list_is_a_table() {
        let bot = examples::alert();
        let mut quiet = Alert { id: 9, severity: Severity::Warning, state: State::Open, ..bot.clone() };
        quiet.quiet_since = Some(at(40));
        quiet.attempts = 12_345;
        let resolution = Some(Resolution::Misconfigured);
        let done = Alert { id: 8, severity: Severity::Notice, state: State::Resolved, resolution, ..bot.clone() };
        let expected = "\
ID  SEVERITY  STATE          LAST                  SUBJECT                                       TESTS    ATTEMPTS  TO
17  critical  acknowledged   2026-11-24 10:00:39Z  /tmp/.x/sendd as www-data in apache2.service  fan-out        40   9
 9  warning   open, quiet    2026-11-24 10:00:39Z  /tmp/.x/sendd as www-data in apache2.service  fan-out    12,345   9
 8  notice    misconfigured  2026-11-24 10:00:39Z  /tmp/.x/sendd as www-data in apache2.service  fan-out        40   9
";
        assert_eq!(table(&[bot.clone(), quiet, done], Paint::off()), expected);
        let line = AlertLine { occasion: Some(Occasion::Acknowledged), alert: bot };
        assert_eq!(
            told(&line, Paint::off()),
            "2026-11-24T10:10:00Z  critical  alert 17 acknowledged by root: /tmp/.x/sendd as www-data in apache2.service \
             (fan-out; 40 attempts)"
        );
    }

    #[test]
    fn a_line_for_followers_is_the_alert_and_what_has_happened() {
        let line = AlertLine { occasion: Some(Occasion::Opened), alert: examples::alert() };
        let text = serde_json::to_value(&line).unwrap();
        assert_eq!((text["occasion"].as_str(), text["id"].as_u64()), (Some("opened"), Some(17)));
        assert_eq!(serde_json::from_value::<AlertLine>(text).unwrap(), line);
        let without = AlertLine { occasion: None, ..line };
        assert_eq!(serde_json::to_value(&without).unwrap(), serde_json::to_value(&without.alert).unwrap());
    }
}
