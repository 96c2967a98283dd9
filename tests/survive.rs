//! The guard under fire: floods, full maps, a killed agent, a bad reload, a full disk, two agents.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use lab::{Cgroup, Guard, Running};
use nix::sys::signal::Signal;

/// The scene, with a web server's unit and a program in it that nobody has sanctioned.
struct Scene {
    base: lab::Scene,
    web: Cgroup,
    client: PathBuf,
}

impl Deref for Scene {
    type Target = lab::Scene;

    fn deref(&self) -> &lab::Scene {
        &self.base
    }
}

impl Scene {
    fn new(name: &str) -> Self {
        let base = lab::Scene::new(name);
        let (web, client) = (base.lab.cgroup("system.slice/web.service"), base.lab.client());
        Self { base, web, client }
    }

    fn connect(&self) -> String {
        self.connect_with(&self.client)
    }

    fn connect_with(&self, program: &Path) -> String {
        self.plain(program, &self.web, (0, 0))
    }

    /// Starts processes that hammer connect() so many times each.
    fn hammer(&self, processes: usize, each: u64) -> Hammer {
        let to = self.mx.v4().to_string();
        let runs = (0..processes).map(|number| {
            let log = self.lab.scratch(&format!("hammer{number}"));
            let program = self.lab.program(&self.client).args(["hammer", &to, "25", &each.to_string()]);
            (program.in_host(&self.host).in_cgroup(&self.web).spawn(&log), log)
        });
        Hammer(runs.collect())
    }
}

struct Hammer(Vec<(Running, PathBuf)>);

impl Hammer {
    /// Waits for the end, and says how often each outcome came.
    fn outcomes(mut self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for (run, log) in &mut self.0 {
            assert_eq!(run.wait(), 0);
            for line in std::fs::read_to_string(log).unwrap().lines() {
                let (outcome, times) = line.rsplit_once(' ').unwrap();
                *all.entry(outcome.to_owned()).or_default() += times.parse::<u64>().unwrap();
            }
        }
        all
    }

    fn running(&mut self) -> bool {
        self.0.iter_mut().any(|(run, _)| run.runs())
    }
}

fn only_refused(count: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([("EPERM".to_owned(), count)])
}

#[test]
fn a_flood_is_counted_exactly_and_what_is_shed_is_counted_too() {
    let scene = Scene::new("flood");
    let guard = Guard::start(&scene.lab, "");
    let (processes, each) = (64, 2000);
    let total = processes as u64 * each;
    assert_eq!(scene.hammer(processes, each).outcomes(), only_refused(total));
    let status = lab::until("the agent to catch up", lab::DEADLINE, || {
        let status = guard.status();
        if status["counters"]["refused"] == total { Ok(status) } else { Err(status["counters"].clone()) }
    });
    assert_eq!(status["lost"]["uncounted_by_subject"], 0);
    assert_eq!((scene.sink.accepted(), status["subjects"].as_u64()), (0, Some(1)));
    let subjects = guard.subjects();
    assert_eq!((&subjects[0]["refused"], &subjects[0]["allowed"]), (&total.into(), &0.into()), "{subjects:?}");
    assert_eq!(subjects[0]["cgroup_id"], scene.web.id());
    // Memory is bounded: the records kept, not the attempts seen.
    let memory = status["memory_kib"].as_u64().unwrap();
    assert!(memory < 128 << 10, "{memory} KiB");
    // Every attempt's details were either taken or counted as shed. Taken ones show in the printed lines.
    let shed = status["lost"]["shed"].as_u64().unwrap();
    lab::until("every line", lab::DEADLINE, || {
        let printed = guard.log().lines().filter(|line| line.contains("REFUSED")).count() as u64;
        if printed + shed == total { Ok(()) } else { Err((printed, shed)) }
    });
}

