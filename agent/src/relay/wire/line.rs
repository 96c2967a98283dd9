//! Lines that end with CRLF, and with nothing else.

use memchr::memchr3;

use super::Bare;

/// What the bytes received so far begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Not a whole line yet.
    Partial,
    /// A line: so many bytes without its CRLF, which takes two more.
    Whole(usize),
    /// More bytes than a line may have.
    TooLong,
    /// A byte that no line may have.
    Bare(Bare),
}

/// Looks for the first line. `limit` is the most bytes a line may have, its CRLF included.
#[must_use]
pub fn first(input: &[u8], limit: usize) -> Line {
    match memchr3(b'\r', b'\n', 0, input) {
        None if input.len() >= limit => Line::TooLong,
        None => Line::Partial,
        Some(at) if at + 2 > limit => Line::TooLong,
        Some(at) => match (input[at], input.get(at + 1)) {
            (b'\r', Some(b'\n')) => Line::Whole(at),
            (b'\r', None) => Line::Partial,
            (b'\r', Some(_)) => Line::Bare(Bare::Cr),
            (b'\n', _) => Line::Bare(Bare::Lf),
            _ => Line::Bare(Bare::Nul),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_ends_with_both_characters() {
        assert_eq!(first(b"NOOP\r\nX", 512), Line::Whole(4));
        assert_eq!(first(b"\r\n", 512), Line::Whole(0));
        assert_eq!(first(b"NOOP\r", 512), Line::Partial);
        assert_eq!(first(b"NOOP\n", 512), Line::Bare(Bare::Lf));
        assert_eq!(first(b"NO\rOP\r\n", 512), Line::Bare(Bare::Cr));
        assert_eq!(first(b"NO\0OP\r\n", 512), Line::Bare(Bare::Nul));
    }

    #[test]
    fn the_limit_counts_the_end() {
        assert_eq!(first(b"1234\r\n", 6), Line::Whole(4));
        assert_eq!(first(b"12345\r\n", 6), Line::TooLong);
        assert_eq!(first(b"12345", 6), Line::Partial);
        assert_eq!(first(b"123456", 6), Line::TooLong);
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_an_answer(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(0), Just(b'a')], 0..12),
        ) {
            let whole = first(&bytes, 8);
            for end in 0..bytes.len() {
                let answer = first(&bytes[..end], 8);
                prop_assert!(answer == Line::Partial || answer == whole, "{:?} {:?}", answer, whole);
            }
        }
    }
}
