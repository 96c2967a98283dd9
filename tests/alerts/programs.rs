//! What tries to send: bots as they are found on web servers, and Debian's own programs, set up wrongly.

use std::path::Path;

use lab::{Cgroup, Host, Lab, Program, Root, Running};

/// Debian's www-data.
const WWW_DATA: u32 = 33;
/// A user who logs in.
const USER: u32 = 1000;

/// A program that is run to its end.
pub(crate) struct Tried {
    /// The script, or the executable, that it is known by.
    pub(crate) about: &'static str,
    /// The text of the script.
    script: &'static str,
    command: &'static [&'static str],
    user: u32,
    unit: &'static str,
}

const WEB: &str = "system.slice/apache2.service";
const SESSION: &str = "user.slice/user-1000.slice/session-3.scope";

/// Each goes to forty destinations of its own network.
pub(crate) const BOTS: &[Tried] = &[
    Tried {
        about: "/home/user/.cache/update.py",
        script: "import socket, time
for victim in range(40):
    try: socket.create_connection((f'10.1.{victim}.25', 25), 5)
    except OSError: time.sleep(0.02)
",
        command: &["/usr/bin/python3", "/home/user/.cache/update.py"],
        user: USER,
        unit: SESSION,
    },
    Tried {
        about: "/var/tmp/.ICE/dm.pl",
        script: "use IO::Socket::INET;
for my $victim (0 .. 39) {
    IO::Socket::INET->new(PeerAddr => \"10.2.$victim.25\", PeerPort => 25, Timeout => 5) or select(undef, undef, undef, 0.02);
}
",
        command: &["/usr/bin/perl", "/var/tmp/.ICE/dm.pl"],
        user: WWW_DATA,
        unit: WEB,
    },
    Tried {
        about: "/var/www/html/wp-content/cache.php",
        script: "<?php
for ($victim = 0; $victim < 40; $victim++) { if (!@fsockopen(\"10.3.$victim.25\", 25, $no, $error, 5)) usleep(20000); }
",
        command: &["/usr/bin/php8.2", "/var/www/html/wp-content/cache.php"],
        user: WWW_DATA,
        unit: WEB,
    },
    Tried {
        about: "/dev/shm/run.sh",
        script: "for victim in $(seq 0 39); do (exec 3<>/dev/tcp/10.4.$victim.25/25) & done; wait; true\n",
        command: &["/usr/bin/bash", "/dev/shm/run.sh"],
        user: WWW_DATA,
        unit: WEB,
    },
];

/// Each goes to one destination, or two, forty times.
pub(crate) const BENIGN: &[Tried] = &[
    Tried {
        about: "/var/www/html/contact.php",
        script: "<?php
for ($mail = 0; $mail < 40; $mail++) { if (!@stream_socket_client('tcp://10.20.0.25:25', $no, $error, 5)) usleep(20000); }
",
        command: &["/usr/bin/php8.2", "/var/www/html/contact.php"],
        user: WWW_DATA,
        unit: WEB,
    },
    Tried {
        about: "/usr/bin/msmtp",
        script: "for mail in $(seq 40); do
    printf 'Subject: x\\n\\nx\\n' | msmtp --host=10.21.0.$((mail % 2 + 1)) --port=25 --from=a@host.example b@mx.example; done; true\n",
        command: &["/usr/bin/bash", "/usr/local/bin/report"],
        user: USER,
        unit: "system.slice/backup.service",
    },
    Tried {
        about: "/usr/lib/nagios/plugins/check_smtp",
        script: "for probe in $(seq 20); do /usr/lib/nagios/plugins/check_smtp -H 10.22.0.25 -t 5; done; true\n",
        command: &["/usr/bin/bash", "/usr/local/bin/probe"],
        user: 117,
        unit: "system.slice/nagios-nrpe-server.service",
    },
];

/// The executable of the daemon, and how many attempts are enough.
pub(crate) const DAEMON: (&str, usize) = ("/usr/lib/nullmailer/smtp", 20);

/// What cron runs every minute, and how many attempts are enough: its mail goes straight to the exchangers of three domains.
pub(crate) const JOB: (&str, usize) = ("/usr/local/sbin/report.pl", 6);

const REPORT: &str = "use IO::Socket::INET;
for my $domain (1 .. 3) {
    for my $exchanger (1 .. 2) {
        IO::Socket::INET->new(PeerAddr => \"10.26.$domain.$exchanger\", PeerPort => 25, Timeout => 5);
    }
}
";

const PACKAGES: &[&str] =
    &["php-cli", "perl", "python3-minimal", "msmtp", "monitoring-plugins-basic", "nullmailer", "cron"];

/// All of them in one Debian root.
pub(crate) struct Programs<'a> {
    lab: &'a Lab,
    host: &'a Host,
    root: Root,
}

impl<'a> Programs<'a> {
    pub(crate) fn new(lab: &'a Lab, host: &'a Host) -> Self {
        let root = Root::new(lab, "programs-that-try", PACKAGES);
        root.write(
            "/etc/passwd",
            "root:x:0:0::/root:/bin/bash\nmail:x:8:8::/var/mail:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\n\
             nagios:x:117:117::/:/bin/sh\nuser:x:1000:1000::/home/user:/bin/bash\n",
        );
        root.write("/etc/group", "root:x:0:\nmail:x:8:\nwww-data:x:33:\nnagios:x:117:\nuser:x:1000:\n");
        root.write("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n");
        root.write("/etc/hosts", "127.0.0.1 localhost host.example\n");
        for tried in BENIGN.iter().chain(BOTS) {
            root.write(tried.command[1], tried.script);
        }
        Self { lab, host, root }
    }

    /// Runs one to its end.
    #[track_caller]
    pub(crate) fn run(&self, tried: &Tried) {
        let cgroup = self.lab.cgroup(tried.unit);
        let program = self.program(tried.command[0], &cgroup).args(&tried.command[1..]);
        program.as_user(tried.user, tried.user).run().must_succeed();
    }

    fn program(&self, path: &str, cgroup: &Cgroup) -> Program {
        self.root.program(path).in_host(self.host).in_cgroup(cgroup)
    }

    /// nullmailer with a queue that nobody takes.
    #[track_caller]
    pub(crate) fn daemon(&self) -> (Running, Cgroup) {
        self.nullmailer();
        let cgroup = self.lab.cgroup("system.slice/nullmailer.service");
        let program = self.program("/usr/sbin/nullmailer-send", &cgroup);
        (program.spawn(&self.lab.scratch("nullmailer-log")), cgroup)
    }

    /// cron(8) with a job that mails its report by itself.
    #[track_caller]
    pub(crate) fn cron(&self) -> (Running, Cgroup) {
        self.root.write(JOB.0, REPORT);
        self.root.write("/etc/crontab", &format!("* * * * * user /usr/bin/perl {}\n", JOB.0));
        self.root.write("/etc/shadow", "root:*:1:0:99999:7:::\nuser:*:1:0:99999:7:::\n");
        // The packages' files include ones that only their scripts make (pam-auth-update(8)).
        for service in ["cron", "other"] {
            let permit =
                ["auth", "account", "password", "session"].map(|kind| format!("{kind} required pam_permit.so\n"));
            self.root.write(&format!("/etc/pam.d/{service}"), &permit.concat());
        }
        let cgroup = self.lab.cgroup("system.slice/cron.service");
        let program = self.program("/usr/sbin/cron", &cgroup).args(["-f"]);
        (program.spawn(&self.lab.scratch("cron-log")), cgroup)
    }

    /// nullmailer(7): one remote, three messages, a try every second.
    #[track_caller]
    fn nullmailer(&self) {
        let write = |path: &str, text: &str| self.root.write(path, text);
        write("/etc/nullmailer/remotes", "10.24.0.25 smtp --port=25\n");
        write("/etc/nullmailer/pausetime", "1\n");
        write("/etc/nullmailer/maxpause", "1\n");
        write("/etc/nullmailer/me", "host.example\n");
        for folder in ["queue", "tmp", "failed"] {
            std::fs::create_dir_all(self.root.inside(&format!("/var/spool/nullmailer/{folder}"))).unwrap();
        }
        let trigger = self.root.inside("/var/spool/nullmailer/trigger");
        if !trigger.exists() {
            nix::unistd::mkfifo(Path::new(&trigger), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        }
        for message in 0..3 {
            let text = "root@host.example\nadmin@mx.example\n\nSubject: x\n\nx\n";
            write(&format!("/var/spool/nullmailer/queue/1700000000.{message}"), text);
        }
    }
}
