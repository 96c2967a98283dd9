//! Values in which `+XX` stands for a byte (RFC 3461 §4, `xtext`).

/// Reads a value; `None` if it is no xtext.
#[must_use]
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, more)) = rest.split_first() {
        match first {
            b'+' => {
                let digits = more.get(..2).and_then(|digits| std::str::from_utf8(digits).ok())?;
                bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?);
                rest = &more[2..];
            }
            b'!'..=b'~' => {
                bytes.push(first);
                rest = more;
            }
            _ => return None,
        }
    }
    Some(bytes)
}

/// Writes one.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'+' | b'=' => text.push_str(&format!("+{byte:02X}")),
            b'!'..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("+{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_xtext_is_refused() {
        for wrong in [&b"a b"[..], b"+4", b"+zz", b"+", b"\xff", b"++4"] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
        assert_eq!(decode(b"spike+2Eporcupine.org"), Some(b"spike.porcupine.org".to_vec()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(bytes: Vec<u8>) {
            prop_assert_eq!(decode(encode(&bytes).as_bytes()), Some(bytes));
        }
    }
}
