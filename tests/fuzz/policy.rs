//! Any text through the policy's loader.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use portreeve::policy::{Diagnostic, load_text};

fuzz_target!(|text: &str| {
    let loaded = load_text(Path::new("/portreeve.toml"), text.to_owned());
    assert_eq!(loaded.policy.is_none(), loaded.diagnostics.iter().any(Diagnostic::is_error));
    for found in &loaded.diagnostics {
        check(found, text);
    }
});

/// A finding has a sentence, a mend, and a place that is in the text; and a terminal can show it.
fn check(found: &Diagnostic, text: &str) {
    assert!(!found.what.is_empty() && !found.mend.is_empty(), "{found:?}");
    let shown = found.to_string();
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    if found.line == 0 {
        assert!(!found.is_error(), "an error without a place: {found:?}");
        return;
    }
    let line = text.split('\n').nth(found.line - 1);
    let line = line.unwrap_or_else(|| panic!("no such line: {found:?}"));
    assert!((1..=line.chars().count() + 1).contains(&found.column), "{found:?}");
    // Shown as it is, but for what would upset a terminal.
    let rest: String = line.chars().skip(found.column - 1).map(shown_as).collect();
    assert!(rest.starts_with(&found.text), "{found:?}");
}

fn shown_as(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}
