//! Debian's own mail servers, sanctioned: their mail leaves, and nobody else's.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it measured")]

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::mta::{Mta, Package};
use lab::{Cgroup, DEADLINE, Guard, Host, Lab, Program, Sink, until};
use serde_json::Value;

/// Debian's www-data: who a hacked web site sends as.
const WWW_DATA: u32 = 33;

const RULE: &str = "the mail server";

/// A host on a wire to a mail exchanger.
struct Scene {
    lab: Lab,
    host: Host,
    mx: Host,
    sink: Sink,
    mail: Cgroup,
    web: Cgroup,
}

impl Scene {
    fn new(name: &str, package: Package) -> Self {
        let lab = Lab::new(&format!("{name}-{}", package.mta()));
        let (host, mx) = (lab.host("host"), lab.host("mx"));
        lab.wire(&host, &mx);
        let sink = Sink::listen(&mx, 25);
        let mail = lab.cgroup(&format!("system.slice/{}", package.unit()));
        let web = lab.cgroup("system.slice/php-fpm.service");
        Self { lab, host, mx, sink, mail, web }
    }

    #[track_caller]
    fn mta(&self, package: Package) -> Mta<'_> {
        Mta::start(&self.lab, package, &self.host, &self.mail, self.mx.v4())
    }

    /// What spam is sent with, and the executable that the kernel then sees.
    fn bots(&self) -> [Bot; 4] {
        let mx = self.mx.v4().to_string();
        let python = "import socket, sys; socket.create_connection((sys.argv[1], 25), 5).sendall(b'QUIT\\r\\n')";
        let bash = format!("exec 3<>/dev/tcp/{mx}/25 && echo QUIT >&3");
        let (url, from, to) = (format!("smtp://{mx}/host.example"), "bot@host.example", "victim@mx.example");
        let swaks = ["--server", &mx, "--helo", "host.example", "--from", from, "--to", to, "--timeout", "5"];
        let curl = ["-v", "-m5", "--mail-from", from, "--mail-rcpt", to, "-T-", &url];
        let (python, bash) = (["-c", python, &mx], ["-c", &bash]);
        let curled = self.bot("/usr/bin/curl", "/usr/bin/curl", &curl);
        [
            self.bot("/usr/bin/python3", "/usr/bin/python3", &python),
            self.bot("/usr/bin/bash", "/usr/bin/bash", &bash),
            self.bot("/usr/bin/swaks", "/usr/bin/perl", &swaks),
            Bot { program: curled.program.input("Subject: x\r\n\r\nx\r\n"), ..curled },
        ]
    }

    fn bot(&self, command: &'static str, exe: &str, arguments: &[&str]) -> Bot {
        let program = self.lab.program(command).args(arguments).in_host(&self.host).in_cgroup(&self.web);
        let exe = std::fs::canonicalize(exe).unwrap_or_else(|error| panic!("{command} needs {exe}: {error}"));
        Bot { command, exe, program: program.as_user(WWW_DATA, WWW_DATA) }
    }

    /// The segments that the mail exchanger has received, once no connection is there that could bring more.
    #[track_caller]
    fn segments(&self) -> u64 {
        until("the connections' ends", DEADLINE, || {
            let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
            let sockets = self.lab.program("/usr/bin/cat").args(tables).in_host(&self.mx).run().must_succeed().stdout;
            // TCP_LISTEN and TCP_TIME_WAIT, include/net/tcp_states.h
            let settled = |socket: &str| matches!(socket.split_whitespace().nth(3), Some("st" | "0A" | "06"));
            if sockets.lines().all(settled) { Ok(()) } else { Err(sockets) }
        });
        self.mx.segments_in()
    }
}

struct Bot {
    command: &'static str,
    exe: PathBuf,
    program: Program,
}

/// A policy of one rule.
fn policy(rule: &str) -> String {
    format!("[guard]\nmode = \"enforce\"\n\n[[allow]]\nname = \"{RULE}\"\n{rule}\n")
}

/// The mail server by its name, as it lies in its root.
fn by_name(mta: &Mta<'_>) -> String {
    policy(&format!("mta = \"{}\"\nroot = \"{}\"", mta.package().mta(), mta.root().display()))
}

/// The mail server by its program and this user.
fn by_exe(mta: &Mta<'_>, user: u32) -> String {
    policy(&format!("exe = \"{}\"\nuser = {user}", mta.exe().display()))
}

/// Waits for the record of a program's attempt.
#[track_caller]
fn recorded(guard: &Guard, verdict: &str, exe: &Path) -> Value {
    let exe = exe.to_str().unwrap();
    until(&format!("the record: {verdict} {exe}"), DEADLINE, || {
        let attempts = guard.attempts();
        let found = attempts.iter().rfind(|attempt| attempt["verdict"] == verdict && attempt["exe"] == exe);
        found.cloned().ok_or(attempts)
    })
}

/// Sends a message through the server by its own `sendmail` and waits until it has arrived; `count` in all.
#[track_caller]
fn deliver(scene: &Scene, mta: &Mta<'_>, subject: &str, count: usize) {
    mta.submit("root@host.example", "postmaster@mx.example", subject);
    arrives(scene, mta, subject, count);
}

#[track_caller]
fn arrives(scene: &Scene, mta: &Mta<'_>, subject: &str, count: usize) {
    until(&format!("a message through {}", mta.package().name()), DEADLINE, || {
        let messages = scene.sink.messages();
        let is_there = messages.len() == count && messages[count - 1].data.contains(&format!("Subject: {subject}\n"));
        if is_there { Ok(()) } else { Err((messages, mta.log())) }
    });
}

