//! The lab itself, with no guard: every way gets through, every placement holds, and nothing is left.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do then")]

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use lab::mta::{Mta, Package};
use lab::{Connect, DEADLINE, Host, Kind, Lab, until};
use nix::sys::signal::Signal;

/// Two hosts on a wire.
fn pair(lab: &Lab) -> (Host, Host) {
    let (web, mx) = (lab.host("web"), lab.host("mx"));
    lab.wire(&web, &mx);
    (web, mx)
}

#[test]
fn every_way_reaches_an_unguarded_sink() {
    let lab = Lab::new("ways");
    let (web, mx) = pair(&lab);
    let sink = mx.sink(25).mptcp().fast_open().start();
    let cgroup = lab.cgroup("system.slice/web.service");
    let mut expected = 0;
    let mut wrong = Vec::new();
    for to in [sink.v4(), sink.v6()] {
        for way in Connect::ALL.into_iter().filter(|way| way.leads_to(to)) {
            let client = lab.client(way, to).in_host(&web).in_cgroup(&cgroup);
            let report = client.as_user(1234, 1234).report();
            expected += 1;
            let multipath = way.name().contains("mptcp");
            let as_named = report.syn_data == way.is_fast_open() && report.multipath == multipath;
            if report.result != "connected" || !as_named {
                wrong.push((way.name(), to, report));
                continue;
            }
            if sink.accepted() != expected {
                wrong.push((way.name(), to, report));
                expected = sink.accepted();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let first = sink.first_bytes();
    assert_eq!(first.first().unwrap(), b"lab-client plain\r\n");
    assert!(sink.peers().iter().any(SocketAddr::is_ipv4));
    assert_eq!(sink.syns(), sink.accepted());
}

#[test]
fn udp_passes_and_the_sink_stays_silent() {
    let lab = Lab::new("udp");
    let (web, mx) = pair(&lab);
    let sink = mx.sink(25).start();
    for to in [sink.v4(), sink.v6()] {
        let report = lab.client_as("udp", to).in_host(&web).report();
        assert_eq!(report.result, "sent", "{report:?}");
    }
    sink.must_be_silent();
}

#[test]
fn a_connection_breaks_the_silence() {
    let lab = Lab::new("noise");
    let (web, mx) = pair(&lab);
    let sink = mx.sink(25).start();
    lab.client(Connect::Plain, sink.v6()).in_host(&web).report().must_connect();
    let silent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sink.must_be_silent()));
    assert!(silent.is_err());
    let (accepted, segments) = (sink.accepted(), sink.segments());
    sink.must_be_silent_after(accepted, segments);
}

#[test]
fn a_syn_without_a_listener_is_seen() {
    let lab = Lab::new("syn");
    let (web, mx) = pair(&lab);
    // The sink's own sniffer counts for port 25; what is sent to 26 is none of its business.
    let sink = mx.sink(25).start();
    let closed = SocketAddr::new(mx.v4(), 26);
    let report = lab.client(Connect::Plain, closed).in_host(&web).report();
    report.must_be_refused("ECONNREFUSED");
    sink.must_be_silent();
    let report = lab.hammer(sink.v4(), 10, 2).in_host(&web).report();
    assert_eq!(report.attempts, 10);
    assert_eq!(sink.syns(), 10);
}

#[test]
fn a_hammer_counts_exactly_and_stops_when_told() {
    let lab = Lab::new("hammer");
    let (web, mx) = pair(&lab);
    let sink = mx.sink(25).start();
    let report = lab.hammer(sink.v4(), 2000, 8).in_host(&web).report();
    assert_eq!(report.attempts, 2000);
    assert_eq!(report.by_errno["connected"], 2000, "{report:?}");
    sink.wait_for(2000, DEADLINE);

    let endless = lab.hammer(sink.v6(), 0, 2).arg("--threads").arg("2");
    let endless = endless.in_host(&web).spawn();
    sink.wait_for(2100, DEADLINE);
    endless.signal(Signal::SIGTERM);
    let report = lab::client::report(&endless.wait(DEADLINE).must_succeed());
    assert!(report.attempts >= 100, "{report:?}");
    assert_eq!(report.attempts, report.by_errno["connected"]);
}

#[test]
fn setuid_changes_the_ids_before_the_connect() {
    let lab = Lab::new("setuid");
    let (web, mx) = pair(&lab);
    let sink = mx.sink(25).start();
    for effective in [false, true] {
        let client = lab.client_as("setuid", sink.v4()).in_host(&web);
        let client = client.args(["--uid", "1234", "--gid", "1234"]);
        let client = if effective { client.arg("--effective-only") } else { client };
        client.report().must_connect();
    }
    assert_eq!(sink.accepted(), 2);
}

#[test]
fn a_program_is_where_it_was_put() {
    let lab = Lab::new("placement");
    let (web, mx) = pair(&lab);
    let sink = mx.sink(25).start();
    let cgroup = lab.cgroup("user.slice/user-1234.slice/session-1.scope");
    let mut held = lab
        .client(Connect::Plain, sink.v4())
        .arg("--hold")
        .in_host(&web)
        .in_cgroup(&cgroup)
        .in_dir(Path::new("/usr"))
        .env("MARK", "here")
        .as_user_with_groups(1234, 1235, &[1236, 1237])
        .spawn();
    held.wait_for("ready", DEADLINE);
    let proc = format!("/proc/{}", held.pid());
    let read = |file: &str| std::fs::read_to_string(format!("{proc}/{file}")).unwrap();
    assert!(read("cgroup").contains(&format!("0::{}\n", cgroup.name())), "{}", read("cgroup"));
    assert_eq!(cgroup.procs(), [held.pid()]);
    assert_eq!(cgroup.id(), std::fs::metadata(cgroup.path()).unwrap().ino());
    let netns = std::fs::metadata(format!("{proc}/ns/net")).unwrap().ino();
    assert_eq!(netns, web.netns_inode());
    assert_ne!(netns, mx.netns_inode());
    let status = read("status");
    for line in ["Uid:\t1234\t1234\t1234\t1234", "Gid:\t1235\t1235\t1235\t1235", "Groups:\t1236 1237"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    assert!(read("environ").contains("MARK=here"));
    assert_eq!(std::fs::read_link(format!("{proc}/cwd")).unwrap(), Path::new("/usr"));
    sink.must_be_silent();
    held.release();
    let outcome = held.wait(DEADLINE).must_succeed();
    lab::client::report(&outcome).must_connect();
    assert!(cgroup.procs().is_empty());
}

#[test]
fn a_dropped_program_is_dead_with_all_it_started() {
    let lab = Lab::new("drop");
    let cgroup = lab.cgroup("user.slice");
    let shell = lab.program("/bin/sh").args(["-c", "sleep 60 & sleep 60"]);
    let shell = shell.in_cgroup(&cgroup).spawn();
    until("three processes", DEADLINE, || match cgroup.procs() {
        all if all.len() == 3 => Ok(()),
        some => Err(some),
    });
    drop(shell);
    until("no processes", DEADLINE, || match cgroup.procs() {
        none if none.is_empty() => Ok(()),
        some => Err(some),
    });
}

#[test]
fn a_program_in_a_root_sees_that_root() {
    let lab = Lab::new("root");
    let root = lab.mta_root(Package::OpenSmtpd);
    let program = root.program("/usr/bin/sleep").arg("60").spawn();
    let seen = std::fs::read_link(format!("/proc/{}/root", program.pid())).unwrap();
    assert_eq!(seen, root.path());
    let exe = std::fs::read_link(format!("/proc/{}/exe", program.pid())).unwrap();
    assert_eq!(exe, root.inside("/usr/bin/sleep"));
}

#[test]
fn the_bpf_file_system_is_there_while_it_is_held() {
    let lab = Lab::new("bpffs");
    let held = lab.bpf_filesystem();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(mounts.contains(" /sys/fs/bpf "), "{mounts}");
    assert!(held.path().is_dir());
}

#[test]
fn a_rootless_container_is_root_only_inside() {
    let lab = Lab::new("rootless");
    let (web, mx) = pair(&lab);
    let sink = mx.sink(25).start();
    let program = || {
        lab.program("/usr/bin/cat").arg("/proc/self/uid_map").in_host(&web).as_user(1234, 1234).in_new_user_namespace()
    };
    let map = program().run().must_succeed().stdout;
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "1234", "1"]);
    lab.client(Connect::Plain, sink.v4())
        .in_host(&web)
        .as_user(1234, 1234)
        .in_new_user_namespace()
        .report()
        .must_connect();
}

