//! Any bytes through the decoder of the kernel's events, to the record that people and scripts read.

#![no_main]

use std::cell::RefCell;
use std::mem::offset_of;

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use portreeve::attempt::{Attempt, Recorder};
use portreeve::clock::Clock;
use portreeve::kernel::decode_event;
use portreeve_abi::Event;
use serde_json::Value;

thread_local! {
    // One for all runs, as in the agent: it remembers users and processes.
    static RECORDER: RefCell<Recorder> = RefCell::new(Recorder::default());
}

fuzz_target!(|data: &[u8]| {
    check(data);
    check(&laid_out(data));
});

/// The bytes as an event of the right size: its head, and behind that its texts, each up to a 0xff.
fn laid_out(data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; size_of::<Event>()];
    let (head, texts) = data.split_at(data.len().min(offset_of!(Event, exe_path)));
    bytes[..head.len()].copy_from_slice(head);
    let places = [
        (offset_of!(Event, exe_path), offset_of!(Event, exe_path_used)),
        (offset_of!(Event, cgroup_path), offset_of!(Event, cgroup_path_used)),
        (offset_of!(Event, cmdline), offset_of!(Event, cmdline_used)),
    ];
    for (text, (at, used)) in texts.split(|byte| *byte == 0xff).zip(places) {
        let text = &text[..text.len().min(bytes.len() - at)];
        bytes[at..at + text.len()].copy_from_slice(text);
        bytes[used..used + 2].copy_from_slice(&(text.len() as u16).to_ne_bytes());
    }
    bytes
}

fn check(bytes: &[u8]) {
    let Some(event) = decode_event(bytes) else { return };
    let clock = Clock { boot: 1_000_000_000_000, wall: Timestamp::constant(1_900_000_000, 0) };
    let Some(attempt) = RECORDER.with_borrow_mut(|recorder| recorder.record(&event, &clock)) else { return };
    let line = attempt.to_string();
    assert!(!line.chars().any(char::is_control), "{line:?}");
    let json = serde_json::to_string(&attempt).expect("a record is JSON");
    assert!(!json.chars().any(char::is_control), "{json:?}");
    assert_eq!(serde_json::from_str::<Attempt>(&json).expect("the JSON is a record"), attempt);
    printable(&serde_json::to_value(&attempt).expect("a record is JSON"));
}

/// A script that prints a field of the JSON prints no control character either.
fn printable(value: &Value) {
    match value {
        Value::String(text) => assert!(!text.chars().any(char::is_control), "{text:?}"),
        Value::Array(values) => values.iter().for_each(printable),
        Value::Object(fields) => fields.values().for_each(printable),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
