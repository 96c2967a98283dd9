//! Programs that mean no harm and have no rule: as their own documents say they behave, refused all the while. Where no
//! figure is known, it says "assumed". Every model runs for thirty days.

use std::net::IpAddr;

use portreeve::attempt::Attempt;

use super::actor::{Actor, DAY, HOUR, MINUTE, packaged};

/// How long a model runs, in days.
pub(crate) const DAYS: u32 = 30;

/// A web application with PHPMailer pointed at a remote smart host of one to four addresses. PHP tries every address of a
/// name before it gives up (`php_network_connect_socket_to_host`, main/network.c). How many mails a day is assumed; some
/// applications queue and try thrice, a minute apart (Laravel's and WordPress's queue plug-ins do).
pub(crate) fn phpmailer(app: &mut Actor<'_>) {
    let fpm = app.chance(0.5);
    let (exe, unit, package) = if fpm {
        ("/usr/sbin/php-fpm8.2", "php8.2-fpm.service", "php8.2-fpm")
    } else {
        ("/usr/sbin/apache2", "apache2.service", "apache2-bin")
    };
    let attempt = app.program(exe, unit, &[exe.rsplit('/').next().unwrap_or_default(), "systemd"]);
    let program = app.run(packaged(attempt, package));
    let number = app.one_of(1, 4);
    let host = app.smart_host(number);
    let mails = app.around(40.0, 1.0).min(1000.0);
    let tries = if app.chance(0.3) { 3 } else { 1 };
    sends(app, mails, |app, at, _| {
        for time in 0..tries {
            app.connect_all(at + f64::from(time) * MINUTE, program, &host, None);
        }
    });
}

/// A cron job that mails its report to a handful of domains by itself, each with several exchangers, tried in one go as
/// RFC 5321 §5.1 asks; what was refused is tried again by the next run. Assumed: hourly, four times a day, or daily. The
/// script is root's, in a folder for what an administrator installs (FHS 3.0 §4.9) that only root may write to.
pub(crate) fn cron(job: &mut Actor<'_>) {
    let attempt = job.program("/usr/bin/perl", "cron.service", &["sh", "cron"]);
    let script = Some("/usr/local/bin/report.pl".to_owned());
    let attempt = Attempt { script, script_of_root: true, ..attempt };
    let program = job.run(packaged(attempt, "perl-base"));
    let recipients: Vec<_> = (0..job.one_of(1, 6)).map(|_| job.world.popular(&mut job.rng)).collect();
    let every = [HOUR, 6.0 * HOUR, DAY][job.one_of(0, 2) as usize];
    let mut at = job.between(0.0, every);
    while at < f64::from(DAYS) * DAY {
        let mut step = at;
        for domain in &recipients {
            let mut to = job.world.exchangers(domain, &mut job.rng);
            to.truncate(5);
            job.connect_all(step, program, &to, Some(domain));
            step += job.between(0.01, 0.5);
        }
        at += every;
    }
}

/// check_smtp of a monitoring system against one to three servers: every five minutes (Debian's nagios4 template:
/// `normal_check_interval 5`, `retry_check_interval 1`, `max_check_attempts 4`), in one of four every minute. After the
/// first failures the service is in a hard state and is checked once at a time; some set-ups retry thrice, seconds apart,
/// at every check (assumed).
pub(crate) fn monitoring(probe: &mut Actor<'_>) {
    let attempt = probe.program("/usr/lib/nagios/plugins/check_smtp", "nagios4.service", &["nagios4", "systemd"]);
    let program = probe.run(packaged(attempt, "monitoring-plugins-basic"));
    let every = if probe.chance(0.25) { MINUTE } else { 5.0 * MINUTE };
    let eager = probe.chance(0.3);
    for _ in 0..probe.one_of(1, 3) {
        let server = probe.smart_host(1);
        let mut at = probe.between(0.0, every);
        for soft in 1..4 {
            probe.connect_all(at + f64::from(soft) * MINUTE, program, &server, None);
        }
        while at < f64::from(DAYS) * DAY {
            for time in 0..if eager { 4 } else { 1 } {
                let jitter = probe.between(0.0, 1.0);
                probe.connect_all(at + f64::from(time) * 5.0 + jitter, program, &server, None);
            }
            at += every;
        }
    }
}