#[test]
fn a_new_mount_namespace_is_not_the_tests_own() {
    let lab = Lab::new("mntns");
    let link = lab.program("/usr/bin/readlink").arg("/proc/self/ns/mnt").in_new_mount_namespace();
    let theirs = link.run().must_succeed().stdout;
    let ours = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    assert_ne!(theirs.trim(), ours.to_str().unwrap());
}

#[test]
fn each_file_system_runs_the_client() {
    let lab = Lab::new("filesystems");
    let (web, mx) = pair(&lab);
    let sink = mx.sink(25).start();
    for kind in Kind::ALL {
        let mut filesystem = lab.filesystem(kind);
        let client = filesystem.install_client();
        let report = lab.client_from(&client, "plain", sink.v4());
        report.in_host(&web).as_user(1234, 1234).report().must_connect();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = format!(" {} ", filesystem.path().display());
        let line = mounts.lines().find(|line| line.contains(&mount)).unwrap();
        assert!(line.contains(&format!(" - {} ", kind.name())), "{line}");
        assert_eq!(filesystem.path().join("lab-client"), client, "{}", kind.name());
    }
}

#[test]
fn everybodys_tools_reach_the_sink() {
    let lab = Lab::new("tools");
    let (web, mx) = pair(&lab);
    let sink = mx.sink(25).smtp().start();
    let bot = |program: lab::Program| program.in_host(&web).as_user(1234, 1234).run();
    for (number, to) in (0..).zip([sink.v4(), sink.v6()]) {
        bot(lab.python_connect(to)).must_succeed();
        bot(lab.bash_connect(to)).must_succeed();
        bot(lab.python_mail(to, "py@a.example", "x@b.example", "hi")).must_succeed();
        bot(lab.curl_mail(to, "curl@a.example", "x@b.example")).must_succeed();
        bot(lab.swaks(to, "swaks@a.example", "x@b.example")).must_succeed();
        let messages = sink.wait_for_messages((number + 1) * 3, DEADLINE);
        let senders: Vec<&str> = messages[number * 3..].iter().map(|message| message.from.as_str()).collect();
        assert_eq!(senders, ["py@a.example", "curl@a.example", "swaks@a.example"]);
        assert_eq!(messages[number * 3].to, ["x@b.example"]);
        assert!(messages[number * 3].body.contains("from python"));
    }
}

