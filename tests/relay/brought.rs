//! Debian's mail servers, whose connections the kernel brings to the relay.

use std::net::SocketAddr;

use lab::mta::{Mta, Package};
use lab::{DEADLINE, Guard, Lab, Sink, until};

use crate::stage::Talk;
use crate::upstream::Upstream;

/// Where the filtering service listens, a guarded port as well.
const SERVICE: u16 = 587;

/// Debian's mail servers as they are, sanctioned by name.
fn brings_mail_of(package: Package) {
    let lab = Lab::new(&format!("redirect-{}", package.mta()));
    let (host, mx) = (lab.host("host"), lab.host("mx"));
    lab.wire(&host, &mx);
    let (service, exchanger) = (Upstream::listen(&mx, SERVICE), Sink::listen(&mx, 25));
    let cgroup = lab.cgroup(&format!("system.slice/{}", package.unit()));
    let mta = Mta::start(&lab, package, &host, &cgroup, mx.v4());
    let text = format!(
        "[guard]\nports = [25, {SERVICE}]\n[[allow]]\nmta = \"{}\"\nroot = \"{}\"\n[relay]\nmode = \"redirect\"\nname = \"relay.example\"\n\
         [[relay.upstream]]\nhost = \"{}\"\nport = {SERVICE}\ntls = \"none\"\n",
        package.mta(),
        mta.root().display(),
        mx.v4()
    );
    let guard = Guard::start(&lab, &text);
    mta.submit("root@host.example", "postmaster@mx.example", "unchanged");
    let taken = until("the message at the service", DEADLINE, || {
        let taken = service.taken();
        if taken.len() == 1 { Ok(taken) } else { Err((taken.len(), mta.log(), guard.attempts())) }
    });
    assert!(String::from_utf8_lossy(taken[0].behind_trace()).contains("Subject: unchanged"));
    until("the queue to be empty", DEADLINE, || if mta.queued() == 0 { Ok(()) } else { Err(mta.log()) });
    assert_eq!(exchanger.accepted(), 0);
    // While the service is away, mail waits where it is.
    service.fail(Some((crate::upstream::At::Greeting, crate::upstream::Fault::Close)));
    mta.submit("root@host.example", "postmaster@mx.example", "waits");
    until("the server to have tried", DEADLINE, || {
        let failures = guard.status()["relay"]["upstreams"][0]["failures"].as_u64().unwrap();
        if failures > 0 { Ok(()) } else { Err(mta.log()) }
    });
    assert_eq!((mta.queued(), service.taken().len(), exchanger.accepted()), (1, 1, 0), "{}", mta.log());
    service.fail(None);
    until("the message that waited", DEADLINE, || {
        mta.flush();
        if service.taken().len() == 2 { Ok(()) } else { Err(mta.log()) }
    });
    assert_eq!(exchanger.accepted(), 0);
}

#[test]
fn postfix_is_brought_there_as_it_is() {
    brings_mail_of(Package::Postfix);
}

#[test]
fn exim_is_brought_there_as_it_is() {
    brings_mail_of(Package::Exim);
}

#[test]
fn opensmtpd_is_brought_there_as_it_is() {
    brings_mail_of(Package::OpenSmtpd);
}

/// What would make Postfix keep or return all its mail is named, and nothing is redirected.
#[test]
fn a_postfix_whose_settings_the_relay_would_break_is_not_brought_there() {
    let lab = Lab::new("redirect-settings");
    let (host, mx) = (lab.host("host"), lab.host("mx"));
    lab.wire(&host, &mx);
    let (service, exchanger) = (Upstream::listen(&mx, SERVICE), Sink::listen(&mx, 25));
    let cgroup = lab.cgroup("system.slice/postfix.service");
    let to = SocketAddr::new(mx.v4(), 25);
    let more = "smtp_tls_security_level = encrypt\nmyhostname = host.example\n";
    let mta = Mta::start_to(&lab, Package::Postfix, &host, &cgroup, to, more);
    let text = |relay: &str| {
        format!(
            "[guard]\nports = [25, {SERVICE}]\n[[allow]]\nmta = \"postfix\"\nroot = \"{}\"\n[relay]\n{relay}\n\
             [[relay.upstream]]\nhost = \"{}\"\nport = {SERVICE}\ntls = \"none\"\n",
            mta.root().display(),
            mx.v4()
        )
    };
    let guard = Guard::start(&lab, &text("name = \"relay.example\""));
    for (relay, named) in [
        ("name = \"relay.example\"", "smtp_tls_security_level = encrypt"),
        ("name = \"HOST.example\"", "myhostname = host.example"),
    ] {
        guard.write_policy(&text(relay));
        let path = guard.policy().to_str().unwrap().to_owned();
        let checked = guard.command(["check", &path]);
        assert!(checked.code == 2 && checked.stdout.contains(named), "{checked:#?}");
    }
    mta.submit("root@host.example", "postmaster@mx.example", "waits");
    until("the message to be back in the queue", DEADLINE, || if mta.queued() == 1 { Ok(()) } else { Err(mta.log()) });
    assert_eq!((service.taken().len(), exchanger.accepted()), (0, 0), "{}", mta.log());
}

/// The relay's clients in these tests are no kernel's guests.
#[test]
fn the_other_ways_in_are_as_they_were() {
    let lab = Lab::new("redirect-not");
    let host = lab.host("host");
    let up = Upstream::listen(&host, crate::stage::UP);
    let guard = Guard::start(&lab, &crate::stage::policy("", ""));
    let mut talk = Talk::connect(&host);
    talk.expect("220");
    talk.ask("EHLO client.example", "250");
    assert!(talk.mail("a@x.example", "b@y.example", b"Subject: x\r\n\r\nx\r\n").starts_with("250"));
    assert_eq!(up.taken().len(), 1);
    assert!(guard.status()["hooks"].as_array().unwrap().iter().all(|hook| hook["name"] != "sockops"));
}
