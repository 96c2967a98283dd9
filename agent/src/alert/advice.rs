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
            "{kind}: {} to destinations it had been to before, as a program with one smart host makes them; it met {} \
             instead, and went back {}.",
            count(n.into(), "more attempt"),
            count(evidence.destinations.into(), "destination"),
            times(evidence.in_favour),
        ),
        Kind::ManyPrograms => format!(
            "{kind}: {} by a program that this user had run before, or to a destination that one of them had been to; \
             instead {} went to new places.",
            count(n.into(), "more attempt"),
            count(evidence.against.into(), "new program"),
        ),
        Kind::Hammer => format!(
            "{kind}: {} as far apart as a retry is (minutes, and longer each time); it made {} without waiting.",
            count(n.into(), "attempt"),
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

/// What to do next, the first thing first, with commands that can be copied.
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
            steps.push(format!(
                "The mail comes from {address}, behind this host: find that machine (ip neigh show {address}) and look \
                 there; from here only its packets are seen."
            ));
        }
        return;
    }
    let pid = worst.pid;
    steps.push(format!(
        "See what it is, while it runs: portreeve explain --pid {pid}; ls -l /proc/{pid}/exe /proc/{pid}/cwd; \
         tr '\\0' ' ' < /proc/{pid}/cmdline"
    ));
    if worst.exe_deleted || worst.exe_in_memory {
        let from = if worst.exe_in_memory { "was never a file" } else { "is deleted" };
        steps.push(format!(
            "Its program {from}, and is gone when the process ends. Keep it first: cp /proc/{pid}/exe \
             /root/alert-{}.bin; sha256sum /root/alert-{}.bin",
            alert.id, alert.id
        ));
    } else if let Some(sha256) = &alert.sha256 {
        steps.push(format!("Ask whoever keeps lists of known programs for its SHA-256: {sha256}"));
    }
    if alert.severity == Severity::Critical {
        let parent = worst.parents.first().filter(|parent| parent.pid > 1);
        let parent = parent.map(|parent| format!("; its parent {} ({}) may start it again", parent.comm, parent.pid));
        steps.push(format!(
            "Stop it, and look before you end it: kill -STOP {pid}, later kill -KILL {pid}{}",
            parent.unwrap_or_default()
        ));
    }
}

/// Where it may come from.
fn cause(who: &Who, worst: &Attempt, steps: &mut Vec<String>) {
    let user = who.user();
    // The nearest one that is known for starting things.
    let line = [&worst.comm].into_iter().chain(worst.parents.iter().map(|parent| &parent.comm));
    let by = |names: &[&str], comm: &str| names.iter().any(|name| comm.starts_with(name));
    let starter = line.into_iter().find(|comm| by(&WEB, comm) || by(&CRON, comm)).map_or("", String::as_str);
    if by(&WEB, starter) {
        steps.push(format!(
            "A web server started it: look for a web shell or a form that sends mail, files that {user} may write and \
             that are new: find /var/www -user {user} -newermt '-14 days' -type f; and in the access log for POST \
             requests at {}.",
            worst.time.strftime("%Y-%m-%d %H:%M UTC")
        ));
    } else if by(&CRON, starter) {
        steps.push(format!(
            "cron started it: find the job (crontab -l -u {user}; grep -r . /etc/cron.d /etc/cron.daily) and let it hand \
             its mail to the local mail server (MAILTO=, or sendmail in place of a connection to port 25)."
        ));
    } else if worst.session.is_some() {
        let session = worst.session.as_deref().unwrap_or_default();
        steps.push(format!(
            "It was started in login session {session}: last -i {user}; loginctl session-status {session}"
        ));
    } else if let Some(unit) = worst.unit.as_deref().filter(|_| worst.container.is_none()) {
        steps.push(format!("It belongs to {unit}: systemctl status {unit}; journalctl -u {unit} --since -1h"));
    }
    if let Some(container) = &worst.container {
        let inspect = match container.runtime.as_str() {
            "podman" => format!("podman top {:.12}; podman diff {:.12}", container.id, container.id),
            "docker" => format!("docker top {:.12}; docker diff {:.12}", container.id, container.id),
            runtime => format!("the {runtime} container {:.12}", container.id),
        };
        steps.push(format!("It runs in a container: {inspect}"));
    }
    if is_mail_server(worst) {
        let within = if worst.container.is_some() { "in a container " } else { "" };
        steps.push(format!(
            "It is a mail server {within}that nobody has sanctioned. Let it use this host's mail server as its smart host \
             (Postfix: relayhost = [ADDRESS OF THE HOST]:25; Exim: a manualroute router), or sanction it with a rule."
        ));
    }
}

/// What is particular to a test.
fn of_kind(kind: Kind, who: &Who) -> String {
    let user = who.user();
    match kind {
        Kind::FanOut => {
            "Did mail get out before it was found? See what passed: portreeve attempts --since 1d --json | \
                         jq 'select(.verdict == \"allow\")'; and whether you are listed, by the address that this host \
                         has outside."
                .to_owned()
        }
        Kind::ManyPrograms => format!(
            "Something of {user}'s keeps making programs: look for what starts them (ps -fu {user} --forest), and end \
             that first, or they come back under new names."
        ),
        Kind::Hammer => {
            "If it is a program of yours that retries without waiting, set its retry interval to minutes, or \
                         its smart host to 127.0.0.1:25; a program that knows one open relay looks the same."
                .to_owned()
        }
        Kind::Persistent => format!(
            "It is slow and patient, so it was started by something that lasts: look at {user}'s timers and jobs \
             (systemctl list-timers --all; crontab -l -u {user}) and for a process older than its login."
        ),
        Kind::LocalPath => "The mail is in the local queue or out already: look (mailq), hold what is left (Postfix: \
                            postsuper -h ALL deferred; Exim: exim -bp and exim -Mf), and read one message before you \
                            delete any."
            .to_owned(),
    }
}

/// How the alert is closed.
fn close(alert: &Alert, steps: &mut Vec<String>) {
    let id = alert.id;
    let user = alert.who.euid.is_some_and(|euid| euid != 0).then(|| alert.who.user());
    if alert.severity == Severity::Critical
        && let Some(user) = user
    {
        steps.push(format!(
            "If it is a spam bot: whoever put it there could run programs as {user}. Change that user's passwords and \
             keys, mend the way in, then: portreeve alerts resolve {id} --as spam-bot"
        ));
    } else {
        steps.push(format!("If it is a spam bot: mend the way in, then: portreeve alerts resolve {id} --as spam-bot"));
    }
    steps.push(format!(
        "If it may send: portreeve alerts allow {id} proposes the narrowest rule. If it is only set up wrongly: mend it, \
         then portreeve alerts resolve {id} --as misconfigured"
    ));
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
        assert!(contained.contains("kill -STOP 4711, later kill -KILL 4711\n"), "{contained}");
        let session = steps(|w| {
            w.parents.clear();
            w.session = Some("7".into());
        });
        assert!(session.contains("loginctl session-status 7"), "{session}");
        assert!(steps(|w| w.parents.clear()).contains("systemctl status apache2.service"));
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