/// Everybody reaches the mail exchanger; then, guarded, the mail server alone.
fn nobody_else_sends(package: Package) {
    let scene = Scene::new("only", package);
    let mta = scene.mta(package);

    for (bot, came) in scene.bots().into_iter().zip(1..) {
        let outcome = bot.program.run();
        until(&format!("{} to get through unguarded", bot.command), DEADLINE, || {
            if scene.sink.accepted() == came { Ok(()) } else { Err(&outcome) }
        });
    }
    // curl and swaks each send a whole message.
    let spam = scene.sink.wait_for_messages(2, DEADLINE).len();

    for (number, policy) in [by_name(&mta), by_exe(&mta, mta.user())].iter().enumerate() {
        let before = scene.segments();
        let accepted = scene.sink.accepted();
        let guard = Guard::start(&scene.lab, policy);
        for bot in scene.bots() {
            let outcome = bot.program.run();
            let says = format!("{}{}", outcome.stdout, outcome.stderr);
            // strerror(EPERM), which none of them words differently.
            let refused = outcome.code != 0 && says.contains("Operation not permitted");
            assert!(refused, "{} was not refused with EPERM: {outcome:#?}", bot.command);
            let record = recorded(&guard, "deny", &bot.exe);
            assert_eq!(record["euid"], WWW_DATA, "{record:#}");
            assert_eq!(record["reason"], "no-rule", "{record:#}");
            assert_eq!(record["destination"], format!("{}:25", scene.mx.v4()), "{record:#}");
            assert_eq!(record["unit"], "php-fpm.service", "{record:#}");
        }
        assert_eq!(scene.mx.segments_in(), before, "a refused program's packet has arrived");
        assert_eq!(scene.sink.accepted(), accepted);

        // Handed in by the web site itself, over loopback: what it may do.
        let subject = format!("guarded {number}");
        mta.submit_by_smtp(&scene.web, "www-data@host.example", "postmaster@mx.example", &subject);
        arrives(&scene, &mta, &subject, spam + number + 1);
        let record = recorded(&guard, "allow", &mta.exe());
        assert_eq!(record["rule"], RULE, "{record:#}");
        assert_eq!(record["euid"], mta.user(), "{record:#}");
        assert_eq!(record["unit"], package.unit(), "{record:#}");
        guard.detach();
    }
}

/// The right program as the wrong user is refused, and its mail waits until the rule is right.
fn the_user_counts(package: Package) {
    let scene = Scene::new("user", package);
    let mta = scene.mta(package);
    let before = scene.segments();
    let guard = Guard::start(&scene.lab, &by_exe(&mta, mta.user() + 1000));
    mta.submit("root@host.example", "postmaster@mx.example", "waits");
    let record = recorded(&guard, "deny", &mta.exe());
    assert_eq!(record["euid"], mta.user(), "{record:#}");
    assert_eq!(record["rule"], Value::Null, "{record:#}");
    until("the message to be back in the queue", DEADLINE, || if mta.queued() == 1 { Ok(()) } else { Err(mta.log()) });
    assert_eq!(scene.mx.segments_in(), before, "a refused server's packet has arrived");

    guard.write_policy(&by_exe(&mta, mta.user()));
    guard.reload();
    until("the queue to be tried again", DEADLINE, || {
        mta.flush();
        if scene.sink.messages().is_empty() { Err(mta.log()) } else { Ok(()) }
    });
    recorded(&guard, "allow", &mta.exe());
}

/// The sending program is replaced as dpkg does it, and is known again within a second.
fn an_upgrade_is_noticed(package: Package) {
    let scene = Scene::new("upgrade", package);
    let mut mta = scene.mta(package);
    let guard = Guard::start(&scene.lab, &by_name(&mta));
    deliver(&scene, &mta, "before", 1);
    let old = recorded(&guard, "allow", &mta.exe());
    let generation = guard.status()["policy"]["generation"].as_u64().unwrap();

    let since = mta.replace_exe();
    let inode = std::fs::metadata(mta.exe()).unwrap().ino();
    let noticed = until("the upgraded program in the policy", DEADLINE, || {
        let policy = guard.status()["policy"].clone();
        if policy["generation"].as_u64().unwrap() > generation { Ok(since()) } else { Err(policy) }
    });
    assert!(noticed <= Duration::from_secs(1), "{} was only noticed after {noticed:?}", mta.exe().display());

    // Its processes from before the upgrade still run the old file; the package's script restarts them.
    mta.restart();
    deliver(&scene, &mta, "after", 2);
    let new = recorded(&guard, "allow", &mta.exe());
    assert_eq!(new["rule"], RULE, "{new:#}");
    assert_ne!(new["exe_inode"], old["exe_inode"], "the old program has sent: {new:#}");
    assert_eq!(new["exe_inode"], inode, "{new:#}");
    println!("{}: upgrade noticed after {noticed:?}", package.name());
}

#[test]
fn only_postfix_sends() {
    nobody_else_sends(Package::Postfix);
}

#[test]
fn only_exim_sends() {
    nobody_else_sends(Package::Exim);
}

#[test]
fn only_opensmtpd_sends() {
    nobody_else_sends(Package::OpenSmtpd);
}

#[test]
fn postfix_as_another_user_is_refused() {
    the_user_counts(Package::Postfix);
}

#[test]
fn exim_as_another_user_is_refused() {
    the_user_counts(Package::Exim);
}

#[test]
fn opensmtpd_as_another_user_is_refused() {
    the_user_counts(Package::OpenSmtpd);
}

#[test]
fn an_upgraded_postfix_sends() {
    an_upgrade_is_noticed(Package::Postfix);
}

#[test]
fn an_upgraded_exim_sends() {
    an_upgrade_is_noticed(Package::Exim);
}

#[test]
fn an_upgraded_opensmtpd_sends() {
    an_upgrade_is_noticed(Package::OpenSmtpd);
}
