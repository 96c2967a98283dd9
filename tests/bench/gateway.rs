//! What a gateway pays for the traffic that it forwards, beside no guard and beside the same policy as nftables rules; and a
//! flood of refused attempts.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lab::gateway::address::{BOT_MAC, EXCHANGER, GATEWAY_MAC, LAN, SERVER, SERVER_MAC, WAN};
use lab::{Cgroup, Gateway, Guard, Tap};

use crate::empty::Empty;
use crate::figures::{median, section};
use crate::machine;
use crate::packets::{Sender, swallow};

/// A guarded port that a program listens on which takes whatever comes.
const PORT: u16 = 2526;
/// Packets of one slice, and slices of each arm.
const SLICE: u64 = 8192;
const ROUNDS: usize = 40;
/// How many rules there are, the server's the last of them.
const RULES: [usize; 3] = [1, 64, 256];
/// The flood: so many sources, and so many attempts of each.
const SOURCES: u32 = 1000;
const EACH: u32 = 50;

/// What is sent, and what it is called.
const KINDS: [(&str, &str, u64); 3] = [
    ("udp", "a datagram of 64 bytes, forwarded", SLICE),
    ("mtu", "a datagram of 1500 bytes, forwarded", SLICE),
    ("tcp", "a segment of an allowed connection to a guarded port", SLICE / 8),
];

struct Arm {
    name: &'static str,
    sender: Sender,
    /// By kind of packet.
    slices: [Vec<f64>; KINDS.len()],
    /// Ends with its processes.
    _cgroup: Cgroup,
    scene: Gateway,
}

impl Arm {
    fn new(name: &'static str, guard: impl FnOnce(&Gateway)) -> Self {
        let scene = Gateway::new("bench");
        swallow(&scene.internet, PORT);
        guard(&scene);
        let to = SocketAddr::new(EXCHANGER[0].parse().unwrap(), PORT);
        lab::until("the far end", lab::DEADLINE, || scene.server.enter(|| std::net::TcpStream::connect(to).map(drop)));
        let cgroup = scene.lab.cgroup("open");
        let mut sender = Sender::start(&scene.server, &cgroup, to);
        sender.run("tcp", 1);
        Self { name, sender, slices: Default::default(), _cgroup: cgroup, scene }
    }
}

/// Rules for other servers, and last of all the one for ours.
fn policy(rules: usize) -> String {
    let mut text = format!("[gateway]\nlan = [\"lan0\"]\nports = [25, {PORT}]\n");
    for number in 1..rules {
        let _infallible = write!(
            text,
            "[[gateway.allow]]\nfrom = \"10.200.{}.{}\"\nmac = \"02:00:00:01:{:02x}:{:02x}\"\n",
            number / 250,
            number % 250,
            number / 250,
            number % 250
        );
    }
    let _infallible = write!(text, "[[gateway.allow]]\nfrom = \"{}\"\nmac = \"{SERVER_MAC}\"\n", SERVER[0]);
    text
}

/// The same for nftables: a set of addresses with their MAC addresses, and one look-up in it.
fn wall(scene: &Gateway, rules: usize) {
    let mut elements = format!("{} . {SERVER_MAC}", SERVER[0]);
    for number in 1..rules {
        let (high, low) = (number / 250, number % 250);
        let _infallible = write!(elements, ", 10.200.{high}.{low} . 02:00:00:01:{high:02x}:{low:02x}");
    }
    let text = format!(
        "add table inet mail; delete table inet mail; add table inet mail; \
         add set inet mail servers {{ type ipv4_addr . ether_addr; elements = {{ {elements} }}; }}; \
         add chain inet mail out {{ type filter hook forward priority 0; policy accept; }}; \
         add rule inet mail out iifname lan0 tcp dport {{ 25, {PORT} }} ip saddr . ether saddr != @servers \
         reject with tcp reset"
    );
    scene.gateway.run("nft", &[&text]);
}

/// The whole of `cargo xtask bench gateway`.
pub(crate) fn measure() {
    let (mut guard, mut empty) = (None, None);
    let mut arms = [
        Arm::new("no guard", |_| ()),
        Arm::new("Portreeve", |scene| {
            let inside = scene.lab.cgroup("inside");
            guard = Some((Guard::start_on(&scene.lab, &inside, &policy(1)), inside));
        }),
        Arm::new("nftables", |scene| wall(scene, 1)),
        Arm::new("two empty programs", |scene| {
            empty = Empty::forwarding(&scene.gateway, LAN, WAN);
        }),
        Arm::new("no guard again", |_| ()),
    ];
    // A cgroup of the guard's own, in which nobody is.
    let Some((guard, _inside)) = guard else { return };
    machine::pin(guard.pid(), machine::last_cpu());
    for rules in RULES {
        guard.write_policy(&policy(rules));
        guard.reload();
        wall(&arms[2].scene, rules);
        for arm in &mut arms {
            arm.slices = Default::default();
        }
        for _ in 0..ROUNDS {
            for arm in &mut arms {
                for (place, (what, _, count)) in KINDS.iter().enumerate() {
                    arm.slices[place].push(arm.sender.run(what, *count));
                }
            }
        }
        report(&arms, rules);
    }
    flood(&arms[1], &guard);
    guard.detach();
    drop(empty);
}

