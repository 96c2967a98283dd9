//! An alert about a LAN host becomes a rule.

use std::net::SocketAddr;

use lab::gateway::address::{BOT, BOT_MAC, EXCHANGER, LAN};
use lab::gateway::{Tried, connect, exchanger_at};
use lab::{DEADLINE, Gateway, Guard, until};
use serde_json::Value;

fn lines(guard: &Guard, command: &[&str]) -> Vec<Value> {
    let said = guard.command(command.iter().copied()).must_succeed().stdout;
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_alert_about_a_lan_host_becomes_the_narrowest_rule_that_lets_it_send() {
    let scene = Gateway::new("lan-allow");
    let before = format!("# Ours.\n[gateway]\nlan = [\"{LAN}\"] # inside\n");
    let guard = Guard::start(&scene.lab, &before);
    for number in 0..8 {
        let to: SocketAddr = format!("198.18.{number}.25:25").parse().unwrap();
        assert!(matches!(connect(&scene.bot, to), Tried::Refused(_)));
    }
    assert!(matches!(connect(&scene.bot, exchanger_at(0, 25)), Tried::Refused(_)));
    let id = until("the alert with all attempts", DEADLINE, || {
        let alerts = lines(&guard, &["alerts", "--json"]);
        let [alert] = &alerts[..] else { return Err(alerts) };
        if alert["attempts"] == 9 { Ok(alert["id"].to_string()) } else { Err(alerts) }
    });
    let policy = guard.policy().display().to_string();
    let allow = |more: &[&str]| {
        guard.command(["alerts", "allow", &id, "--config", &policy].into_iter().chain(more.iter().copied()))
    };
    let dry = allow(&["--dry-run"]).must_succeed();
    assert!(dry.stdout.contains("+[[gateway.allow]]"), "{}", dry.stdout);
    assert_eq!(std::fs::read_to_string(guard.policy()).unwrap(), before);
    allow(&["--yes", "--note", "ticket 7"]).must_succeed();
    let text = std::fs::read_to_string(guard.policy()).unwrap();
    assert!(text.starts_with(&before) && text.contains("ticket 7"), "{text}");
    for line in [format!("from = \"{}\"", BOT[0]), format!("mac = \"{BOT_MAC}\"")] {
        assert!(text.contains(&line), "{line}: {text}");
    }
    let alert = lines(&guard, &["alerts", "show", &id, "--json"]).pop().unwrap();
    assert_eq!((&alert["state"], &alert["resolution"]), (&"resolved".into(), &"allowed".into()), "{alert:#}");
    assert_eq!(connect(&scene.bot, exchanger_at(0, 25)), Tried::Greeted, "to {}: {text}", EXCHANGER[0]);
    // Nowhere else, and nobody else.
    assert!(matches!(connect(&scene.bot, "198.51.100.99:25".parse().unwrap()), Tried::Refused(_)));
    assert!(matches!(connect(&scene.server, exchanger_at(0, 25)), Tried::Refused(_)));
}