#[test]
fn nothing_is_left_after_a_panic() {
    let (dir, cgroup, netns, pid) = {
        let seen = std::sync::Mutex::new(None);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let lab = Lab::new("panic");
            let (web, mx) = pair(&lab);
            let _sink = mx.sink(25).start();
            let _filesystem = lab.filesystem(Kind::Overlay);
            let cgroup = lab.cgroup("system.slice/lost.service");
            let deep = lab.cgroup("system.slice/lost.service/deeper");
            let program = lab.program("/usr/bin/sleep").arg("60");
            let sleeper = program.in_cgroup(&deep).in_host(&web).spawn();
            *seen.lock().unwrap() =
                Some((lab.dir().to_owned(), lab.cgroup_root().path().to_owned(), web.netns_inode(), sleeper.pid()));
            let _keep = (cgroup, deep);
            panic!("as a failing test does");
        }));
        assert!(result.is_err());
        seen.into_inner().unwrap().unwrap()
    };
    assert!(!dir.exists());
    assert!(!cgroup.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(dir.to_str().unwrap()), "{mounts}");
    until("the loop devices to go", DEADLINE, || {
        let loops = loops_below(&dir);
        if loops.is_empty() { Ok(()) } else { Err(loops) }
    });
    let holders = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let holders = holders.filter_map(|fd| std::fs::metadata(fd.path()).ok());
    assert_eq!(holders.filter(|held| held.ino() == netns).count(), 0);
}

