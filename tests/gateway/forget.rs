//! LAN hosts that have not tried for long lose their own counter, and no count with it.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lab::gateway::address::{BOT, BOT_MAC};
use lab::gateway::{connect, exchanger_at};
use lab::{DEADLINE, Gateway, Guard, until};
use serde_json::Value;

use crate::counters::{SOURCES, flood_in};
use crate::packet::mac;
use crate::{assert_refused_at_once, policy};

/// Where a map is pinned.
fn pin(guard: &Guard, name: &str) -> String {
    // In a folder for the version of the layout.
    let folders = std::fs::read_dir(format!("/sys/fs/bpf/portreeve/{}", guard.instance())).unwrap();
    let maps = folders.map(|folder| folder.unwrap().path().join(name));
    maps.into_iter().find(|map| map.exists()).unwrap().display().to_string()
}

/// The entries of a map, as bytes.
pub(crate) fn table(scene: &Gateway, guard: &Guard, name: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let map = pin(guard, name);
    let dumped: Value =
        serde_json::from_str(&scene.gateway.run("bpftool", &["-j", "map", "dump", "pinned", &map])).unwrap();
    let bytes = |list: &Value| -> Vec<u8> {
        let byte = |text: &Value| u8::from_str_radix(text.as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
        list.as_array().unwrap().iter().map(byte).collect()
    };
    dumped.as_array().unwrap().iter().map(|entry| (bytes(&entry["key"]), bytes(&entry["value"]))).collect()
}

fn write(scene: &Gateway, guard: &Guard, name: &str, key: &[u8], value: Option<&[u8]>) {
    let hex = |bytes: &[u8]| -> Vec<String> { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let map = pin(guard, name);
    let what = if value.is_some() { "update" } else { "delete" };
    let mut words = ["map", what, "pinned", &map, "key", "hex"].map(str::to_owned).to_vec();
    words.extend(hex(key));
    if let Some(value) = value {
        words.extend(["value", "hex"].map(str::to_owned));
        words.extend(hex(value));
    }
    scene.gateway.run("bpftool", &words.iter().map(String::as_str).collect::<Vec<_>>());
}

/// What was refused, by address.
fn refused(guard: &Guard) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    for subject in guard.subjects().iter().filter(|subject| !subject["host"].is_null()) {
        *sum.entry(subject["host"]["address"].as_str().unwrap().to_owned()).or_default() +=
            subject["refused"].as_u64().unwrap();
    }
    sum
}

#[test]
fn after_a_flood_a_new_host_has_its_own_counter_again_and_none_is_lost() {
    const ROUNDS: u64 = 8;
    let scene = Gateway::new("forget");
    let mut guard = Guard::start(&scene.lab, &policy("sources = 100\nforget = \"1s\""));
    let (done, bot) = (AtomicBool::new(false), &scene.bot);
    std::thread::scope(|threads| {
        let flood = threads.spawn(|| {
            // Longer than they are remembered, so that they are taken out while they come again.
            let resets = flood_in(bot, ROUNDS, Duration::from_millis(1300));
            done.store(true, Ordering::Relaxed);
            resets
        });
        while !done.load(Ordering::Relaxed) {
            guard.kill();
            guard.resume();
            std::thread::sleep(Duration::from_millis(700));
        }
        assert_eq!(flood.join().unwrap(), SOURCES * ROUNDS);
    });
    assert_eq!(guard.counters()["refused"], SOURCES * ROUNDS);
    let networks = until("all to be forgotten", DEADLINE, || {
        let refused = refused(&guard);
        assert_eq!(refused.values().sum::<u64>(), SOURCES * ROUNDS, "{refused:?}");
        if refused.keys().all(|name| name.ends_with(".0/24")) { Ok(refused) } else { Err(refused) }
    });
    assert_eq!(networks.len(), 5, "{networks:?}");
    assert!(networks.values().all(|count| *count == SOURCES * ROUNDS / 5), "{networks:?}");
    assert_eq!(guard.status()["gateway"]["networks"], 5);
    guard.write_policy(&policy("sources = 100\nforget = \"1h\""));
    guard.reload();
    assert_refused_at_once(&connect(&scene.bot, exchanger_at(0, 25)), "the bot");
    let refused = refused(&guard);
    assert_eq!(refused.get(&format!("{}/32", BOT[0])), Some(&1), "{refused:?}");
    assert_eq!(refused.values().sum::<u64>(), guard.counters()["refused"]);
    assert_eq!(guard.status()["gateway"]["uncounted"], 0);
}

#[test]
fn a_host_behind_an_interface_that_is_gone_is_forgotten_at_once() {
    let scene = Gateway::new("forget-gone");
    let guard = Guard::start(&scene.lab, &policy("").replace("[\"lan0\"]", "[\"lan*\"]"));
    assert_refused_at_once(&connect(&scene.bot, exchanger_at(0, 25)), "the bot");
    scene.gateway.ip("link del lan0");
    let found = until("its network alone", DEADLINE, || {
        let refused = refused(&guard);
        if refused.contains_key("10.9.0.0/24") { Ok(refused) } else { Err(refused) }
    });
    assert_eq!(found, BTreeMap::from([("10.9.0.0/24".to_owned(), 1)]));
    let subjects = guard.subjects();
    let host = &subjects[0]["host"];
    assert_eq!((&host["interface"], &host["mac"]), (&Value::Null, &Value::Null), "{host}");
}

#[test]
fn an_agent_that_dies_while_it_forgets_loses_no_count_and_doubles_none() {
    let scene = Gateway::new("forget-dies");
    let mut guard = Guard::start(&scene.lab, &policy(""));
    let name = format!("{}/32", BOT[0]);
    let mapped = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().to_ipv6_mapped().octets();
    let try_one = || assert_refused_at_once(&connect(&scene.bot, exchanger_at(0, 25)), "the bot");
    // Killed before the sum was written, after that, and after the entry was deleted.
    for (step, done) in [(1_u64, 0), (2, 1), (3, 2)] {
        try_one();
        guard.kill();
        let entries = table(&scene, &guard, "PR_LAN_SOURCES");
        let (from, count) = entries.iter().find(|(key, _)| key[30..] == 128_u16.to_ne_bytes()).unwrap().clone();
        assert_eq!((&from[..16], &from[24..30]), (&mapped(BOT[0])[..], &mac(BOT_MAC)[..]));
        // The keys that go are known to the programs: what comes is counted beside.
        write(&scene, &guard, "PR_LAN_LEAVING", &from, Some(&[1, 0, 0, 0]));
        try_one();
        let now = table(&scene, &guard, "PR_LAN_SOURCES");
        assert!(now.contains(&(from.clone(), count.clone())), "nobody counts there: {now:?}");
        let to = [&mapped("10.9.0.0")[..], &from[16..24], &[0; 6], &120_u16.to_ne_bytes()].concat();
        let mut sum = count.clone();
        sum[8..16].copy_from_slice(&u64::to_ne_bytes(step));
        let moved = [&[1, 0, 0, 0, 0, 0, 0, 0][..], &from, &to, &sum].concat();
        write(&scene, &guard, "PR_LAN_MOVE", &[0; 4], Some(&moved));
        if done > 0 {
            write(&scene, &guard, "PR_OLD_SOURCES", &to, Some(&sum));
        }
        if done > 1 {
            write(&scene, &guard, "PR_LAN_SOURCES", &from, None);
        }
        guard.resume();
        let refused = refused(&guard);
        let expected = BTreeMap::from([("10.9.0.0/24".to_owned(), step), (name.clone(), step)]);
        assert_eq!(refused, expected, "{step}");
        assert_eq!(guard.counters()["refused"], 2 * step);
        assert!(table(&scene, &guard, "PR_LAN_LEAVING").is_empty());
    }
    let address = |key: &[u8]| Ipv6Addr::from(<[u8; 16]>::try_from(&key[..16]).unwrap()).to_canonical().to_string();
    let left: Vec<_> = table(&scene, &guard, "PR_LAN_SOURCES").iter().map(|(key, _)| address(key)).collect();
    assert_eq!(left, [BOT[0]], "the one beside alone");
}
