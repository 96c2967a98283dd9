//! Any bytes through the readers of traces, and what they make of them through the detector.

#![no_main]

use std::io::{BufRead, BufReader, Read as _};

use libfuzzer_sys::fuzz_target;
use portreeve::detect::{Detector, Settings};
use portreeve::trace::{Format, Sighting, Tally, Trace};

/// As the format shows, and as somebody says it is.
const FORMATS: [Option<Format>; 4] = [None, Some(Format::Attempts), Some(Format::Zeek), Some(Format::Argus)];
/// More than any line of `Tally::faults` needs, besides the name of the file.
const FAULT: usize = 1024;

fuzz_target!(|data: &[u8]| {
    for format in FORMATS {
        for ports in [&[][..], &[25, 587]] {
            check(data, format, ports);
        }
    }
});

/// What is read of a trace: attempts, the tally, and why it ended before its end.
type Answer = (Vec<Sighting>, Tally, Option<String>);

fn check(data: &[u8], format: Option<Format>, ports: &[u16]) {
    let answer = read(data, format, ports);
    assert_eq!(read(data, format, ports), answer, "the same answer twice");
    // A pipe gives what it has, wherever that ends.
    let (first, second) = data.split_at(somewhere(data));
    assert_eq!(read(first.chain(second), format, ports), answer, "in two reads, the first of {}", first.len());
    assert_eq!(read(BufReader::with_capacity(1, data), format, ports), answer, "byte by byte");

    let (found, tally, why) = answer;
    assert_eq!(tally.attempts, found.len() as u64);
    let ended = u64::from(why.as_ref().is_some_and(|why| !why.starts_with("no line of it")));
    assert_eq!(tally.lines, tally.attempts + tally.elsewhere + tally.others + tally.unreadable + ended, "{tally:?}");
    for shown in tally.faults.iter().chain(&why) {
        assert!(shown.len() <= FAULT && !shown.chars().any(char::is_control), "{shown:?}");
    }
    if found.is_empty() {
        // A detector takes longer to make than most inputs to read.
        return;
    }
    let mut detector = Detector::new(Settings { subjects: 64, ..Settings::default() });
    for sighting in &found {
        assert!(!sighting.source.who().name.is_empty());
        for finding in detector.observe(&sighting.observation) {
            assert!(finding.evidence.attempts > 0, "{finding:?}");
        }
    }
}

fn read(input: impl BufRead, format: Option<Format>, ports: &[u16]) -> Answer {
    let mut trace = Trace::new("t", input, format, ports);
    let mut found = Vec::new();
    let why = loop {
        match trace.next() {
            Ok(Some(sighting)) => found.push(sighting),
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    (found, trace.tally().clone(), why)
}

/// A place in the bytes that the bytes themselves choose, so that an input does the same each time (FNV-1a).
fn somewhere(data: &[u8]) -> usize {
    let hash = data
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    (hash % (data.len() as u64 + 1)) as usize
}
