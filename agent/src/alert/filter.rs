//! Which alerts somebody asks for.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Alert, State};
use crate::detect::{Kind, Severity};

/// What the alerts asked for have in common; what is left open fits every alert.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// The resolved ones too. Without it and without `states`, only those that nobody has resolved.
    pub all: bool,
    /// In one of these states.
    pub states: Vec<State>,
    /// At least so severe.
    pub severity: Option<Severity>,
    /// Found by one of these tests.
    pub kinds: Vec<Kind>,
    /// With an attempt since then.
    pub since: Option<Timestamp>,
    /// With this in the executable's or the script's path.
    pub exe: Option<String>,
    /// Of this user, by name or number.
    pub user: Option<String>,
    /// With this in the unit's name, or in the container's.
    pub unit: Option<String>,
}

impl Filter {
    /// Whether an alert is among those asked for.
    #[must_use]
    pub fn matches(&self, alert: &Alert) -> bool {
        self.has_state(alert.state)
            && self.severity.is_none_or(|severity| alert.severity >= severity)
            && (self.kinds.is_empty() || alert.findings.iter().any(|finding| self.kinds.contains(&finding.kind)))
            && self.since.is_none_or(|since| alert.last >= since)
            && self.text(alert)
    }

    /// Whether alerts of a state are among those asked for.
    #[must_use]
    pub fn has_state(&self, state: State) -> bool {
        if self.states.is_empty() { self.all || state != State::Resolved } else { self.states.contains(&state) }
    }

    fn text(&self, alert: &Alert) -> bool {
        let who = &alert.who;
        let within = |wanted: &str, texts: [Option<&str>; 2]| texts.into_iter().flatten().any(|t| t.contains(wanted));
        self.exe.as_deref().is_none_or(|exe| within(exe, [who.exe.as_deref(), who.script.as_deref()]))
            && self.unit.as_deref().is_none_or(|unit| {
                within(unit, [who.unit.as_deref(), who.container.as_ref().map(|container| container.id.as_str())])
            })
            && self.user.as_deref().is_none_or(|user| {
                who.user.as_deref() == Some(user) || who.euid.is_some_and(|euid| euid.to_string() == user)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::examples;

    #[test]
    fn each_criterion_lets_the_right_ones_through() {
        let alert = examples::alert();
        let resolved = Alert { state: State::Resolved, ..alert.clone() };
        let open = Filter::default();
        assert!(open.matches(&alert) && !open.matches(&resolved));
        assert!(Filter { all: true, ..open.clone() }.matches(&resolved));
        assert!(Filter { states: vec![State::Resolved], ..open.clone() }.matches(&resolved));
        let yes = [
            Filter { severity: Some(Severity::Warning), ..open.clone() },
            Filter { kinds: vec![Kind::FanOut, Kind::Hammer], ..open.clone() },
            Filter { since: Some(alert.last), ..open.clone() },
            Filter { exe: Some("sendd".into()), ..open.clone() },
            Filter { user: Some("www-data".into()), ..open.clone() },
            Filter { user: Some("33".into()), ..open.clone() },
            Filter { unit: Some("apache".into()), ..open.clone() },
        ];
        for filter in yes {
            assert!(filter.matches(&alert), "{filter:?}");
        }
        let later = alert.last + jiff::SignedDuration::from_secs(1);
        let no = [
            Filter { severity: Some(Severity::Critical), ..open.clone() },
            Filter { kinds: vec![Kind::Hammer], ..open.clone() },
            Filter { since: Some(later), ..open.clone() },
            Filter { exe: Some("perl".into()), ..open.clone() },
            Filter { user: Some("www".into()), ..open.clone() },
            Filter { unit: Some("nginx".into()), ..open },
        ];
        for filter in no {
            let mild = Alert { severity: Severity::Warning, ..alert.clone() };
            assert!(!filter.matches(&mild), "{filter:?}");
        }
    }
}
