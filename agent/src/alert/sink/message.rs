//! What the sinks are told: one notice, or one summary in place of many.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::text::printable;
use crate::alert::{Alert, Occasion};
use crate::detect::{Kind, Severity};

/// How many subjects a summary's table has.
pub(super) const ROWS: usize = 20;

/// Something happened to an alert.
#[derive(Clone, Debug)]
pub(super) struct Notice {
    pub(super) occasion: Occasion,
    pub(super) alert: Arc<Alert>,
    pub(super) time: Timestamp,
}

/// A flood of notices as one.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    /// How many notices it stands for.
    pub(super) notices: u64,
    /// How many of them are not in the figures below, because there was no room to keep them.
    pub(super) uncounted: u64,
    /// Alerts by severity, the worst first.
    pub(super) by_severity: Vec<(Severity, usize)>,
    /// Alerts by test.
    pub(super) by_test: Vec<(Kind, usize)>,
    /// How many alerts there are.
    pub(super) alerts: usize,
    /// The worst of them, at most [`ROWS`].
    pub(super) top: Vec<Arc<Alert>>,
}

/// What is delivered.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Notice(Notice),
    Summary(Arc<Summary>),
}

impl Summary {
    /// The summary of notices, of which there is at least one; `uncounted` more came and were not kept.
    pub(super) fn of(notices: &[Notice], uncounted: u64) -> Self {
        // The latest state of each alert: one that opened and got worse meanwhile is one alert.
        let latest: BTreeMap<u64, &Arc<Alert>> =
            notices.iter().map(|notice| (notice.alert.id, &notice.alert)).collect();
        let mut alerts: Vec<&Arc<Alert>> = latest.into_values().collect();
        alerts.sort_by_key(|alert| (std::cmp::Reverse((alert.severity, alert.attempts)), alert.id));
        let count = |holds: &dyn Fn(&Alert) -> bool| alerts.iter().filter(|alert| holds(alert)).count();
        let by_severity = Severity::ALL.into_iter().rev().map(|worst| (worst, count(&|alert| alert.severity == worst)));
        let by_test = Kind::ALL.into_iter().map(|kind| (kind, count(&|alert| alert.tests().contains(&kind))));
        let times = || notices.iter().map(|notice| notice.time);
        Self {
            from: times().min().unwrap_or_default(),
            to: times().max().unwrap_or_default(),
            notices: notices.len() as u64 + uncounted,
            uncounted,
            by_severity: by_severity.filter(|(_, count)| *count > 0).collect(),
            by_test: by_test.filter(|(_, count)| *count > 0).collect(),
            alerts: alerts.len(),
            top: alerts.iter().take(ROWS).map(|alert| Arc::clone(alert)).collect(),
        }
    }

    /// How long it took them to come.
    pub(super) fn took(&self) -> Duration {
        Duration::from_secs(self.to.duration_since(self.from).as_secs().unsigned_abs().max(1))
    }
}

impl Message {
    /// The severity of what it tells: for a summary, of the worst.
    pub(super) fn severity(&self) -> Severity {
        match self {
            Self::Notice(notice) => notice.alert.severity,
            Self::Summary(summary) => summary.by_severity.first().map_or(Severity::Notice, |(severity, _)| *severity),
        }
    }

    /// The priority as syslog and the journal have it (RFC 5424 §6.2.1): critical 2, warning 4, notice 5. That somebody
    /// has dealt with an alert wakes nobody, however severe it was.
    pub(super) fn priority(&self) -> u8 {
        let calm = match self {
            Self::Notice(notice) => match notice.occasion {
                Occasion::Quiet | Occasion::Acknowledged | Occasion::Resolved => true,
                Occasion::Opened | Occasion::Reopened | Occasion::Worse | Occasion::Responded => false,
            },
            Self::Summary(_) => false,
        };
        match self.severity() {
            Severity::Critical if !calm => 2,
            Severity::Warning if !calm => 4,
            Severity::Critical | Severity::Warning | Severity::Notice => 5,
        }
    }