#[test]
fn a_killed_agent_leaves_the_guard_and_its_counters() {
    let mut scene = Scene::new("killed");
    scene.web = scene.lab.cgroup("system.slice/bot.service");
    let mail = scene.lab.dir().join("mail");
    scene.lab.copy_client(&mail);
    let policy = format!("[[allow]]\nname = \"ours\"\nexe = \"{}\"\nuser = \"root\"\n", mail.display());
    let mut guard = Guard::start(&scene.lab, &policy);
    let (processes, each) = (8, 20_000);
    let mut hammer = scene.hammer(processes, each);
    let mut rounds = 0;
    while hammer.running() || rounds < 3 {
        guard.kill();
        assert_eq!(scene.connect(), "EPERM", "with the agent killed");
        assert_eq!(scene.connect_with(&mail), "connected", "with the agent killed");
        guard.resume();
        assert_eq!(scene.connect(), "EPERM", "with the agent back");
        rounds += 1;
    }
    let total = processes as u64 * each;
    assert_eq!(hammer.outcomes(), only_refused(total), "over {rounds} kills");
    let counters = guard.counters();
    assert_eq!((counters["refused"], counters["allowed"]), (total + 2 * rounds, rounds));
    assert_eq!(scene.sink.accepted(), rounds);
}

#[test]
fn a_full_ring_buffer_and_a_full_subject_table_change_no_verdict() {
    let scene = Scene::new("full");
    let mail = scene.lab.dir().join("mail");
    scene.lab.copy_client(&mail);
    let policy = format!("[[allow]]\nname = \"ours\"\nexe = \"{}\"\nuser = \"root\"\n", mail.display());
    let mut guard = Guard::start(&scene.lab, &policy);
    // Nobody reads the ring buffer: 4 MiB are some 2,600 events.
    guard.kill();
    assert_eq!(scene.hammer(4, 2000).outcomes(), only_refused(8000));
    assert_eq!(scene.connect(), "EPERM");
    assert_eq!(scene.connect_with(&mail), "connected");
    // More users, each a subject, than the table has places: 16,384.
    let script = "import os, socket, sys\n\
                  to, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])\n\
                  passed = 0\n\
                  for uid in range(first, last):\n\
                  \x20   os.setresuid(uid, uid, 0)\n\
                  \x20   try:\n\
                  \x20       socket.create_connection((to, 25)); passed += 1\n\
                  \x20   except PermissionError: pass\n\
                  \x20   os.setresuid(0, 0, 0)\n\
                  print(passed)\n";
    let to = scene.mx.v4().to_string();
    let churn = scene.lab.program("/usr/bin/python3").args(["-c", script, &to, "100000", "120000"]);
    let churn = churn.in_host(&scene.host).in_cgroup(&scene.web).run().must_succeed();
    assert_eq!(churn.stdout.trim(), "0", "got through");
    assert_eq!(scene.connect_with(&mail), "connected");
    guard.resume();
    let status = guard.status();
    assert_eq!(status["counters"]["refused"], 8000 + 1 + 20_000);
    assert_eq!(status["counters"]["allowed"], 2);
    assert!(status["lost"]["shed"].as_u64().unwrap() > 0, "{status}");
    let uncounted = status["lost"]["uncounted_by_subject"].as_u64().unwrap();
    assert!(uncounted >= 20_000 - 16_384, "{uncounted}");
}

