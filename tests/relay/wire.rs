//! What arrives is what was sent, byte for byte; and what another server could read differently does not arrive.

use rand::{RngExt as _, SeedableRng as _};

use crate::stage::Stage;

/// The sequences of which some server or other makes an end of data.
const ENDS: [&[u8]; 12] = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r\n.\r\r\n",
    b"\n\n.\r\n",
    b"\r\n.\0\r\n",
    b"\r\r\n.\r\r\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n\0.\r\n",
    b"\n.\r",
    b"\r\r\n.\r\n",
];
const SMUGGLED: &[u8] = b"MAIL FROM:<evil@x>\r\nRCPT TO:<victim@y>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n";

/// A message with dots everywhere, lines of every length up to the limits, and bytes of every value that is allowed.
fn message(random: &mut rand::rngs::ChaCha8Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.random_range(0..12) {
        let line = match random.random_range(0..8) {
            0 => Vec::new(),
            1 => b"..".to_vec(),
            2 => b"...".to_vec(),
            3 => b". ".repeat(random.random_range(1..4)),
            4 => vec![b'x'; random.random_range(900..1100)],
            5 => vec![b'y'; random.random_range(4000..20_000)],
            6 => (0..random.random_range(0..80)).map(|_| random.random_range(128..=255)).collect(),
            _ => (0..random.random_range(0..80)).map(|_| random.random_range(32..127)).collect(),
        };
        // As a client stuffs dots.
        if line.first() == Some(&b'.') && !line.starts_with(b"..") {
            bytes.push(b'.');
        }
        bytes.extend_from_slice(&line);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

#[test]
fn hundreds_of_messages_arrive_as_they_were_sent() {
    let stage = Stage::new("relay-same");
    let mut random = rand::rngs::ChaCha8Rng::seed_from_u64(25);
    let mut sent: Vec<Vec<u8>> = (0..400).map(|_| message(&mut random)).collect();
    sent.extend([Vec::new(), b"\r\n".to_vec(), b"..\r\n".to_vec(), vec![b'a'; 60_000], b"H: ".repeat(30_000)]);
    for last in sent.iter_mut().rev().take(2) {
        last.truncate(65_000);
        last.extend_from_slice(b"\r\n");
    }
    let mut talk = stage.hello();
    for (number, message) in sent.iter().enumerate() {
        if number % 50 == 49 {
            talk.ask("QUIT", "221");
            talk = stage.hello();
        }
        talk.data("a@x.example", "b@y.example");
        // Every third in small pieces, so that ends fall anywhere.
        let piece = if number % 3 == 0 { random.random_range(1..200) } else { usize::MAX };
        let whole = [message.as_slice(), b".\r\n"].concat();
        whole.chunks(piece.min(whole.len())).for_each(|piece| talk.send(piece));
        talk.expect("250 2.0.0 up: taken");
    }
    let taken = stage.up.taken();
    assert_eq!(taken.len(), sent.len());
    for (number, (taken, sent)) in taken.iter().zip(&sent).enumerate() {
        assert!(taken.behind_trace() == sent.as_slice(), "message {number} is another");
    }
    assert_eq!(stage.relay()["messages"]["delivered"], sent.len() as u64);
}

#[test]
fn nothing_that_could_end_a_message_elsewhere_goes_upstream() {
    let stage = Stage::new("relay-deny");
    let mut probes = 0;
    for end in ENDS {
        let message = [b"Subject: x\r\n\r\nhello", end, SMUGGLED].concat();
        for cut in 18..18 + end.len() + 4 {
            let mut talk = stage.hello();
            talk.data("a@x.example", "b@y.example");
            talk.send(&message[..cut]);
            talk.send(&message[cut..]);
            let reply = talk.expect("554 5.6.0 portreeve: the message has a ");
            assert!(reply.contains('('), "it names the message: {reply}");
            // What was smuggled is no command.
            assert_eq!(talk.reply(), "");
            probes += 1;
        }
    }
    assert_eq!(stage.up.taken(), []);
    assert!(!stage.up.heard().iter().any(|line| line.contains("evil@x")));
    assert_eq!(stage.relay()["messages"]["rejected"], probes);
}

#[test]
fn mended_messages_hold_no_other_end() {
    let stage = Stage::with("relay-fix", "smuggling = \"fix\"", "");
    for end in ENDS {
        let message = [b"Subject: x\r\n\r\nhello", end, SMUGGLED].concat();
        let mut talk = stage.hello();
        talk.data("a@x.example", "b@y.example");
        talk.send(&message);
        talk.expect("250 2.0.0 up: taken");
    }
    let taken = stage.up.taken();
    assert_eq!(taken.len(), ENDS.len());
    for taken in taken {
        assert!(!taken.bytes.contains(&0), "{taken:?}");
        let text = String::from_utf8(taken.bytes).unwrap();
        assert!(text.contains("evil@x") && text.contains("\r\nSubject: smuggled\r\n"), "it is text: {text}");
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert!(!lines.iter().any(|line| line.contains(['\r', '\n']) || *line == "."), "{lines:?}");
    }
}

#[test]
fn a_command_with_a_bare_line_end_ends_the_session() {
    let stage = Stage::new("relay-bare");
    for line in [&b"NOOP\nNOOP\r\n"[..], b"NO\0OP\r\n", b"NOOP\rX\r\n", &[b'a'; 5000]] {
        let mut talk = stage.hello();
        talk.send(line);
        talk.expect("500 5.5.2 portreeve: ");
        assert_eq!(talk.reply(), "");
    }
}