/// A Postfix or Exim in a container that nobody sanctioned. Each message's exchangers are tried, up to five addresses in
/// one go (`smtp_mx_address_limit = 5`), then again: Postfix after 300 s, doubling to 4000 s, for five days
/// (`minimal_backoff_time`, `maximal_backoff_time`, `maximal_queue_lifetime`); Exim every 15 minutes for two hours, then an
/// hour and half as much more each time up to 16 hours, then every six hours up to four days (Debian's retry rule). Five to
/// thirty messages a day, and a backlog at the start, are the bar's.
pub(crate) fn container_mta(mta: &mut Actor<'_>) {
    let postfix = mta.chance(0.5);
    let exe = if postfix { "/usr/lib/postfix/sbin/smtp" } else { "/usr/sbin/exim4" };
    let attempt = mta.program(exe, "docker.scope", &["master", "containerd-shim"]);
    let id = format!("{:016x}", attempt.euid).repeat(4);
    let cgroup = format!("/system.slice/docker-{id}.scope");
    let container = Some(portreeve::subject::Container { runtime: "docker".to_owned(), id });
    let program = mta.run(Attempt { cgroup, container, unit: None, ..attempt });
    let mails = mta.between(5.0, 30.0);
    let deliver = |mta: &mut Actor<'_>, at: f64| {
        let domain = mta.world.popular(&mut mta.rng);
        let mut due = at;
        let mut wait = 300.0;
        let most = if postfix { 5.0 * DAY } else { 4.0 * DAY };
        while due < f64::from(DAYS) * DAY && due - at < most {
            let mut to = mta.world.exchangers(domain, &mut mta.rng);
            to.truncate(5);
            mta.connect_all(due, program, &to, Some(domain));
            let age = due - at;
            due += if postfix {
                // Postfix looks at its queue every `queue_run_delay`, 300 s.
                wait + mta.between(0.0, 300.0)
            } else if age < 2.0 * HOUR {
                15.0 * MINUTE
            } else {
                wait.max(HOUR)
            };
            wait = if postfix {
                (wait * 2.0).min(4000.0)
            } else if age < 2.0 * HOUR {
                HOUR
            } else {
                (wait * 1.5).min(6.0 * HOUR)
            };
        }
    };
    let start = mta.between(0.0, DAY);
    for _ in 0..mta.one_of(5, 60) {
        let at = start + mta.between(0.0, 20.0);
        deliver(mta, at);
    }
    sends(mta, mails, |mta, at, _| {
        if at > start {
            deliver(mta, at);
        }
    });
}

/// Newsletter software that hands batches of 200 to 500 an hour to a smart host, as hosting providers limit it (phpList's
/// `MAILQUEUE_BATCH_SIZE` and `MAILQUEUE_BATCH_PERIOD`), one or two issues a week to a list of some thousands (assumed).
pub(crate) fn newsletter(software: &mut Actor<'_>) {
    let attempt = software.program("/usr/bin/php8.2", "cron.service", &["sh", "cron"]);
    let script = Some("/var/www/lists/admin/index.php".to_owned());
    let attempt = Attempt { script, package: Some("php8.2-cli".to_owned()), package_known: true, ..attempt };
    let program = software.run(attempt);
    let number = software.one_of(1, 2);
    let host = software.smart_host(number);
    let batch = software.one_of(200, 500);
    let list = software.around(3000.0, 0.5).clamp(1000.0, 8000.0) as u32;
    let pause = software.between(0.2, 2.0);
    let week = if software.chance(0.5) { 7.0 } else { 3.5 };
    let mut issue = software.between(0.0, week) * DAY;
    while issue < f64::from(DAYS) * DAY {
        let mut left = list;
        let mut hour = issue;
        while left > 0 {
            for number in 0..batch.min(left) {
                let jitter = software.between(0.0, 0.1);
                software.connect_all(hour + f64::from(number) * pause + jitter, program, &host, None);
            }
            left -= batch.min(left);
            hour += HOUR;
        }
        issue += week * DAY;
    }
}