#[test]
fn a_policy_that_does_not_check_changes_nothing() {
    let scene = Scene::new("badreload");
    let good = format!("[[allow]]\nname = \"ours\"\nexe = \"{}\"\nuser = \"root\"\n", scene.client.display());
    let mut guard = Guard::start(&scene.lab, &good);
    assert_eq!(scene.connect(), "connected");
    let generation = guard.status()["policy"]["generation"].clone();
    for bad in [
        "[guard]\nmode = \"off\"\n",
        "not toml at all",
        "[[allow]]\nexe = \"/bin/true\"\n",
        "[[allow]]\nuser = \"nosuchuser\"\n",
    ] {
        guard.write_policy(bad);
        let reload = guard.command(["reload"]);
        assert_eq!(reload.code, 2, "{bad}: {reload:#?}");
        assert!(reload.stderr.contains("portreeve.toml:") && reload.stderr.contains("mend:"), "{bad}: {reload:#?}");
        assert_eq!(scene.connect(), "connected", "{bad}");
        assert_eq!(guard.status()["policy"]["generation"], generation, "{bad}");
    }
    // Sound in itself, and too large for the kernel's tables: `check` says so too.
    guard.write_policy("[guard]\nports = [\"1-6000\"]\n[[allow]]\nname = \"wide\"\nuser = 1\nports = [\"1-5000\"]\n");
    let check = guard.command(["check", &guard.policy().display().to_string()]);
    assert_eq!((check.code, check.stdout.contains("has room for")), (2, true), "{check:#?}");
    let reload = guard.command(["reload"]);
    assert_eq!((reload.code, reload.stderr.contains("has room for")), (2, true), "{reload:#?}");
    assert_eq!(guard.status()["policy"]["generation"], generation);
    guard.write_policy("[[allow]]\nuser = \"nosuchuser\"\n");
    assert_eq!(guard.command(["reload"]).code, 2);
    assert!(guard.status()["policy"]["last_failure"].as_str().is_some_and(|why| why.contains("nosuchuser")));
    // A start with one: the last good policy comes back into force.
    guard.kill();
    guard.write_policy("[guard]\nmode = 5\n");
    guard.resume();
    assert_eq!(guard.status()["policy"]["last_good"], true);
    assert_eq!(scene.connect(), "connected");
    // A start with one that reads well and does not fit: likewise.
    guard.kill();
    guard.write_policy("[guard]\nports = [\"1-6000\"]\n[[allow]]\nname = \"wide\"\nuser = 1\nports = [\"1-5000\"]\n");
    guard.resume();
    assert_eq!(guard.status()["policy"]["last_good"], true);
    assert_eq!(scene.connect(), "connected");
    // A kill between the two renames that replace the copy.
    guard.kill();
    std::fs::rename(guard.state().join("last-good"), guard.state().join("last-good.old")).unwrap();
    guard.resume();
    assert_eq!(guard.status()["policy"]["last_good"], true);
    // A change of the file alone is enough.
    guard.write_policy("");
    lab::until("the empty policy", lab::DEADLINE, || match scene.connect().as_str() {
        "EPERM" => Ok(()),
        other => Err(other.to_owned()),
    });
    // SIGHUP too.
    guard.write_policy(&good);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(guard.pid() as i32), Signal::SIGHUP).unwrap();
    lab::until("the good policy", lab::DEADLINE, || match scene.connect().as_str() {
        "connected" => Ok(()),
        other => Err(other.to_owned()),
    });
}

#[test]
fn reloads_under_fire_let_nobody_through_and_cut_nobody_off() {
    let scene = Scene::new("reloads");
    let mail = scene.lab.dir().join("mail");
    scene.lab.copy_client(&mail);
    let rule = |ours: &str| format!("[[allow]]\nname = \"{ours}\"\nexe = \"{}\"\nuser = \"root\"\n", mail.display());
    // The rule that matters moves from place to place, so that a decision that mixed two policies would miss it.
    let filler = |count: usize| {
        (0..count)
            .map(|n| format!("[[allow]]\nname = \"f{n}\"\nuser = {}\nto = [\"10.{n}.0.0/16\"]\n", 5000 + n))
            .collect::<String>()
    };
    let guard = Guard::start(&scene.lab, &rule("ours"));
    let mut bots = scene.hammer(2, 60_000);
    let to = scene.mx.v4().to_string();
    let log = scene.lab.scratch("mail");
    let mut server = scene
        .lab
        .program(&mail)
        .args(["hammer", &to, "25", "3000"])
        .in_host(&scene.host)
        .in_cgroup(&scene.web)
        .spawn(&log);
    let mut reloads = 0;
    while bots.running() || server.runs() {
        let policy = match reloads % 3 {
            0 => filler(120) + &rule("last"),
            1 => rule("first") + &filler(200),
            _ => rule("alone"),
        };
        guard.write_policy(&policy);
        guard.reload();
        reloads += 1;
    }
    // On an emulated machine a reload takes as long as thousands of connections.
    assert!(reloads > 1, "{reloads} reloads");
    assert_eq!(bots.outcomes(), only_refused(120_000), "over {reloads} reloads");
    server.wait();
    assert_eq!(std::fs::read_to_string(&log).unwrap().trim(), "connected 3000", "over {reloads} reloads");
}