    /// All of it in one line.
    pub(super) fn headline(&self) -> String {
        match self {
            Self::Notice(notice) => {
                let alert = &notice.alert;
                format!("alert {} {}: {}", alert.id, notice.occasion.name(), printable(&alert.headline()))
            }
            Self::Summary(summary) => {
                let counts: Vec<String> =
                    summary.by_severity.iter().map(|(severity, count)| format!("{count} {severity}")).collect();
                let worst = summary.top.first().map(|alert| format!("; the worst: {}", printable(&alert.who.name)));
                let seconds = summary.took().as_secs();
                let (alerts, worst) = (summary.alerts, worst.unwrap_or_default());
                format!("{alerts} alerts within {seconds} s: {}{worst}", counts.join(", "))
            }
        }
    }

    /// Its parts by name, for sinks with fields. What is not known is not there.
    pub(super) fn fields(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Notice(notice) => notice_fields(notice),
            Self::Summary(summary) => vec![
                ("event", "summary".to_owned()),
                ("severity", self.severity().to_string()),
                ("notices", summary.notices.to_string()),
                ("alerts", summary.alerts.to_string()),
                ("first", summary.from.to_string()),
                ("last", summary.to.to_string()),
            ],
        }
    }

    /// All of it as JSON.
    pub(super) fn json(&self, host: &str) -> Value {
        match self {
            Self::Notice(notice) => json!({
                "event": "alert",
                "occasion": notice.occasion,
                "time": notice.time,
                "host": host,
                "headline": self.headline(),
                "alert": *notice.alert,
            }),
            Self::Summary(summary) => json!({
                "event": "summary",
                "time": summary.to,
                "since": summary.from,
                "host": host,
                "headline": self.headline(),
                "severity": self.severity(),
                "notices": summary.notices,
                "uncounted": summary.uncounted,
                "alerts": summary.alerts,
                "by_severity": summary.by_severity.iter().map(|(severity, count)| (severity.name(), count))
                    .collect::<BTreeMap<_, _>>(),
                "by_test": summary.by_test.iter().map(|(kind, count)| (kind.name(), count))
                    .collect::<BTreeMap<_, _>>(),
                "table": summary.top.iter().map(|alert| row(alert)).collect::<Vec<_>>(),
            }),
        }
    }
}

fn notice_fields(notice: &Notice) -> Vec<(&'static str, String)> {
    let alert = &notice.alert;
    let who = &alert.who;
    let tests: Vec<&str> = alert.tests().into_iter().map(Kind::name).collect();
    let known = [
        ("event", Some("alert".to_owned())),
        ("occasion", Some(notice.occasion.name().to_owned())),
        ("alert_id", Some(alert.id.to_string())),
        ("subject", Some(alert.subject.to_string())),
        ("kind", Some(tests.join(","))),
        ("severity", Some(alert.severity.to_string())),
        ("state", Some(alert.state.to_string())),
        ("exe", who.exe.clone()),
        ("script", who.script.clone()),
        ("user", who.user.clone().or_else(|| who.euid.map(|euid| euid.to_string()))),
        ("unit", who.unit.clone()),
        ("container", who.container.as_ref().map(|container| container.id.clone())),
        ("address", who.address.clone()),
        ("mac", who.mac.clone()),
        ("vendor", who.vendor.clone()),
        ("interface", who.interface.clone()),
        ("vlan", who.vlan.clone()),
        ("attempts", Some(alert.attempts.to_string())),
        ("refused", Some(alert.refused.to_string())),
        ("first", Some(alert.first.to_string())),
        ("last", Some(alert.last.to_string())),
        ("sha256", alert.sha256.clone()),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn row(alert: &Alert) -> Value {
    json!({
        "alert": alert.id,
        "subject": alert.who.name,
        "severity": alert.severity,
        "tests": alert.tests(),
        "attempts": alert.attempts,
        "refused": alert.refused,
    })
}
