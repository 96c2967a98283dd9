//! A change of a policy file that has been checked, and is yet to be written.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use similar::{ChangeTag, TextDiff};

use super::super::check::{Checked, check};
use super::super::diagnostic::{Diagnostic, printable};
use super::super::host::Host;
use super::super::load::{Loaded, load_changed, read};
use super::super::model::Policy;
use super::super::resolve::Resolved;
use super::{EditError, NewLanRule, NewRule, Which, WriteError, add_lan_rule, add_rule, remove_rule, write};

/// The longest name of a rule, in characters, that a number still fits behind.
const LONGEST: usize = 60;

/// A change of a policy file.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The file, as it was named.
    pub file: PathBuf,
    /// What it is about, as in `add the rule "probe"`.
    pub what: String,
    /// The text as it is.
    pub before: String,
    /// The text as it would be.
    pub after: String,
    /// What its author should know of the new text, and did not have to know of the old one.
    pub warnings: Vec<Diagnostic>,
    /// The file behind all links.
    target: PathBuf,
}

impl Proposal {
    /// Proposes to add a rule. One without a name gets one.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or edited, or would have errors.
    pub fn add(config: &Path, rule: &NewRule, host: &mut dyn Host) -> Result<Self, EditError> {
        let (before, target) = text_of(config)?;
        let loaded = load_changed(config, before.clone());
        let taken = || loaded.draft.rules.iter().filter_map(|rule| Some(rule.name.as_ref()?.value.as_str())).collect();
        let name = rule.name.clone().unwrap_or_else(|| free_name(&rule.usual_name(), &taken()));
        let what = format!("add the rule \"{name}\"");
        let after = add_rule(&before, &NewRule { name: Some(name), ..rule.clone() })?;
        let already = check(config, &loaded, host);
        Self { file: config.to_owned(), what, before, after, warnings: Vec::new(), target }.checked(&already, host)
    }

    /// Proposes to add a rule of the gateway. One whose name is taken gets a number behind it.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or edited, or would have errors.
    pub fn add_lan(config: &Path, rule: &NewLanRule, host: &mut dyn Host) -> Result<Self, EditError> {
        let (before, target) = text_of(config)?;
        let loaded = load_changed(config, before.clone());
        let rules = loaded.draft.gateway.iter().flat_map(|gateway| &gateway.rules);
        let taken = rules.filter_map(|rule| Some(rule.name.as_ref()?.value.as_str())).collect();
        let name = free_name(&rule.name, &taken);
        let what = format!("add the rule \"{name}\" of the gateway");
        let after = add_lan_rule(&before, &NewLanRule { name, ..rule.clone() })?;
        let already = check(config, &loaded, host);
        Self { file: config.to_owned(), what, before, after, warnings: Vec::new(), target }.checked(&already, host)
    }

    /// Proposes to take a rule out, by its name or its number among all rules of the policy.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or edited, or would have errors; when not exactly one rule is meant, or one in an
    /// included file.
    pub fn remove(config: &Path, which: &str, host: &mut dyn Host) -> Result<Self, EditError> {
        let (before, target) = text_of(config)?;
        let loaded = load_changed(config, before.clone());
        let already = check(config, &loaded, host);
        let number = find(&loaded, &already.resolved, which)?;
        let after = remove_rule(&before, Which::Number(number))?;
        let name = names(&loaded.draft, &already.resolved, number - 1).into_iter().next();
        let what = match name {
            Some(name) => format!("remove the rule \"{name}\""),
            None => format!("remove rule {number}"),
        };
        Self { file: config.to_owned(), what, before, after, warnings: Vec::new(), target }.checked(&already, host)
    }

    fn checked(mut self, already: &Checked, host: &mut dyn Host) -> Result<Self, EditError> {
        let checked = check(&self.file, &load_changed(&self.file, self.after.clone()), host);
        if checked.errors() > 0 {
            let findings = checked.findings.into_iter().filter(Diagnostic::is_error).collect();
            return Err(EditError::Errors { already: already.errors() > 0, findings });
        }
        // Lines have moved and rules have other numbers: a warning is known by the line's text and the remedy.
        let mut known: Vec<(String, String)> =
            already.findings.iter().map(|found| (found.source.clone(), found.mend.clone())).collect();
        for found in checked.findings {
            let same = known.iter().position(|(source, mend)| *source == found.source && *mend == found.mend);
            match same {
                Some(same) => drop(known.swap_remove(same)),
                None => self.warnings.push(found),
            }
        }
        Ok(self)
    }

