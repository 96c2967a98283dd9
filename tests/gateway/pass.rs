//! What passes a gateway: mail for itself, mail from outside, and all that an allowed server sends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use lab::gateway::address::{BOT, EXCHANGER, GATEWAY, OUTSIDE, SERVER};
use lab::gateway::{Tried, connect, exchanger_at};
use lab::{DEADLINE, Gateway, Guard, Host, Sink, until};

use crate::{assert_refused_at_once, attempts, policy};

/// Sends a message of that many lines of 1,000 bytes from a host; `pause` is called before each hundred of them.
pub(crate) fn send_message(
    host: &Host,
    to: SocketAddr,
    lines: usize,
    mut pause: impl FnMut(usize) + Send,
) -> std::io::Result<()> {
    host.enter(|| {
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut out = stream.try_clone()?;
        let mut replies = BufReader::new(stream);
        let mut expect = |code: &str| {
            let mut line = String::new();
            while !line.starts_with(&format!("{code} ")) {
                line.clear();
                if replies.read_line(&mut line)? == 0 {
                    return Err(std::io::Error::other(format!("no {code}")));
                }
            }
            Ok(())
        };
        expect("220")?;
        for (command, code) in [
            ("EHLO mail.test", "250"),
            ("MAIL FROM:<a@mail.test>", "250"),
            ("RCPT TO:<b@sink.test>", "250"),
            ("DATA", "354"),
        ] {
            out.write_all(format!("{command}\r\n").as_bytes())?;
            expect(code)?;
        }
        let line = format!("{}\r\n", "x".repeat(998));
        for number in 0..lines {
            if number % 100 == 0 {
                pause(number);
            }
            out.write_all(line.as_bytes())?;
        }
        out.write_all(b".\r\n")?;
        expect("250")
    })
}

#[test]
fn a_long_message_of_the_mail_servers_arrives_whole() {
    let scene = Gateway::new("long");
    let guard = Guard::start(&scene.lab, &policy(""));
    for family in [0, 1] {
        // Over more than the second after which the devices are told of a connection again.
        send_message(&scene.server, exchanger_at(family, 25), 4000, |number| {
            if number % 1000 == 0 {
                std::thread::sleep(Duration::from_millis(700));
            }
        })
        .unwrap();
    }
    let messages = scene.exchanger.wait_for_messages(2, DEADLINE);
    assert!(
        messages.iter().all(|message| message.data.len() == 4000 * 999),
        "{:?}",
        messages.iter().map(|m| m.data.len()).collect::<Vec<_>>()
    );
    // One connection is one attempt, however long it takes.
    attempts(&guard, 2);
    let counters = guard.counters();
    assert_eq!((counters["allowed"], counters["refused"], counters["dropped"]), (2, 0, 0));
}

#[test]
fn an_allowed_servers_mail_passes_when_the_gateway_sends_it_elsewhere() {
    let scene = Gateway::new("dnat");
    // Addresses of the Internet's that nobody has: the gateway takes what is for them to the exchanger.
    let nobody = ["203.0.113.99", "2001:db8:9::99"];
    let rules = format!(
        "add table inet elsewhere; add chain inet elsewhere in {{ type nat hook prerouting priority dstnat; }}; \
         add rule inet elsewhere in ip daddr {} dnat ip to {}; add rule inet elsewhere in ip6 daddr {} dnat ip6 to {}",
        nobody[0], EXCHANGER[0], nobody[1], EXCHANGER[1]
    );
    scene.gateway.run("nft", &[&rules]);
    let guard = Guard::start(&scene.lab, &policy(""));
    for to in nobody {
        let to = SocketAddr::new(to.parse().unwrap(), 25);
        send_message(&scene.server, to, 2000, |number| {
            if number % 1000 == 0 {
                std::thread::sleep(Duration::from_millis(1500));
            }
        })
        .unwrap();
        assert_refused_at_once(&connect(&scene.bot, to), "the workstation");
    }
    assert_eq!(guard.counters()["allowed"], 2);
    assert_eq!(scene.exchanger.wait_for_messages(2, DEADLINE).len(), 2);
}

#[test]
fn mail_for_the_gateway_itself_is_the_policys_to_allow() {
    let scene = Gateway::new("itself");
    let own = Sink::listen(&scene.gateway, 25);
    let guard = Guard::start(&scene.lab, &policy(""));
    let all = [GATEWAY[0], GATEWAY[1], OUTSIDE[0], OUTSIDE[1]];
    for (number, address) in all.into_iter().enumerate() {
        assert_eq!(connect(&scene.bot, SocketAddr::new(address.parse().unwrap(), 25)), Tried::Greeted, "{address}");
        assert_eq!(guard.counters()["local"], number as u64 + 1, "{address}");
    }
    // An address that the gateway gets later is its own as well.
    scene.gateway.ip("addr add 10.9.0.2/24 dev lan0");
    let later: SocketAddr = "10.9.0.2:25".parse().unwrap();
    until("the new address to be the gateway's own", Duration::from_secs(3), || connect(&scene.bot, later).greeted());
    let accepted = own.accepted();
    guard.write_policy(&policy("local_submission = \"deny\""));
    guard.reload();
    for address in all {
        assert_refused_at_once(&connect(&scene.bot, SocketAddr::new(address.parse().unwrap(), 25)), address);
    }
    assert_eq!(own.accepted(), accepted);
    // The server's rule holds for the gateway as for everybody.
    assert_eq!(connect(&scene.server, SocketAddr::new(GATEWAY[0].parse().unwrap(), 25)), Tried::Greeted);
}

#[test]
fn mail_from_the_internet_comes_in_and_is_answered() {
    let scene = Gateway::new("inbound");
    let inside = Sink::listen(&scene.server, 25);
    scene.internet.ip(&format!("-6 route add fd09::/64 via {}", OUTSIDE[1]));
    // With and without the translation of addresses.
    let ways = [OUTSIDE[0], OUTSIDE[1], SERVER[1]].map(|address| SocketAddr::new(address.parse().unwrap(), 25));
    for to in ways {
        assert_eq!(connect(&scene.internet, to), Tried::Greeted, "to {to}, unguarded");
    }
    let guard = Guard::start(&scene.lab, &policy(""));
    for to in ways {
        assert_eq!(connect(&scene.internet, to), Tried::Greeted, "to {to}");
        send_message(&scene.internet, to, 300, |_| ()).unwrap();
    }
    inside.wait_for(9);
    let counters = guard.counters();
    assert_eq!((counters["refused"], counters["allowed"], counters["local"]), (0, 0, 0));
    assert_refused_at_once(&connect(&scene.bot, exchanger_at(0, 25)), BOT[0]);
}
