//! From files to a checked policy.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use portreeve_abi::MAX_RULES;

use super::diagnostic::{Diagnostic, Located, Severity};
use super::model::{Policy, digest};
use super::parse::{Parsed, Role, parse};
use super::pattern::matches;

/// More than any policy that fits into the kernel's tables.
const LARGEST_FILE: u64 = 16 << 20;

/// What came of reading a policy.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The policy; none if there is an error.
    pub policy: Option<Policy>,
    /// What could be read of it even so: to be resolved for further findings, never to be put in force.
    pub draft: Policy,
    /// Everything that was found, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
    /// The files that make up the policy, the main file first.
    pub files: Vec<PathBuf>,
    /// The folders in which a new file would become part of the policy.
    pub folders: Vec<PathBuf>,
    /// The SHA-256 over the text of all files, in hexadecimal digits.
    pub digest: String,
}

/// Reads and checks a policy and what it includes.
#[must_use]
pub fn load(path: &Path) -> Loaded {
    let mut loader = Loader::default();
    let main = loader.file(path, Role::Main);
    loader.whole(path, main)
}

/// Checks a policy as it would be with this text in `path`; what it includes is read.
#[must_use]
pub fn load_changed(path: &Path, text: String) -> Loaded {
    let mut loader = Loader::default();
    let main = loader.text(path, text);
    loader.whole(path, Some(main))
}

/// Checks the text of a policy, as if it stood in `path`. What it includes is not read.
#[must_use]
pub fn load_text(path: &Path, text: String) -> Loaded {
    let mut loader = Loader::default();
    let main = loader.text(path, text);
    loader.main(main);
    loader.together(path);
    loader.loaded()
}

#[derive(Default)]
struct Loader {
    policy: Policy,
    diagnostics: Vec<Diagnostic>,
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Loader {
    /// The main file's rules and those of what it includes.
    fn whole(mut self, path: &Path, main: Option<Parsed>) -> Loaded {
        if let Some(main) = main {
            let base = path.parent().unwrap_or(Path::new("/"));
            for pattern in &self.main(main) {
                self.include(base, pattern);
            }
            self.together(path);
        }
        self.loaded()
    }

    fn text(&mut self, path: &Path, text: String) -> Parsed {
        self.files.push(path.to_owned());
        let file = self.policy.sources.add(path.to_owned(), text);
        parse(&self.policy.sources, file, Role::Main)
    }

    fn file(&mut self, path: &Path, role: Role) -> Option<Parsed> {
        // Even a file that cannot be read now is one to watch.
        self.files.push(path.to_owned());
        match read(path) {
            Ok((text, everybody_writes)) => {
                if everybody_writes {
                    let what = "everybody can write this file, and so open the port".to_owned();
                    let found = Diagnostic::of_file(path, what, "chmod o-w the file");
                    self.diagnostics.push(Diagnostic { severity: Severity::Warning, ..found });
                }
                let file = self.policy.sources.add(path.to_owned(), text);
                Some(parse(&self.policy.sources, file, role))
            }
            Err((what, mend)) => {
                self.diagnostics.push(Diagnostic::of_file(path, what, mend));
                None
            }
        }
    }

    /// Takes what the main file says, and returns what it includes.
    fn main(&mut self, main: Parsed) -> Vec<Located<String>> {
        let includes = main.include.clone();
        self.policy.guard = main.guard.clone().unwrap_or_default();
        self.policy.gateway.clone_from(&main.gateway);
        self.policy.detect = main.detect.clone().unwrap_or_default();
        self.policy.respond.clone_from(&main.respond);
        self.policy.alert = main.alert.clone().unwrap_or_default();
        self.policy.relay.clone_from(&main.relay);
        self.take(main);
        includes
    }

    fn loaded(mut self) -> Loaded {
        let digest = digest(&self.policy.sources);
        let good = !self.diagnostics.iter().any(Diagnostic::is_error);
        self.policy.draft = !good;
        Loaded {
            policy: good.then(|| self.policy.clone()),
            draft: self.policy,
            diagnostics: self.diagnostics,
            files: self.files,
            folders: self.folders,
            digest,
        }
    }

    fn take(&mut self, parsed: Parsed) {
        self.diagnostics.extend(parsed.diagnostics);
        self.policy.rules.extend(parsed.rules);
    }

    fn include(&mut self, base: &Path, pattern: &Located<String>) {
        let wild = pattern.value.contains(['*', '?']);
        let mut paths = vec![base.to_owned()];
        for part in Path::new(&pattern.value).components() {
            let part = part.as_os_str().to_string_lossy();
            paths = paths.iter().flat_map(|path| self.step(path, &part)).collect();
        }
        for path in paths {
            if wild && !path.is_file() {
                continue;
            }
            if self.files.contains(&path) {
                let what = format!("{} is included already", path.display());
                self.find(Severity::Warning, pattern, what, "take one of the two out");
            } else if !path.exists() {
                let what = format!("the included file {} does not exist", path.display());
                self.find(Severity::Error, pattern, what, "create it, or include a pattern such as \"conf.d/*.toml\"");
            } else if let Some(parsed) = self.file(&path, Role::Included) {
                self.take(parsed);
            }
        }
    }

    /// The paths below a folder that a part of a pattern stands for, sorted.
    fn step(&mut self, folder: &Path, part: &str) -> Vec<PathBuf> {
        if !part.contains(['*', '?']) {
            return vec![folder.join(part)];
        }
        self.folders.push(folder.to_owned());
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        // A folder that is not there holds no files.
        let mut names: Vec<String> = fs::read_dir(here)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| matches(part, name))
            .collect();
        names.sort();
        names.into_iter().map(|name| folder.join(name)).collect()
    }

