//! An office: a bot, a printer that scans to mail, and a mail server, told apart by what they do.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lab::gateway::address::{BOT_MAC, GATEWAY};
use lab::gateway::{Tried, connect, exchanger_at};
use lab::{DEADLINE, Gateway, Guard, Host, Sink, until};
use serde_json::Value;

use crate::{assert_refused_at_once, policy};

const PRINTER_MAC: &str = "02:00:00:00:00:99";
/// More than the fan-out test needs of a host of which nothing else is known.
const VICTIMS: u8 = 12;

fn json(guard: &Guard, arguments: &[&str]) -> Vec<Value> {
    let said = guard.command(arguments.iter().copied()).must_succeed().stdout;
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// From one mail exchanger to the next.
fn spam(host: &Host, network: u8) {
    for victim in 0..VICTIMS {
        let to = SocketAddr::new(IpAddr::from([198, 18 + network, victim, 25]), 25);
        assert_refused_at_once(&connect(host, to), "the workstation");
        // As a bot does that is refused: not all at one stroke, which one program's round of a server's addresses may be.
        std::thread::sleep(Duration::from_millis(60));
    }
}

#[test]
fn a_bot_is_told_from_a_printer_and_from_the_mail_server() {
    let scene = Gateway::new("office");
    let printer = scene.join("printer", PRINTER_MAC, 99);
    // The gateway has a mail server of its own, for what in the office cannot log in anywhere.
    let relay = Sink::listen(&scene.gateway, 25);
    let names = format!(
        "[[gateway.host]]\nname = \"front-desk\"\nmac = \"{BOT_MAC}\"\n[[gateway.host]]\nname = \"copier\"\nmac = \"{PRINTER_MAC}\"\n"
    );
    let guard = Guard::start(&scene.lab, &format!("{}{names}", policy("")));
    // The printer was set up for a server in the Internet, which it tries again and again; the one it may use it does not
    // know yet.
    for _ in 0..40 {
        assert_refused_at_once(&connect(&printer, exchanger_at(0, 25)), "the printer");
        std::thread::sleep(Duration::from_millis(60));
    }
    assert_eq!(connect(&printer, SocketAddr::new(GATEWAY[0].parse().unwrap(), 25)), Tried::Greeted);
    assert_eq!(connect(&scene.server, exchanger_at(0, 25)), Tried::Greeted);
    spam(&scene.bot, 0);
    let alert = until("an alert about the bot", DEADLINE, || {
        let alerts = json(&guard, &["alerts", "--all", "--json"]);
        if alerts.len() == 1 { Ok(alerts[0].clone()) } else { Err(alerts) }
    });
    let who = &alert["who"];
    assert_eq!([&who["mac"], &who["interface"]], [BOT_MAC, "lan0"], "{alert:#}");
    assert!(who["name"].as_str().unwrap().contains("front-desk"), "{alert:#}");
    assert_eq!(alert["findings"][0]["kind"], "fan-out", "{alert:#}");
    // Another address, the same network card: the same host, with all that is known of it.
    scene.bot.ip("addr flush dev eth0 scope global");
    scene.bot.ip("addr add 10.9.0.77/24 dev eth0");
    scene.bot.ip(&format!("route add default via {}", GATEWAY[0]));
    spam(&scene.bot, 1);
    let subjects = until("all of its attempts", DEADLINE, || {
        let subjects = json(&guard, &["subjects", "--json"]);
        let of_bot: Vec<Value> = subjects.into_iter().filter(|subject| subject["host"]["mac"] == BOT_MAC).collect();
        let refused: u64 = of_bot.iter().filter_map(|subject| subject["refused"].as_u64()).sum();
        if refused == 2 * u64::from(VICTIMS) { Ok(of_bot) } else { Err(of_bot) }
    });
    let alerts = json(&guard, &["alerts", "--all", "--json"]);
    assert_eq!(alerts.len(), 1, "one host, one alert: {alerts:#?}\n{subjects:#?}");
    assert_eq!(alerts[0]["id"], alert["id"]);
    assert_eq!(alerts[0]["attempts"], 2 * u64::from(VICTIMS), "{alerts:#?}");
    assert!(relay.accepted() >= 1);
}
