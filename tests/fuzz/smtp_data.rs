//! Any bytes as a message: whatever the segments are, what is passed on is the definition's, and holds no other end.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portreeve::relay::message::Inspector;
use portreeve::relay::wire::data::{DataReader, Drain, Next, Smuggling};

fuzz_target!(|data: &[u8]| {
    let Some((&seed, data)) = data.split_first() else { return };
    for smuggling in [Smuggling::Deny, Smuggling::Fix] {
        let whole = read(smuggling, data, usize::MAX);
        for size in [1, 2, 3, 1 + usize::from(seed % 32)] {
            assert_eq!(read(smuggling, data, size), whole, "{smuggling:?} in pieces of {size}");
        }
        let (out, next) = whole;
        // A server that is as lenient as any finds no end in it.
        let text = [b"\r\n", out.as_slice()].concat();
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        let is_end = |line: &&[u8]| line.iter().filter(|byte| !b"\r\0".contains(byte)).eq([&b'.']);
        assert!(!lines[..lines.len() - 1].iter().any(is_end), "{out:?}");
        if smuggling == Smuggling::Deny && next == Next::End {
            assert!(data.starts_with(&out) && data[out.len()..].starts_with(b".\r\n"));
        }
    }
    let whole = Drain::at_start().read(data);
    let mut drain = Drain::at_start();
    let mut used = 0;
    for piece in data.chunks(1 + usize::from(seed % 7)) {
        let (more, ended) = drain.read(piece);
        used += more;
        if ended {
            break;
        }
    }
    assert_eq!(used, whole.0);
});

/// What is passed on, and what comes next.
fn read(smuggling: Smuggling, data: &[u8], size: usize) -> (Vec<u8>, Next) {
    let mut reader = DataReader::new(smuggling, 0);
    let (mut out, mut buffer) = (Vec::new(), Vec::new());
    let mut inspector = Inspector::new(true);
    for piece in data.chunks(size) {
        buffer.extend_from_slice(piece);
        let part = reader.read(&buffer);
        let (used, next) = (part.used, part.next);
        inspector.take(&part.pass);
        out.extend_from_slice(&part.pass);
        buffer.drain(..used);
        if next != Next::More {
            return (out, next);
        }
        assert!(buffer.len() <= 3, "it holds back no more than it must");
    }
    (out, Next::More)
}