    fn find<T>(&mut self, severity: Severity, at: &Located<T>, what: String, mend: &str) {
        self.diagnostics.push(self.policy.sources.diagnostic(severity, at.place, what, mend.to_owned()));
    }

    /// What only shows when all files are read.
    fn together(&mut self, path: &Path) {
        let rules = std::mem::take(&mut self.policy.rules);
        let mut names: Vec<&Located<String>> = Vec::new();
        for name in rules.iter().filter_map(|rule| rule.name.as_ref()) {
            match names.iter().find(|before| before.value == name.value) {
                Some(before) => {
                    let first = self.policy.sources.line(before.place);
                    let what = format!("the name \"{}\" is taken by the rule at {first}", name.value);
                    self.find(Severity::Error, name, what, "give each rule a name of its own");
                }
                None => names.push(name),
            }
        }
        for rule in &rules {
            let open: Vec<String> =
                rule.ports.difference(&self.policy.guard.ports).take(8).map(u16::to_string).collect();
            if !open.is_empty() {
                let what = format!("this rule allows ports that are not guarded and open to all: {}", open.join(", "));
                let at = Located { value: (), place: rule.place };
                self.find(Severity::Warning, &at, what, "add them to ports in [guard], or take them out of the rule");
            }
        }
        if let Some(rule) = rules.get(MAX_RULES) {
            let what = format!("there are {} rules; {MAX_RULES} is the most the kernel's tables hold", rules.len());
            let at = Located { value: (), place: rule.place };
            self.find(Severity::Error, &at, what, "put executables, users and networks that go together into one rule");
        }
        self.gateway();
        if rules.is_empty() && !self.diagnostics.iter().any(Diagnostic::is_error) {
            let who = if self.policy.gateway.is_some() { "no program of this host" } else { "nothing" };
            let what = format!("there is no [[allow]] rule: {who} may send mail");
            let found = Diagnostic::of_file(path, what, "add one with mta = \"auto\" if there is a mail server here");
            self.diagnostics.push(Diagnostic { severity: Severity::Warning, ..found });
        }
        self.policy.rules = rules;
    }
}