#[test]
fn two_agents_side_by_side_do_not_touch_each_other() {
    let scene = Scene::new("two");
    let (left, right) = (scene.lab.cgroup("left"), scene.lab.cgroup("right"));
    let allow = format!("[[allow]]\nname = \"ours\"\nexe = \"{}\"\nuser = \"root\"\n", scene.client.display());
    let one = Guard::start_on(&scene.lab, &left, &allow);
    let two = Guard::start_on(&scene.lab, &right, "");
    let connect = |cgroup: &Cgroup| {
        let program = scene.lab.program(&scene.client).args(["plain", &scene.mx.v4().to_string(), "25"]);
        program.in_host(&scene.host).in_cgroup(cgroup).run().must_succeed().stdout.trim().to_owned()
    };
    assert_eq!((connect(&left), connect(&right)), ("connected".to_owned(), "EPERM".to_owned()));
    assert_eq!((one.counters()["allowed"], one.counters()["refused"]), (1, 0));
    assert_eq!((two.counters()["allowed"], two.counters()["refused"]), (0, 1));
    one.detach();
    assert_eq!((connect(&left), connect(&right)), ("connected".to_owned(), "EPERM".to_owned()));
}

#[test]
fn a_full_disk_costs_the_file_alone() {
    let scene = Scene::new("disk");
    let mut guard = Guard::start(&scene.lab, "");
    guard.kill();
    // A state folder of one page, with nothing left in it.
    let state = guard.state().to_owned();
    nix::mount::mount(Some("tmpfs"), &state, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=4k")).unwrap();
    let full = Mounted(state.clone());
    assert!(std::fs::write(state.join("filler"), [0; 8192]).is_err());
    guard.resume();
    assert_eq!(scene.connect(), "EPERM");
    let attempts = lab::until("the record in memory", lab::DEADLINE, || match guard.attempts() {
        none if none.is_empty() => Err(()),
        some => Ok(some),
    });
    assert_eq!(attempts.len(), 1);
    let status = guard.status();
    assert!(status["store_broken"].is_string(), "{status}");
    assert_eq!(status["lost"]["not_stored"], 1);
    // Room again: it goes on by itself.
    std::fs::remove_file(state.join("filler")).unwrap();
    lab::until("the file", lab::DEADLINE, || {
        scene.connect();
        let broken = guard.status()["store_broken"].clone();
        if broken.is_null() { Ok(()) } else { Err(broken) }
    });
    guard.kill();
    drop(full);
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn reading_needs_the_group_and_changing_needs_root() {
    let scene = Scene::new("rights");
    let guard = Guard::start(&scene.lab, "");
    let ask = |arguments: &[&str]| {
        let all = ["--instance", guard.instance()].into_iter().chain(arguments.iter().copied());
        // A copy that every user can reach.
        let agent = scene.lab.dir().join("portreeve");
        if !agent.exists() {
            std::fs::copy(lab::portreeve(), &agent).unwrap();
        }
        scene.lab.program(agent).args(all).as_user(1234, 1234).run().code
    };
    for arguments in [&["status"][..], &["attempts"], &["reload"], &["mode", "observe"], &["detach"]] {
        assert_eq!(ask(arguments), 4, "{arguments:?}");
    }
    // Who gets past the socket file, as the group `portreeve` does, may read and still not change.
    let socket = Path::new("/run/portreeve").join(guard.instance()).join("control.sock");
    std::fs::set_permissions(socket, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    for (arguments, code) in [
        (&["status"][..], 0),
        (&["attempts"], 0),
        (&["subjects"], 0),
        (&["explain", "--user", "root", "--to", "192.0.2.1"], 1),
        (&["reload"], 4),
        (&["mode", "observe"], 4),
        (&["detach"], 4),
    ] {
        assert_eq!(ask(arguments), code, "{arguments:?}");
    }
    assert_eq!(guard.status()["policy"]["mode"], "enforce");
    assert_eq!(scene.connect(), "EPERM");
    // Whoever stops reading has read enough.
    let head = format!("{} --instance {} status | true", lab::portreeve().display(), guard.instance());
    assert_eq!(scene.lab.program("/bin/sh").args(["-c", &head]).run().stderr, "");
}

#[test]
fn the_event_names_a_process_that_is_gone() {
    let scene = Scene::new("event");
    let guard = Guard::start(&scene.lab, "");
    let script = "import os, socket\ns = socket.socket()\ntry: s.connect(('SINK', 25))\nexcept OSError: os._exit(0)\n"
        .replace("SINK", &scene.mx.v4().to_string());
    // In memory alone: the file never had a name.
    let memfd = "import os, sys\nfd = os.memfd_create('bot')\nos.write(fd, open(sys.argv[1], 'rb').read())\n\
                 os.execve(fd, ['mailer', 'plain', sys.argv[2], '25'], {})\n";
    let program =
        scene.lab.program("/usr/bin/python3").args(["-c", &script]).in_host(&scene.host).in_cgroup(&scene.web);
    program.as_user(33, 33).run().must_succeed();
    let to = scene.mx.v4().to_string();
    let client = scene.client.display().to_string();
    let program = scene.lab.program("/usr/bin/python3").args(["-c", memfd, &client, &to]);
    let refused = program.in_host(&scene.host).in_cgroup(&scene.web).run();
    assert_eq!(refused.stdout.trim(), "EPERM", "{refused:#?}");
    let attempts = lab::until("both records", lab::DEADLINE, || match guard.attempts() {
        two if two.len() == 2 => Ok(two),
        other => Err(other.len()),
    });
    let [python, memory] = attempts.as_slice() else { unreachable!() };
    assert!(python["exe"].as_str().unwrap().starts_with("/usr/bin/python3"), "{python}");
    assert_eq!((&python["euid"], &python["uid"], &python["egid"]), (&33.into(), &33.into(), &33.into()));
    assert_eq!(python["user"], "www-data");
    assert_eq!(python["unit"], "web.service");
    assert!(python["cgroup"].as_str().unwrap().ends_with("/system.slice/web.service"));
    assert_eq!(python["cgroup_id"], scene.web.id());
    assert_eq!(python["netns"], scene.host.inode());
    assert_eq!(python["destination"], format!("{to}:25"));
    assert_eq!(python["cmdline"][1], "-c");
    assert_eq!(
        (&python["verdict"], &python["reason"], &python["rule"]),
        (&"deny".into(), &"no-rule".into(), &serde_json::Value::Null)
    );
    assert_eq!(python["parents"][0]["pid"], std::process::id(), "{python}");
    assert_eq!((&memory["exe_in_memory"], &memory["exe_deleted"]), (&true.into(), &true.into()), "{memory}");
    assert_eq!((&memory["cmdline"][0], &memory["severity"]), (&"mailer".into(), &"warning".into()));
}

#[test]
fn explain_says_what_the_kernel_does() {
    let scene = Scene::new("explain");
    let policy = format!(
        "[[allow]]\nname = \"ours\"\nexe = \"{}\"\nuser = 1001\nunit = \"mail.service\"\n",
        scene.client.display()
    );
    let guard = Guard::start(&scene.lab, &policy);
    let (exe, to) = (scene.client.display().to_string(), format!("{}:25", scene.mx.v4()));
    let rows = [
        (vec!["--exe", &exe, "--user", "1001", "--unit", "mail.service"], 0, "rule \"ours\" matches"),
        (vec!["--exe", &exe, "--user", "1002", "--unit", "mail.service"], 1, "no rule allows this user"),
        (vec!["--exe", &exe, "--user", "1001", "--unit", "web.service"], 1, "no rule allows this cgroup"),
        (vec!["--exe", "/bin/true", "--user", "1001", "--unit", "mail.service"], 1, "no rule allows this exe"),
    ];
    for (arguments, code, because) in rows {
        let answer = guard.command(["explain", "--to", &to].into_iter().chain(arguments.iter().copied()));
        assert_eq!(answer.code, code, "{arguments:?}: {answer:#?}");
        assert!(answer.stdout.contains(because), "{arguments:?}: {answer:#?}");
    }
    // A running process, by its number.
    let mail = scene.lab.cgroup("system.slice/mail.service");
    let log = scene.lab.scratch("shell");
    let shell = scene.lab.program("/bin/sleep").args(["60"]).in_cgroup(&mail).as_user(1001, 1001).spawn(&log);
    let answer = guard.command(["explain", "--to", &to, "--pid", &shell.pid().to_string()]);
    assert_eq!(answer.code, 1);
    assert!(answer.stdout.contains("no rule allows this exe: /usr/bin/sleep"), "{answer:#?}");
    let answer = guard.command(["explain", "--to", "203.0.113.1:80", "--pid", &shell.pid().to_string()]);
    assert!(answer.stdout.contains("port 80 is not guarded"), "{answer:#?}");
}
