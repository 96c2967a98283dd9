//! The same calls with no firewall, with Portreeve and with nftables, in turn.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command};

use lab::{Cgroup, Guard, Host, Lab};

use crate::driver::{Slice, Worker};
use crate::figures::{bar, median, section};
use crate::kernel::{self, Stats};
use crate::machine;

/// What is read off a slice.
type Figure = fn(&Slice) -> f64;

/// How long the policies are.
const RULES: [usize; 3] = [1, 16, 256];
/// The port that nothing guards. Nobody listens on it on the loopback.
const FREE: u16 = 2600;
const ROUNDS: usize = 120;
/// Further rounds without nftables, for the narrow bar.
const MORE_ROUNDS: usize = 400;
/// Debian's www-data: who is refused.
pub(crate) const WEB: u32 = 33;
/// A program the policies name and nobody connects with: to have it sanctioned.
pub(crate) const SANCTIONED: &str = "/usr/bin/false";

/// Where the mail server runs, and where the others do.
const MAIL: &str = "system.slice/mail.service";
const OTHERS: &str = "system.slice/web.service";

/// A guard on a part of the lab.
pub(crate) struct Guarded {
    pub(crate) guard: Guard,
    pub(crate) mail: Cgroup,
    pub(crate) others: Cgroup,
    _top: Cgroup,
}

/// What the process that connects moves into.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arm {
    /// No guard on its cgroup, no rules in its network.
    Off,
    /// The same again elsewhere: what a difference of nothing looks like here.
    Again,
    /// Portreeve, by the index in `RULES`.
    Portreeve(usize),
    /// nftables, by the index in `RULES`.
    Nftables(usize),
}

const ARMS: [Arm; 8] = [
    Arm::Off,
    Arm::Portreeve(0),
    Arm::Nftables(0),
    Arm::Again,
    Arm::Portreeve(1),
    Arm::Nftables(1),
    Arm::Portreeve(2),
    Arm::Nftables(2),
];

/// The slices of one arm; `None` where the arm was not asked.
#[derive(Default, Clone)]
struct Series {
    datagram: Vec<Slice>,
    loopback: Vec<Slice>,
    wire: Vec<Slice>,
    allowed: Vec<Slice>,
    refused: Vec<Slice>,
}

type Part = fn(&Series) -> &Vec<Slice>;

/// The scene. What is declared first goes first; the lab itself goes last.
pub(crate) struct Bench {
    worker: Worker,
    guards: Vec<Guarded>,
    _listeners: Vec<Listener>,
    open: [Cgroup; 2],
    host: Host,
    /// The hosts with nftables.
    walls: Vec<Host>,
    /// A mail exchanger for each host.
    exchangers: Vec<Host>,
    lab: Lab,
}

