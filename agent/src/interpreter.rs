//! Programs that run what they are given: naming one of them names everything it runs.

use std::path::Path;

/// Interpreters whose first argument that is no option is the program that runs.
const SCRIPTED: [&str; 17] = [
    "awk", "bash", "dash", "gawk", "ksh", "lua", "mawk", "node", "nodejs", "perl", "php", "python", "ruby", "sh",
    "tclsh", "wish", "zsh",
];
/// Those that are told in other ways what to run, and the dynamic loaders, which run any program.
const OTHERS: [&str; 6] = ["busybox", "java", "ld", "ld-linux", "ld-musl", "ld64"];

/// Whether an executable's file name is that of an interpreter or a loader, with or without a version.
#[must_use]
pub fn is_interpreter(exe: &Path) -> bool {
    SCRIPTED.iter().chain(&OTHERS).any(|known| is(exe, known))
}

/// Whether it is an interpreter that is given a script by its file name.
#[must_use]
pub fn takes_script(exe: &Path) -> bool {
    // What awk is given first is the text of its program.
    SCRIPTED.iter().any(|known| !known.ends_with("awk") && is(exe, known))
}

fn is(exe: &Path, known: &str) -> bool {
    let name = exe.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.strip_prefix(known).is_some_and(|rest| {
        let version = rest.bytes().all(|byte| byte.is_ascii_digit() || b".-".contains(&byte));
        version || known.starts_with("ld") && rest.starts_with(['-', '.']) && rest.contains(".so")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_known_with_their_versions() {
        for name in [
            "python3.11",
            "perl",
            "perl5.36.0",
            "bash",
            "php8.2",
            "ld-linux-x86-64.so.2",
            "ld-musl-x86_64.so.1",
            "ld.so",
            "node",
            "gawk",
        ] {
            assert!(is_interpreter(&Path::new("/usr/bin").join(name)), "{name}");
        }
        for name in ["smtp", "perldoc", "shutdown", "ldconfig", "exim4", "nodemailer", "lua-smtp"] {
            assert!(!is_interpreter(&Path::new("/usr/bin").join(name)), "{name}");
        }
    }

    #[test]
    fn those_that_take_a_script_are_told_from_the_others() {
        for (name, takes) in [("python3", true), ("sh", true), ("java", false), ("mawk", false), ("ld.so", false)] {
            assert_eq!(takes_script(&Path::new("/usr/bin").join(name)), takes, "{name}");
        }
    }
}
