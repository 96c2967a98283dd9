//! Lines of a file, each bounded.

use std::io::{self, BufRead};

/// The longest line. An attempt with the longest command line and paths has a few kibibytes.
const LONGEST: usize = 1 << 20;

/// A file, line by line.
#[derive(Debug)]
pub(super) struct Lines<R> {
    input: R,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, line: Vec::new() }
    }

    /// The next line without its end. `Some(None)` stands for one that is too long; it is passed over.
    pub(super) fn next(&mut self) -> io::Result<Option<Option<&[u8]>>> {
        self.line.clear();
        let mut length = 0;
        // An empty line counts too, so that only the end of the file has nothing.
        let mut nothing = true;
        loop {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let piece = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or(chunk);
            if chunk.is_empty() && nothing {
                return Ok(None);
            }
            let last = end.is_some() || chunk.is_empty();
            let used = piece.len() + usize::from(end.is_some());
            length += piece.len();
            if length <= LONGEST {
                self.line.extend_from_slice(piece);
            }
            nothing = false;
            self.input.consume(used);
            if last {
                break;
            }
        }
        if length > LONGEST {
            self.line.clear();
            return Ok(Some(None));
        }
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        Ok(Some(Some(line)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn lines_are_read_whatever_the_buffer_and_the_ends() {
        for room in [1, 2, 3, 100] {
            let mut lines = Lines::new(BufReader::with_capacity(room, &b"one\r\n\ntwo\nlast"[..]));
            for expected in ["one", "", "two", "last"] {
                assert_eq!(lines.next().unwrap(), Some(Some(expected.as_bytes())), "room {room}");
            }
            assert_eq!(lines.next().unwrap(), None);
        }
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_the_longest() {
        let long = [vec![b'x'; 3 * LONGEST], b"\nnext\n".to_vec()].concat();
        let mut lines = Lines::new(BufReader::new(&long[..]));
        assert_eq!(lines.next().unwrap(), Some(None));
        // A vector grows by doubling.
        assert!(lines.line.capacity() <= 2 * LONGEST);
        assert_eq!(lines.next().unwrap(), Some(Some(&b"next"[..])));
    }
    #[test]
    fn whether_a_line_is_too_long_depends_on_neither_its_end_nor_the_buffer() {
        for (length, end, room) in [
            (LONGEST, "", 4096),
            (LONGEST, "\n", 4096),
            (LONGEST, "\n", 3 * LONGEST),
            (LONGEST + 1, "", 4096),
            (LONGEST + 1, "", 3 * LONGEST),
            (LONGEST + 1, "\n", 3 * LONGEST),
        ] {
            let text = [vec![b'x'; length], end.as_bytes().to_vec()].concat();
            let mut lines = Lines::new(BufReader::with_capacity(room, &text[..]));
            let read = lines.next().unwrap().map(|line| line.map(<[u8]>::len));
            assert_eq!(read, Some((length <= LONGEST).then_some(length)), "{length} bytes, end {end:?}, buffer {room}");
            assert_eq!(lines.next().unwrap(), None);
        }
    }
}
