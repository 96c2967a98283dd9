//! What the guard costs a packet and a `setsockopt()` that are none of its business, beside nothing and beside nftables.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use lab::{Cgroup, Guard, Host, Lab};

use crate::empty::Empty;
use crate::figures::{bar, median, section};
use crate::kernel::{Ran, Stats};
use crate::machine;

/// Packets of one slice: some 20 ms.
const SLICE: u64 = 16_384;
/// Slices of each arm.
const ROUNDS: usize = 200;
/// Messages of one system call.
const BATCH: usize = 64;
/// A frame of 64 bytes, the smallest of Ethernet, has 18 behind IPv4's and UDP's headers.
const PAYLOAD: usize = 18;
/// What fits behind the same headers in 1500 bytes.
const LARGE: usize = 1472;

/// The slices of one kind.
type Part = fn(&Arm) -> &Vec<f64>;

/// One way to be: no firewall, Portreeve, nftables, programs that do nothing.
struct Arm {
    name: &'static str,
    sender: Sender,
    datagrams: Vec<f64>,
    bundles: Vec<f64>,
    segments: Vec<f64>,
    options: Vec<f64>,
    _hosts: (Host, Host),
}

/// A process that sends, in the arm's network and cgroup.
pub(crate) struct Sender {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Sender {
    pub(crate) fn start(host: &Host, cgroup: &Cgroup, to: SocketAddr) -> Self {
        let namespace = format!("--net={}", host.path().display());
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new("nsenter");
        command.arg(namespace).arg(program).args(["send", &to.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        cgroup.admit(i32::try_from(child.id()).unwrap());
        machine::pin(child.id(), Some(0));
        let (orders, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut sender = Self { child, orders, answers };
        // The first makes its socket, in the cgroup it has just been moved to.
        sender.run("udp", 64);
        sender
    }

    /// Nanoseconds each of so many.
    pub(crate) fn run(&mut self, what: &str, count: u64) -> f64 {
        writeln!(self.orders, "{what} {count}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().parse::<f64>().unwrap() / count as f64
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

/// `lab-bench send ADDRESS`: takes orders, sends, and says how long it took.
pub(crate) fn send(to: SocketAddr) {
    let (mut udp, mut bundle, mut tcp) = (None, None, None);
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (what, count) = line.split_once(' ').unwrap();
        let count: u64 = count.parse().unwrap();
        let start = Instant::now();
        match what {
            "udp" => datagrams(udp.get_or_insert_with(|| connected(to)), count, &[0; PAYLOAD]),
            "mtu" => datagrams(udp.get_or_insert_with(|| connected(to)), count, &[0; LARGE]),
            "bundle" => bundles(bundle.get_or_insert_with(|| connected(to)), count),
            "tcp" => segments(tcp.get_or_insert_with(|| stream(to)), count),
            _ => options(udp.get_or_insert_with(|| connected(to)), count),
        }
        println!("{}", start.elapsed().as_nanos());
    }
}

fn connected(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(to).unwrap();
    socket
}

fn stream(to: SocketAddr) -> std::net::TcpStream {
    let stream = std::net::TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// As many at a time as sendmmsg(2) takes well, so that the packets weigh more than the calls.
fn datagrams(socket: &UdpSocket, count: u64, payload: &[u8]) {
    let mut vector = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
    // SAFETY: plain old data, for which all zeroes is a value.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    for message in &mut messages {
        message.msg_hdr.msg_iov = &raw mut vector;
        message.msg_hdr.msg_iovlen = 1;
    }
    for _ in 0..count / BATCH as u64 {
        // SAFETY: as many messages as the array has; each names one live buffer.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), BATCH as u32, 0) };
        assert!(sent > 0, "sendmmsg: {}", std::io::Error::last_os_error());
    }
}

/// As many in one packet as the kernel takes, which becomes single datagrams on its way (udp(7), `UDP_SEGMENT`): how QUIC
/// and DNS servers send small packets fast.
fn bundles(socket: &UdpSocket, count: u64) {
    let size = PAYLOAD as libc::c_int;
    // SAFETY: an option of the size named.
    let set =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const size).cast(), 4) };
    assert_eq!(set, 0, "UDP_SEGMENT: {}", std::io::Error::last_os_error());
    for _ in 0..count / BATCH as u64 {
        socket.send(&[0; PAYLOAD * BATCH]).unwrap();
    }
}

/// Each write a segment of its own.
fn segments(mut stream: &std::net::TcpStream, count: u64) {
    for _ in 0..count {
        stream.write_all(&[0; PAYLOAD]).unwrap();
    }
}

fn options(socket: &UdpSocket, count: u64) {
    for number in 0..count {
        let value = (number & 0x1c) as libc::c_int;
        // SAFETY: an option of the size named.
        let set = unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_TOS, (&raw const value).cast(), 4)
        };
        assert_eq!(set, 0);
    }
}

/// Takes whatever comes to a port of a host, datagrams and streams.
pub(crate) fn swallow(host: &Host, port: u16) {
    let namespace = std::fs::File::open(host.path()).unwrap();
    std::thread::spawn(move || {
        nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        // Its queue fills up, and what does not fit is dropped there.
        let _datagrams = UdpSocket::bind(("0.0.0.0", port)).unwrap();
        let listener = std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
        }
    });
}

