//! Bots, as they are known from papers and reports. Where no figure is known, it says "assumed".

use std::net::IpAddr;

use portreeve::attempt::Attempt;

use super::actor::{Actor, DAY, HOUR, MINUTE, packaged};
use super::benign::{handed_over, local};
use super::world::Domain;

/// The most attempts of one bot: whatever has not been found by then is not found by more of the same.
const MOST: usize = 4000;

/// A dictionary spammer, straight to the mail exchangers, by many threads. Up to 25,000 messages an hour (Marshal8e6
/// TRACElabs on Rustock and Xarvester, 2009); most send less than they could (Kreibich et al., "Spamcraft", LEET 2009, on
/// Storm). Recipients are spread over domains as domains are popular, so the big providers come again and again, at
/// several addresses. The program lies in a temporary folder or is deleted, as Mumblehard's (ESET, 2015); threads and
/// retries are assumed.
pub(crate) fn dictionary(bot: &mut Actor<'_>) {
    let dropped = bot.program("/tmp/.font-unix/crond", "apache2.service", &["sh", "apache2"]);
    let deleted = bot.chance(0.5);
    let attempt = if deleted {
        let exe = Some("/usr/share/misc/update".to_owned());
        Attempt { exe, exe_deleted: true, parents: Vec::new(), ..dropped }
    } else {
        Attempt { package_known: bot.chance(0.5), ..dropped }
    };
    let program = bot.run(attempt);
    let threads = bot.one_of(5, 50);
    let gap = HOUR / bot.around(2000.0, 0.8).clamp(200.0, 25_000.0);
    let persistent = bot.chance(0.3);
    let mut at = start(bot);
    let end = at + HOUR;
    while at < end && bot.trace.len() < MOST {
        let domain = bot.world.popular(&mut bot.rng);
        let to = bot.world.exchangers(domain, &mut bot.rng);
        let thread = 2000 + bot.one_of(1, threads);
        bot.connect(at, program, thread, to[0], Some(domain));
        // Some take the next exchanger when the first refuses.
        if persistent && let Some(next) = to.get(1) {
            bot.connect(at + 0.05, program, thread, *next, Some(domain));
        }
        at += bot.wait(gap);
    }
}

/// Like Neris in CTU-13's scenarios 1, 2 and 9 (García et al., Computers & Security 45, 2014): an infected Windows host of
/// the LAN that sends to the mail exchangers itself, hours at a time. No program is known. The rate is assumed.
pub(crate) fn neris(bot: &mut Actor<'_>) {
    let host = bot.lan_host();
    let program = bot.run(host);
    let gap = bot.magnitude(0.4, 10.0);
    let mut at = start(bot);
    let end = at + HOUR;
    while at < end && bot.trace.len() < MOST {
        let domain = bot.world.popular(&mut bot.rng);
        let to = bot.world.exchangers(domain, &mut bot.rng);
        // Windows sends the first packet three times when nobody answers; that is one connection to a capture.
        bot.connect(at, program, 0, to[0], Some(domain));
        at += bot.wait(gap);
    }
}

/// Like Emotet's spam module with stolen logins: it submits to the providers of the accounts it has stolen, on ports 587,
/// 465 and 25 (Spamhaus on Emotet, 2021: tens of thousands of mails a day through breached accounts). Each account is used
/// for a few mails, then the next. How many each, and the rate, are assumed; so is that three accounts in four belong to
/// smaller domains.
pub(crate) fn emotet(bot: &mut Actor<'_>) {
    let host = bot.lan_host();
    let program = bot.run(host);
    let gap = bot.magnitude(1.0, 30.0);
    let each = bot.one_of(1, 15);
    let mut at = start(bot);
    let end = at + 6.0 * HOUR;
    while at < end && bot.trace.len() < MOST {
        let small = bot.chance(0.75);
        let domain = if small { bot.world.any(&mut bot.rng) } else { bot.world.popular(&mut bot.rng) };
        for _ in 0..bot.one_of(1, each) {
            let to = bot.world.submission(domain, &mut bot.rng);
            bot.connect(at, program, 0, to, Some(domain));
            at += bot.wait(gap);
        }
    }
}

