//! Any bytes as replies of an upstream.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portreeve::relay::wire::reply::parse;

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Ok(Some((used, reply))) = parse(rest) {
        assert!(used > 0 && (200..600).contains(&reply.code));
        let bytes = reply.bytes();
        assert!(bytes.ends_with(b"\r\n"));
        // What is sent on is the same reply, and nothing besides.
        let again = parse(bytes).expect("it is a reply").expect("a whole one");
        assert_eq!((again.0, &again.1), (bytes.len(), &reply));
        assert!(reply.enhanced().is_none_or(|code| code.starts_with(char::from(bytes[0]))));
        assert!(!reply.to_string().contains(['\r', '\n']));
        for end in 0..used.min(64) {
            assert_eq!(parse(&rest[..end]).map(|read| read.is_none()), Ok(true), "{end}");
        }
        rest = &rest[used..];
    }
});
