//! TLS and AUTH towards the upstream, TLS towards the client, and what must not cross from before TLS to after it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use lab::{DEADLINE, Guard, Host, Lab, Running, certificates, until};

use crate::stage::{RELAY, Talk, UP};

/// Python's ssl behind a few lines of SMTP. It writes down what it hears, with the state of TLS before it.
const SERVER: &str = r#"
import socket, ssl, sys, threading
folder, port, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder + "/server.pem", folder + "/server.key")

def hear(text):
    with open(folder + "/heard", "a") as log:
        log.write(text + "\n")

def converse(stream, tls):
    if tls:
        stream = context.wrap_socket(stream, server_side=True)
    lines = stream.makefile("rb")
    say = lambda text: stream.sendall(text.encode() + b"\r\n")
    say("220 up.example ESMTP")
    data = False
    while line := lines.readline():
        text = line.decode().rstrip()
        if data:
            if text == ".":
                data = False
                say("250 2.0.0 up: taken")
            continue
        hear(("tls " if tls else "plain ") + text)
        verb = text.split(" ")[0]
        if verb == "EHLO":
            offers = ["up.example", "AUTH LOGIN" if mode == "login" else "AUTH PLAIN LOGIN"]
            if not tls and mode != "plain":
                offers.append("STARTTLS")
            if tls:
                offers.append("8BITMIME")
            for offer in offers:
                say(("250 " if offer == offers[-1] else "250-") + offer)
        elif verb == "STARTTLS":
            if mode == "inject":
                stream.sendall(b"220 go on\r\n250-injected\r\n250 AUTH PLAIN\r\n")
            else:
                say("220 go on")
            stream, tls = context.wrap_socket(stream, server_side=True), True
            lines = stream.makefile("rb")
        elif verb == "AUTH" and text == "AUTH LOGIN":
            say("334 VXNlcm5hbWU6")
            hear("tls " + lines.readline().decode().rstrip())
            say("334 UGFzc3dvcmQ6")
            hear("tls " + lines.readline().decode().rstrip())
            say("235 2.7.0 welcome")
        elif verb == "AUTH":
            say("235 2.7.0 welcome")
        elif verb == "DATA":
            data = True
            say("354 go on")
        elif verb == "QUIT":
            say("221 bye")
            return
        else:
            say("250 2.0.0 ok")

def run(stream):
    try:
        converse(stream, mode == "implicit")
    except (OSError, ssl.SSLError) as error:
        hear("broken " + type(error).__name__)

server = socket.create_server(("127.0.0.1", port))
open(folder + "/ready", "w").close()
while True:
    threading.Thread(target=run, args=(server.accept()[0],), daemon=True).start()
"#;

struct Scene {
    guard: Guard,
    folder: PathBuf,
    host: Host,
    _server: Running,
    lab: Lab,
}

