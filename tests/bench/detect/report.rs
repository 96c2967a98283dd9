//! The report: each model, the counters beside it, and which figure of the bar is missed.

use std::collections::BTreeMap;

use super::benign::DAYS;
use super::counters::COUNTERS;
use super::model::{Model, Sort};
use super::score::Verdict;

/// The bar.
const RECALL: f64 = 0.99;
const PRECISION: f64 = 0.99;
const DESTINATIONS: usize = 5;

/// What came of every model.
#[derive(Debug, Default)]
pub(crate) struct Report {
    ours: Score,
    counters: [Score; COUNTERS.len()],
    /// Which figures of the bar are missed, in words.
    pub(crate) missed: Vec<String>,
}

/// Hits and errors over subjects.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Score {
    hits: usize,
    missed: usize,
    wrong: usize,
    right: usize,
}

impl Score {
    fn add(&mut self, bot: bool, found: bool) {
        match (bot, found) {
            (true, true) => self.hits += 1,
            (true, false) => self.missed += 1,
            (false, true) => self.wrong += 1,
            (false, false) => self.right += 1,
        }
    }

    /// Of the bots, the share that was found.
    pub(crate) fn recall(&self) -> f64 {
        share(self.hits, self.hits + self.missed)
    }

    /// Of what was found, the share that are bots. Of nothing found, nothing was right.
    pub(crate) fn precision(&self) -> f64 {
        share(self.hits, self.hits + self.wrong)
    }
}

fn share(part: usize, of: usize) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

impl Report {
    /// The heading of the rows.
    pub(crate) fn heading() {
        println!("\n{:<32} {:>5} {:>9}  {:<58}  counters that go off", "model", "subj.", "attempts", "the detector");
        let names = COUNTERS.map(|counter| format!("{:>8}", counter.name.chars().take(8).collect::<String>()));
        println!("{:108}{}", "", names.join(" "));
    }

    /// Prints a model's row and adds it up.
    pub(crate) fn row(&mut self, model: &Model, verdicts: &[Verdict]) {
        let attempts: usize = verdicts.iter().map(|verdict| verdict.attempts).sum();
        let what = if model.sort.is_bot() { self.bot(model, verdicts) } else { self.benign(model, verdicts) };
        let alarms: Vec<String> = (0..COUNTERS.len())
            .map(|at| verdicts.iter().filter(|verdict| verdict.alarms[at]).count())
            .map(|number| format!("{:>7.1}%", 100.0 * share(number, verdicts.len())))
            .collect();
        println!("{:<32} {:>5} {:>9}  {what:<58}  {}", model.name, verdicts.len(), attempts, alarms.join(" "));
        if model.sort != Sort::Uncounted {
            for verdict in verdicts {
                self.ours.add(model.sort.is_bot(), verdict.found.is_some());
                for (score, alarm) in self.counters.iter_mut().zip(verdict.alarms) {
                    score.add(model.sort.is_bot(), alarm);
                }
            }
        }
    }

    fn bot(&mut self, model: &Model, verdicts: &[Verdict]) -> String {
        let found: Vec<_> = verdicts.iter().filter_map(|verdict| verdict.found).collect();
        let mut met: Vec<f64> = found.iter().map(|found| f64::from(found.destinations)).collect();
        let mut seconds: Vec<f64> = found.iter().map(|found| found.seconds).collect();
        let mut tests: BTreeMap<&str, usize> = BTreeMap::new();
        let mut addresses: Vec<f64> = found.iter().map(|found| found.addresses as f64).collect();
        for found in &found {
            *tests.entry(found.kind.name()).or_default() += 1;
        }
        let rate = share(found.len(), verdicts.len());
        if rate < RECALL {
            self.missed.push(format!("{}: {:.1} % are found, not {:.0} %", model.name, 100.0 * rate, 100.0 * RECALL));
        }
        let Some(middle) = quantile(&mut met, 0.5) else { return "none found".to_owned() };
        if model.sort == Sort::FansOut && middle > DESTINATIONS as f64 {
            let name = model.name;
            self.missed.push(format!("{name}: found after {middle} destinations in the median, not {DESTINATIONS}"));
        }
        let tests: Vec<String> = tests.iter().map(|(name, number)| format!("{number} {name}")).collect();
        format!(
            "{:.1}% found, {:.0}/{:.0} dest. ({:.0}/{:.0} addr.), {}/{} ({})",
            100.0 * rate,
            middle,
            quantile(&mut met, 0.95).unwrap_or_default(),
            quantile(&mut addresses, 0.5).unwrap_or_default(),
            quantile(&mut addresses, 0.95).unwrap_or_default(),
            time(quantile(&mut seconds, 0.5).unwrap_or_default()),
            time(quantile(&mut seconds, 0.95).unwrap_or_default()),
            tests.join(", ")
        )
    }

