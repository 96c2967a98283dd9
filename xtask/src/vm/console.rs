//! What a boot's console says about what ran in it.

use std::collections::BTreeMap;

use super::machine::End;
use crate::test::Summary;

/// What init's job ends its output with; then come `ran=` and `failed=`.
const END: &str = "portreeve-vm: end ";
/// What a line with a fact begins with; then come its name, `=` and its value.
const FACT: &str = "portreeve-vm: fact ";

/// What has been read so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    sums: Summary,
    skipped: usize,
    /// How many programs ran, and how many of them failed.
    ended: Option<(usize, usize)>,
    panic: Option<String>,
    facts: BTreeMap<String, String>,
}

impl Report {
    /// Takes in one line.
    pub(super) fn read(&mut self, line: &str) {
        self.sums.add(Summary::of(line).unwrap_or_default());
        if line.starts_with("skipped: ") {
            self.skipped += 1;
        }
        if let Some((_, counts)) = line.split_once(END) {
            self.ended = counted(counts);
        }
        if let Some((name, value)) = line.split_once(FACT).and_then(|(_, fact)| fact.split_once('=')) {
            self.facts.insert(name.to_owned(), value.trim().to_owned());
        }
        if self.panic.is_none() && line.contains("Kernel panic") {
            self.panic = Some(line.trim().to_owned());
        }
    }

    /// The value of a fact that was told.
    pub(super) fn fact(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }

    /// The facts whose names begin so.
    pub(super) fn facts_below<'a>(&'a self, start: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let begun = self.facts.iter().filter(move |(name, _)| name.starts_with(start));
        begun.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The sums of the tests.
    pub(super) fn sums(&self) -> Summary {
        let mut sums = self.sums;
        sums.skip(self.skipped);
        sums
    }

    /// What is wrong with the whole, if `programs` had to run.
    pub(super) fn trouble(&self, end: End, programs: usize) -> Option<String> {
        if let Some(panic) = &self.panic {
            return Some(format!("the kernel panicked: {panic}"));
        }
        match (self.ended, end) {
            (Some((ran, 0)), _) if ran == programs => None,
            (Some((ran, _)), _) if ran != programs => Some(format!("{ran} of {programs} programs ran")),
            (Some((_, failed)), _) => Some(format!("{failed} of {programs} programs failed")),
            (None, End::TimedOut) => Some("it did not end in time, and was ended".to_owned()),
            (None, End::Off) => Some("the machine went off before the end".to_owned()),
        }
    }
}

/// Reads `ran=3 failed=0`.
fn counted(text: &str) -> Option<(usize, usize)> {
    let (ran, failed) = text.trim().strip_prefix("ran=")?.split_once(" failed=")?;
    Some((ran.parse().ok()?, failed.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::Report;
    use crate::vm::machine::End;

    fn report(lines: &[&str]) -> Report {
        let mut report = Report::default();
        lines.iter().for_each(|line| report.read(line));
        report
    }

    #[test]
    fn all_is_well_only_if_every_program_ran_to_its_end() {
        let well = report(&["test result: ok. 3 passed; 0 failed; 0 ignored; x", "portreeve-vm: end ran=2 failed=0"]);
        assert_eq!(well.trouble(End::Off, 2), None);
        assert_eq!(well.sums().passed, 3);
        assert_eq!(well.trouble(End::Off, 3).as_deref(), Some("2 of 3 programs ran"));
        let failed = report(&["portreeve-vm: end ran=2 failed=1"]);
        assert_eq!(failed.trouble(End::Off, 2).as_deref(), Some("1 of 2 programs failed"));
    }

    #[test]
    fn an_early_end_is_no_success() {
        let cut = report(&["test result: ok. 3 passed; 0 failed; 0 ignored; x", "portreeve-vm: end ran=2"]);
        assert_eq!(cut.trouble(End::Off, 2).as_deref(), Some("the machine went off before the end"));
        assert_eq!(cut.trouble(End::TimedOut, 2).as_deref(), Some("it did not end in time, and was ended"));
    }

    #[test]
    fn a_panic_is_named() {
        let line = "[    2.1] Kernel panic - not syncing: Attempted to kill init!";
        let panic = report(&[line, "portreeve-vm: end ran=1 failed=0"]);
        assert_eq!(panic.trouble(End::Off, 1), Some(format!("the kernel panicked: {line}")));
    }
}