/// A service whose smart host is replaced: two addresses become two others, and for one to three days some of its workers
/// still have the old ones. Numbers are assumed.
pub(crate) fn migration(service: &mut Actor<'_>) {
    let attempt = service.program("/usr/bin/java", "shop.service", &["systemd"]);
    let program = service.run(packaged(attempt, "openjdk-17-jre-headless"));
    let (old, new) = (service.smart_host(2), service.smart_host(2));
    let change = service.between(8.0, 20.0);
    let over = change + service.between(1.0, 3.0);
    let mails = service.around(80.0, 0.7).min(1000.0);
    sends(service, mails, |service, at, day| {
        let moved = day > over || (day > change && service.chance(0.5));
        service.connect_all(at, program, if moved { &new } else { &old }, None);
    });
}

/// A service whose smart host's name leads elsewhere for some hours, one to three times a month: to one to three other
/// addresses, of a provider's fail-over. Numbers are assumed.
pub(crate) fn failover(service: &mut Actor<'_>) {
    let attempt = service.program("/usr/bin/python3.11", "app.service", &["gunicorn", "systemd"]);
    let script = Some("/srv/app/manage.py".to_owned());
    let attempt = Attempt { script, package: Some("python3.11-minimal".to_owned()), package_known: true, ..attempt };
    let program = service.run(attempt);
    let number = service.one_of(1, 3);
    let usual = service.smart_host(number);
    let spells: Vec<(f64, f64, Vec<IpAddr>)> = (0..service.one_of(1, 3))
        .map(|_| {
            let number = service.one_of(1, 3);
            let begin = service.between(1.0, 29.0);
            (begin, begin + service.between(1.0, 12.0) / 24.0, service.smart_host(number))
        })
        .collect();
    let mails = service.around(80.0, 0.7).min(1000.0);
    sends(service, mails, |service, at, day| {
        let spell = spells.iter().find(|(begin, end, _)| (*begin..*end).contains(&day));
        service.connect_all(at, program, spell.map_or(&usual, |(_, _, elsewhere)| elsewhere), None);
    });
}

/// A vulnerability scanner that a rule allows to scan: every week the mail ports of some hundred addresses. Its attempts
/// are allowed, and must be held against nobody.
pub(crate) fn scanner(scanner: &mut Actor<'_>) {
    let attempt = scanner.program("/usr/sbin/openvas", "ospd-openvas.service", &["ospd-openvas", "systemd"]);
    let attempt = packaged(attempt, "openvas-scanner");
    let rule = Some("scanner".to_owned());
    let attempt = Attempt { verdict: "allow".to_owned(), reason: "rule".to_owned(), rule, ..attempt };
    let program = scanner.run(attempt);
    let hosts = scanner.one_of(64, 1024);
    let mut at = scanner.between(0.0, 7.0 * DAY);
    while at < f64::from(DAYS) * DAY {
        for number in 0..hosts {
            let [_, b, c, d] = number.to_be_bytes();
            let pause = scanner.between(0.05, 0.5);
            let thread = scanner.pid();
            scanner.connect(at, program, thread, IpAddr::from([46, b, c, d]), None);
            at += pause;
        }
        at += 7.0 * DAY;
    }
}

/// An application that hands its mail to this host's mail server, at its own pace by day and at night, with a peak at the
/// same hour of every day: reminders, the day's report. Assumed: three to thirty times an hour's share within ten to thirty
/// minutes (a first peak that lasts for most of an hour is found fault with, as the policy says); a day is like the other,
/// but for one in ten with twice as much.
pub(crate) fn local_application(app: &mut Actor<'_>) {
    let attempt = app.program("/usr/bin/python3.11", "shop.service", &["gunicorn", "systemd"]);
    let script = Some("/srv/shop/manage.py".to_owned());
    let program = app.run(handed_over(packaged(Attempt { script, ..attempt }, "python3.11-minimal")));
    let usual = app.magnitude(1.0, 60.0);
    let at_peak = (usual * app.magnitude(3.0, 30.0)).clamp(20.0, 1500.0);
    let (hour, lasts) = (app.between(0.0, 23.0), app.between(10.0, 30.0) * MINUTE);
    for day in 0..DAYS {
        let begin = f64::from(day) * DAY;
        let busy = if app.chance(0.1) { 2.0 } else { app.around(1.0, 0.2) };
        let mut at = app.wait(HOUR / (usual * busy));
        while at < DAY {
            local(app, begin + at, program);
            at += app.wait(HOUR / (usual * busy));
        }
        let start = hour * HOUR + app.between(0.0, 5.0) * MINUTE;
        let mut at = start;
        while at < start + lasts {
            local(app, begin + at, program);
            at += app.wait(lasts / (at_peak * busy));
        }
    }
}

