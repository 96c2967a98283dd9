//! Where systemd puts a unit's processes in the cgroup hierarchy.

/// The kinds of unit that have processes of their own.
const KINDS: [&str; 6] = [".service", ".slice", ".scope", ".socket", ".mount", ".swap"];
/// The cgroup controllers; a unit whose name could pass for one of their files is escaped.
const CONTROLLERS: [&str; 9] = ["cgroup", "cpu", "cpuacct", "cpuset", "io", "blkio", "memory", "devices", "pids"];

/// Whether this is the name of a unit that has processes; else how to mend it.
pub(super) fn check(unit: &str) -> Result<(), &'static str> {
    let Some(stem) = KINDS.iter().find_map(|kind| unit.strip_suffix(kind)) else {
        return Err("write the whole name with its kind, as in \"postfix@-.service\" or \"machine.slice\"");
    };
    if stem.is_empty() || !unit.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte)) {
        return Err("a unit's name has letters, digits and :-_.\\@ in it; a path goes into \"cgroup\"");
    }
    if stem.ends_with('@') {
        return Err("name the instance of the template, between @ and the dot, or the slice that holds all of them");
    }
    Ok(())
}

/// The path of a unit that is in the slice `slice` ("" or "-.slice" for none).
pub(super) fn path_in(slice: &str, unit: &str) -> String {
    match unit.strip_suffix(".slice") {
        // A slice's name is its place (systemd.slice(5)).
        Some(_) => slice_path(unit),
        None => format!("{}/{}", slice_path(slice), escaped(unit)),
    }
}

/// The path of a unit that no running systemd was asked about.
pub(super) fn default_path(unit: &str) -> String {
    // An instance of a template service has a slice of its own template (systemd.unit(5), systemd.slice(5)); the
    // hyphens of the template's name, which would mean a slice in a slice, are escaped there.
    match unit.strip_suffix(".service").and_then(|stem| stem.split_once('@')) {
        Some((template, _)) => path_in(&format!("system-{}.slice", template.replace('-', "\\x2d")), unit),
        None => path_in("system.slice", unit),
    }
}

/// `a-b-c.slice` is `/a.slice/a-b.slice/a-b-c.slice`.
fn slice_path(slice: &str) -> String {
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    if stem.is_empty() || stem == "-" {
        return String::new();
    }
    let ends = stem.match_indices('-').map(|(index, _)| index).chain([stem.len()]);
    ends.map(|end| format!("/{}", escaped(&format!("{}.slice", &stem[..end])))).collect()
}

/// The name of a unit's cgroup (`cg_escape`, src/basic/cgroup-util.c of systemd 252).
fn escaped(unit: &str) -> String {
    let special = unit.starts_with(['_', '.'])
        || CONTROLLERS.iter().any(|name| unit.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')));
    if special { format!("_{unit}") } else { unit.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_where_systemd_puts_them() {
        for (unit, path) in [
            ("postfix.service", "/system.slice/postfix.service"),
            ("postfix@-.service", "/system.slice/system-postfix.slice/postfix@-.service"),
            ("my-mail@a-b.service", "/system.slice/system-my\\x2dmail.slice/my-mail@a-b.service"),
            ("mail.slice", "/mail.slice"),
            ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"),
            ("-.slice", ""),
            ("memory.service", "/system.slice/_memory.service"),
        ] {
            assert_eq!(default_path(unit), path);
        }
        assert_eq!(path_in("-.slice", "init.scope"), "/init.scope");
        assert_eq!(path_in("user-1000.slice", "x.scope"), "/user.slice/user-1000.slice/x.scope");
    }

    #[test]
    fn names_that_are_no_units_with_processes_are_told() {
        for unit in ["postfix", "a.timer", ".service", "postfix@.service", "/system.slice/x.service", "x y.service"] {
            assert!(check(unit).is_err(), "{unit}");
        }
        for unit in ["postfix@-.service", "a-b.slice", "session-3.scope", "dev\\x2dsda.swap"] {
            assert!(check(unit).is_ok(), "{unit}");
        }
    }
}