impl Loader {
    /// What only shows when all of `[gateway]` is read.
    fn gateway(&mut self) {
        let Some(gateway) = self.policy.gateway.clone() else { return };
        let at = Located { value: (), place: gateway.place };
        if let Some(rule) = gateway.rules.get(MAX_RULES) {
            let count = gateway.rules.len();
            let what =
                format!("there are {count} rules of the gateway; {MAX_RULES} is the most the kernel's tables hold");
            let at = Located { value: (), place: rule.place };
            self.find(Severity::Error, &at, what, "put addresses and networks that go together into one rule");
        }
        let mut names: Vec<&Located<String>> = Vec::new();
        for name in gateway.rules.iter().filter_map(|rule| rule.name.as_ref()) {
            if names.iter().any(|before| before.value == name.value) {
                let what = format!("the name \"{}\" is taken by another rule of the gateway", name.value);
                self.find(Severity::Error, name, what, "give each rule a name of its own");
            }
            names.push(name);
        }
        let guarded = gateway.ports.as_ref().unwrap_or(&self.policy.guard.ports);
        let open: Vec<String> =
            gateway.rules.iter().flat_map(|rule| rule.ports.difference(guarded)).map(u16::to_string).collect();
        if !open.is_empty() {
            let what = format!("rules of the gateway allow ports that are open to all LAN hosts: {}", open.join(", "));
            self.find(Severity::Warning, &at, what, "add them to ports in [gateway], or take them out of the rules");
        }
    }
}

