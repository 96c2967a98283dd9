//! From a systemd unit's name to its cgroup's path, whether it runs or not.

use std::path::Path;
use std::process::Command;

use portreeve_abi::CGROUP_NAME_LEN;

use super::model::Policy;

/// Where systemd says that it runs the host (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// What is known of a unit.
pub(super) struct Unit {
    /// Its cgroup's path below the root of the host's units.
    pub(super) path: String,
    /// systemd runs this host and has not heard of the unit.
    pub(super) unknown: bool,
}

/// The cgroup of a unit, or the path itself if it is one, with the guarded sub-tree in front.
///
/// # Errors
///
/// Why the name is none.
pub fn unit_path(policy: &Policy, name: &str) -> Result<String, String> {
    let path = if name.starts_with('/') { name.to_owned() } else { find(name)?.path };
    Ok(below(&policy.guard.cgroup, &path))
}

/// A path below the guarded sub-tree.
pub(super) fn below(root: &str, path: &str) -> String {
    format!("{}{path}", root.trim_end_matches('/'))
}

/// Finds a unit: asks systemd for its slice if it runs this host, else takes the default one.
pub(super) fn find(name: &str) -> Result<Unit, String> {
    let kinds = [".service", ".scope", ".slice", ".socket", ".mount", ".swap"];
    if name.contains('/') || !kinds.iter().any(|kind| name.ends_with(kind)) {
        return Err(format!("{name} is no unit that processes run in; write its whole name, like postfix@-.service"));
    }
    if name.len() > CGROUP_NAME_LEN - 2 {
        return Err(format!("{name} is longer than {} bytes; name its slice", CGROUP_NAME_LEN - 2));
    }
    if name.ends_with(".slice") {
        return Ok(Unit { path: slice_path(name), unknown: false });
    }
    if Path::new(BOOTED).exists()
        && let Some((slice, loaded)) = ask(name)
    {
        return Ok(Unit { path: format!("{}/{name}", slice_path(&slice)), unknown: !loaded });
    }
    Ok(Unit { path: format!("{}/{name}", slice_path(&default_slice(name))), unknown: false })
}

/// The slice systemd puts the unit in, and whether it knows the unit.
fn ask(name: &str) -> Option<(String, bool)> {
    let output = Command::new("systemctl").args(["show", "--property=LoadState,Slice", "--", name]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().to_owned();
    let (slice, state) = (value("Slice="), value("LoadState="));
    let slice = if slice.is_empty() { default_slice(name) } else { slice };
    Some((slice, state == "loaded"))
}

/// systemd.resource-control(5), `Slice=`: instances of a template share a slice of their own.
fn default_slice(name: &str) -> String {
    match name.split_once('@') {
        // The hyphen means a level in a slice's name, so it is escaped (systemd.unit(5)).
        Some((template, _)) => format!("system-{}.slice", template.replace('-', "\\x2d")),
        None => "system.slice".to_owned(),
    }
}

/// systemd.slice(5): `a-b.slice` is in `a.slice`; `-.slice` is the root.
fn slice_path(name: &str) -> String {
    let stem = name.strip_suffix(".slice").unwrap_or(name);
    if stem == "-" {
        return String::new();
    }
    let mut path = String::new();
    for (at, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
        path.push_str(&format!("/{}.slice", &stem[..at]));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_paths() {
        assert_eq!(slice_path("system.slice"), "/system.slice");
        assert_eq!(slice_path("a-b-c.slice"), "/a.slice/a-b.slice/a-b-c.slice");
        assert_eq!(slice_path("-.slice"), "");
        assert_eq!(default_slice("postfix@-.service"), "system-postfix.slice");
        assert_eq!(default_slice("a-b@c.service"), "system-a\\x2db.slice");
    }

    #[test]
    fn what_is_no_unit_is_refused() {
        for name in ["cron", "a/b.service", "x.timer", &format!("{}.service", "x".repeat(100))] {
            assert!(find(name).is_err(), "{name}");
        }
    }
}
