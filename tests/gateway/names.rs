//! What the hosts behind the gateway are called.

use std::fs;
use std::path::PathBuf;

use lab::gateway::address::{EXCHANGER, LAN};
use lab::gateway::{Tried, connect, exchanger_at};
use lab::{DEADLINE, Gateway, Guard, Host, until};
use serde_json::Value;

/// A container's files where containerd has those of Kubernetes; they go with this value.
struct Bundle(PathBuf);

impl Bundle {
    fn new(id: &str, namespace: &str, pod: &str) -> Self {
        let folder = PathBuf::from("/run/containerd/io.containerd.runtime.v2.task/k8s.io").join(id);
        fs::create_dir_all(&folder).unwrap();
        let annotations = format!(
            r#"{{"io.kubernetes.cri.sandbox-name":"{pod}","io.kubernetes.cri.sandbox-namespace":"{namespace}"}}"#
        );
        fs::write(folder.join("config.json"), format!(r#"{{"ociVersion":"1.1.0","annotations":{annotations}}}"#))
            .unwrap();
        Self(folder)
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
        // The folders above too, unless others have something in them.
        let above = self.0.ancestors().skip(1).take_while(|folder| !folder.ends_with("run"));
        for folder in above {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }
}

/// Tries to send until the attempt's host is called something by a source, and returns that attempt.
#[track_caller]
pub(crate) fn called(guard: &Guard, host: &Host, source: &str) -> Value {
    let mut last = Value::Null;
    until("a name for the host", DEADLINE, || {
        assert!(matches!(connect(host, exchanger_at(0, 25)), Tried::Refused(_)));
        last = guard.attempts().pop().unwrap_or_default();
        if last["host"]["source"] == source { Ok(()) } else { Err(last.clone()) }
    });
    last
}

#[test]
fn a_container_behind_a_bridge_is_named_by_its_runtime() {
    let scene = Gateway::new("container");
    let web = scene.lab.host("web");
    let mac = "02:42:ac:11:00:02";
    scene.gateway.ip("link add cni0 type bridge");
    scene.gateway.ip("link set cni0 up");
    scene.gateway.ip("addr add 172.30.0.1/24 dev cni0");
    scene.gateway.ip(&format!("link add veth7 index 401 type veth peer name eth0 netns {}", web.path().display()));
    scene.gateway.ip("link set veth7 master cni0 up");
    web.ip(&format!("link set eth0 address {mac} up"));
    web.ip("addr add 172.30.0.2/24 dev eth0");
    web.ip("route add default via 172.30.0.1");
    let id = "5e1f".repeat(16);
    let cgroup = scene.lab.cgroup(&format!("kubepods.slice/cri-containerd-{id}.scope"));
    let log = scene.lab.scratch("sleep");
    let pause = scene.lab.program("/bin/sleep").args(["600"]).in_host(&web).in_cgroup(&cgroup).spawn(&log);
    let bundle = Bundle::new(&id, "prod", "shop-0");
    let policy = |more: &str| format!("[gateway]\nlan = [\"{LAN}\", \"cni0\"]\n{more}");
    let guard = Guard::start(&scene.lab, &policy(""));
    let attempt = called(&guard, &web, "container");
    let told = ["interface", "mac"].map(|key| attempt[key].as_str().unwrap_or("-"));
    assert_eq!((attempt["host"]["name"].as_str(), told), (Some("prod/shop-0"), ["cni0", mac]), "{attempt:#}");
    let subjects = guard.subjects();
    let subject = subjects.iter().find(|subject| subject["host"]["address"] == "172.30.0.2/32");
    assert_eq!(subject.unwrap()["host"]["name"]["name"], "prod/shop-0", "{subjects:#?}");
    let explained = guard.command(["explain", "--from", "172.30.0.2", "--to", EXCHANGER[0]]);
    assert!(explained.stdout.contains("host prod/shop-0 (container) 172.30.0.2"), "{explained:#?}");
    // A host of the real LAN has no container's name, not even with the container's card's address.
    scene.bot.ip(&format!("link set eth0 address {mac}"));
    assert!(matches!(connect(&scene.bot, exchanger_at(0, 25)), Tried::Refused(_)));
    let other = guard.attempts().pop().unwrap();
    assert_eq!((&other["interface"], &other["host"]), (&LAN.into(), &Value::Null), "{other:#}");
    // By the interface itself, where that is the LAN's.
    scene.gateway.ip("link set veth7 nomaster");
    scene.gateway.ip("link del cni0");
    scene.gateway.ip("addr add 172.30.0.1/24 dev veth7");
    guard.write_policy(&policy("").replace("cni0", "veth7"));
    guard.reload();
    assert_eq!(called(&guard, &web, "container")["host"]["name"], "prod/shop-0");
    // The policy's own name is before.
    let named = format!("[[gateway.host]]\nname = \"the shop\"\nmac = \"{mac}\"\n");
    guard.write_policy(&policy(&named).replace("cni0", "veth7"));
    guard.reload();
    assert_eq!(called(&guard, &web, "policy")["host"]["name"], "the shop");
    drop((pause, bundle));
}
