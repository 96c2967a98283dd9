//! Real interfaces in a network namespace of the test's own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::host::links;
use crate::host::testing::{in_own_network, ip};

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A sleeper in a network namespace of its own.
fn elsewhere() -> Running {
    let sleeper = Running(Command::new("unshare").args(["-n", "sleep", "60"]).stdin(Stdio::null()).spawn().unwrap());
    let own = fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    let of_test = fs::metadata("/proc/self/ns/net").unwrap().ino();
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let its = fs::metadata(format!("/proc/{}/ns/net", sleeper.0.id())).unwrap().ino();
        let sleeps = program(sleeper.0.id()).as_deref() == Some("sleep");
        if (its != own && its != of_test && sleeps) || Instant::now() > until {
            return sleeper;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn link(name: &str) -> Link {
    links().unwrap().into_iter().find(|link| link.name == name).unwrap()
}

/// What is behind an interface, with the runtimes' files below a folder.
fn named_below(root: &Path, link: &Link) -> Option<Behind> {
    behind_below(root, std::slice::from_ref(link)).remove(&link.index)
}

fn named(link: &Link) -> Option<Behind> {
    behind(std::slice::from_ref(link)).remove(&link.index)
}

/// A cgroup with a program in it, both of which go with the test.
struct Group {
    path: PathBuf,
    program: Option<Running>,
}

impl Group {
    fn of(name: &str, program: Running) -> Self {
        let mounts = Process::myself().unwrap().mountinfo().unwrap();
        let mount = mounts.into_iter().find(|mount| mount.fs_type == "cgroup2").unwrap();
        let path = mount.mount_point.join(format!("portreeve-host-test-{}", std::process::id())).join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("cgroup.procs"), program.0.id().to_string()).unwrap();
        Self { path, program: Some(program) }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(self.program.take());
        let until = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.path).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(self.path.parent().is_some_and(|parent| fs::remove_dir(parent).is_ok()));
    }
}

#[test]
fn the_container_behind_a_veth_is_found_and_named_by_its_runtime() {
    in_own_network(|| {
        let (first, second) = (elsewhere(), elsewhere());
        for (name, pid) in [("veth0", first.0.id()), ("veth1", second.0.id())] {
            ip(&format!("link add {name} type veth peer name eth0 netns {pid}"));
        }
        // Both have the same index at the other end: only the namespace's number tells them apart.
        assert_eq!(link("veth0").peer, link("veth1").peer);
        let plain = named(&link("veth1")).unwrap();
        assert_eq!((plain.kind, plain.pid), (BehindKind::Program, second.0.id()));
        let id = "0123456789abcdef".repeat(4);
        let pid = first.0.id();
        let group = Group::of(&format!("docker-{id}.scope"), first);
        let root = tempfile::tempdir().unwrap();
        let found = named_below(root.path(), &link("veth0")).unwrap();
        let docker = Some("docker".to_owned());
        let expected = Behind { kind: BehindKind::Container, name: id.clone(), runtime: docker.clone(), pid };
        assert_eq!(found, expected);
        let folder = root.path().join("var/lib/docker/containers").join(&id);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.v2.json"), r#"{"Name":"/web\u001b[31m"}"#).unwrap();
        let found = named_below(root.path(), &link("veth0")).unwrap();
        assert_eq!((found.name.as_str(), found.runtime), ("web[31m", docker));
        // What the plugins of a pod's network have noted stands in for a name, and for processes that are not to be seen.
        let results = root.path().join("var/lib/cni/cache/results");
        fs::create_dir_all(&results).unwrap();
        for (file, interface, pod) in [("a", "veth0", "shop-0"), ("b", "veth1", "shop-1"), ("c", "veth9", "shop-9")] {
            fs::write(results.join(file), cni::tests::result(interface, "prod", pod)).unwrap();
        }
        assert_eq!(named_below(root.path(), &link("veth0")).unwrap().name, "web[31m", "its own name is before");
        fs::remove_file(folder.join("config.v2.json")).unwrap();
        assert_eq!(named_below(root.path(), &link("veth0")).unwrap().name, "prod/shop-0");
        let pod = named_below(root.path(), &link("veth1")).unwrap();
        assert_eq!((pod.kind, pod.name.as_str()), (BehindKind::Container, "prod/shop-1"));
        drop(group);
    });
}

#[test]
fn a_veth_with_both_ends_here_and_a_bridge_have_nothing_behind_them() {
    in_own_network(|| {
        ip("link add veth0 type veth peer name veth1");
        ip("link add lan0 type bridge");
        assert_eq!((named(&link("veth0")), named(&link("lan0"))), (None, None));
    });
}

#[test]
fn the_machine_behind_a_tap_is_that_of_the_emulator_that_holds_it() {
    // Stands for QEMU: holds the device and has its command line. TUNSETIFF, IFF_TAP | IFF_NO_PI.
    const HOLD: &str = "import fcntl,struct,sys,time
tap=open('/dev/net/tun','r+b',buffering=0)
fcntl.ioctl(tap,0x400454ca,struct.pack('16sH22x',b'tap7',0x1002))
print('ready',flush=True)
time.sleep(60)";
    in_own_network(|| {
        if !Path::new("/dev/net/tun").exists() {
            eprintln!("skipped: this kernel has no TUN");
            return;
        }
        let mut child = Command::new("python3")
            .args(["-c", HOLD, "-name", "guest=build,,7,debug-threads=on"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        let child = Running(child);
        let found = named(&link("tap7")).unwrap();
        assert_eq!((found.kind, found.name.as_str(), found.pid), (BehindKind::Machine, "build,7", child.0.id()));
        assert!(found.runtime.unwrap().starts_with("python3"));
    });
}

#[test]
fn a_guests_name_is_read_in_each_way_to_write_it() {
    let guest = |line: &str| guest(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(guest("qemu -m 1G -name win10 -snapshot").as_deref(), Some("win10"));
    assert_eq!(guest("qemu -name guest=a,,b,debug-threads=on").as_deref(), Some("a,b"));
    assert_eq!(guest("qemu -name debug-threads=on,guest=c").as_deref(), Some("c"));
    assert_eq!((guest("qemu -name"), guest("qemu -name process=x"), guest("openvpn --dev tap0")), (None, None, None));
}
