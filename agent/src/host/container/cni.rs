//! The pods that the plugins of the Container Network Interface have made interfaces for, in the results that libcni keeps
//! for the time of their removal.
//!
//! They are known by the interface of the host's side, so they tell of a pod whose processes cannot be seen as well.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

/// Where results are kept (`CacheDir` of libcni), and where containerd has it.
const FOLDERS: [&str; 2] = ["var/lib/cni/cache/results", "var/lib/cni/results"];
/// How many results of a folder are read: far more than a node runs pods.
const MOST: usize = 4096;
/// The biggest result that is read, in bytes; they have about 2 KiB.
const BIGGEST: u64 = 256 << 10;

/// A pod with an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    /// Namespace and name.
    pub(super) name: String,
}

/// The pods by the names of the interfaces on the host's side, below a root folder.
pub(super) fn pods(root: &Path) -> HashMap<String, Pod> {
    let mut pods = HashMap::new();
    for folder in FOLDERS {
        let files = fs::read_dir(root.join(folder)).into_iter().flatten().flatten().take(MOST);
        for file in files.filter(|file| file.file_type().is_ok_and(|kind| kind.is_file())) {
            pods.extend(read(&file.path()).iter().flat_map(interfaces));
        }
    }
    pods
}

fn read(path: &Path) -> Option<Value> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BIGGEST).read_to_end(&mut text));
    read.inspect_err(|error| tracing::debug!("{}: {error}", path.display())).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The interfaces of a result that are on the host's side, which have no sandbox, with the pod of its arguments.
fn interfaces(result: &Value) -> Vec<(String, Pod)> {
    let Some(name) = pod(result) else { return Vec::new() };
    let listed = result.get("result").and_then(|result| result.get("interfaces")).and_then(Value::as_array);
    let outside = listed
        .into_iter()
        .flatten()
        .filter(|interface| interface.get("sandbox").and_then(Value::as_str).unwrap_or_default().is_empty());
    let names = outside.filter_map(|interface| interface.get("name").and_then(Value::as_str));
    names.map(|interface| (interface.to_owned(), Pod { name: name.clone() })).collect()
}

/// What the kubelet has given to the plugins: `K8S_POD_NAMESPACE` and `K8S_POD_NAME` of `CNI_ARGS`.
fn pod(result: &Value) -> Option<String> {
    let arguments = result.get("cniArgs")?.as_array()?;
    let argument = |wanted: &str| {
        let found = arguments.iter().find(|pair| pair.get(0).and_then(Value::as_str) == Some(wanted));
        found?.get(1)?.as_str()
    };
    Some(format!("{}/{}", argument("K8S_POD_NAMESPACE")?, argument("K8S_POD_NAME")?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A result of the bridge plugin's as containerd has it kept.
    pub(in crate::host::container) fn result(interface: &str, namespace: &str, pod: &str) -> String {
        format!(
            r#"{{"kind":"cniCacheV1","containerId":"abc","ifName":"eth0","networkName":"k8s-pod-network",
            "cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAMESPACE","{namespace}"],["K8S_POD_NAME","{pod}"]],
            "result":{{"cniVersion":"1.0.0","dns":{{}},"interfaces":[{{"mac":"9a:00:00:00:00:01","name":"cni0"}},
            {{"mac":"9a:00:00:00:00:02","name":"{interface}"}},
            {{"mac":"9a:00:00:00:00:03","name":"eth0","sandbox":"/var/run/netns/cni-1"}}],
            "ips":[{{"address":"10.88.0.7/16","interface":2}}]}}}}"#
        )
    }

    #[test]
    fn a_result_names_the_interfaces_of_this_side_alone() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("var/lib/cni/results");
        fs::create_dir_all(folder.join("a-folder")).unwrap();
        fs::write(folder.join("one"), result("veth1", "prod", "shop-0")).unwrap();
        fs::write(folder.join("cut"), &result("veth2", "prod", "shop-1")[..200]).unwrap();
        fs::write(folder.join("other"), r#"{"cniArgs":[["K8S_POD_NAME"]],"result":{"interfaces":7}}"#).unwrap();
        let pods = pods(root.path());
        assert_eq!(pods.get("veth1").map(|pod| pod.name.as_str()), Some("prod/shop-0"));
        assert!(!pods.contains_key("veth2") && !pods.contains_key("eth0"), "{pods:?}");
    }
}