/// Sender, gateway and receiver share one processor, so what a packet takes is what it costs all three of them.
fn report(arms: &[Arm], rules: usize) {
    for (place, (_, title, _)) in KINDS.iter().enumerate() {
        section(&format!("{title}; rules: {rules}"));
        let base = &arms[0].slices[place];
        for arm in arms {
            // Throughput: the inverse of the time.
            let ratios: Vec<f64> = base.iter().zip(&arm.slices[place]).map(|(base, this)| base / this).collect();
            let each = median(arm.slices[place].iter().copied());
            let ratio = median(ratios);
            let says = match arm.name {
                "Portreeve" => format!("   bar 0.98: {}", if ratio >= 0.98 { "met" } else { "missed" }),
                _ => String::new(),
            };
            println!(
                "{:<20}{each:>8.0} ns of one processor   {:>7.3} million a second   throughput / no guard {ratio:.4}{says}",
                arm.name,
                1e3 / each
            );
        }
    }
}

/// A flood of SYNs from many sources: each refused, counted and answered.
fn flood(arm: &Arm, guard: &Guard) {
    section(&format!("a flood of refused attempts: {SOURCES} sources, {EACH} each"));
    let before = (guard.counters()["refused"], received(&arm.scene), cpu(guard.pid()));
    let tap = Tap::on(&arm.scene.bot, "eth0");
    let start = Instant::now();
    for round in 0..EACH {
        for source in 0..SOURCES {
            tap.send(&syn(source, round));
        }
    }
    let sent = start.elapsed();
    let all = u64::from(SOURCES) * u64::from(EACH);
    let counted = lab::until("every attempt to be counted", lab::DEADLINE, || {
        let counted = guard.counters()["refused"] - before.0;
        if counted >= all { Ok(counted) } else { Err(counted) }
    });
    std::thread::sleep(Duration::from_millis(500));
    let resets = received(&arm.scene) - before.1;
    let taken = (cpu(guard.pid()) - before.2).as_secs_f64();
    println!(
        "sent {all} in {:.2} s ({:.0} thousand a second)",
        sent.as_secs_f64(),
        all as f64 / sent.as_secs_f64() / 1e3
    );
    println!("counted {counted}: {}", if counted == all { "exact" } else { "WRONG" });
    println!("answered with {resets} packets (what else the device receives is among them)");
    let hosts = guard.subjects().len();
    println!(
        "{hosts} subjects on record; the agent took {taken:.2} s of processor time, {:.1} us an attempt",
        taken * 1e6 / all as f64
    );
}

/// An Ethernet frame with a SYN of a source's to the exchanger's port 25.
fn syn(source: u32, round: u32) -> Vec<u8> {
    let mac = |text: &str| -> Vec<u8> { text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect() };
    let sum = |words: &[&[u8]]| {
        let bytes = words.concat();
        let sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
    };
    let from = [10, 9, 64 + (source / 200) as u8, 1 + (source % 200) as u8];
    let to: Vec<u8> = EXCHANGER[0].split('.').map(|part| part.parse().unwrap()).collect();
    let mut ip = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
    ip.extend(from);
    ip.extend(&to);
    let ip_sum = sum(&[&ip]);
    ip[10..12].copy_from_slice(&ip_sum);
    let mut tcp = Vec::new();
    tcp.extend((20_000 + round as u16).to_be_bytes());
    tcp.extend(25_u16.to_be_bytes());
    tcp.extend((source << 8 | round).to_be_bytes());
    tcp.extend([0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let tcp_sum = sum(&[&from, &to, &[0, 6, 0, 20], &tcp]);
    tcp[16..18].copy_from_slice(&tcp_sum);
    [mac(GATEWAY_MAC), mac(BOT_MAC), vec![8, 0], ip, tcp].concat()
}

/// How many packets the workstation's device has received.
fn received(scene: &Gateway) -> u64 {
    scene
        .bot
        .run("cat", &["/proc/self/net/dev"])
        .lines()
        .find_map(|line| {
            let (name, numbers) = line.trim().split_once(':')?;
            (name == "eth0").then(|| numbers.split_whitespace().nth(1)?.parse().ok())?
        })
        .unwrap()
}

/// The processor time that a process has taken.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime and stime (proc_pid_stat(5)), in ticks of a hundredth of a second (USER_HZ).
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
