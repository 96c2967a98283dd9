//! The name that a runtime has given to a container, in the runtime's own files.
//!
//! They are what the runtimes keep, not what they promise: a file that is not there or says something else is no name.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

/// The biggest file that is read, in bytes.
const BIGGEST: u64 = 4 << 20;

/// The name of a container with an id, below a root folder.
pub(super) fn name(root: &Path, runtime: &str, id: &str) -> Option<String> {
    // The id becomes a part of a path, and a cgroup may be called anything.
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    match runtime {
        "docker" => docker(&read(&root.join(format!("var/lib/docker/containers/{id}/config.v2.json")))?),
        "podman" => podman(&read(&root.join("var/lib/containers/storage/overlay-containers/containers.json"))?, id),
        "containerd" => {
            let tasks = "run/containerd/io.containerd.runtime.v2.task/k8s.io";
            pod(&read(&root.join(format!("{tasks}/{id}/config.json")))?)
        }
        "cri-o" => {
            let containers = "run/containers/storage/overlay-containers";
            pod(&read(&root.join(format!("{containers}/{id}/userdata/config.json")))?)
        }
        _named_by_its_cgroup => None,
    }
}

fn read(path: &Path) -> Option<Value> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BIGGEST).read_to_end(&mut text));
    read.inspect_err(|error| tracing::debug!("{}: {error}", path.display())).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Docker's own state of a container.
fn docker(state: &Value) -> Option<String> {
    let name = state.get("Name")?.as_str()?;
    Some(name.trim_start_matches('/').to_owned())
}

/// The list of containers/storage.
fn podman(list: &Value, id: &str) -> Option<String> {
    let found = list.as_array()?.iter().find(|entry| entry.get("id").and_then(Value::as_str) == Some(id))?;
    Some(found.get("names")?.get(0)?.as_str()?.to_owned())
}

/// What the kubelet has noted in the configuration of an OCI runtime: namespace and pod. The network is the pod's, whichever
/// of its containers was found.
fn pod(config: &Value) -> Option<String> {
    let annotations = config.get("annotations")?;
    let first = |keys: [&str; 2]| keys.iter().find_map(|key| annotations.get(*key)?.as_str());
    let namespace = first(["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"])?;
    let pod = first(["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"])?;
    Some(format!("{namespace}/{pod}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_runtimes_files_tell_names() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("var/lib/docker/containers/abc1/config.v2.json", r#"{"ID":"abc1","Name":"/web"}"#);
        write(
            "var/lib/containers/storage/overlay-containers/containers.json",
            r#"[{"id":"aa","names":["x"]},{"id":"abc2","names":["db"]}]"#,
        );
        let cri = r#"{"annotations":{"io.kubernetes.cri.sandbox-name":"shop-0","io.kubernetes.cri.sandbox-namespace":"prod"}}"#;
        write("run/containerd/io.containerd.runtime.v2.task/k8s.io/abc3/config.json", cri);
        let crio = r#"{"annotations":{"io.kubernetes.pod.name":"shop-1","io.kubernetes.pod.namespace":"prod"}}"#;
        write("run/containers/storage/overlay-containers/abc4/userdata/config.json", crio);
        let name = |runtime, id| name(root.path(), runtime, id);
        assert_eq!(name("docker", "abc1").as_deref(), Some("web"));
        assert_eq!(name("podman", "abc2").as_deref(), Some("db"));
        assert_eq!(name("containerd", "abc3").as_deref(), Some("prod/shop-0"));
        assert_eq!(name("cri-o", "abc4").as_deref(), Some("prod/shop-1"));
        assert_eq!((name("docker", "abc9"), name("lxc", "abc1"), name("docker", "")), (None, None, None));
        write("var/lib/docker/containers/x/config.v2.json", r#"{"Name":"/secret"}"#);
        assert_eq!(name("docker", "../containers/x"), None, "an id is no path");
    }
}