    fn benign(&mut self, model: &Model, verdicts: &[Verdict]) -> String {
        let findings: usize = verdicts.iter().map(|verdict| verdict.findings).sum();
        let subjects = verdicts.iter().filter(|verdict| verdict.found.is_some()).count();
        let days = verdicts.len() as f64 * f64::from(DAYS);
        if findings > 0 && model.sort == Sort::Benign {
            self.missed.push(format!(
                "{}: {findings} findings about {subjects} of {} subjects in {DAYS} days, not 0",
                model.name,
                verdicts.len()
            ));
        }
        let mut tests: BTreeMap<&str, usize> = BTreeMap::new();
        for found in verdicts.iter().filter_map(|verdict| verdict.found) {
            *tests.entry(found.kind.name()).or_default() += 1;
        }
        let tests: Vec<String> = tests.iter().map(|(name, number)| format!("{number} {name}")).collect();
        let tests = if tests.is_empty() { String::new() } else { format!(" ({})", tests.join(", ")) };
        format!("{:.2} false findings per 1000 subject-days{tests}", 1000.0 * findings as f64 / days)
    }

    /// Prints what it all comes to.
    pub(crate) fn totals(&mut self) {
        let ours = self.ours;
        println!("\n{:<28} {:>8} {:>10} {:>8} {:>8}", "over subjects", "recall", "precision", "missed", "wrong");
        let row = |name: &str, score: &Score| {
            let (recall, precision) = (score.recall(), score.precision());
            println!("{name:<28} {recall:>8.4} {precision:>10.4} {:>8} {:>8}", score.missed, score.wrong);
        };
        row("Portreeve", &ours);
        for (counter, score) in COUNTERS.iter().zip(&self.counters) {
            row(counter.name, score);
        }
        for (counter, score) in COUNTERS.iter().zip(&self.counters) {
            let better = ours.recall() > score.recall() && ours.precision() > score.precision();
            println!("better than {} on both at once: {}", counter.name, if better { "yes" } else { "NO" });
            if !better {
                self.missed.push(format!("not better than {} on recall and precision at once", counter.name));
            }
        }
        for (name, figure, bar) in [("recall", ours.recall(), RECALL), ("precision", ours.precision(), PRECISION)] {
            if figure < bar {
                self.missed.push(format!("{name} over all subjects is {figure:.4}, not {bar}"));
            }
        }
    }
}

/// The value that this share of them does not exceed.
fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share).ceil() as usize;
    values.get(at.max(1) - 1).copied()
}

/// Seconds, short.
fn time(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0], 0.5), Some(2.0));
        assert_eq!(quantile(&mut [3.0, 1.0], 0.95), Some(3.0));
        assert_eq!(quantile(&mut [3.0, 1.0], 0.0), Some(1.0));
        assert_eq!(quantile(&mut [], 0.5), None);
    }

    #[test]
    fn recall_and_precision_are_over_subjects() {
        let mut score = Score::default();
        assert_eq!((score.recall(), score.precision()), (0.0, 0.0));
        for (bot, found) in [(true, true), (true, true), (true, false), (false, true), (false, false)] {
            score.add(bot, found);
        }
        assert_eq!((score.recall(), score.precision()), (2.0 / 3.0, 2.0 / 3.0));
    }
}