/// Snowshoe: little from each of many senders, to stay below what anybody looks at (Spamhaus, CSS, 2009). One attempt
/// about every ten minutes for days, each to another exchanger, as the bar has it; half of them by the clock, half at
/// random.
pub(crate) fn snowshoe(bot: &mut Actor<'_>) {
    let attempt = bot.program("/home/user/.cache/gvfsd-http", "cron.service", &["sh", "cron"]);
    let attempt = Attempt { package_known: bot.chance(0.5), ..attempt };
    let program = bot.run(attempt);
    let regular = bot.chance(0.5);
    let mut at = start(bot);
    let end = at + 3.0 * DAY;
    while at < end {
        let domain = bot.world.any(&mut bot.rng);
        let to = bot.world.exchangers(domain, &mut bot.rng);
        let thread = bot.pid();
        bot.connect(at, program, thread, to[0], Some(domain));
        at += if regular { bot.between(540.0, 660.0) } else { bot.wait(600.0) };
    }
}

/// A bot that hands everything to one open relay: one destination, about 1 to 20 attempts a second, for hours (only the
/// first half hour is looked at). RFC 5321 §2.1 calls such a relay by its name; the rate is the bar's.
pub(crate) fn hammer(bot: &mut Actor<'_>) {
    let in_temporary = bot.chance(0.5);
    let exe = if in_temporary { "/var/tmp/.x/smtpd" } else { "/opt/app/bin/mailer" };
    let attempt = bot.program(exe, "cron.service", &["sh", "cron"]);
    let program = bot.run(attempt);
    let relay = bot.smart_host(1);
    let gap = 1.0 / bot.magnitude(1.0, 20.0);
    let threads = bot.one_of(1, 20);
    let mut at = start(bot);
    let end = at + HOUR / 2.0;
    while at < end && bot.trace.len() < 4 * MOST {
        let thread = 2000 + bot.one_of(1, threads);
        bot.connect(at, program, thread, relay[0], None);
        at += bot.wait(gap);
    }
}

/// A mailer behind a web shell: a script in an upload folder, run by the web server's user, which starts a new process
/// for each batch; some drop a new executable for each (Mumblehard's Perl daemon and its droppers, ESET 2015; the usual
/// PHP mailers send by `fsockopen`). Rates are assumed, those that hosting providers write of.
pub(crate) fn forking(bot: &mut Actor<'_>) {
    let dropper = bot.chance(0.35);
    let parent = if bot.chance(0.5) { "php-fpm8.2" } else { "apache2" };
    let unit = if parent == "apache2" { "apache2.service" } else { "php8.2-fpm.service" };
    let php = bot.program("/usr/bin/php8.2", unit, &["sh", parent]);
    let script = Some("/var/www/html/wp-content/uploads/2026/01/alfa.php".to_owned());
    let php = Attempt { script, package: Some("php8.2-cli".to_owned()), package_known: true, ..php };
    let mut program = bot.run(php);
    let gap = HOUR / bot.magnitude(200.0, 5000.0);
    let batch = bot.one_of(1, 20);
    let mut at = start(bot);
    let end = at + HOUR;
    let mut number = 0;
    while at < end && bot.trace.len() < MOST {
        if dropper {
            number += 1;
            let exe = format!("/tmp/php{number:05x}");
            let child = bot.program(&exe, unit, &["php8.2", parent]);
            program = bot.run(child);
        }
        let thread = bot.pid();
        for _ in 0..bot.one_of(1, batch) {
            let domain = bot.world.popular(&mut bot.rng);
            let to = bot.world.exchangers(domain, &mut bot.rng);
            bot.connect(at, program, thread, to[0], Some(domain));
            at += bot.wait(gap);
        }
    }
}

/// A bot that knows of the threshold random walk and knocks at a known door, or a few, between victims (Mell & Harang,
/// "Limitations to Threshold Random Walk Scan Detection and Mitigating Enhancements", IEEE CNS 2013: contacts that look
/// innocent buy back what the others cost).
pub(crate) fn interleaver(bot: &mut Actor<'_>) {
    let attempt = bot.program("/opt/app/.lib/agent", "app.service", &["systemd"]);
    let program = bot.run(attempt);
    let number = bot.one_of(1, 4);
    let doors = bot.smart_host(number);
    let knocks = bot.one_of(1, 4);
    let gap = bot.magnitude(2.0, 60.0);
    let mut at = start(bot);
    let end = at + DAY;
    while at < end && bot.trace.len() < MOST {
        victim(bot, &mut at, program, gap);
        for _ in 0..knocks {
            let door = doors[bot.one_of(0, number - 1) as usize];
            let thread = bot.pid();
            bot.connect(at, program, thread, door, None);
            at += bot.wait(gap);
        }
    }
}

