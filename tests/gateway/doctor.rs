//! What `portreeve doctor` says of a gateway.

use lab::gateway::address::WAN;
use lab::{Gateway, Guard, portreeve};
use serde_json::Value;

/// The findings about something, as state and text, of a doctor on the gateway.
fn findings((scene, guard): (&Gateway, &Guard), what: &str) -> Vec<(String, String)> {
    let policy = guard.policy().display().to_string();
    let arguments = ["--instance", guard.instance(), "doctor", "--json", "--config", &policy];
    let said = scene.lab.program(portreeve()).args(arguments).in_host(&scene.gateway).run();
    let lines = said.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    lines
        .filter(|finding| finding["what"] == what)
        .map(|finding| (text(&finding["state"]), text(&finding["found"])))
        .collect()
}

#[track_caller]
fn assert_says(place: (&Gateway, &Guard), what: &str, state: &str, found: &str) {
    let said = findings(place, what);
    assert!(said.iter().any(|(its, text)| its == state && text.contains(found)), "{what}: {said:#?}");
}

#[test]
fn the_doctor_tells_what_of_the_gateway_is_there_and_what_is_not() {
    let scene = Gateway::new("doctor");
    let leases = scene.lab.scratch("leases");
    let policy = |lan: &str| {
        let leases = leases.display();
        format!("[gateway]\nlan = [{lan}]\nleases = [\"{leases}\"]\n[[gateway.allow]]\nfrom = \"10.9.0.25\"\n")
    };
    let guard = Guard::start(&scene.lab, &policy("\"lan0\", \"wg*\""));
    let place = (&scene, &guard);
    assert_says(place, "LAN interfaces", "good", "\"lan0\" is lan0");
    assert_says(place, "LAN interfaces", "note", "\"wg*\" matches no device");
    assert_says(place, "gateway guard", "good", "lan0");
    assert_says(place, "forwarding", "good", "IPv4 and IPv6");
    assert_says(place, "MAC addresses", "note", "1 of the rules");
    assert_says(place, "leases", "note", &leases.display().to_string());
    assert_eq!(findings(place, "bridges"), []);
    std::fs::write(&leases, "1795600000 02:00:00:00:00:66 10.9.0.66 desk *\n").unwrap();
    assert_says(place, "leases", "good", "1 in ");
    // A bridge in part, the way to the Internet, and no forwarding any more.
    scene.gateway.ip("link add br0 type bridge");
    for port in ["p0", "p1"] {
        scene.gateway.ip(&format!("link add {port} type veth peer name far-{port}"));
        scene.gateway.ip(&format!("link set {port} master br0 up"));
    }
    scene.gateway.ip(&format!("route add default dev {WAN}"));
    scene.gateway.enter(|| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "0").unwrap();
    });
    assert_says(place, "forwarding", "note", "off for IPv4 and IPv6");
    guard.write_policy(&policy("\"lan0\", \"wan*\", \"p0\""));
    guard.reload();
    assert_says(place, "LAN interfaces", "note", "wan0 has the default route");
    assert_says(place, "bridges", "note", "of br0 the ports p1 are not");
    guard.write_policy("");
    assert_eq!(findings(place, "LAN interfaces"), [], "no gateway");
}
