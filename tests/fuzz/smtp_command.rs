//! Any bytes as commands: lines, their words, and XFORWARD.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portreeve::relay::origin::Forwarded;
use portreeve::relay::wire::command::{Command, parse};
use portreeve::relay::wire::line::{Line, first};

/// A limit that inputs reach.
const LIMIT: usize = 256;

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Line::Whole(length) = first(rest, LIMIT) {
        let (line, more) = rest.split_at(length);
        assert!(more.starts_with(b"\r\n") && length + 2 <= LIMIT);
        check(line);
        rest = &more[2..];
    }
    // With more bytes, an answer other than "not yet" stays.
    let whole = first(rest, LIMIT);
    for end in 0..rest.len().min(LIMIT + 2) {
        let answer = first(&rest[..end], LIMIT);
        assert!(answer == Line::Partial || answer == whole, "{answer:?} {whole:?}");
    }
});

fn check(line: &[u8]) {
    assert!(!line.iter().any(|byte| b"\r\n\0".contains(byte)));
    match parse(line) {
        Command::Mail(envelope) | Command::Rcpt(envelope) => {
            assert!(!envelope.address.iter().any(u8::is_ascii_control));
            for (key, value) in envelope.parameters() {
                assert!(!key.contains(&b' ') && !value.contains(&b' '));
            }
        }
        Command::Ehlo(name) | Command::Helo(name) => assert!(name.is_ascii() && !name.is_empty()),
        Command::Xforward(arguments) => {
            let mut forwarded = Forwarded::default();
            if forwarded.take(arguments).is_ok() {
                for command in forwarded.commands(&["NAME", "ADDR", "HELO"].map(str::to_owned)) {
                    assert!(command.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{command:?}");
                    let Command::Xforward(again) = parse(command.as_bytes()) else { panic!("{command:?}") };
                    let mut same = Forwarded::default();
                    same.take(again).expect("what is sent on is understood");
                }
            }
        }
        _ => {}
    }
}