/// The same with a door knocked at before each victim, and every victim tried again, twice or more, as an honest server
/// would, though sooner.
pub(crate) fn retrying(bot: &mut Actor<'_>) {
    let attempt = bot.program("/opt/app/.lib/agent", "app.service", &["systemd"]);
    let program = bot.run(attempt);
    let doors = bot.smart_host(1);
    let again = bot.one_of(1, 3);
    let gap = bot.magnitude(2.0, 60.0);
    let mut at = start(bot);
    let end = at + DAY;
    while at < end && bot.trace.len() < MOST {
        let thread = bot.pid();
        bot.connect(at, program, thread, doors[0], None);
        at += bot.wait(gap);
        let (domain, address) = victim(bot, &mut at, program, gap);
        for time in 1..=again {
            let thread = bot.pid();
            bot.connect(at + f64::from(time) * 5.0 * MINUTE, program, thread, address, Some(domain));
        }
    }
}

/// A host whose root is taken: the bot lies where an administrator's scripts do and is root's, or writes such a name over its
/// command line, and goes straight to the mail exchangers. Rates as of the dictionary spammer's slower half (assumed).
pub(crate) fn rooted(bot: &mut Actor<'_>) {
    let attempt = bot.program("/usr/bin/perl", "cron.service", &["sh", "cron"]);
    let script = Some("/usr/local/bin/report.pl".to_owned());
    let attempt = Attempt { script, script_of_root: true, ..attempt };
    let program = bot.run(packaged(attempt, "perl-base"));
    let gap = HOUR / bot.magnitude(60.0, 2000.0);
    let mut at = start(bot);
    let end = at + HOUR;
    while at < end && bot.trace.len() < MOST {
        victim(bot, &mut at, program, gap);
    }
}

/// A bot that finds port 25 shut and hands its mail to this host's own mail server, in the name of an application that has
/// used it before: a script in an upload folder that calls `mail()` as the shop beside it does. 500 to 10,000 mails an hour
/// for four hours, after a week with up to ten an hour, or without a past (all assumed; slower bots beside a busier shop are
/// not told from it). Times count from the first mail of that week.
pub(crate) fn local_path(bot: &mut Actor<'_>) {
    let attempt = bot.program("/usr/bin/php8.2", "php8.2-fpm.service", &["sh", "php-fpm8.2"]);
    let script = Some("/var/www/html/cron.php".to_owned());
    let program = bot.run(handed_over(packaged(Attempt { script, ..attempt }, "php8.2-cli")));
    let past = if bot.chance(0.5) { bot.magnitude(0.2, 10.0) } else { 0.0 };
    let days = 7.0 * DAY;
    let mut at = if past > 0.0 { bot.wait(HOUR / past) } else { days };
    while at < days {
        local(bot, at, program);
        at += bot.wait(HOUR / past);
    }
    let gap = HOUR / bot.magnitude(500.0, 10_000.0);
    let mut at = days + start(bot);
    let end = at + 4.0 * HOUR;
    let most = bot.trace.len() + 4 * MOST;
    while at < end && bot.trace.len() < most {
        local(bot, at, program);
        at += bot.wait(gap);
    }
}

/// A bot begins at any time of its first day.
fn start(bot: &mut Actor<'_>) -> f64 {
    bot.between(0.0, DAY)
}

/// One more victim.
fn victim<'w>(bot: &mut Actor<'w>, at: &mut f64, program: usize, gap: f64) -> (&'w Domain, IpAddr) {
    let domain = bot.world.popular(&mut bot.rng);
    let to = bot.world.exchangers(domain, &mut bot.rng);
    let thread = bot.pid();
    bot.connect(*at, program, thread, to[0], Some(domain));
    *at += bot.wait(gap);
    (domain, to[0])
}
