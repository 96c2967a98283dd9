//! What the detector is told of an attempt: whom it is held against, and what it shows of them.

use std::net::IpAddr;
use std::path::Path;

use super::Attempt;
use crate::detect::{Observation, Outcome, Signs, SubjectId};
use crate::interpreter::takes_script;
use crate::policy::MTAS;

/// Where everybody may put a program, and what is put there is not meant to last (FHS 3.0 §3.18, §5.15, §3.15).
const TEMPORARY: [&str; 6] = ["/tmp/", "/var/tmp/", "/dev/shm/", "/run/shm/", "/run/user/", "/var/run/user/"];

/// Web servers and the engines they start scripts with, by executable or thread name without its version. Java and
/// Node.js are not among them: their names do not tell a web server from any other program.
const WEB: [&str; 17] = [
    "apache",
    "caddy",
    "fcgiwrap",
    "gunicorn",
    "h2o",
    "httpd",
    "lighttpd",
    "litespeed",
    "lshttpd",
    "lsphp",
    "nginx",
    "openlitespeed",
    "php-cgi",
    "php-fpm",
    "puma",
    "unicorn",
    "uwsgi",
];

/// What says that a process may not be what its executable says. That nobody watched it start (`exec_unseen`,
/// `environment_unseen`) says nothing against it, and `ld_library_path` is in many a start script.
const TAINTS: [&str; 4] = ["ld_preload", "ld_audit", "traced", "exe_changed"];

/// A host has one IPv4 address and a few of IPv6 (RFC 8981: a new temporary one a day, each good for a week).
const SEVERAL_ADDRESSES: u32 = 10;

impl Attempt {
    /// Whom the attempt is held against: the executable (and its script), the user, and the container or unit. A bot
    /// must not get a new identity for nothing, so numbers in a unit's name do not count, nor what a user names below
    /// the slice of their own. A frame that no process is known to have sent is held against its source.
    #[must_use]
    pub fn subject(&self) -> SubjectId {
        if self.hook == "lan" {
            return self.lan_host();
        }
        if let Some(host) = self.host_address() {
            return SubjectId::of_host(host);
        }
        let mut number = [0; 10];
        let exe = match &self.exe {
            // The process chooses the name.
            _ if self.exe_in_memory => "memfd",
            _ if self.pid == 0 => "",
            exe => exe.as_deref().unwrap_or_default(),
        };
        let script = self.script.as_deref().unwrap_or_default();
        let user = if self.pid == 0 { "" } else { decimal(self.euid, &mut number) };
        let fixed = ["program", exe, script, user];
        match (&self.container, &self.unit) {
            (Some(container), _) => {
                SubjectId::of(fixed.into_iter().chain(["container", &container.runtime, &container.id]))
            }
            (None, _) if self.slice_user().is_some() => SubjectId::of(fixed.into_iter().chain(["session"])),
            (None, Some(unit)) => SubjectId::of(fixed.into_iter().chain(["unit"]).chain(lasting(unit))),
            (None, None) => SubjectId::of(fixed),
        }
    }

    /// A host of the LAN: its card, whatever address it has just now. Where packets show no card, its address, and where that
    /// came in.
    fn lan_host(&self) -> SubjectId {
        if let Some(mac) = self.mac {
            return SubjectId::of(["lan", &mac.to_string()]);
        }
        let address = self.source.map(|source| source.ip().to_canonical().to_string()).unwrap_or_default();
        let (vlan, interface) = (self.vlan.as_deref(), self.interface.as_deref());
        SubjectId::of(["lan", &address, vlan.unwrap_or_default(), interface.unwrap_or_default()])
    }

    /// The user whose programs are looked at together: on the host or in one container. Whoever may start containers
    /// as a mere user is one owner, whatever containers they start.
    #[must_use]
    pub fn owner(&self) -> SubjectId {
        if self.pid == 0 {
            return SubjectId::default();
        }
        let mut number = [0; 10];
        match (&self.container, self.slice_user()) {
            (Some(_), Some(user)) => SubjectId::of(["owner", "host", user]),
            (Some(container), None) => {
                let user = decimal(self.euid, &mut number);
                SubjectId::of(["owner", "container", &container.runtime, &container.id, user])
            }
            (None, _) => SubjectId::of(["owner", "host", decimal(self.euid, &mut number)]),
        }
    }

    /// What the tests are told. None for what went nowhere: a way around the guard that was asked for, a packet that
    /// does not show its destination.
    #[must_use]
    pub fn observation(&self) -> Option<Observation> {
        Some(Observation {
            time: self.time.as_microsecond(),
            subject: self.subject(),
            owner: self.owner(),
            thread: self.tid,
            address: self.destination?.ip().to_canonical(),
            domain: self.domain.as_deref().map_or(0, hash_of_domain),
            outcome: self.outcome()?,
            signs: self.signs(),
        })
    }

    /// What became of it. A rule that only observes names its program all the same, so that nothing is held against it; nor
    /// against a mail server whose relay is away.
    fn outcome(&self) -> Option<Outcome> {
        match (self.verdict.as_str(), self.reason.as_str()) {
            ("allow", "local") => Some(Outcome::Local),
            ("allow", _) | ("deny" | "observe", "audit-rule" | "no-relay") => Some(Outcome::Allowed),
            ("deny" | "observe", _) => Some(Outcome::Refused),
            _ => None,
        }
    }