/// The text of a file, and whether everybody can write it; or what is wrong and the mend.
pub(super) fn read(path: &Path) -> Result<(String, bool), (String, &'static str)> {
    let unreadable = |error: io::Error| {
        let mend = if error.kind() == io::ErrorKind::NotFound {
            "create it; config/portreeve.toml of the source tree is one that works"
        } else {
            "look at the rights to the file and its folder, or run this as root"
        };
        (format!("cannot read {}: {error}", path.display()), mend)
    };
    let meta = fs::metadata(path).map_err(unreadable)?;
    if !meta.is_file() {
        return Err((format!("{} is no file", path.display()), "name the policy file itself"));
    }
    if meta.len() > LARGEST_FILE {
        return Err((format!("{} is larger than any policy can be", path.display()), "name the policy file itself"));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        (format!("line {line} of {} is not UTF-8", path.display()), "save the file as UTF-8")
    })?;
    Ok((text, meta.mode() & 0o002 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/portreeve.toml");

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn load_files(files: &[(&str, &str)]) -> (Loaded, tempfile::TempDir) {
        let folder = folder(files);
        (load(&folder.path().join("portreeve.toml")), folder)
    }

    #[test]
    fn the_default_policy_loads_without_a_finding() {
        let loaded = load(Path::new(DEFAULT));
        assert_eq!(loaded.diagnostics, []);
        let policy = loaded.policy.unwrap();
        assert_eq!(policy.guard, super::super::model::Guard::default());
        assert_eq!(policy.detect, crate::detect::Settings::default());
        assert_eq!(policy.rules.len(), 1);
        let alert = crate::alert::Settings { sinks: Vec::new(), ..policy.alert.clone() };
        assert_eq!(alert, crate::alert::Settings::default());
        let sinks: Vec<&str> = policy.alert.sinks.iter().map(|sink| sink.kind.name()).collect();
        assert_eq!(sinks, ["journald"]);
        assert_eq!((policy.digest().len(), policy.digest() == loaded.digest), (64, true));
    }

    #[test]
    fn the_commented_settings_of_the_default_policy_are_right_as_well() {
        // A line "#key = value" or "#[[allow]]" is a setting to uncomment; "# text" is prose.
        let text = fs::read_to_string(DEFAULT).unwrap();
        let uncommented: Vec<&str> = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => rest,
                _ => line,
            })
            .collect();
        let text = uncommented.join("\n");
        let (loaded, _folder) = load_files(&[("portreeve.toml", &text)]);
        let errors: Vec<String> =
            loaded.diagnostics.iter().filter(|found| found.is_error()).map(ToString::to_string).collect();
        assert_eq!(errors, [""; 0], "{text}");
        assert!(loaded.policy.unwrap().rules.len() > 3);
    }

    #[test]
    fn included_rules_follow_in_the_order_of_their_names() {
        let rule = |name: &str| format!("[[allow]]\nname = \"{name}\"\nexe = \"/x\"\nuser = \"{name}\"\n");
        let (loaded, folder) = load_files(&[
            ("portreeve.toml", &format!("include = [\"conf.d/*.toml\", \"none/*.toml\"]\n{}", rule("main"))),
            ("conf.d/b.toml", &rule("b")),
            ("conf.d/a.toml", &rule("a")),
            ("conf.d/.hidden.toml", "broken"),
            ("conf.d/readme", "broken"),
        ]);
        assert_eq!(loaded.diagnostics, []);
        let policy = loaded.policy.unwrap();
        let names: Vec<&str> = policy.rules.iter().map(|rule| rule.name.as_ref().unwrap().value.as_str()).collect();
        assert_eq!(names, ["main", "a", "b"]);
        assert_eq!(loaded.files.len(), 3);
        assert_eq!(loaded.folders, [folder.path().join("conf.d"), folder.path().join("none")]);
    }

    #[test]
    fn errors_of_all_files_are_shown_in_one_run_and_leave_no_policy() {
        let (loaded, _folder) = load_files(&[
            ("portreeve.toml", "include = [\"a.toml\", \"missing.toml\"]\n[guard]\nmode = \"x\"\n"),
            ("a.toml", "[[allow]]\nname = \"a\"\nusr = \"x\"\n[guard]\n"),
        ]);
        assert!(loaded.policy.is_none());
        let found: Vec<&str> = loaded.diagnostics.iter().map(|found| found.what.as_str()).collect();
        assert_eq!(found.len(), 5, "{found:#?}");
        assert!(loaded.diagnostics.iter().any(|found| found.file.ends_with("a.toml") && found.line == 3));
    }

    #[test]
    fn a_name_is_given_once() {
        let rule = "[[allow]]\nname = \"a\"\nmta = \"auto\"\n";
        let (loaded, _folder) = load_files(&[("portreeve.toml", &format!("{rule}{rule}"))]);
        assert!(loaded.diagnostics[0].what.starts_with("the name \"a\" is taken by the rule at"));
    }

    #[test]
    fn ports_that_are_not_guarded_and_a_policy_without_rules_are_warned_of() {
        let (loaded, _folder) = load_files(&[("portreeve.toml", "[[allow]]\nmta = \"auto\"\nports = [25, 587]\n")]);
        assert!(loaded.policy.is_some());
        assert!(loaded.diagnostics[0].what.ends_with("open to all: 587"));
        let (loaded, _folder) = load_files(&[("portreeve.toml", "")]);
        assert!(loaded.policy.is_some() && loaded.diagnostics[0].what.contains("nothing may send"));
    }

    #[test]
    fn more_rules_than_the_kernel_holds_are_an_error() {
        let rules: String = (0..257).map(|user| format!("[[allow]]\nexe = \"/x\"\nuser = {user}\n")).collect();
        let (loaded, _folder) = load_files(&[("portreeve.toml", &rules)]);
        assert!(loaded.policy.is_none() && loaded.diagnostics[0].what.starts_with("there are 257 rules"));
        assert_eq!(loaded.diagnostics[0].line, 256 * 3 + 1);
    }

    #[test]
    fn what_cannot_be_read_is_said_with_the_path() {
        let loaded = load(Path::new("/nonexistent/portreeve.toml"));
        assert!(
            loaded.policy.is_none() && loaded.diagnostics[0].to_string().contains("--> /nonexistent/portreeve.toml")
        );
        let folder = folder(&[]);
        assert!(load(folder.path()).diagnostics[0].what.ends_with("is no file"));
        fs::write(folder.path().join("x"), b"# a\n\xff").unwrap();
        assert!(load(&folder.path().join("x")).diagnostics[0].what.starts_with("line 2 of"));
    }
}
