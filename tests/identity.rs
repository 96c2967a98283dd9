//! Who is asking: each dimension of a rule alone and together, on every file system, and what would fake it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::{Guard, Kind, Outcome, Scene};

const PORT: &str = "25";

/// A plain connect() by a program in a unit, as a user and group.
fn connect_as(scene: &Scene, program: &Path, unit: &str, uid: u32, gid: u32) -> String {
    scene.plain(program, &scene.lab.cgroup(unit), (uid, gid))
}

/// A plain connect() by a program of root in the mail server's unit.
fn connect(scene: &Scene, program: &Path) -> String {
    connect_as(scene, program, "system.slice/mail.service", 0, 0)
}

fn answer(outcome: &Outcome) -> String {
    assert_eq!(outcome.code, 0, "{outcome:#?}");
    outcome.stdout.trim().to_owned()
}

#[test]
fn each_dimension_decides_alone_and_together() {
    let scene = Scene::new("dimensions");
    let client = scene.lab.client();
    let exe = format!("exe = \"{}\"", client.display());
    let to = format!("to = [\"{}\"]", scene.mx.v4());
    let guard = Guard::start(&scene.lab, "");
    // Rule, unit, user, group, and what the connect() must get.
    let mail = "system.slice/mail.service";
    let rows = [
        ("user = 1001".to_owned(), mail, 1001, 5, "connected"),
        ("user = 1001".to_owned(), mail, 1002, 5, "EPERM"),
        ("user = [1001, 1002]".to_owned(), mail, 1002, 5, "connected"),
        ("user = \"root\"".to_owned(), mail, 0, 0, "connected"),
        ("group = 77".to_owned(), mail, 1001, 77, "connected"),
        ("group = 77".to_owned(), mail, 1001, 78, "EPERM"),
        ("unit = \"mail.service\"".to_owned(), mail, 1001, 5, "connected"),
        ("unit = \"mail.service\"".to_owned(), "system.slice/mail.service/deep/er", 1001, 5, "connected"),
        ("unit = \"mail.service\"".to_owned(), "system.slice/mail.service2", 1001, 5, "EPERM"),
        ("unit = \"mail.service\"".to_owned(), "user.slice/mail.service", 1001, 5, "EPERM"),
        ("unit = \"mail.service\"".to_owned(), "mail.service", 1001, 5, "EPERM"),
        ("unit = \"system.slice\"".to_owned(), mail, 1001, 5, "connected"),
        ("unit = \"a-b.slice\"".to_owned(), "a.slice/a-b.slice/x.service", 1001, 5, "connected"),
        ("unit = \"p@-.service\"".to_owned(), "system.slice/system-p.slice/p@-.service", 1001, 5, "connected"),
        ("cgroup = \"/docker/abc\"".to_owned(), "docker/abc/init", 1001, 5, "connected"),
        ("cgroup = \"/docker/abc\"".to_owned(), "docker/abd", 1001, 5, "EPERM"),
        (format!("{exe}\nuser = 1001"), mail, 1001, 5, "connected"),
        (format!("{exe}\nuser = 1001"), mail, 1002, 5, "EPERM"),
        (format!("{exe}\nuser = 1001\nunit = \"mail.service\""), "system.slice/web.service", 1001, 5, "EPERM"),
        (
            format!("{exe}\nuser = 1001\nunit = \"mail.service\"\ngroup = 5\n{to}\nports = [25]"),
            mail,
            1001,
            5,
            "connected",
        ),
        (format!("{exe}\nuser = 1001\nto = [\"203.0.113.0/24\", \"2001:db8::/32\"]"), mail, 1001, 5, "EPERM"),
        (format!("{exe}\nuser = 1001\nto = [\"::/0\"]"), mail, 1001, 5, "EPERM"),
        (format!("{exe}\nuser = 1001\nto = [\"0.0.0.0/0\"]"), mail, 1001, 5, "connected"),
        (format!("{exe}\nexe_alone = true"), mail, 4242, 5, "connected"),
        ("exe = \"/bin/true\"\nuser = 1001".to_owned(), mail, 1001, 5, "EPERM"),
        (format!("{exe}\nuser = 1001\nexpires = 2020-01-01"), mail, 1001, 5, "EPERM"),
        (format!("{exe}\nuser = 1001\nexpires = 2999-01-01"), mail, 1001, 5, "connected"),
    ];
    for (rule, unit, uid, gid, expected) in rows {
        guard.write_policy(&format!("[[allow]]\nname = \"r\"\n{rule}\n"));
        guard.reload();
        assert_eq!(connect_as(&scene, &client, unit, uid, gid), expected, "{rule} for {uid}:{gid} in {unit}");
    }
}

