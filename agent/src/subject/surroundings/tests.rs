use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command};

use super::*;

/// A process and what an event would tell of it.
struct Run {
    child: Child,
    exe: String,
    start: u64,
    id: (u32, u64),
}

impl Run {
    fn new(exe: &Path) -> Self {
        let child = Command::new(exe).arg("60").spawn().unwrap();
        let exe = fs::canonicalize(exe).unwrap();
        let meta = fs::metadata(&exe).unwrap();
        let start = Process::new(child.id() as i32).unwrap().stat().unwrap().starttime * TICK;
        let exe = exe.to_str().unwrap().to_owned();
        Self { child, exe, start, id: (meta.dev() as u32, meta.ino()) }
    }

    fn about(&self) -> About<'_> {
        let netns = fs::metadata("/proc/self/ns/net").unwrap().ino() as u32;
        let (pid, start, exe) = (self.child.id(), self.start, Some(self.exe.as_str()));
        About { pid, start, exe, exe_id: self.id, script: None, session: None, login_uid: None, netns }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

/// The surroundings, once the package is known or two seconds have gone by.
fn settled(surroundings: &mut Surroundings, about: &About<'_>) -> Facts {
    let begun = Instant::now();
    loop {
        let facts = surroundings.of(about);
        if facts.package != Owner::Unknown || begun.elapsed() > Duration::from_secs(2) {
            return facts;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn bot(folder: &Path) -> PathBuf {
    let bot = folder.join("bot");
    fs::copy(fs::canonicalize("/bin/sleep").unwrap(), &bot).unwrap();
    bot
}

#[test]
fn a_packaged_program_and_one_in_a_temporary_folder_are_told_apart() {
    if !Path::new("/var/lib/dpkg/info/coreutils.list").exists() {
        return;
    }
    let mut surroundings = Surroundings::default();
    let sleep = Run::new(Path::new("/bin/sleep"));
    let facts = settled(&mut surroundings, &sleep.about());
    assert_eq!(facts.package, Owner::Package("coreutils".to_owned()));
    assert_eq!((facts.exe_world_writable, facts.exe_temporary), (Some(false), false));
    assert_eq!(facts.forebears[0].0, std::process::id());
    assert!(facts.mta_listens.is_some());

    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let bot = Run::new(&bot(folder.path()));
    let facts = surroundings.of(&bot.about());
    assert_eq!(facts.package, Owner::NoPackage);
    assert_eq!((facts.exe_world_writable, facts.exe_temporary), (Some(true), true));
}

#[test]
fn a_file_that_is_not_the_hosts_has_no_owner_here() {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = bot(root.path());
    let lists = root.path().join("var/lib/dpkg/info");
    fs::create_dir_all(&lists).unwrap();
    fs::write(root.path().join("var/lib/dpkg/status"), "").unwrap();
    fs::write(lists.join("mailer.list"), format!("{}\n", program.display())).unwrap();
    // The database knows the path, and the file there is not the one that runs: a container's.
    let there = root.path().join(program.strip_prefix("/").unwrap());
    fs::create_dir_all(there.parent().unwrap()).unwrap();
    fs::write(&there, "other").unwrap();
    let mut surroundings = Surroundings::new(root.path());
    let run = Run::new(&program);
    assert_eq!(settled(&mut surroundings, &run.about()).package, Owner::Unknown);
    // Now it is the same file.
    fs::remove_file(&there).unwrap();
    fs::hard_link(&program, &there).unwrap();
    let mut surroundings = Surroundings::new(root.path());
    assert_eq!(settled(&mut surroundings, &run.about()).package, Owner::Package("mailer".to_owned()));
    let elsewhere = About { netns: 1, ..run.about() };
    assert_eq!(Surroundings::new(root.path()).of(&elsewhere).mta_listens, None);
}

#[test]
fn a_script_is_roots_only_where_the_process_sees_the_hosts_own() {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let outside = root.path().join("its");
    fs::create_dir(&outside).unwrap();
    // The path as the process has it, and the same file below this root, where no folder is open to all.
    let below = |path: &Path| root.path().join(path.strip_prefix("/").unwrap());
    let put = |path: &Path| {
        fs::create_dir_all(below(path).parent().unwrap()).unwrap();
        fs::hard_link(path, below(path)).unwrap();
    };
    let program = outside.join("perl");
    fs::copy(fs::canonicalize("/bin/sleep").unwrap(), &program).unwrap();
    let scripts = ["mine.pl", "theirs.pl", "other.pl"].map(|name| outside.join(name));
    for script in &scripts {
        fs::write(script, "1").unwrap();
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
    }
    put(&program);
    put(&scripts[0]);
    put(&scripts[1]);
    for folder in below(&program).ancestors().skip(1).take_while(|folder| folder.starts_with(root.path())) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&scripts[1], fs::Permissions::from_mode(0o775)).unwrap();
    // Another file of the name: a container's.
    fs::write(below(&scripts[2]), "2").unwrap();
    // With the package known, nothing but the script is left to ask for.
    fs::create_dir_all(root.path().join("var/lib/dpkg/info")).unwrap();
    fs::write(root.path().join("var/lib/dpkg/status"), "").unwrap();
    fs::write(root.path().join("var/lib/dpkg/info/mailer.list"), format!("{}\n", program.display())).unwrap();

    let run = Run::new(&program);
    let mut surroundings = Surroundings::new(root.path());
    assert_eq!(settled(&mut surroundings, &run.about()).package, Owner::Package("mailer".to_owned()));
    let mut of = |script: &Path| {
        let about = About { script: script.to_str(), ..run.about() };
        let begun = Instant::now();
        loop {
            let facts = surroundings.of(&about);
            if facts.script_of_root.is_some() || begun.elapsed() > Duration::from_millis(300) {
                return facts.script_of_root;
            }
            thread::sleep(Duration::from_millis(2));
        }
    };
    let is_root = nix::unistd::geteuid().is_root();
    // In turns, for what is remembered of one script, by process or executable, must not be told of another.
    for _ in 0..2 {
        assert_eq!(of(&scripts[0]), Some(is_root));
        assert_eq!(of(&scripts[1]), Some(false));
        assert_eq!(of(&scripts[2]), None);
        assert_eq!(of(Path::new("/nowhere.pl")), None);
    }
    assert_eq!(surroundings.of(&run.about()).script_of_root, None, "nobody asked about a script");
    // The executable is another than the host's: so is the script, whatever it looks like.
    fs::remove_file(below(&program)).unwrap();
    fs::write(below(&program), "other").unwrap();
    let mut surroundings = Surroundings::new(root.path());
    let about = About { script: scripts[0].to_str(), ..run.about() };
    let begun = Instant::now();
    while surroundings.of(&about).exe_world_writable.is_none() && begun.elapsed() < Duration::from_secs(2) {
        thread::sleep(Duration::from_millis(2));
    }
    let facts = surroundings.of(&about);
    assert!(facts.exe_world_writable.is_some());
    assert_eq!(facts.script_of_root, None);
}

#[test]
fn another_process_with_the_number_tells_nothing() {
    let run = Run::new(Path::new("/bin/sleep"));
    let mut surroundings = Surroundings::default();
    let reused = About { start: run.start + TICK, ..run.about() };
    thread::sleep(Duration::from_millis(5));
    let facts = surroundings.of(&reused);
    assert_eq!((facts.exe_world_writable, facts.forebears.len()), (None, 0));
    assert_eq!(surroundings.of(&About { pid: 0, ..run.about() }), Facts::default());
}

#[test]
fn a_flood_costs_little_and_memory_is_bounded() {
    let run = Run::new(Path::new("/bin/sleep"));
    let mut surroundings = Surroundings::default();
    settled(&mut surroundings, &run.about());
    let begun = Instant::now();
    for _ in 0..10_000 {
        surroundings.of(&run.about());
    }
    println!("{:?} each, of one process", begun.elapsed() / 10_000);
    // Ever new processes of one executable: each is asked about once.
    let begun = Instant::now();
    let most = 3 * MOST as u64;
    for number in 0..most {
        surroundings.processes.remove(&(run.child.id(), run.start));
        surroundings.of(&run.about());
        let (when, facts) = (Instant::now(), Facts::default());
        surroundings.processes.insert((1, number), Known { when, exe_id: (0, 0), script: None, facts });
    }
    let each = begun.elapsed() / most as u32;
    println!("{each:?} each, of a new process");
    assert!(surroundings.processes.len() <= MOST + 1);
    // A debug build beside other tests; a release build takes a fifth of that.
    assert!(each < Duration::from_millis(1), "{each:?}");
}
