use proptest::prelude::*;

use super::*;

/// What comes out of a reader that gets the bytes in these pieces: what it passed on, what came next, what is left over.
fn read(smuggling: Smuggling, bytes: &[u8], pieces: &[usize]) -> (Vec<u8>, Next, Vec<u8>) {
    let mut reader = DataReader::new(smuggling, 0);
    let (mut out, mut buffer, mut given) = (Vec::new(), Vec::new(), 0_usize);
    for &piece in pieces.iter().chain([&usize::MAX]) {
        let end = bytes.len().min(given.saturating_add(piece));
        buffer.extend_from_slice(&bytes[given..end]);
        given = end;
        let part = reader.read(&buffer);
        let (used, next) = (part.used, part.next);
        out.extend_from_slice(&part.pass);
        buffer.drain(..used);
        if next != Next::More {
            buffer.extend_from_slice(&bytes[given..]);
            return (out, next, buffer);
        }
    }
    (out, Next::More, buffer)
}

/// The definition: the whole message at hand, no state.
fn naive(bytes: &[u8]) -> (Vec<u8>, Next) {
    let with_start = [b"\r\n", bytes].concat();
    let end = with_start.windows(5).position(|window| window == b"\r\n.\r\n");
    let text = &bytes[..end.unwrap_or(bytes.len())];
    let bad = (0..text.len()).find_map(|at| {
        let bare = match text[at] {
            0 => Bare::Nul,
            b'\n' if at == 0 || text[at - 1] != b'\r' => Bare::Lf,
            b'\r' if text.get(at + 1).is_some_and(|next| *next != b'\n') => Bare::Cr,
            _ => return None,
        };
        Some((at, bare))
    });
    match (bad, end) {
        (Some((at, bare)), _) => (text[..at].to_vec(), Next::Refused(Fault::Bare(bare))),
        (None, Some(_)) => (text.to_vec(), Next::End),
        (None, None) => (text.to_vec(), Next::More),
    }
}

/// Every way to cut some bytes into two or three pieces.
fn splits(length: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..=length).flat_map(move |first| (0..=length - first).map(move |second| vec![first, second]))
}

/// The sequences of which some server or other makes an end of data.
const MATRIX: [&[u8]; 14] = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r\n.\r\r\n",
    b"\n\n.\r\n",
    b"\r\n.\0\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n.\r\r\r\n",
    b"\r.\r",
    b"\r\n.\r",
    b"\r.\r\n",
    b"\r\n\0.\r\n",
    b"\n.\r",
    b"\r\r\n.\r\n",
];
const SMUGGLED: &[u8] = b"MAIL FROM:<b@x>\r\nRCPT TO:<c@y>\r\nDATA\r\nX: y\r\n\r\nz\r\n.\r\n";

/// Whether a lenient server could see an end in what is passed on: a dot between any two of CR, LF and NUL.
fn has_end(bytes: &[u8]) -> bool {
    let with_start = [b"\r\n", bytes].concat();
    let lines: Vec<&[u8]> = with_start.split(|byte| *byte == b'\n').collect();
    let inner = &lines[..lines.len() - 1];
    inner.iter().any(|line| line.iter().filter(|byte| !b"\r\0".contains(byte)).eq([&b'.']))
}

#[test]
fn what_others_take_for_an_end_is_never_passed_on_at_any_split() {
    for sequence in MATRIX {
        for message in [b"Subject: x\r\n\r\nhello".as_slice(), b""] {
            let bytes = [message, sequence, SMUGGLED].concat();
            for pieces in splits(bytes.len().min(message.len() + sequence.len() + 6)) {
                let (out, next, _) = read(Smuggling::Deny, &bytes, &pieces);
                assert!(matches!(next, Next::Refused(Fault::Bare(_))), "{sequence:?} {pieces:?} {next:?}");
                assert!(!has_end(&out) && !out.contains(&0), "{sequence:?} {pieces:?} {out:?}");

                let (out, next, rest) = read(Smuggling::Fix, &bytes, &pieces);
                assert_eq!((next, rest.is_empty()), (Next::End, true), "{sequence:?} {pieces:?}");
                assert!(!has_end(&out), "{sequence:?} {pieces:?} {:?}", String::from_utf8_lossy(&out));
            }
        }
    }
}