#[test]
fn the_effective_user_counts_and_a_user_namespaces_root_is_not_root() {
    let scene = Scene::new("usernamespace");
    let client = scene.lab.client();
    let cgroup = scene.lab.cgroup("system.slice/x.service");
    let to = scene.mx.v4().to_string();
    // Real, effective and saved apart: a set-user-ID program is who it acts as.
    let guard = Guard::start(&scene.lab, "");
    let script = "import os, socket, sys\n\
                  real, effective = int(sys.argv[2]), int(sys.argv[3])\n\
                  os.setresgid(real, effective, 0); os.setresuid(real, effective, 0)\n\
                  try: socket.create_connection((sys.argv[1], 25)); print('connected')\n\
                  except PermissionError: print('EPERM')\n";
    for (kind, real, effective, expected) in [
        ("user", 1001, 0, "connected"),
        ("user", 0, 1001, "EPERM"),
        ("group", 1001, 0, "connected"),
        ("group", 0, 1001, "EPERM"),
    ] {
        guard.write_policy(&format!("[[allow]]\nname = \"r\"\n{kind} = \"root\"\n"));
        guard.reload();
        let arguments = ["-c", script, &to, &format!("{real}"), &format!("{effective}")];
        let program = scene.lab.program("/usr/bin/python3").args(arguments).in_host(&scene.host).in_cgroup(&cgroup);
        assert_eq!(answer(&program.run()), expected, "{kind}: real {real}, effective {effective}");
    }
    guard.write_policy("[[allow]]\nname = \"root\"\nuser = \"root\"\n");
    guard.reload();
    // Root inside a user namespace of its own, as a rootless container has it.
    let inside = scene
        .lab
        .program("/usr/bin/unshare")
        .args(["--user", "--map-root-user", &client.display().to_string(), "plain", &to, PORT])
        .in_host(&scene.host)
        .in_cgroup(&cgroup)
        .as_user(1001, 1001);
    assert_eq!(answer(&inside.run()), "EPERM");
}

#[test]
fn sanctioned_binaries_are_recognised_on_every_file_system() {
    let scene = Scene::new("filesystems");
    let guard = Guard::start(&scene.lab, "");
    for kind in [Kind::Ext4, Kind::Xfs, Kind::Btrfs, Kind::Tmpfs, Kind::Overlay, Kind::OverlayAcross] {
        let mut fs = scene.lab.filesystem(kind);
        scene.lab.copy_client(&fs.fill().join("mail"));
        scene.lab.copy_client(&fs.fill().join("bot"));
        let top = fs.seal().to_owned();
        assert_eq!(connect(&scene, &top.join("mail")), "EPERM", "{kind:?}, before the rule");
        guard.write_policy(&rule_for(&top.join("mail")));
        guard.reload();
        assert_eq!(connect(&scene, &top.join("mail")), "connected", "{kind:?}");
        assert_eq!(connect(&scene, &top.join("bot")), "EPERM", "{kind:?}: another file of the same content");
        // Written to: the same inode, and no longer what was sanctioned, until the agent has looked at it.
        guard.write_policy("");
        guard.reload();
    }
}

fn rule_for(exe: &Path) -> String {
    format!("[[allow]]\nname = \"ours\"\nexe = \"{}\"\nuser = \"root\"\n", exe.display())
}

/// A sanctioned program in a folder of the lab.
fn sanctioned(scene: &Scene) -> (PathBuf, Guard) {
    let exe = scene.lab.dir().join("mail");
    scene.lab.copy_client(&exe);
    let guard = Guard::start(&scene.lab, &rule_for(&exe));
    assert_eq!(connect(scene, &exe), "connected");
    (exe, guard)
}

