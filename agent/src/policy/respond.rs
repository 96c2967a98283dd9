//! What the policy has done about alerts.

use super::diagnostic::Place;
use super::pattern::matches;
use crate::alert::Alert;
use crate::alert::response::Action;
use crate::detect::{Kind, Severity};

/// One `[[respond]]`: all that is said of it must hold, of each list one element. An empty list says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// Where it begins.
    pub place: Place,
    /// What is done.
    pub action: Action,
    /// How severe an alert must be at least.
    pub min_severity: Severity,
    /// The tests of which one must have found something.
    pub tests: Vec<Kind>,
    /// Patterns of the executable's path.
    pub exe: Vec<String>,
    /// Patterns of the effective user's name, or its number.
    pub user: Vec<String>,
    /// Patterns of the systemd unit.
    pub unit: Vec<String>,
}

impl Respond {
    /// What is done where nothing else is said: nothing, and only for the gravest.
    #[must_use]
    pub fn new(place: Place) -> Self {
        let (exe, user, unit) = (Vec::new(), Vec::new(), Vec::new());
        Self { place, action: Action::None, min_severity: Severity::Critical, tests: Vec::new(), exe, user, unit }
    }

    /// What these have done about an alert: the first that matches decides.
    #[must_use]
    pub fn choose(all: &[Self], alert: &Alert) -> Action {
        all.iter().find(|respond| respond.matches(alert)).map_or(Action::None, |respond| respond.action)
    }

    fn matches(&self, alert: &Alert) -> bool {
        let who = &alert.who;
        let is = |patterns: &[String], values: &[Option<&str>]| {
            let mut said = values.iter().flatten();
            patterns.is_empty() || said.any(|value| patterns.iter().any(|pattern| matches(pattern, value)))
        };
        let number = who.euid.map(|euid| euid.to_string());
        alert.severity >= self.min_severity
            && (self.tests.is_empty() || alert.tests().iter().any(|test| self.tests.contains(test)))
            && is(&self.exe, &[who.exe.as_deref()])
            && is(&self.user, &[who.user.as_deref(), number.as_deref()])
            && is(&self.unit, &[who.unit.as_deref()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{State, Who};
    use crate::detect::{Evidence, Finding, SubjectId};

    fn alert(severity: Severity, kind: Kind) -> Alert {
        let time = jiff::Timestamp::UNIX_EPOCH;
        let finding = Finding { time, subject: SubjectId(1), kind, severity, evidence: Evidence::default() };
        let who = Who {
            exe: Some("/tmp/.x/bot".to_owned()),
            user: Some("www-data".to_owned()),
            euid: Some(33),
            unit: Some("apache2.service".to_owned()),
            ..Who::default()
        };
        Alert {
            id: 1,
            subject: SubjectId(1),
            who,
            severity,
            state: State::Open,
            resolution: None,
            opened: time,
            last: time,
            first: time,
            quiet_since: None,
            episodes: 1,
            findings: vec![finding],
            attempts: 9,
            refused: 9,
            local: 0,
            destinations: Vec::new(),
            elsewhere: 0,
            worst: None,
            sha256: None,
            package: None,
            clear: Vec::new(),
            next: Vec::new(),
            history: Vec::new(),
            deeds: Vec::new(),
            tree: Vec::new(),
        }
    }

    fn stop() -> Respond {
        Respond { action: Action::Stop, ..Respond::new(Place::default()) }
    }

    #[test]
    fn nothing_is_done_unless_the_policy_says_so() {
        let worst = alert(Severity::Critical, Kind::FanOut);
        assert_eq!(Respond::choose(&[], &worst), Action::None);
        assert_eq!(Respond::choose(&[Respond::new(Place::default())], &worst), Action::None);
        assert_eq!(Respond::choose(&[stop()], &worst), Action::Stop);
        assert_eq!(Respond::choose(&[stop()], &alert(Severity::Warning, Kind::FanOut)), Action::None);
    }

    #[test]
    fn the_first_that_matches_decides() {
        let worst = alert(Severity::Critical, Kind::FanOut);
        let kill = Respond { action: Action::Kill, ..stop() };
        let exception = |change: fn(&mut Respond)| {
            let mut none = Respond::new(Place::default());
            change(&mut none);
            Respond::choose(&[none, kill.clone()], &worst)
        };
        assert_eq!(exception(|none| none.exe = vec!["/tmp/*".to_owned()]), Action::None);
        assert_eq!(exception(|none| none.exe = vec!["/usr/*".to_owned()]), Action::Kill);
        assert_eq!(exception(|none| none.user = vec!["33".to_owned()]), Action::None);
        assert_eq!(exception(|none| none.user = vec!["www-*".to_owned()]), Action::None);
        assert_eq!(exception(|none| none.user = vec!["root".to_owned(), "3".to_owned()]), Action::Kill);
        assert_eq!(exception(|none| none.unit = vec!["apache?.service".to_owned()]), Action::None);
        assert_eq!(exception(|none| none.unit = vec!["cron.service".to_owned()]), Action::Kill);
        assert_eq!(exception(|none| none.tests = vec![Kind::Hammer]), Action::Kill);
        assert_eq!(exception(|none| none.tests = vec![Kind::Hammer, Kind::FanOut]), Action::None);
    }

    #[test]
    fn a_pattern_does_not_match_what_is_not_known() {
        let mut unknown = alert(Severity::Critical, Kind::FanOut);
        unknown.who = Who::default();
        let any = Respond { exe: vec!["*".to_owned()], ..stop() };
        assert_eq!(Respond::choose(&[any], &unknown), Action::None);
    }
}