/// Another copy of this program, which accepts.
struct Listener(Child);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        let lab = Lab::new("bench");
        let host = lab.host("host");
        let program = install(&lab, "worker");
        let open = ["open", "again"].map(|top| lab.cgroup(&format!("{top}/{MAIL}")));
        let walls: Vec<Host> = RULES.iter().map(|rules| wall(&lab, &open[0], *rules)).collect();
        let exchangers: Vec<Host> = std::iter::once(&host).chain(&walls).map(|host| exchanger(&lab, host)).collect();
        let guards: Vec<Guarded> = RULES.iter().map(|rules| guard(&lab, &program, *rules)).collect();
        let ports = exchangers.iter().flat_map(|mx| [(mx, 25), (mx, FREE)]);
        let listeners = ports.map(|(mx, port)| listener(&program, mx, port)).collect();
        let worker = Worker::start(&program);
        let mut bench = Self { worker, guards, _listeners: listeners, open, host, walls, exchangers, lab };
        for arm in [Arm::Off, Arm::Nftables(0), Arm::Nftables(1), Arm::Nftables(2)] {
            bench.go(arm);
            for to in [25, FREE].map(|port| bench.mail_exchanger(arm, port)) {
                lab::until("the mail exchanger", lab::DEADLINE, || match bench.worker.run("tcp", to, 1, 0, 0).wrong {
                    0 => Ok(()),
                    wrong => Err(wrong),
                });
            }
        }
        bench
    }

    fn go(&mut self, arm: Arm) {
        let (cgroup, host) = match arm {
            Arm::Off => (&self.open[0], &self.host),
            Arm::Again => (&self.open[1], &self.host),
            Arm::Portreeve(index) => (&self.guards[index].mail, &self.host),
            Arm::Nftables(index) => (&self.open[0], &self.walls[index]),
        };
        self.worker.go(cgroup, host);
    }

    fn mail_exchanger(&self, arm: Arm, port: u16) -> SocketAddr {
        let host = match arm {
            Arm::Nftables(index) => &self.walls[index],
            Arm::Off | Arm::Again | Arm::Portreeve(_) => &self.host,
        };
        other_end(host, port)
    }

    /// Sections 1 to 3.
    pub(crate) fn rounds(&mut self, wrong: &mut Vec<String>) {
        let before: Vec<_> = self.guards.iter().map(|each| each.guard.counters()).collect();
        let unheard: u64 = self.guards.iter().map(|each| shed(&each.guard)).sum();
        let mut series = vec![Series::default(); ARMS.len()];
        for round in 0..ROUNDS {
            for step in 0..ARMS.len() {
                let at = (round + step) % ARMS.len();
                self.go(ARMS[at]);
                self.unguarded(ARMS[at], &mut series[at]);
                self.guarded(ARMS[at], &mut series[at]);
            }
        }
        let narrow = [place(Arm::Off), place(Arm::Portreeve(1)), place(Arm::Again)];
        let mut further = vec![Series::default(); ARMS.len()];
        for round in 0..MORE_ROUNDS {
            for step in 0..narrow.len() {
                let at = narrow[(round + step) % narrow.len()];
                self.go(ARMS[at]);
                self.unguarded(ARMS[at], &mut further[at]);
            }
        }
        for (index, rules) in RULES.into_iter().enumerate() {
            let counters = self.guards[index].guard.counters();
            for (name, each) in [("refused", REFUSED), ("allowed", ALLOWED)] {
                let (counted, made) = (counters[name] - before[index][name], each * ROUNDS as u64);
                if counted != made {
                    wrong.push(format!("{rules} rules: {made} connects {name}, {counted} counted"));
                }
            }
        }
        for (arm, series) in ARMS.iter().zip(&series).chain(ARMS.iter().zip(&further)) {
            let all = [&series.datagram, &series.loopback, &series.wire, &series.allowed, &series.refused];
            let failed: u64 = all.into_iter().flatten().map(|slice| slice.wrong).sum();
            if failed > 0 {
                wrong.push(format!("{}: {failed} connects ended otherwise than they should have", title(*arm)));
            }
        }
        print_unguarded(&further);
        print_rules(&series);
        println!(
            "of the {} records of these rounds, {} were shed",
            (REFUSED + ALLOWED) * (ROUNDS * RULES.len()) as u64,
            self.guards.iter().map(|each| shed(&each.guard)).sum::<u64>() - unheard,
        );
        print_nftables(&series);
    }

    fn unguarded(&mut self, arm: Arm, series: &mut Series) {
        let (loopback, wire) = (SocketAddr::from((Ipv4Addr::LOCALHOST, FREE)), self.mail_exchanger(arm, FREE));
        series.datagram.push(self.worker.run("udp", loopback, 1000, 0, 0));
        series.loopback.push(self.worker.run("tcp", loopback, 100, 0, libc::ECONNREFUSED));
        series.wire.push(self.worker.run("tcp", wire, 40, 0, 0));
    }

    fn guarded(&mut self, arm: Arm, series: &mut Series) {
        let to = self.mail_exchanger(arm, 25);
        series.allowed.push(self.worker.run("tcp", to, ALLOWED, 0, 0));
        let expected = match arm {
            Arm::Off | Arm::Again => return,
            Arm::Portreeve(_) => libc::EPERM,
            Arm::Nftables(_) => libc::ECONNREFUSED,
        };
        series.refused.push(self.worker.run("tcp", to, REFUSED, WEB, expected));
    }

    /// The first half of section 4.
    pub(crate) fn kernel_figures(&mut self, wrong: &mut Vec<String>) {
        section("4. the kernel's own nanoseconds a run (bpf_stats_enabled)");
        println!("{:<34}{:>10}{:>10}{:>10}", "pr_connect4", "1 rule", "16 rules", "256 rules");
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, FREE));
        let to = self.mail_exchanger(Arm::Off, 25);
        let stats = Stats::on();
        let kinds = [
            ("port not guarded, UDP", "udp", free, 20_000, 0, 0),
            ("port not guarded, TCP", "tcp", free, 5000, 0, libc::ECONNREFUSED),
            ("refused, with the record", "tcp", to, 1500, WEB, libc::EPERM),
            ("allowed, with the record", "tcp", to, 1500, 0, 0),
            ("refused, ring full (shed)", "tcp", to, 40_000, WEB, libc::EPERM),
        ];
        for (label, kind, to, count, user, expected) in kinds {
            print!("{label:<34}");
            for index in 0..RULES.len() {
                self.go(Arm::Portreeve(index));
                let agent = self.guards[index].guard.pid();
                let programs = stats.programs(&self.guards[index].guard);
                let full = count == 40_000;
                let shed_at_start = shed(&self.guards[index].guard);
                if full {
                    // With the agent stopped nobody empties the ring: filled first, then measured.
                    kernel::signal(agent, nix::sys::signal::Signal::SIGSTOP);
                    self.worker.run(kind, to, count / 4, user, expected);
                }
                let before = programs.read("connect4");
                let slice = self.worker.run(kind, to, count, user, expected);
                let taken = programs.read("connect4").since(before);
                if full {
                    kernel::signal(agent, nix::sys::signal::Signal::SIGCONT);
                }
                print!("{:>10.0}", taken.each());
                // The labels say whether there was room for the records: that is checked, not assumed.
                let lost = shed(&self.guards[index].guard) - shed_at_start;
                if full && lost < count {
                    wrong.push(format!("{label}: only {lost} of {count} were shed: the ring was not full"));
                }
                if !full && lost > 0 {
                    print!(" ({lost} shed)");
                }
                if slice.wrong > 0 || taken.runs != count {
                    wrong.push(format!("{label}: {} of {count} wrong, {} runs", slice.wrong, taken.runs));
                }
            }
            println!();
        }
    }

    /// Takes everything down but the guard with 16 rules.
    pub(crate) fn keep_sixteen(self) -> (Lab, Host, Guarded) {
        let Self { worker, mut guards, _listeners: listeners, open, host, walls, exchangers, lab } = self;
        drop((worker, listeners));
        let guard = guards.remove(1);
        drop((guards, open, walls));
        // The wires go with their other ends. What is refused needs none.
        drop(exchangers);
        (lab, host, guard)
    }
}