#[test]
fn a_package_upgrade_is_recognised_within_a_second() {
    let scene = Scene::new("upgrade");
    let (exe, guard) = sanctioned(&scene);
    for round in 0..3 {
        let new = exe.with_extension("dpkg-new");
        scene.lab.copy_client(&new);
        std::fs::rename(&new, &exe).unwrap();
        let renamed = Instant::now();
        lab::until("the new binary to be recognised", Duration::from_secs(1), || {
            match connect(&scene, &exe).as_str() {
                "connected" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
        assert!(renamed.elapsed() < Duration::from_secs(1), "round {round}: {:?}", renamed.elapsed());
    }
    // While it is gone nobody may, and the agent goes on.
    std::fs::remove_file(&exe).unwrap();
    lab::until("the rule to be inert", lab::DEADLINE, || {
        let warnings = guard.status()["policy"]["warnings"].to_string();
        if warnings.contains("does not exist") { Ok(()) } else { Err(warnings) }
    });
    scene.lab.copy_client(&exe);
    lab::until("the binary to be back", lab::DEADLINE, || match connect(&scene, &exe).as_str() {
        "connected" => Ok(()),
        other => Err(other.to_owned()),
    });
}

#[test]
fn a_wrong_digest_allows_nobody() {
    let scene = Scene::new("digest");
    let (exe, guard) = sanctioned(&scene);
    guard.write_policy(&format!("{}sha256 = \"{}\"\n", rule_for(&exe), "0".repeat(64)));
    let reload = guard.command(["reload"]);
    assert_eq!(reload.code, 2);
    assert!(reload.stderr.contains("has the SHA-256"), "{reload:#?}");
    assert_eq!(connect(&scene, &exe), "connected", "the last good policy stays");
    let sum = scene.lab.program("/usr/bin/sha256sum").args([&exe]).run().must_succeed();
    let digest = sum.stdout.split(' ').next().unwrap().to_owned();
    guard.write_policy(&format!("{}sha256 = \"{digest}\"\n", rule_for(&exe)));
    guard.reload();
    assert_eq!(connect(&scene, &exe), "connected");
    // The file changes while the agent runs: checked again, and no longer sanctioned.
    let new = exe.with_extension("new");
    scene.lab.copy_client(&new);
    let mut bytes = std::fs::read(&new).unwrap();
    bytes.push(0);
    std::fs::write(&new, bytes).unwrap();
    std::fs::rename(&new, &exe).unwrap();
    assert_eq!(connect(&scene, &exe), "EPERM");
    lab::until("the agent to notice", lab::DEADLINE, || {
        let warnings = guard.status()["policy"]["warnings"].to_string();
        if warnings.contains("has the SHA-256") { Ok(()) } else { Err(warnings) }
    });
    assert_eq!(connect(&scene, &exe), "EPERM");
}

#[test]
fn a_restarted_unit_is_recognised_at_once_also_without_the_agent() {
    let scene = Scene::new("restart");
    let client = scene.lab.client();
    let mut guard = Guard::start(&scene.lab, "[[allow]]\nname = \"mail\"\nunit = \"mail.service\"\n");
    let mut ids = Vec::new();
    for agent_runs in [true, true, false, false] {
        if !agent_runs {
            guard.kill();
        }
        // The cgroup goes with the unit, and comes back with another id.
        let cgroup = scene.lab.cgroup("system.slice/mail.service");
        ids.push(cgroup.id());
        let to = scene.mx.v4().to_string();
        let program = scene.lab.program(&client).args(["plain", &to, PORT]).in_host(&scene.host).in_cgroup(&cgroup);
        assert_eq!(answer(&program.run()), "connected");
        assert_eq!(connect_as(&scene, &client, "system.slice/other.service", 0, 0), "EPERM");
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4, "the cgroups were not new ones");
}

#[test]
fn taints_are_recorded_and_refused_where_the_policy_says_so() {
    let scene = Scene::new("taint");
    let (exe, guard) = sanctioned(&scene);
    let cgroup = scene.lab.cgroup("system.slice/mail.service");
    let to = scene.mx.v4().to_string();
    let program = |variable: Option<&str>| {
        let program = scene.lab.program(&exe).args(["plain", &to, PORT]).in_host(&scene.host).in_cgroup(&cgroup);
        let program = match variable {
            Some(name) => program.env(name, "/nonexistent.so"),
            None => program,
        };
        answer(&program.run())
    };
    let last_taint = || {
        let attempt = lab::until("the record", lab::DEADLINE, || guard.attempts().pop().ok_or(()));
        (attempt["taint"].clone(), attempt["severity"].clone())
    };
    assert_eq!(program(None), "connected");
    for (name, word) in [("LD_PRELOAD", "ld_preload"), ("LD_AUDIT", "ld_audit"), ("LD_LIBRARY_PATH", "ld_library_path")]
    {
        let before = guard.attempts().len();
        assert_eq!(program(Some(name)), "connected");
        lab::until("the record", lab::DEADLINE, || if guard.attempts().len() > before { Ok(()) } else { Err(before) });
        assert_eq!(last_taint(), (serde_json::json!([word]), serde_json::json!("warning")), "{name}");
    }
    guard.write_policy(&format!("[guard]\nrefuse_tainted = true\n{}", rule_for(&exe)));
    guard.reload();
    assert_eq!(program(None), "connected", "untainted");
    for name in ["LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH"] {
        assert_eq!(program(Some(name)), "EPERM", "{name}");
    }
    assert_eq!(program(Some("LD_LIBRARY_PATHS")), "connected", "another variable");
    // An environment too large to look through could hide anything.
    let mut huge = scene.lab.program(&exe).args(["plain", &to, PORT]).in_host(&scene.host).in_cgroup(&cgroup);
    for number in 0..400 {
        huge = huge.env(&format!("V{number}"), "x");
    }
    assert_eq!(answer(&huge.run()), "EPERM", "a huge environment");
    // Under a tracer.
    let traced = scene.lab.program("/usr/bin/strace").args([
        "-f",
        "-o",
        "/dev/null",
        &exe.display().to_string(),
        "plain",
        &to,
        PORT,
    ]);
    if Path::new("/usr/bin/strace").exists() {
        assert_eq!(answer(&traced.in_host(&scene.host).in_cgroup(&cgroup).run()), "EPERM", "traced");
    }
}

#[test]
fn a_process_older_than_the_guard_is_known_for_what_it_is() {
    let scene = Scene::new("older");
    let exe = scene.lab.dir().join("mail");
    scene.lab.copy_client(&exe);
    let go = scene.lab.dir().join("go");
    let cgroup = scene.lab.cgroup("system.slice/mail.service");
    // A shell that runs before the guard does, and later connects itself.
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.01; done; exec 3<>/dev/tcp/{}/25 && echo connected",
        go.display(),
        scene.mx.v4()
    );
    let log = scene.lab.dir().join("shell.log");
    let mut shell =
        scene.lab.program("/bin/bash").args(["-c", &script]).in_host(&scene.host).in_cgroup(&cgroup).spawn(&log);
    let policy = "[guard]\nrefuse_tainted = true\n[[allow]]\nname = \"shell\"\nexe = \"/bin/bash\"\nuser = \"root\"\nunit = \"mail.service\"\n";
    let _guard = Guard::start(&scene.lab, policy);
    std::fs::write(&go, "").unwrap();
    shell.wait();
    assert_eq!(std::fs::read_to_string(&log).unwrap().trim(), "connected");
}

/// A process that was started as something else and puts on the mail server's face: as root on the host, and as a user
/// inside a user namespace of its own.
#[test]
fn another_programs_face_is_seen_through() {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let scene = Scene::new("disguise");
    let exe = scene.lab.dir().join("mail");
    scene.lab.copy_client(&exe);
    let bot = scene.lab.client();
    let policy = |tainted: bool| {
        format!(
            "[guard]\nrefuse_tainted = {tainted}\n[[allow]]\nname = \"ours\"\nexe = \"{}\"\nuser = [0, 1001]\n",
            exe.display()
        )
    };
    let guard = Guard::start(&scene.lab, &policy(false));
    let cgroup = scene.lab.cgroup("system.slice/web.service");
    let to = scene.mx.v4().to_string();
    let disguised = |user: bool| {
        let arguments = ["disguised", &to, PORT].map(str::to_owned);
        let program = if user {
            let mut all = vec!["--user".to_owned(), "--map-root-user".to_owned(), bot.display().to_string()];
            all.extend(arguments);
            scene.lab.program("/usr/bin/unshare").args(all).as_user(1001, 1001)
        } else {
            scene.lab.program(&bot).args(arguments)
        };
        let program = program.env("LAB_FACE", &exe.display().to_string()).in_host(&scene.host).in_cgroup(&cgroup);
        program.run().code
    };
    for user in [false, true] {
        let before = guard.attempts().len();
        // The face holds as long as only executable and user are asked about; that is why it is recorded …
        assert_eq!(disguised(user), 0, "user {user}: 128 and more would mean that the kernel refused the new face");
        let attempt =
            lab::until("the record", lab::DEADLINE, || guard.attempts().into_iter().nth(before).ok_or(before));
        assert_eq!(attempt["taint"], serde_json::json!(["exe_changed"]), "{attempt}");
        assert_eq!(attempt["severity"], "warning");
    }
    // … and refused where the policy says so.
    guard.write_policy(&policy(true));
    guard.reload();
    for user in [false, true] {
        assert_eq!(disguised(user), nix::errno::Errno::EPERM as i32, "user {user}");
    }
}