impl Scene {
    /// An upstream in a mode of the server above, with these keys in the policy; `DIR` is where the certificates are.
    fn new(name: &str, mode: &str, relay: &str, upstream: &str) -> Self {
        let lab = Lab::new(&format!("relay-{name}"));
        let host = lab.host("host");
        let folder = lab.scratch("tls");
        std::fs::create_dir(&folder).unwrap();
        certificates(&folder);
        std::fs::write(folder.join("auth"), "portreeve\nsecret\n").unwrap();
        std::fs::set_permissions(folder.join("auth"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let words = ["-c", SERVER, folder.to_str().unwrap(), &UP.to_string(), mode];
        let log = lab.scratch("upstream-log");
        let server = lab.program("/usr/bin/python3").args(words).in_host(&host).spawn(&log);
        until("the upstream", DEADLINE, || {
            if folder.join("ready").exists() { Ok(()) } else { Err(std::fs::read_to_string(&log)) }
        });
        let policy = crate::stage::policy(relay, upstream).replace("DIR", folder.to_str().unwrap());
        let guard = Guard::start(&lab, &policy);
        Self { guard, folder, host, _server: server, lab }
    }

    /// The answer to EHLO, and to a message if there is one.
    fn send(&self) -> String {
        let mut talk = Talk::connect(&self.host);
        talk.expect("220");
        talk.say("EHLO client.example");
        let hello = talk.reply();
        if !hello.starts_with("250") {
            return hello;
        }
        let reply = talk.mail("a@x.example", "b@y.example", b"Subject: x\r\n\r\nx\r\n");
        format!("{hello}{reply}")
    }

    fn heard(&self) -> String {
        std::fs::read_to_string(self.folder.join("heard")).unwrap_or_default()
    }
}

#[test]
fn mail_and_password_go_in_tls_to_whom_the_certificate_names() {
    for (mode, tls) in [("starttls", "required"), ("login", "required"), ("implicit", "implicit")] {
        let upstream = format!("tls = \"{tls}\"\nca_file = \"DIR/ca.pem\"\nauth_file = \"DIR/auth\"");
        let scene = Scene::new(&format!("tls-{mode}"), mode, "", &upstream);
        let answer = scene.send();
        assert!(answer.ends_with("250 2.0.0 up: taken\r\n"), "{mode}: {answer} {}", scene.guard.log());
        // What the upstream offers in TLS counts, not what it offered before.
        assert!(answer.contains("8BITMIME"), "{answer}");
        let heard = scene.heard();
        let secret = if mode == "login" {
            "tls cG9ydHJlZXZl\ntls c2VjcmV0\n"
        } else {
            "tls AUTH PLAIN AHBvcnRyZWV2ZQBzZWNyZXQ=\n"
        };
        assert!(heard.contains(secret) && !heard.contains("plain AUTH") && !heard.contains("plain MAIL"), "{heard}");
        let listed = scene.guard.command(["mail", "--json"]).must_succeed().stdout;
        assert!(listed.contains("\"upstream_tls\":\"TLSv1.3 "), "{listed}");
    }
}

#[test]
fn a_certificate_that_does_not_hold_or_no_tls_at_all_puts_mail_off() {
    for (mode, keys, why) in [
        ("starttls", "tls = \"required\"", "no TLS with it: "),
        ("starttls", "tls = \"required\"\nca_file = \"DIR/ca.pem\"\ntls_name = \"other.example\"", "no TLS with it: "),
        ("plain", "tls = \"required\"\nca_file = \"DIR/ca.pem\"", "it does not offer STARTTLS"),
        ("inject", "tls = \"required\"\nca_file = \"DIR/ca.pem\"", "there is something behind its answer to STARTTLS"),
    ] {
        let scene = Scene::new("tls-bad", mode, "", keys);
        let answer = scene.send();
        assert!(answer.starts_with("421 4.4.1 ") && answer.contains(why), "{mode} {keys}: {answer}");
        assert!(!scene.heard().contains("MAIL"), "{}", scene.heard());
    }
}

#[test]
fn opportunistic_tls_takes_any_certificate_and_does_without_if_it_must() {
    for (mode, expected) in [("starttls", "tls MAIL"), ("plain", "plain MAIL"), ("inject", "plain MAIL")] {
        let scene = Scene::new("tls-may", mode, "", "");
        assert!(scene.send().ends_with("250 2.0.0 up: taken\r\n"), "{mode}");
        assert!(scene.heard().contains(expected), "{mode}: {}", scene.heard());
    }
}

/// Python's smtplib, which insists on a certificate that holds.
const CLIENT: &str = "
import smtplib, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
with smtplib.SMTP('127.0.0.1', int(sys.argv[2]), local_hostname='client.example', timeout=10) as server:
    server.starttls(context=context)
    server.ehlo()
    assert 'starttls' not in server.esmtp_features
    server.sendmail('a@x.example', ['b@y.example'], 'Subject: x\\r\\n\\r\\nx\\r\\n')
";

#[test]
fn a_client_that_insists_on_tls_gets_it_and_nothing_from_before_counts() {
    let keys = "certificate = \"DIR/server.pem\"\nkey = \"DIR/server.key\"";
    let scene = Scene::new("tls-client", "plain", keys, "");
    let client = |authority: &Path| {
        let words = ["-c", CLIENT, authority.to_str().unwrap(), &RELAY.to_string()];
        scene.lab.program("/usr/bin/python3").args(words).in_host(&scene.host).run()
    };
    client(&scene.folder.join("ca.pem")).must_succeed();
    assert!(scene.heard().contains("plain mail FROM:<a@x.example>"), "{}", scene.heard());
    // A command behind STARTTLS is no command in TLS.
    let mut talk = Talk::connect(&scene.host);
    talk.expect("220");
    let offered = talk.ask("EHLO client.example", "250");
    assert!(offered.contains("STARTTLS"));
    talk.send(b"STARTTLS\r\nMAIL FROM:<injected@x.example>\r\n");
    talk.expect("554 5.5.1");
    assert_eq!(talk.reply(), "");
    assert!(!scene.heard().contains("injected"));
}

#[test]
fn a_password_that_others_can_read_is_not_used() {
    let scene = Scene::new("auth-mode", "plain", "", "auth_file = \"DIR/auth\"");
    assert!(scene.send().ends_with("250 2.0.0 up: taken\r\n"), "to this host itself it may go in plain text");
    assert!(scene.heard().contains("plain AUTH PLAIN"));
    std::fs::set_permissions(scene.folder.join("auth"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let policy = std::fs::read_to_string(scene.guard.policy()).unwrap();
    scene.guard.write_policy(&policy.replace("[relay]", "[relay]\nmax_hops = 9"));
    scene.guard.reload();
    let troubles = scene.guard.status()["relay"]["troubles"].to_string();
    assert!(troubles.contains("chmod 600"), "{troubles}");
}