fn loops_below(dir: &Path) -> Vec<String> {
    let devices = std::fs::read_dir("/sys/block").unwrap().flatten();
    devices
        .filter_map(|device| std::fs::read_to_string(device.path().join("loop/backing_file")).ok())
        .filter(|file| file.contains(dir.to_str().unwrap()))
        .collect()
}

#[test]
fn a_killed_tests_leftovers_are_swept() {
    // A process id that no kernel hands out: the largest is 2^22 (proc(5), pid_max).
    let name = "portreeve-test-killed-4194305.0";
    let cgroup = lab::cgroup2_root().join(name).join("system.slice");
    let dir = Path::new("/tmp").join(name);
    std::fs::create_dir_all(&cgroup).unwrap();
    std::fs::create_dir_all(&dir).unwrap();
    let _lab = Lab::new("sweep");
    assert!(!cgroup.exists());
    assert!(!dir.exists());
}

#[test]
fn postfix_delivers() {
    delivers(Package::Postfix);
}

#[test]
fn exim_delivers() {
    delivers(Package::Exim);
}

#[test]
fn opensmtpd_delivers() {
    delivers(Package::OpenSmtpd);
}

fn delivers(package: Package) {
    let lab = Lab::new(package.name());
    let (host, mx) = pair(&lab);
    let cgroup = lab.cgroup(&format!("system.slice/{}", package.unit()));
    let sink = mx.sink(25).smtp().start();
    let root = lab.mta_root(package);
    for (number, relay) in (1..).zip([sink.v4(), sink.v6()]) {
        let mta = Mta::start(&root, &host, &cgroup, relay);
        let subject = format!("number {number}");
        mta.submit("a@host.example", "b@mx.example", &subject);
        let messages = until(&format!("message {number}"), DEADLINE, || {
            let messages = sink.messages();
            if messages.len() == number { Ok(messages) } else { Err((messages, mta.log())) }
        });
        let message = messages.last().unwrap();
        assert_eq!(message.from, "a@host.example");
        assert_eq!(message.to, ["b@mx.example"]);
        assert!(message.body.contains(&subject), "{message:?}");
        assert_eq!(sink.peers().last().unwrap().is_ipv4(), relay.is_ipv4());
        assert!(mta.exe().is_file());
        assert!(cgroup.procs().contains(&mta.pid()));
        until("an empty queue", DEADLINE, || match mta.queue_len() {
            0 => Ok(()),
            waiting => Err(waiting),
        });
        drop(mta);
        assert!(cgroup.procs().is_empty());
    }
    // Nobody answers: the message waits, and goes when it is told to.
    drop(sink);
    let mta = Mta::start(&root, &host, &cgroup, SocketAddr::new(mx.v4(), 25));
    mta.submit("a@host.example", "b@mx.example", "later");
    until("a deferred message", DEADLINE, || {
        let (log, waiting) = (mta.log(), mta.queue_len());
        let tried = log.contains("efused") && waiting == 1;
        if tried { Ok(()) } else { Err((waiting, log)) }
    });
    let sink = mx.sink(25).smtp().start();
    until("the deferred message", DEADLINE, || {
        mta.flush();
        let messages = sink.messages();
        if messages.iter().any(|message| message.body.contains("later")) { Ok(()) } else { Err((messages, mta.log())) }
    });
}
