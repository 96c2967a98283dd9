//! An office behind a gateway: a mail server that may send, a workstation with a bot on it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lab::gateway::address::{BOT, BOT_MAC, EXCHANGER, GATEWAY, SERVER, SERVER_MAC};
use lab::gateway::{Tried, connect, connect_from, exchanger_at};
use lab::{DEADLINE, Gateway, Guard, until};

use crate::{command, said, step};

/// How many mail exchangers the bot tries.
const VICTIMS: u8 = 12;

/// The whole scenario; whether everything came out as it should.
pub(crate) fn show() -> bool {
    step("An office: a mail server and a workstation on a switch, a gateway that hides them, the Internet.");
    let scene = Gateway::new("demo");
    said(&format!("mail server {} ({SERVER_MAC}), workstation {} ({BOT_MAC})", SERVER[0], BOT[0]));
    said(&format!("gateway {} in the office, an exchanger at {} in the Internet", GATEWAY[0], EXCHANGER[0]));

    step("Port 25 is still open: a bot on the workstation reaches the exchanger.");
    let before = connect(&scene.bot, exchanger_at(0, 25));
    said(outcome(&before));
    let reached = scene.exchanger.accepted();

    step("Now Portreeve guards the gateway, with this policy:");
    let policy = format!(
        "[gateway]\nlan = [\"lan0\"]\n\n[[gateway.allow]]\nname = \"mail server\"\nfrom = \"{}\"\nmac = \"{SERVER_MAC}\"\n\n\
         [[gateway.host]]\nname = \"front-desk\"\nmac = \"{BOT_MAC}\"\n",
        SERVER[0]
    );
    policy.lines().for_each(said);
    let guard = Guard::start(&scene.lab, &policy);

    step(&format!("The bot goes on, from one mail exchanger to the next: {VICTIMS} of them, and by IPv6."));
    let mut refused = 0;
    for victim in 0..VICTIMS {
        let to = SocketAddr::new(IpAddr::from([198, 18, victim, 25]), 25);
        refused += u8::from(matches!(connect(&scene.bot, to), Tried::Refused(_)));
        std::thread::sleep(Duration::from_millis(100));
    }
    said(&format!("{refused} of {VICTIMS} were refused at once"));
    let by_v6 = connect(&scene.bot, exchanger_at(1, 25));
    said(&format!("by IPv6 to {}: {}", EXCHANGER[1], outcome(&by_v6)));

    step("It takes the mail server's address.");
    scene.bot.ip(&format!("addr add {}/32 dev eth0", SERVER[0]));
    let disguised = connect_from(&scene.bot, SERVER[0].parse().ok(), exchanger_at(0, 25));
    said(outcome(&disguised));
    let leaked = scene.exchanger.accepted() - reached;
    said(&format!("the exchanger has met nobody new meanwhile: {leaked} connections"));
    scene.bot.ip(&format!("addr del {}/32 dev eth0", SERVER[0]));

    step("And the mail server sends.");
    let sent = until("the mail server to be let through", DEADLINE, || {
        // The gateway may still have the wrong card for its address.
        let tried = connect(&scene.server, exchanger_at(0, 25));
        if tried == Tried::Greeted { Ok(tried) } else { Err(tried) }
    });
    said(outcome(&sent));

    until("an alert", DEADLINE, || {
        let alerts = guard.command(["alerts", "--json"]).must_succeed().stdout;
        if alerts.lines().count() > 0 { Ok(()) } else { Err(alerts) }
    });
    for arguments in [["attempts"], ["subjects"], ["alerts"], ["status"]] {
        command(&guard, &arguments);
    }
    step(&format!("# portreeve explain --from {} --to {}", BOT[0], EXCHANGER[0]));
    let explained = guard.command(["explain", "--from", BOT[0], "--to", EXCHANGER[0]]);
    print!("{}", explained.stdout);
    println!();
    let kept_out = refused == VICTIMS && matches!((&by_v6, &disguised), (Tried::Refused(_), Tried::Refused(_)));
    // It would be refused: 1.
    let proved = before == Tried::Greeted && kept_out && leaked == 0 && sent == Tried::Greeted && explained.code == 1;
    if proved {
        println!(
            "Proved: the bot was refused {} times and reached nobody; it is on record with its card and its name, and there \
             is an alert about it; the mail server sent as before.",
            VICTIMS + 2
        );
    } else {
        println!("NOT proved: {refused} refused, {by_v6:?}, {disguised:?}, {leaked} got out, the server: {sent:?}");
    }
    proved
}

fn outcome(tried: &Tried) -> &'static str {
    match tried {
        Tried::Greeted => "connected, and greeted",
        Tried::Refused(_) => "refused at once: Connection refused",
        Tried::Prohibited(_) => "prohibited",
        Tried::Silence => "nothing came back",
        Tried::Other(_) => "something else",
    }
}
