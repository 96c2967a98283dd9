//! The replay: files in, findings out.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal as _, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::Serialize;

use super::Replay;
use super::summary::Summary;
use crate::alert::Who;
use crate::cli::Outcome;
use crate::detect::{Detector, Finding, Settings, SubjectId};
use crate::policy::{self, Diagnostic};
use crate::trace::{Sighting, Tally, Trace, TraceError};

/// How much is read at once.
const CHUNK: usize = 1 << 18;
/// After how many attempts the clock is looked at, for the progress.
const LOOK: u64 = 1 << 14;
/// How often the progress is shown.
const SHOW: Duration = Duration::from_millis(500);

pub(super) fn run(args: &Replay) -> Outcome {
    let Some((settings, ports)) = settings(args) else { return Outcome::Wrong };
    let out = BufWriter::new(io::stdout().lock());
    let mut replayed = Replayed {
        expected: settings.expected.clone(),
        detector: Detector::new(settings),
        out,
        summary: args.summary.then(Summary::default),
        progress: Progress::new(),
    };
    let mut total = Tally::default();
    for path in &args.files {
        match replayed.file(path, args, &ports) {
            Ok(tally) => add(&mut total, tally),
            Err(Stop::Enough) => return Outcome::Done,
            Err(Stop::Trace(error)) => {
                replayed.progress.clear();
                eprintln!("portreeve: {error}");
                return Outcome::Wrong;
            }
        }
    }
    replayed.end(&total)
}

/// Why the replay goes no further.
enum Stop {
    /// Whoever reads the findings has read enough (head).
    Enough,
    Trace(TraceError),
}

struct Replayed<W: Write> {
    detector: Detector,
    expected: Vec<IpNet>,
    out: W,
    summary: Option<Summary>,
    progress: Progress,
}

impl<W: Write> Replayed<W> {
    fn file(&mut self, path: &Path, args: &Replay, ports: &[u16]) -> Result<Tally, Stop> {
        if path.as_os_str() == "-" {
            return self.trace(Trace::new("standard input", io::stdin().lock(), args.format.format(), ports));
        }
        let name = path.display().to_string();
        let open = |source| Stop::Trace(TraceError::Open { name: name.clone(), source });
        let file = File::open(path).map_err(open)?;
        self.trace(Trace::new(name, BufReader::with_capacity(CHUNK, file), args.format.format(), ports))
    }

    fn trace<R: BufRead>(&mut self, mut trace: Trace<R>) -> Result<Tally, Stop> {
        while let Some(sighting) = trace.next().map_err(Stop::Trace)? {
            if trace.tally().attempts.is_multiple_of(LOOK) {
                self.progress.show(trace.tally());
            }
            self.take(&sighting).map_err(|_closed| Stop::Enough)?;
        }
        Ok(trace.tally().clone())
    }

    fn take(&mut self, sighting: &Sighting) -> io::Result<()> {
        let expected = |network: &IpNet| sighting.source.address().is_some_and(|address| network.contains(&address));
        if self.expected.iter().any(expected) {
            if let Some(summary) = &mut self.summary {
                summary.expected += 1;
            }
            return Ok(());
        }
        let findings = self.detector.observe(&sighting.observation);
        if let Some(summary) = &mut self.summary {
            summary.take(sighting, &findings);
            return Ok(());
        }
        for finding in &findings {
            serde_json::to_writer(&mut self.out, &Line::of(finding, sighting))?;
            self.out.write_all(b"\n")?;
        }
        // A finding is rare, and whoever follows a pipe wants to see it.
        if findings.is_empty() { Ok(()) } else { self.out.flush() }
    }

    fn end(mut self, total: &Tally) -> Outcome {
        self.progress.clear();
        let skipped = total.unreadable > 0;
        if let Some(summary) = &self.summary
            && write!(self.out, "{}", summary.text(total)).and_then(|()| self.out.flush()).is_err()
        {
            return Outcome::Done;
        }
        if skipped && self.summary.is_none() {
            eprintln!("portreeve: {} lines could not be read and were skipped; the first:", total.unreadable);
            for fault in &total.faults {
                eprintln!("  {fault}");
            }
        }
        Outcome::Done
    }
}

/// A finding, in a line.
#[derive(Serialize)]
struct Line<'a> {
    time: jiff::Timestamp,
    kind: crate::detect::Kind,
    severity: crate::detect::Severity,
    subject: Subject,
    evidence: &'a crate::detect::Evidence,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
}

#[derive(Serialize)]
struct Subject {
    id: SubjectId,
    #[serde(flatten)]
    who: Who,
}

impl<'a> Line<'a> {
    /// The finding, about whoever made the attempt that decided. Only of "many programs" is the subject another one than
    /// the attempt's: the owner's.
    fn of(finding: &'a Finding, sighting: &'a Sighting) -> Self {
        Self {
            time: finding.time,
            kind: finding.kind,
            severity: finding.severity,
            subject: Subject { id: finding.subject, who: sighting.source.who() },
            evidence: &finding.evidence,
            label: sighting.label.as_deref(),
        }
    }
}

/// The settings of the detector and the ports: the defaults, those of a policy, and what the command line says.
fn settings(args: &Replay) -> Option<(Settings, Vec<u16>)> {
    let mut settings = Settings::default();
    let mut ports = args.ports.clone();
    if let Some(path) = &args.config {
        let loaded = policy::load(path);
        let errors = loaded.diagnostics.iter().filter(|found| found.is_error());
        errors.for_each(|error: &Diagnostic| eprintln!("{error}"));
        let policy = loaded.policy?;
        settings = policy.detect.clone();
        if ports.is_empty() {
            ports.extend(&policy.guard.ports);
        }
    }
    settings.expected.extend(&args.expected);
    Some((settings, ports))
}

fn add(total: &mut Tally, tally: Tally) {
    total.lines += tally.lines;
    total.attempts += tally.attempts;
    total.elsewhere += tally.elsewhere;
    total.others += tally.others;
    total.lost += tally.lost;
    total.unreadable += tally.unreadable;
    total.faults.extend(tally.faults);
}

/// Shows a terminal that something happens.
struct Progress {
    terminal: bool,
    shown: Option<Instant>,
    began: Instant,
}

impl Progress {
    fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), shown: None, began: Instant::now() }
    }

    fn show(&mut self, tally: &Tally) {
        if self.terminal && self.shown.unwrap_or(self.began).elapsed() >= SHOW {
            self.shown = Some(Instant::now());
            eprint!("\r{} lines, {} attempts\x1b[K", tally.lines, tally.attempts);
        }
    }

    fn clear(&self) {
        if self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests;
