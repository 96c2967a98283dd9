//! A subject in words, from one of its attempts.

use super::Who;
use crate::attempt::Attempt;

impl Who {
    /// The subject behind an attempt: the program with its script, user, and where it runs.
    #[must_use]
    pub fn of(attempt: &Attempt) -> Self {
        let mut who = Self {
            name: String::new(),
            exe: attempt.exe.clone(),
            script: attempt.script.clone(),
            user: attempt.user.clone(),
            euid: (attempt.pid != 0).then_some(attempt.euid),
            unit: attempt.unit.clone(),
            container: attempt.container.clone(),
            address: (attempt.pid == 0).then(|| attempt.source.map(|source| source.ip().to_string())).flatten(),
        };
        who.name = who.in_one_line();
        who
    }

    /// The user whose programs are looked at together; `attempt` is of one of them.
    #[must_use]
    pub fn programs_of(attempt: &Attempt) -> Self {
        let mut who = Self { exe: None, script: None, ..Self::of(attempt) };
        who.name = format!("the programs of {}{}", who.user(), who.place());
        who
    }

    /// The user's name, or else the number.
    #[must_use]
    pub fn user(&self) -> String {
        match (&self.user, self.euid) {
            (Some(name), _) => name.clone(),
            (None, Some(euid)) => format!("uid {euid}"),
            (None, None) => "nobody that is known".to_owned(),
        }
    }

    fn in_one_line(&self) -> String {
        if let Some(address) = &self.address {
            return format!("the host {address}");
        }
        let program = self.exe.as_deref().unwrap_or("(no program)");
        let script = self.script.as_ref().map(|script| format!(" running {script}")).unwrap_or_default();
        if self.euid.is_none() {
            return format!("{program}{script}");
        }
        format!("{program}{script} as {}{}", self.user(), self.place())
    }

    fn place(&self) -> String {
        match (&self.container, &self.unit) {
            (Some(container), _) => format!(" in {} container {:.12}", container.runtime, container.id),
            (None, Some(unit)) => format!(" in {unit}"),
            (None, None) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::examples;

    #[test]
    fn a_subject_is_named_by_what_it_runs_as_whom_and_where() {
        let attempt = examples::attempt(0, "192.0.2.1:25");
        let line = "/tmp/.x/sendd as www-data in apache2.service";
        assert_eq!(Who::of(&attempt).name, line);
        assert_eq!(Who::programs_of(&attempt).name, "the programs of www-data in apache2.service");
        let host = Attempt { pid: 0, exe: None, source: Some("10.0.0.7:4000".parse().unwrap()), ..attempt };
        assert_eq!(Who::of(&host).name, "the host 10.0.0.7");
    }
}
