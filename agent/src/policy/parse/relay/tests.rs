use std::time::Duration;

use super::super::tests::parse_text;
use super::*;
use crate::relay::settings::{Per, Tls};

fn read(text: &str) -> (Settings, Vec<String>) {
    let parsed = parse_text(text);
    let found = parsed.diagnostics.iter().map(|found| format!("{}:{} {}", found.line, found.column, found.what));
    (parsed.relay.unwrap(), found.collect())
}

#[test]
fn a_relay_is_read_with_all_its_keys() {
    let (relay, found) = read(
        "[relay]\nmode = \"before-queue\"\nlisten = [\"127.0.0.1:10026\", \"[::1]:10026\"]\npeers = [\"10.0.0.0/8\"]\n\
         name = \"relay.example\"\nsmuggling = \"fix\"\nlongest_line = \"2KiB\"\ncertificate = \"/c\"\nkey = \"/k\"\n\
         max_size = \"10MiB\"\nmax_recipients = 5\nmax_sessions = 6\nmax_hops = 7\nrefuse = \"hold\"\nbounce_guard = false\n\
         [[relay.upstream]]\nhost = \"mx.example\"\nport = 587\ntls = \"required\"\ntls_name = \"mx\"\nca_file = \"/ca\"\n\
         auth_file = \"/a\"\npriority = 2\n[[relay.upstream]]\nhost = \"192.0.2.1\"\ntls = \"implicit\"\n\
         [[relay.limit]]\nper = \"sender\"\nrecipients = 100\nevery = \"1h\"\nrefuse = \"discard\"\n\
         [relay.timeouts]\nconnect = \"1s\"\ncommand = \"2s\"\ndata = \"3s\"\nblock = \"4s\"\nend = \"5s\"\nclient = \"6s\"\n\
         drain = \"7s\"\n",
    );
    assert_eq!(found, [""; 0]);
    assert_eq!((relay.way, relay.listen.len(), relay.name()), (Way::BeforeQueue, 2, "relay.example".to_owned()));
    assert_eq!((relay.smuggling, relay.longest_line, relay.action), (Smuggling::Fix, 2048, Action::Hold));
    assert!(relay.takes(([10, 1, 2, 3], 1).into()) && !relay.takes(([127, 0, 0, 1], 1).into()));
    assert_eq!((relay.max_size, relay.max_recipients, relay.max_sessions, relay.max_hops), (10 << 20, 5, 6, 7));
    assert!(relay.certificate.is_some() && !relay.bounce_guard);
    let [first, second] = &relay.upstreams[..] else { panic!() };
    assert_eq!((first.title().as_str(), first.tls, first.priority), ("mx.example:587", Tls::Required, 2));
    assert_eq!((second.title().as_str(), second.tls), ("192.0.2.1:465", Tls::Implicit));
    assert_eq!((relay.limits[0].per, relay.limits[0].recipients), (Per::Sender, 100));
    assert_eq!((relay.timeouts.connect, relay.timeouts.drain), (Duration::from_secs(1), Duration::from_secs(7)));
}

#[test]
fn the_little_that_is_needed_is_enough() {
    let (relay, found) = read("[relay]\n[[relay.upstream]]\nhost = \"192.0.2.1\"\n");
    assert_eq!(found, [""; 0]);
    let expected = Settings { upstreams: relay.upstreams.clone(), ..Settings::default() };
    assert_eq!(relay, expected);
    assert_eq!((relay.name().as_str(), relay.upstreams[0].tls), ("[192.0.2.1]", Tls::Opportunistic));
    assert_eq!((relay.way, relay.listen.len()), (Way::Redirect, 2));
    assert!(relay.takes(([127, 0, 0, 9], 1).into()) && !relay.takes(([192, 0, 2, 1], 1).into()));
}

#[test]
fn what_is_wrong_is_found() {
    let found = |text: &str| read(text).1;
    assert_eq!(found("[relay]\n"), ["1:1 [relay] has no [[relay.upstream]]"]);
    let redirect = |keys: &str| found(&format!("[relay]\n{keys}\n[[relay.upstream]]\nhost = \"a\"\n"));
    let own = "with mode = \"redirect\" \"listen\" is this host's own loopback";
    assert_eq!(redirect("listen = \"192.0.2.1:25\""), [format!("2:10 {own}")]);
    assert_eq!(redirect("listen = \"[::1]:25\""), ["2:10 the relay listens at no IPv4 address"]);
    assert_eq!(redirect("peers = \"10.0.0.0/8\""), ["2:9 \"peers\" does not go with mode = \"redirect\""]);
    let relay = |keys: &str| {
        let text = format!("[relay]\nmode = \"relayhost\" \n{keys}\n[[relay.upstream]]\nhost = \"a\"\n");
        found(&text)
            .iter()
            .map(|found| {
                // Lines as without the mode.
                let (line, rest) = found.split_once(':').unwrap();
                let line: usize = line.parse().unwrap();
                format!("{}:{rest}", if line > 1 { line - 1 } else { line })
            })
            .collect::<Vec<String>>()
    };
    assert_eq!(relay("peers = [\"0.0.0.0/0\"]"), ["1:1 with \"peers\" 0.0.0.0/0 the relay is open to everybody"]);
    assert_eq!(relay("listen = \"25\""), ["2:10 \"25\" is no address with a port"]);
    assert_eq!(relay("key = \"/k\""), ["2:7 [relay] has \"key\" without \"certificate\""]);
    let own = nix::unistd::gethostname().unwrap().into_string().unwrap();
    assert_eq!(relay(&format!("name = \"{own}\"")), [format!("2:8 \"{own}\" is this host's own name")]);
    let upstream = |keys: &str| found(&format!("[relay]\n[[relay.upstream]]\n{keys}\n"));
    assert_eq!(upstream("port = 25"), ["2:1 this upstream has no \"host\""]);
    assert_eq!(upstream("host = \"a\"\nauth_file = \"/a\""), ["2:1 the password for a could be read on the way"]);
    assert_eq!(upstream("host = \"127.0.0.1\"\nauth_file = \"/a\""), [""; 0]);
    assert_eq!(upstream("host = \"a:25\"\nhots = 1").len(), 1);
    let limit = |keys: &str| relay(&format!("[[relay.limit]]\n{keys}"));
    assert_eq!(limit("per = \"sender\""), ["2:1 this limit has no \"recipients\""]);
    assert_eq!(limit("per = \"uid\"\nrecipients = 0").len(), 2);
    assert_eq!(relay("[relay.timeouts]\nend = \"10m\""), ["3:7 \"end\" is 10m, not from 1s to 590s"]);
}
