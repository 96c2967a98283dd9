//! A cgroup's path as a unit, a container and a login session.

use serde::{Deserialize, Serialize};

/// A container and the program that runs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// `docker`, `podman`, `containerd`, `cri-o`, `lxc` or `nspawn`.
    pub runtime: String,
    /// Its id or name.
    pub id: String,
}

/// What a cgroup's path tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The innermost systemd unit that is no slice.
    pub unit: Option<String>,
    /// The innermost container.
    pub container: Option<Container>,
    /// The login session's number.
    pub session: Option<String>,
}

/// How the runtimes name a container's cgroup: prefix, suffix, runtime.
const CONTAINER_NAMES: [(&str, &str, &str); 7] = [
    ("docker-", ".scope", "docker"),
    ("libpod-", ".scope", "podman"),
    ("cri-containerd-", ".scope", "containerd"),
    ("crio-", ".scope", "cri-o"),
    ("lxc.payload.", "", "lxc"),
    ("systemd-nspawn@", ".service", "nspawn"),
    ("machine-", ".scope", "nspawn"),
];

/// Reads a cgroup's path (`/system.slice/cron.service`).
#[must_use]
pub fn place(path: &str) -> Place {
    let mut place = Place::default();
    let mut parent = "";
    for name in path.split('/').filter(|name| !name.is_empty()) {
        if name.ends_with(".service") || name.ends_with(".scope") || name.ends_with(".socket") {
            place.unit = Some(name.to_owned());
        }
        if let Some(number) = name.strip_prefix("session-").and_then(|rest| rest.strip_suffix(".scope")) {
            place.session = Some(number.to_owned());
        }
        let container = CONTAINER_NAMES.iter().find_map(|(prefix, suffix, runtime)| {
            let id = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
            Some(Container { runtime: (*runtime).to_owned(), id: id.to_owned() })
        });
        // The cgroupfs driver of Docker: /docker/<64 hexadecimal digits>.
        let plain = (parent == "docker" && is_container_id(name))
            .then(|| Container { runtime: "docker".to_owned(), id: name.to_owned() });
        place.container = container.or(plain).or(place.container);
        parent = name;
    }
    place
}

fn is_container_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_unit_and_the_container_are_found() {
        let id = "0123456789abcdef".repeat(4);
        let docker = place(&format!("/system.slice/docker-{id}.scope/init.scope"));
        assert_eq!(docker.container, Some(Container { runtime: "docker".into(), id: id.clone() }));
        assert_eq!(docker.unit.as_deref(), Some("init.scope"));
        assert_eq!(place(&format!("/docker/{id}")).container.map(|c| c.runtime).as_deref(), Some("docker"));
        let session = place("/user.slice/user-1000.slice/session-7.scope");
        assert_eq!((session.session.as_deref(), session.container), (Some("7"), None));
        assert_eq!(place("/"), Place::default());
    }
}
