//! What a target found, in few lines that tell all of it: the artefacts of a run in the cloud are gone with it, and of
//! its log the end is what is kept.

use std::{
    fs,
    io::{self, BufRead},
    path::Path,
};

use anyhow::{Context as _, Result};

/// How much of an input is written out, in bytes: two kibibytes of base64.
const INPUT: usize = 1536;
/// How much of what a target said about it is repeated, in lines and in characters of each.
const SAID: (usize, usize) = (6, 400);
/// Where libFuzzer and the sanitizers say what they found, if nothing panicked.
const VERDICTS: [&str; 2] = ["ERROR: ", "SUMMARY: "];

/// What a target says while it runs.
#[derive(Debug, Default)]
pub(super) struct Said {
    panic: Vec<String>,
    verdicts: Vec<String>,
    in_panic: bool,
    in_dictionary: bool,
}

impl Said {
    /// Listens to a target, and passes on what somebody may want to read while it runs.
    pub(super) fn listen(output: impl BufRead, mut show: impl FnMut(&str)) -> io::Result<Self> {
        let mut said = Self::default();
        for line in output.split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            if said.hear(&line) {
                show(&line);
            }
        }
        Ok(said)
    }

    /// Takes a line, and tells whether it is worth showing: each new place that is reached, and words for a dictionary,
    /// are hundreds of lines that nobody reads.
    fn hear(&mut self, line: &str) -> bool {
        if line.starts_with("###### ") {
            self.in_dictionary = line.contains("Recommended dictionary");
            return false;
        }
        if self.in_dictionary && line.starts_with('"') {
            return false;
        }
        // The first panic is the cause of all others.
        if line.starts_with("thread '") && line.contains(" panicked at ") && self.panic.is_empty() {
            self.in_panic = true;
        } else if ["note: ", "stack backtrace:", "==", "thread '"].iter().any(|end| line.starts_with(end)) {
            self.in_panic = false;
        }
        if self.in_panic {
            keep(&mut self.panic, line);
        } else if VERDICTS.iter().any(|verdict| line.contains(verdict)) {
            keep(&mut self.verdicts, line);
        }
        let reached = |what| line.starts_with('#') && line.contains(what) || line.starts_with("\tNEW_FUNC[");
        !reached("\tNEW ") && !reached("\tREDUCE")
    }

    /// What it was about, as far as it was said.
    fn message(&self) -> &[String] {
        if self.panic.is_empty() { &self.verdicts } else { &self.panic }
    }
}

fn keep(lines: &mut Vec<String>, line: &str) {
    let (most, longest) = SAID;
    if lines.len() < most && !line.trim().is_empty() {
        lines.push(line.chars().take(longest).collect());
    }
}

/// A finding with the input in it, which was kept at a path below the workspace.
pub(super) fn describe(target: &str, path: &Path, workspace: &Path, said: &Said) -> Result<String> {
    let input = fs::read(workspace.join(path)).with_context(|| format!("cannot read {}", path.display()))?;
    let begin = &input[..input.len().min(INPUT)];
    let part = if begin.len() < input.len() { format!("the first {} of ", begin.len()) } else { String::new() };
    let mut lines = vec![format!("found by {target}: {}", path.display())];
    lines.extend(said.message().iter().map(|line| format!("  {line}")));
    lines.push(format!("  {part}{} bytes in base64: {}", input.len(), base64(begin)));
    lines.push(format!(
        "  run it again (base64 -d makes it anew): cargo xtask fuzz {target} --input {}",
        path.display()
    ));
    Ok(lines.join("\n"))
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let bits = [0, 1, 2].iter().fold(0, |bits, at| bits << 8 | u32::from(chunk.get(*at).copied().unwrap_or(0)));
        let digit = |place: usize| char::from(DIGITS[(bits >> (18 - 6 * place) & 0x3f) as usize]);
        // A group of n bytes has n + 1 digits.
        [0, 1, 2, 3].map(|place| if place <= chunk.len() { digit(place) } else { '=' })
    };
    bytes.chunks(3).flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "#5\tINITED cov: 9 ft: 9 corp: 3/1Kb
#16\tNEW    cov: 12 ft: 13 corp: 4/1Kb lim: 33 exec/s: 0 rss: 44Mb L: 3/3 MS: 1 CopyPart-
\tNEW_FUNC[1/2]: 0x5617 in core::fmt::Display
#17\tREDUCE cov: 12 ft: 13 corp: 4/1Kb
#65536\tpulse  cov: 12 ft: 13 corp: 4/1Kb

thread '<unnamed>' (7) panicked at trace.rs:36:5:
assertion `left == right` failed: the same answer twice
  left: 1
 right: 2
stack backtrace:
   0: __rustc::rust_begin_unwind
note: run with more
==7== ERROR: libFuzzer: deadly signal
SUMMARY: libFuzzer: deadly signal
###### Recommended dictionary. ######
\"abc\" # Uses: 3
###### End of recommended dictionary. ######
";

    fn heard(log: &str) -> (Said, Vec<String>) {
        let mut shown = Vec::new();
        let said = Said::listen(log.as_bytes(), |line| shown.push(line.to_owned())).unwrap();
        (said, shown)
    }

    #[test]
    fn of_a_run_only_the_lines_of_interest_are_shown() {
        let (_, shown) = heard(LOG);
        assert!(
            shown.iter().all(|line| !["NEW", "REDUCE", "Uses:", "######"].iter().any(|noise| line.contains(noise)))
        );
        for kept in ["#5\tINITED", "#65536\tpulse", "stack backtrace:", "SUMMARY: "] {
            assert!(shown.iter().any(|line| line.starts_with(kept)), "{kept}");
        }
    }

    #[test]
    fn a_finding_tells_the_panic_and_the_whole_input() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("crash-1"), b"\xff\xfe\xfdx").unwrap();
        let described = describe("trace", Path::new("crash-1"), folder.path(), &heard(LOG).0).unwrap();
        let expected = "found by trace: crash-1
  thread '<unnamed>' (7) panicked at trace.rs:36:5:
  assertion `left == right` failed: the same answer twice
    left: 1
   right: 2
  4 bytes in base64: //79eA==
  run it again (base64 -d makes it anew): cargo xtask fuzz trace --input crash-1";
        assert_eq!(described, expected);
    }

    #[test]
    fn without_a_panic_the_verdict_is_told_and_a_long_input_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("slow"), vec![0; 3000]).unwrap();
        let log = "ALARM: working on the last Unit for 11 seconds\n==7== ERROR: libFuzzer: timeout after 11 seconds\n";
        let described = describe("trace", Path::new("slow"), folder.path(), &heard(log).0).unwrap();
        assert!(described.contains("\n  ==7== ERROR: libFuzzer: timeout after 11 seconds\n"), "{described}");
        let line = described.lines().find(|line| line.contains("base64: ")).unwrap();
        assert!(line.starts_with("  the first 1536 of 3000 bytes in base64: AAAA"), "{line}");
        assert_eq!(line.rsplit(' ').next().unwrap().len(), 2048);
        assert!(described.len() < 3000);
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        // RFC 4648 §10
        for (text, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }
}