#[test]
fn a_clean_message_is_passed_on_byte_by_byte() {
    let message = b"Subject: dots\r\n\r\n..\r\n.a\r\n...\r\n\xe4\xff\r\n \r\n\r\n";
    let bytes = [&message[..], b".\r\nQUIT\r\n"].concat();
    for smuggling in [Smuggling::Deny, Smuggling::Fix] {
        for pieces in splits(bytes.len()) {
            assert_eq!(read(smuggling, &bytes, &pieces), (message.to_vec(), Next::End, b"QUIT\r\n".to_vec()));
        }
        assert_eq!(read(smuggling, b".\r\n", &[]), (Vec::new(), Next::End, Vec::new()), "an empty message");
    }
}

#[test]
fn broken_line_ends_are_mended() {
    for (bytes, mended) in [
        (&b"a\nb\r\n.\r\n"[..], &b"a\r\nb\r\n"[..]),
        (b"a\rb\r\n.\r\n", b"a\r\nb\r\n"),
        (b"a\r\r\nb\r\n.\r\n", b"a\r\nb\r\n"),
        (b"a\0b\r\n.\r\n", b"a b\r\n"),
        (b"a\n.\nb\r\n.\r\n", b"a\r\n..\r\nb\r\n"),
        (b"a\r\n.\nb\r\n.\r\n", b"a\r\n..\r\nb\r\n"),
        (b"a\r\n.\r\rb\r\n.\r\n", b"a\r\n..\r\n\r\nb\r\n"),
        (b"a\n.b\r\n.\r\n", b"a\r\n..b\r\n"),
        (b"a\r\n.b\n..c\r\n.\r\n", b"a\r\n.b\r\n...c\r\n"),
    ] {
        let (out, next, _) = read(Smuggling::Fix, bytes, &[]);
        assert_eq!((out.as_slice(), next), (mended, Next::End), "{bytes:?} {:?}", String::from_utf8_lossy(&out));
    }
}

#[test]
fn a_line_may_be_as_long_as_the_limit() {
    for smuggling in [Smuggling::Deny, Smuggling::Fix] {
        for (length, next) in [(10, Next::End), (11, Next::Refused(Fault::LongLine))] {
            let bytes = [&b"short\r\n"[..], &vec![b'a'; length], b"\r\n.\r\n"].concat();
            let mut reader = DataReader::new(smuggling, 10);
            assert_eq!(reader.read(&bytes).next, next, "{length}");
        }
    }
}

#[test]
fn the_end_of_a_refused_message_is_found_at_every_split() {
    let bytes = b"a\n.\nb\0\r\n.\r\r\n.\n\r\r\n.\r\nNOOP\r\n";
    let end = bytes.len() - 6;
    for pieces in splits(bytes.len()) {
        let (mut drain, mut given, mut used, mut ended) = (Drain::default(), 0_usize, 0, false);
        for piece in pieces.into_iter().chain([usize::MAX]) {
            let upto = bytes.len().min(given + piece.min(bytes.len()));
            if !ended {
                let (more, done) = drain.read(&bytes[given..upto]);
                (used, ended) = (used + more, done);
            }
            given = upto;
        }
        assert_eq!((used, ended), (end, true));
    }
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => proptest::sample::select(&b"\r\n.\0a"[..]).prop_map(|byte| vec![byte]),
        2 => Just(b"\r\n".to_vec()),
        1 => Just(b"\r\n.\r\n".to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_reader_is_the_definition(bytes in hostile(), pieces in proptest::collection::vec(0usize..7, 0..60)) {
        let (out, next) = naive(&bytes);
        let (passed, came, left) = read(Smuggling::Deny, &bytes, &pieces);
        prop_assert_eq!(came, next);
        if next == Next::More {
            // The reader holds back what it cannot tell yet, and no more than that.
            prop_assert!(left.len() <= 3);
            prop_assert_eq!([passed, left].concat(), bytes);
        } else {
            prop_assert_eq!(passed, out);
        }
    }

    #[test]
    fn what_is_mended_holds_no_end_and_nothing_bare(
        bytes in hostile(), pieces in proptest::collection::vec(0usize..7, 0..60),
    ) {
        let (out, next, left) = read(Smuggling::Fix, &bytes, &[]);
        prop_assert_eq!(read(Smuggling::Fix, &bytes, &pieces), (out.clone(), next, left));
        prop_assert!(!has_end(&out), "{:?}", out);
        let (_, again) = naive(&out);
        prop_assert_eq!(again, Next::More, "nothing bare, and no end");
        if next == Next::End {
            prop_assert!(out.is_empty() || out.ends_with(b"\r\n"));
        }
    }
}