fn arm(name: &'static str, cgroup: &Cgroup, hosts: (Host, Host)) -> Arm {
    swallow(&hosts.1, 2600);
    let to = SocketAddr::new(hosts.1.v4(), 2600);
    let mut sender = lab::until("the far end", lab::DEADLINE, || Ok::<_, ()>(Sender::start(&hosts.0, cgroup, to)));
    sender.run("tcp", 1);
    Arm { name, sender, datagrams: vec![], bundles: vec![], segments: vec![], options: vec![], _hosts: hosts }
}

fn pair(lab: &Lab) -> (Host, Host) {
    let hosts = (lab.host("sender"), lab.host("receiver"));
    lab.wire(&hosts.0, &hosts.1);
    hosts
}

/// The whole of `cargo xtask bench packets`.
pub(crate) fn measure() {
    let lab = Lab::new("packets");
    // The first host is the one whose devices the guard is on.
    let guarded = pair(&lab);
    let inside = lab.cgroup("inside");
    let guard = Guard::start_on(&lab, &inside, "[[allow]]\nexe = \"/usr/bin/false\"\nuser = \"root\"\n");
    machine::pin(guard.pid(), machine::last_cpu());
    let open = lab.cgroup("open");
    let wall = pair(&lab);
    let rules = "add table inet mail; add chain inet mail out { type filter hook output priority 0; policy accept; }; \
                 add rule inet mail out tcp dport 25 meta skuid != 0 reject";
    let namespace = format!("--net={}", wall.0.path().display());
    assert!(Command::new("nsenter").args([&namespace, "nft", rules]).status().unwrap().success());
    let (nothing, bare) = (lab.cgroup("nothing"), pair(&lab));
    // The wires are numbered from 0, and the sender's end of each is its `a`.
    let _empty = Empty::attach(&nothing, &bare.0, "w2a");
    let mut arms = [
        arm("no firewall", &open, pair(&lab)),
        arm("Portreeve", &inside, guarded),
        arm("nftables", &open, wall),
        arm("two empty programs", &nothing, bare),
        arm("no firewall again", &open, pair(&lab)),
    ];
    for _ in 0..ROUNDS {
        for arm in &mut arms {
            arm.datagrams.push(arm.sender.run("udp", SLICE));
            arm.bundles.push(arm.sender.run("bundle", SLICE * 4));
            arm.segments.push(arm.sender.run("tcp", SLICE / 16));
            arm.options.push(arm.sender.run("option", SLICE / 4));
        }
    }
    let parts: [(&str, Part); 4] = [
        ("a datagram of 64 bytes over veth", |arm| &arm.datagrams),
        ("the same, 64 at a time by UDP_SEGMENT", |arm| &arm.bundles),
        ("a segment of 18 bytes over veth, with its system call", |arm| &arm.segments),
        ("an ordinary setsockopt()", |arm| &arm.options),
    ];
    for (title, series) in parts {
        section(title);
        let base: Vec<f64> = series(&arms[0]).clone();
        for arm in &arms {
            let ratios: Vec<f64> = series(arm).iter().zip(&base).map(|(this, base)| this / base).collect();
            let each = median(series(arm).clone());
            println!(
                "{:<20}{each:>9.0} ns   {:>8.2} million a second   / no firewall {:.4}",
                arm.name,
                1e3 / each,
                median(ratios)
            );
        }
    }
    section("of small packets over veth, what is lost as fast as they go");
    // 64 bytes on the wire are 84 with preamble and gap (IEEE 802.3): 14.88 million a second at 10 Gbit/s.
    let ways: [(&str, Part); 2] = [("one by one", |arm| &arm.datagrams), ("64 at a time", |arm| &arm.bundles)];
    for (way, series) in ways {
        let base = median(series(&arms[0]).clone());
        for arm in &arms[1..4] {
            let lost = 1.0 - base / median(series(arm).clone());
            let says = if arm.name == "Portreeve" { bar(lost, 0.02) } else { String::new() };
            println!("{way:<14}{:<20}{:>7.2} %   of {:.2} Gbit/s   {says}", arm.name, lost * 100.0, 84.0 * 8.0 / base);
        }
    }
    programs(&guard, &mut arms[1]);
    guard.detach();
}

/// What the kernel says of the programs themselves, its own measuring (some 50 ns here) included.
fn programs(guard: &Guard, arm: &mut Arm) {
    section("the programs, by the kernel's statistics, which cost some 50 ns themselves");
    let _stats = Stats::on();
    let frame = || {
        let all = machine::programs();
        let own =
            all.iter().filter(|program| program["name"] == "pr_frame").max_by_key(|program| program["id"].as_u64());
        own.cloned().unwrap_or_default()
    };
    let read = |program: &serde_json::Value| {
        Ran::of(program["run_cnt"].as_u64().unwrap_or(0), program["run_time_ns"].as_u64().unwrap_or(0))
    };
    let hooks = _stats.programs(guard);
    for (what, count) in [("udp", SLICE * 8), ("tcp", SLICE), ("option", SLICE)] {
        let before = (hooks.read("packet"), read(&frame()), hooks.read("setsockopt"));
        arm.sender.run(what, count);
        let after = (hooks.read("packet"), read(&frame()), hooks.read("setsockopt"));
        let each = |after: Ran, before: Ran| {
            let ran = after.since(before);
            if ran.runs < count / 2 { "-".to_owned() } else { format!("{:.0} ns", ran.each()) }
        };
        println!(
            "{what:<8} packet {:>8}   frame {:>8}   setsockopt {:>8}",
            each(after.0, before.0),
            each(after.1, before.1),
            each(after.2, before.2)
        );
    }
}