    /// The signs that the record shows by itself.
    fn signs(&self) -> Signs {
        let exe = self.exe.as_deref().unwrap_or_default();
        let known = self.pid != 0 && !exe.is_empty();
        let interpreter = is_script_engine(exe);
        let tainted = self.taint.iter().any(|taint| TAINTS.contains(&taint.as_str()));
        let itself = known && !self.exe_deleted && !self.exe_in_memory && !tainted;
        let mail_server = itself && MTAS.iter().any(|mta| mta.exes.contains(&exe));
        let by_script = interpreter || self.parents.first().is_some_and(|parent| named(parent, is_script_engine));
        // An interpreter's package says nothing of what it was given to run.
        let packaged = itself && self.package.is_some() && !interpreter && self.script.is_none();
        let web = is_web(exe) || self.parents.iter().any(|parent| named(parent, is_web));
        // A form mailer of root's is what spammers look for.
        let by_root = self.script_of_root && itself && interpreter && self.package.is_some() && !web;
        let unpackaged = known && !self.exe_in_memory && self.package_known && self.package.is_none();
        Signs::default()
            .with(Signs::DELETED.when(self.exe_deleted && !self.exe_in_memory))
            .with(Signs::IN_MEMORY.when(self.exe_in_memory))
            .with(Signs::TEMPORARY.when(is_temporary(exe) || self.script.as_deref().is_some_and(is_temporary)))
            .with(Signs::WORLD_WRITABLE.when(self.exe_world_writable))
            .with(Signs::NO_PACKAGE.when(unpackaged))
            .with(Signs::PACKAGED.when(packaged))
            .with(Signs::WEB_PARENT.when(web))
            .with(Signs::INTERPRETER.when(by_script))
            .with(Signs::SESSION_GONE.when(self.session_gone))
            .with(Signs::MTA_UNUSED.when(self.mta_unused))
            .with(Signs::MX_LOOKUPS.when(self.mx_lookups && !mail_server))
            .with(Signs::MAIL_SERVER.when(mail_server))
            .with(Signs::TAINTED.when(tainted))
            .with(Signs::RAW.when(self.is_raw()))
            .with(Signs::MANY_ADDRESSES.when(self.has_many_addresses()))
            .with(Signs::ROOT_SCRIPT.when(by_root && self.script.is_some() && self.container.is_none()))
    }

    /// Whether the LAN host's card has claimed more addresses lately than a host has.
    pub(crate) fn has_many_addresses(&self) -> bool {
        self.mac_addresses > SEVERAL_ADDRESSES
    }

    /// Whether a process of this host sent packets or frames by itself. What was only forwarded, or comes from a device
    /// without a process, did so because it is another host's.
    fn is_raw(&self) -> bool {
        let asked = matches!(self.protocol.as_str(), "af_packet" | "af_xdp");
        let sent = matches!(self.hook.as_str(), "packet" | "frame") && self.reason != "forwarded";
        asked || (sent && self.pid != 0)
    }

    /// The host that is meant where no process is known: the source of a frame, or of a packet of no unit's.
    pub(crate) fn host_address(&self) -> Option<IpAddr> {
        let placed =
            !matches!(self.hook.as_str(), "frame" | "lan") && (self.unit.is_some() || self.container.is_some());
        if self.pid != 0 || placed {
            return None;
        }
        self.source.map(|source| source.ip().to_canonical()).filter(|address| !address.is_unspecified())
    }

    /// The user in whose slice the process is (`/user.slice/user-1000.slice/…`): what lies below is theirs to name.
    fn slice_user(&self) -> Option<&str> {
        let below = self.cgroup.split("/user.slice/user-").nth(1)?;
        below.split_once(".slice").map(|(user, _)| user)
    }
}

/// Whether a parent's executable or thread name is of a kind.
fn named(parent: &super::Parent, kind: fn(&str) -> bool) -> bool {
    kind(&parent.comm) || parent.exe.as_deref().is_some_and(kind)
}

fn is_script_engine(program: &str) -> bool {
    takes_script(Path::new(program))
}

fn is_temporary(path: &str) -> bool {
    TEMPORARY.iter().any(|folder| path.starts_with(folder))
}

fn is_web(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or(program);
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    WEB.contains(&stem)
}

/// The words of a unit's name that last: not numbers, nor what may be a hexadecimal id, as in `run-r1f….scope`,
/// `session-7.scope` and `sshd@12-192.0.2.1:22-….service`.
fn lasting(unit: &str) -> impl Iterator<Item = &str> {
    let passing = |word: &&str| {
        let hexadecimal = word.len() >= 4 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        !word.is_empty() && !hexadecimal && !word.bytes().any(|byte| byte.is_ascii_digit())
    };
    unit.split(|c: char| !c.is_alphanumeric()).filter(passing)
}

/// A mail domain as a number that is never 0. Case and a last dot do not count (RFC 4343, RFC 1034 §3.1).
fn hash_of_domain(domain: &str) -> u64 {
    let domain = domain.trim_end_matches('.');
    let hash = if domain.bytes().any(|byte| byte.is_ascii_uppercase()) {
        SubjectId::of(["domain", &domain.to_ascii_lowercase()])
    } else {
        SubjectId::of(["domain", domain])
    };
    hash.0.max(1)
}

/// A number's decimal digits, without an allocation.
fn decimal(mut number: u32, room: &mut [u8; 10]) -> &str {
    let mut start = room.len();
    for (at, digit) in room.iter_mut().enumerate().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        start = at;
        if number == 0 {
            break;
        }
    }
    room.get(start..).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