/// What the guard says of mail for this host's own mail server.
pub(crate) fn handed_over(attempt: Attempt) -> Attempt {
    let (verdict, reason) = ("allow".to_owned(), "local".to_owned());
    Attempt { verdict, reason, severity: "info".to_owned(), ..attempt }
}

/// Hands one mail over, on the loopback.
pub(crate) fn local(actor: &mut Actor<'_>, at: f64, program: usize) {
    let thread = actor.pid();
    actor.connect(at, program, thread, IpAddr::from([127, 0, 0, 1]), None);
}

/// A daemon whose mail host is out of reach, and that connects again every one to five seconds, by a fixed delay, until
/// somebody mends it after some hours; once to three times a month. Fixed delays of that order are usual (`RestartSec=` of
/// systemd.service(5), Filebeat's and syslog-ng's reconnect delays); the rest is assumed.
pub(crate) fn broken_daemon(daemon: &mut Actor<'_>) {
    let attempt = daemon.program("/usr/sbin/alertd", "alertd.service", &["systemd"]);
    let program = daemon.run(packaged(attempt, "alertd"));
    let host = daemon.smart_host(1);
    let delay = daemon.between(1.0, 5.0);
    for _ in 0..daemon.one_of(1, 3) {
        let mut at = daemon.between(0.0, 29.0) * DAY;
        let end = at + daemon.between(1.0, 8.0) * HOUR;
        let thread = daemon.pid();
        while at < end {
            daemon.connect(at, program, thread, host[0], None);
            at += delay + daemon.wait(0.01);
        }
    }
}

/// An administrator who tests five mail exchangers by hand in an afternoon, with swaks or telnet. Assumed. Reported, and
/// not counted in the bar: from what is seen of it, it is a slow bot.
pub(crate) fn administrator(admin: &mut Actor<'_>) {
    let telnet = admin.chance(0.5);
    let (exe, package) = if telnet { ("/usr/bin/telnet", "inetutils-telnet") } else { ("/usr/bin/perl", "perl-base") };
    let attempt = admin.program(exe, "session-3.scope", &["bash", "sshd"]);
    let script = (!telnet).then(|| "/usr/bin/swaks".to_owned());
    let program = admin.run(Attempt { script, package: Some(package.to_owned()), package_known: true, ..attempt });
    let mut at = admin.between(0.0, 29.0).floor() * DAY + 13.0 * HOUR;
    for _ in 0..5 {
        let domain = admin.world.any(&mut admin.rng);
        let to = admin.world.exchangers(domain, &mut admin.rng);
        for _ in 0..admin.one_of(1, 4) {
            admin.connect_all(at, program, &to[..1], Some(domain));
            at += admin.between(20.0, 5.0 * MINUTE);
        }
        at += admin.between(MINUTE, 30.0 * MINUTE);
    }
}

/// Mails over the days: so many a day in the mean, two in three during office hours (assumed). `send` gets the time in
/// seconds and in days.
fn sends(app: &mut Actor<'_>, mails: f64, mut send: impl FnMut(&mut Actor<'_>, f64, f64)) {
    for day in 0..DAYS {
        let mut left = app.wait(1.0 / mails);
        while left < 1.0 {
            let office = app.chance(0.67);
            let hour = if office { app.between(8.0, 18.0) } else { app.between(0.0, 24.0) };
            let at = f64::from(day) * DAY + hour * HOUR;
            send(app, at, at / DAY);
            left += app.wait(1.0 / mails);
        }
    }
}