const ALLOWED: u64 = 40;
const REFUSED: u64 = 100;

/// The records that found no room.
fn shed(guard: &Guard) -> u64 {
    guard.status()["lost"]["shed"].as_u64().unwrap()
}

/// A copy of this program.
pub(crate) fn install(lab: &Lab, name: &str) -> PathBuf {
    let copy = lab.dir().join(name);
    let status = Command::new("install").args(["-m", "0755"]).arg(std::env::current_exe().unwrap()).arg(&copy).status();
    assert!(status.unwrap().success(), "install {}", copy.display());
    copy
}

/// The address of the mail exchanger on a host's wire.
pub(crate) fn other_end(host: &Host, port: u16) -> SocketAddr {
    let IpAddr::V4(address) = host.v4() else { panic!("not IPv4: {}", host.v4()) };
    (Ipv4Addr::from(u32::from(address) + 1), port).into()
}

/// A guard whose last rule is the mail server's.
fn guard(lab: &Lab, program: &std::path::Path, rules: usize) -> Guarded {
    let top = lab.cgroup(&format!("g{rules}"));
    let [mail, others] = [MAIL, OTHERS].map(|unit| lab.cgroup(&format!("g{rules}/{unit}")));
    let mut policy = String::new();
    for other in 1..rules {
        policy += &format!(
            "[[allow]]\nname = \"other {other}\"\nexe = \"{SANCTIONED}\"\nuser = {}\nunit = \"mail.service\"\nto = \"{}\"\n",
            20_000 + other,
            network(other),
        );
    }
    policy += &format!(
        "[[allow]]\nname = \"mail\"\nexe = \"{}\"\nuser = \"root\"\nunit = \"mail.service\"\nto = \"198.51.100.0/24\"\n",
        program.display(),
    );
    let guard = Guard::start_on(lab, &top, &policy);
    machine::pin(guard.pid(), machine::last_cpu());
    Guarded { guard, mail, others, _top: top }
}