    /// The change as a unified diff, with colours for a terminal or without.
    #[must_use]
    pub fn diff(&self, colour: bool) -> String {
        let paint = |code: &str, line: &str| match colour {
            true => format!("\x1b[{code}m{line}\x1b[0m\n"),
            false => format!("{line}\n"),
        };
        let name = self.file.display();
        let mut shown = paint("1", &format!("--- {name}")) + &paint("1", &format!("+++ {name}, as proposed"));
        let diff = TextDiff::from_lines(self.before.as_str(), self.after.as_str());
        for hunk in diff.unified_diff().iter_hunks() {
            shown += &paint("36", &hunk.header().to_string());
            for change in hunk.iter_changes() {
                // No control character of the file reaches the terminal, a carriage return neither.
                let line = printable(change.value().trim_end_matches(['\r', '\n']));
                shown += &match change.tag() {
                    ChangeTag::Delete => paint("31", &format!("-{line}")),
                    ChangeTag::Insert => paint("32", &format!("+{line}")),
                    ChangeTag::Equal => format!(" {line}\n"),
                };
                if change.missing_newline() {
                    shown += "\\ No newline at end of file\n";
                }
            }
        }
        shown
    }

    /// Writes it, if the file is still what it was.
    ///
    /// # Errors
    ///
    /// Why not; the file is then as it was.
    pub fn write(&self) -> Result<(), WriteError> {
        self.swap(&self.before, &self.after)
    }

    /// Writes the old text again, if the file is still as it was written.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn put_back(&self) -> Result<(), WriteError> {
        self.swap(&self.after, &self.before)
    }

    fn swap(&self, from: &str, to: &str) -> Result<(), WriteError> {
        if fs::canonicalize(&self.file).is_ok_and(|target| target != self.target) {
            return Err(WriteError::Changed { file: self.file.clone() });
        }
        write::replace(&self.target, from, to)
    }
}

/// The text of a policy's own file, and where the file is behind all links.
fn text_of(config: &Path) -> Result<(String, PathBuf), EditError> {
    let (text, _) = read(config).map_err(|(what, mend)| EditError::Unreadable { what, mend })?;
    let target = fs::canonicalize(config).map_err(|error: io::Error| {
        let what = format!("cannot follow {}: {error}", config.display());
        EditError::Unreadable { what, mend: "look at the rights to the folders on the way" }
    })?;
    Ok((text, target))
}

/// The number of the one rule that is meant, among those of the policy's own file.
fn find(loaded: &Loaded, resolved: &Resolved, which: &str) -> Result<usize, EditError> {
    let rules = &loaded.draft.rules;
    let called =
        (0..rules.len()).filter(|index| names(&loaded.draft, resolved, *index).iter().any(|name| name == which));
    let mut meant: BTreeSet<usize> = called.map(|index| index + 1).collect();
    meant.extend(which.parse::<usize>().ok().filter(|number| (1..=rules.len()).contains(number)));
    let shown = if which.bytes().all(|byte| byte.is_ascii_digit()) { which.to_owned() } else { format!("\"{which}\"") };
    match meant.iter().copied().collect::<Vec<_>>().as_slice() {
        [] => Err(EditError::NoSuchRule { which: shown }),
        [number] => {
            let place = rules[*number - 1].place;
            if place.in_main() {
                return Ok(*number);
            }
            let (file, line) = loaded.draft.at(place);
            Err(EditError::Included { which: shown, file, line })
        }
        several => {
            let numbers = several.iter().map(usize::to_string).collect();
            Err(EditError::Ambiguous { which: shown, numbers })
        }
    }
}

/// What a rule is called: by itself, and in records.
fn names(policy: &Policy, resolved: &Resolved, index: usize) -> Vec<String> {
    let own = policy.rules[index].name.as_ref().map(|name| name.value.clone());
    let in_records = resolved.rules.iter().filter(|rule| rule.source == index).map(|rule| rule.name.clone());
    own.into_iter().chain(in_records).collect()
}

/// The name, or the name with a number behind it if it is taken.
fn free_name(name: &str, taken: &BTreeSet<&str>) -> String {
    let name: String = name.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    let numbered = (2..).map(|number: u32| format!("{name} {number}"));
    let mut candidates = std::iter::once(name.clone()).chain(numbered);
    candidates.find(|candidate| !taken.contains(candidate.as_str())).unwrap_or(name)
}
