//! What is counted where a frame comes by more than one of the programs: once.

use lab::gateway::address::{BOT_MAC, EXCHANGER};
use lab::{DEADLINE, Guard, Tap, until};

use crate::attempts;
use crate::frames::{Bridge, FAR_MAC};
use crate::packet::{Macs, SYN, Segment, TCP};

/// The bit in IPv4's fragment field that says that more fragments follow.
const MORE: u16 = 0x2000;
/// The MAC address of the bridge.
const BRIDGE_MAC: &str = "02:00:00:00:00:b0";

/// A fragment too small for its ports, one over the flags, and one that ends before them: each may be TCP to port 25.
fn unclear(to: &str) -> Vec<Vec<u8>> {
    let syn = Segment::syn("10.9.0.77", EXCHANGER[0], 25);
    let macs = Macs::new(to, BOT_MAC);
    assert_eq!(syn.flags, SYN);
    vec![
        macs.frame(&syn.v4(&[], MORE, TCP, &syn.tcp()[..8])),
        macs.frame(&syn.v4(&[], 1, TCP, &syn.tcp()[8..])),
        macs.frame(&syn.v4(&[], 0, TCP, &syn.tcp()[..2])),
    ]
}

/// Sends frames, each several times, and waits until all are counted.
#[track_caller]
fn assert_counted_once(scene: &Bridge, guard: &Guard, to: &str) {
    let tap = Tap::on(&scene.lan, "eth0");
    let frames = unclear(to);
    let all = 3 * frames.len();
    for _ in 0..3 {
        frames.iter().for_each(|frame| tap.send(frame));
    }
    until("all of them", DEADLINE, || match guard.counters()["observed"] {
        enough if enough >= all as u64 => Ok(()),
        fewer => Err(fewer),
    });
    let found = attempts(guard, all);
    assert!(found.iter().all(|attempt| attempt["reason"] == "unclear"), "{found:#?}");
    let counters = guard.counters();
    assert_eq!(["observed", "refused", "dropped", "allowed"].map(|name| counters[name]), [all as u64, 0, 0, 0]);
}

#[test]
fn an_unclear_frame_that_is_only_observed_is_counted_once_on_its_way_through() {
    let scene = Bridge::new("twice-out");
    let guard = scene.guard_with("[guard]\nmode = \"observe\"\n[gateway]\nlan = [\"lanp0\"]\n");
    assert_counted_once(&scene, &guard, FAR_MAC);
    guard.detach();
    // Where the LAN alone is observed, the host's own guard leaves its frames to that.
    let guard = scene.guard_with("[gateway]\nmode = \"observe\"\nlan = [\"lanp0\"]\n");
    let probe = Tap::on(&scene.far, "eth0");
    assert_counted_once(&scene, &guard, FAR_MAC);
    let frames = unclear(FAR_MAC);
    let arrived = probe.wait(DEADLINE, |got| frames.contains(&got.bytes).then_some(()));
    assert!(arrived.is_some(), "nothing has arrived");
}

#[test]
fn an_unclear_frame_that_is_only_observed_is_counted_once_by_a_port_and_its_bridge() {
    let scene = Bridge::new("twice-up");
    scene.gateway.ip(&format!("link set br0 address {BRIDGE_MAC}"));
    let guard = scene.guard_with("[guard]\nmode = \"observe\"\n[gateway]\nlan = [\"lanp0\", \"br0\"]\n");
    assert_counted_once(&scene, &guard, BRIDGE_MAC);
}
