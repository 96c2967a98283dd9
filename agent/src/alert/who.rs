//! A subject in words, from one of its attempts.

use std::net::IpAddr;

use super::Who;
use crate::attempt::Attempt;

impl Who {
    /// The subject behind an attempt, as [`Attempt::subject`] has it: the program with its script, user, and where it
    /// runs; or the host, where no process is known.
    #[must_use]
    pub fn of(attempt: &Attempt) -> Self {
        if attempt.hook == "lan" {
            return Self::of_lan_host(attempt);
        }
        if let Some(host) = attempt.host_address() {
            return Self::of_host(host);
        }
        let process = attempt.pid != 0;
        let mut who = Self {
            name: String::new(),
            exe: attempt.exe.clone().filter(|_| process),
            script: attempt.script.clone(),
            user: attempt.user.clone().filter(|_| process),
            euid: process.then_some(attempt.euid),
            unit: attempt.unit.clone(),
            container: attempt.container.clone(),
            ..Self::default()
        };
        let program = match (&who.exe, process) {
            (Some(exe), _) => exe.clone(),
            (None, true) => format!("({})", attempt.comm),
            (None, false) => "(no program)".to_owned(),
        };
        let script = who.script.as_ref().map(|script| format!(" running {script}")).unwrap_or_default();
        let user = if process { format!(" as {}", who.user()) } else { String::new() };
        who.name = format!("{program}{script}{user}{}", who.place());
        who
    }

    /// A host behind this gateway, and where it is plugged in as far as the gateway can know.
    fn of_lan_host(attempt: &Attempt) -> Self {
        let address = attempt.source.map(|source| source.ip().to_canonical().to_string());
        let mac = attempt.mac.map(|mac| mac.to_string());
        let called = attempt.host.as_ref().map(|host| host.name.clone());
        let known = [called, address.clone(), mac.clone().filter(|_| address.is_none())];
        let mut name = format!("the host {}", known.into_iter().flatten().collect::<Vec<_>>().join(" "));
        if let Some(interface) = &attempt.interface {
            name.push_str(&format!(" on {interface}"));
        }
        if let Some(vlan) = &attempt.vlan {
            name.push_str(&format!(" in VLAN {vlan}"));
        }
        let (vendor, interface, vlan) = (attempt.vendor.clone(), attempt.interface.clone(), attempt.vlan.clone());
        Self { name, address, mac, vendor, interface, vlan, ..Self::default() }
    }

    /// A host whose programs are not known.
    #[must_use]
    pub fn of_host(address: IpAddr) -> Self {
        Self { name: format!("the host {address}"), address: Some(address.to_string()), ..Self::default() }
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
        let running = Attempt { exe: None, script: Some("/srv/a.php".into()), ..attempt.clone() };
        assert_eq!(
            Who::of(&running).name,
            format!("({}) running /srv/a.php as www-data in apache2.service", attempt.comm)
        );
        let source = Some("10.0.0.7:4000".parse().unwrap());
        let frame = Attempt { pid: 0, exe: None, hook: "frame".into(), source, ..attempt };
        assert_eq!(Who::of(&frame).name, "the host 10.0.0.7");
        // A packet of a unit's is held against the unit, whatever its source is.
        let packet = Attempt { hook: "packet".into(), ..frame };
        assert_eq!(Who::of(&packet).name, "(no program) in apache2.service");
    }
}