/// A host with the same policy in nftables, as far as it can say it: it knows no executables.
fn wall(lab: &Lab, cgroup: &Cgroup, rules: usize) -> Host {
    let host = lab.host(&format!("nftables{rules}"));
    // nft(8) looks for the path below /sys/fs/cgroup wherever cgroup2 is mounted.
    let path = cgroup.path().display().to_string();
    let path = path.strip_prefix("/sys/fs/cgroup/").map_or_else(|| format!("../../..{path}"), str::to_owned);
    let level = cgroup.name().matches('/').count();
    let mut text = "table inet mail {\nchain output {\ntype filter hook output priority 0; policy accept;\n\
                    tcp dport != 25 accept\nmeta l4proto != tcp accept\n"
        .to_owned();
    let mut rule = |user: usize, to: &str| {
        text += &format!("meta skuid {user} socket cgroupv2 level {level} \"{path}\" ip daddr {to} accept\n");
    };
    (1..rules).for_each(|other| rule(20_000 + other, &network(other)));
    rule(0, "198.51.100.0/24");
    text += "reject with tcp reset\n}\n}\n";
    let file = lab.scratch("nftables");
    std::fs::write(&file, text).unwrap();
    let namespace = format!("--net={}", host.path().display());
    let output = Command::new("nsenter").args([&namespace, "nft", "-f"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "nft -f {}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    host
}

/// A mail exchanger on a wire to the host.
fn exchanger(lab: &Lab, host: &Host) -> Host {
    let mx = lab.host("mx");
    lab.wire(host, &mx);
    mx
}

fn network(other: usize) -> String {
    format!("10.{}.0.0/24", other % 256)
}

fn listener(program: &std::path::Path, mx: &Host, port: u16) -> Listener {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", mx.path().display())).arg(program).args(["answer", &format!("0.0.0.0:{port}")]);
    Listener(command.spawn().unwrap())
}

fn place(arm: Arm) -> usize {
    ARMS.iter().position(|each| *each == arm).unwrap()
}

fn title(arm: Arm) -> String {
    match arm {
        Arm::Off => "off".to_owned(),
        Arm::Again => "off, again".to_owned(),
        Arm::Portreeve(index) => format!("Portreeve, {} rules", RULES[index]),
        Arm::Nftables(index) => format!("nftables, {} rules", RULES[index]),
    }
}

/// The median of the rounds' ratios, each of two slices a few milliseconds apart.
fn ratio(of: &[Slice], to: &[Slice], time: fn(&Slice) -> f64) -> f64 {
    median(of.iter().zip(to).map(|(of, to)| time(of) / time(to)))
}

fn typical(slices: &[Slice], time: fn(&Slice) -> f64) -> f64 {
    median(slices.iter().map(time))
}

const WHOLE: fn(&Slice) -> f64 = |slice| slice.whole;
const CONNECT: fn(&Slice) -> f64 = |slice| slice.connect;

fn print_unguarded(series: &[Series]) {
    section(&format!(
        "1. connect() to a port that is not guarded, guard off / on (16 rules), {MORE_ROUNDS} rounds in turn"
    ));
    println!("{:<44}{:>9}{:>9}{:>8}{:>12}", "ns a call, medians", "off", "on", "on/off", "off'/off");
    let rows: [(&str, Part, Figure, bool); 5] = [
        ("TCP connect() alone, loopback, nobody listens", |s| &s.loopback, CONNECT, true),
        ("TCP socket+connect+close, the same", |s| &s.loopback, WHOLE, true),
        ("TCP connect() alone, over a veth, accepted", |s| &s.wire, CONNECT, true),
        ("TCP socket+connect+close, the same", |s| &s.wire, WHOLE, true),
        ("UDP connect(), no packet at all", |s| &s.datagram, WHOLE, false),
    ];
    for (label, part, time, barred) in rows {
        let [off, on, again] = [Arm::Off, Arm::Portreeve(1), Arm::Again].map(|arm| part(&series[place(arm)]));
        let quotient = ratio(on, off, time);
        println!(
            "{label:<44}{:>9.0}{:>9.0}{quotient:>8.4}{:>12.4}   {}",
            typical(off, time),
            typical(on, time),
            ratio(again, off, time),
            if barred { bar(quotient, 1.02) } else { "no bar: the smallest call there is".to_owned() },
        );
    }
    println!("off'/off is a second cgroup without a guard: what no difference at all looks like on this machine");
}

fn print_rules(series: &[Series]) {
    section(&format!("2. connect() to port 25 with 1, 16 and 256 rules, ours the last, {ROUNDS} rounds in turn"));
    println!("{:<44}{:>9}{:>9}{:>9}{:>9}{:>9}", "ns a call, medians", "off", "1", "16", "256", "256/1");
    let rows: [(&str, Part, Figure); 4] = [
        ("refused, connect() alone", |s| &s.refused, CONNECT),
        ("refused, socket+connect+close", |s| &s.refused, WHOLE),
        ("allowed, connect() alone (handshake)", |s| &s.allowed, CONNECT),
        ("allowed, socket+connect+close", |s| &s.allowed, WHOLE),
    ];
    for (label, part, time) in rows {
        let off = part(&series[place(Arm::Off)]);
        let of = |index| part(&series[place(Arm::Portreeve(index))]);
        let quotient = ratio(of(2), of(0), time);
        print!("{label:<44}");
        if off.is_empty() {
            print!("{:>9}", "-")
        } else {
            print!("{:>9.0}", typical(off, time))
        }
        (0..RULES.len()).for_each(|index| print!("{:>9.0}", typical(of(index), time)));
        println!(
            "{quotient:>9.3}   flat (5 % taken as noise): {}",
            if (quotient - 1.0).abs() <= 0.05 { "met" } else { "missed" }
        );
    }
}

fn print_nftables(series: &[Series]) {
    section("3. the same against nftables (output hook: dport, meta skuid, socket cgroupv2, daddr; a linear chain)");
    println!(
        "{:<34}{:>7}{:>12}{:>10}{:>22}",
        "ns of socket+connect+close", "rules", "Portreeve", "nftables", "Portreeve/nftables"
    );
    let rows: [(&str, Part); 4] = [
        ("not guarded, loopback", |s| &s.loopback),
        ("not guarded, veth, accepted", |s| &s.wire),
        ("port 25, allowed", |s| &s.allowed),
        ("port 25, refused", |s| &s.refused),
    ];
    for (label, part) in rows {
        for (index, rules) in RULES.into_iter().enumerate() {
            let ours = part(&series[place(Arm::Portreeve(index))]);
            let theirs = part(&series[place(Arm::Nftables(index))]);
            println!(
                "{label:<34}{rules:>7}{:>12.0}{:>10.0}{:>22.3}",
                typical(ours, WHOLE),
                typical(theirs, WHOLE),
                ratio(ours, theirs, WHOLE),
            );
        }
    }
    println!(
        "nftables knows no executables, writes no record and refuses after the socket is bound to a port; with a map"
    );
    println!("in place of the chain it could be flat as well");
}
