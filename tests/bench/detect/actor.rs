//! Whoever acts in a model: a bot, or a program that means no harm. It has programs (or a LAN host's address), a source of
//! chance, and writes down what it does.

use std::net::IpAddr;

use jiff::Timestamp;
use portreeve::attempt::{Attempt, Parent};
use portreeve::detect::{Observation, SubjectId};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Exp, LogNormal};

use super::world::{Domain, World};

/// Where the days begin: 2026-01-01.
const EPOCH: i64 = 1_767_225_600;
/// A day, an hour and a minute in seconds.
pub(crate) const DAY: f64 = 86_400.0;
pub(crate) const HOUR: f64 = 3600.0;
pub(crate) const MINUTE: f64 = 60.0;

/// What acts.
#[derive(Debug)]
pub(crate) struct Actor<'w> {
    /// The world it acts in.
    pub(crate) world: &'w World,
    /// What chance has in store for it.
    pub(crate) rng: ChaCha8Rng,
    /// What it did, in any order until [`Actor::finish`].
    pub(crate) trace: Vec<Observation>,
    number: u32,
    programs: Vec<(Attempt, Observation)>,
    sees_dns: bool,
    last_pid: u32,
}

impl<'w> Actor<'w> {
    /// The actor of a number, in a seed's world.
    pub(crate) fn new(world: &'w World, seed: u64, model: &str, number: u32) -> Self {
        let own = SubjectId::of(["actor", model, &seed.to_string(), &number.to_string()]);
        let mut rng = ChaCha8Rng::seed_from_u64(own.0);
        let sees_dns = rng.random_bool(0.5);
        Self { world, rng, trace: Vec::new(), number, programs: Vec::new(), sees_dns, last_pid: 1000 }
    }

    /// A program of it. Every actor is a user of its own, so that they can share a detector as users share a host.
    pub(crate) fn program(&mut self, exe: &str, unit: &str, parents: &[&str]) -> Attempt {
        let uid = 10_000 + self.number;
        Attempt {
            verdict: "deny".to_owned(),
            reason: "no-rule".to_owned(),
            severity: "notice".to_owned(),
            hook: "connect4".to_owned(),
            protocol: "tcp".to_owned(),
            pid: 1,
            comm: exe.rsplit('/').next().unwrap_or_default().chars().take(15).collect(),
            exe: Some(exe.to_owned()),
            uid,
            euid: uid,
            user: Some(format!("user{uid}")),
            cgroup: format!("/system.slice/{unit}"),
            unit: Some(unit.to_owned()),
            parents: parents.iter().map(|comm| parent(comm)).collect(),
            ..Attempt::default()
        }
    }

    /// A host of the LAN, of which a gateway or a capture shows the address only.
    pub(crate) fn lan_host(&mut self) -> Attempt {
        let [_, a, b, c] = (0x000a_0000 + self.number).to_be_bytes();
        Attempt {
            verdict: "deny".to_owned(),
            reason: "forwarded".to_owned(),
            severity: "notice".to_owned(),
            hook: "frame".to_owned(),
            protocol: "tcp".to_owned(),
            source: Some(([10, a, b, c], 49_152).into()),
            ..Attempt::default()
        }
    }

    /// Takes a program into use, and gives its number.
    pub(crate) fn run(&mut self, attempt: Attempt) -> usize {
        let probe = Attempt { destination: Some(([192, 0, 2, 25], 25).into()), ..attempt.clone() };
        self.programs.push((attempt, probe.observation().unwrap()));
        self.programs.len() - 1
    }

    /// A process number that was not used before.
    pub(crate) fn pid(&mut self) -> u32 {
        self.last_pid += 1;
        self.last_pid
    }

    /// Tries an address, so many seconds after the beginning of the first day.
    pub(crate) fn connect(&mut self, at: f64, program: usize, thread: u32, address: IpAddr, domain: Option<&Domain>) {
        let Some((_, known)) = self.programs.get(program) else { return };
        let lan = known.owner == SubjectId::default();
        self.trace.push(Observation {
            time: EPOCH * 1_000_000 + (at * 1e6) as i64,
            thread: if lan { 0 } else { thread },
            address,
            domain: domain.filter(|_| self.sees_dns && !lan).map_or(0, |domain| domain.hash),
            ..*known
        });
    }

    /// Tries addresses one after the other in one go, as refusals come at once: a millisecond or so each.
    pub(crate) fn connect_all(&mut self, at: f64, program: usize, to: &[IpAddr], domain: Option<&Domain>) {
        let thread = self.pid();
        for (step, address) in (0..).zip(to) {
            self.connect(at + f64::from(step) * 0.001, program, thread, *address, domain);
        }
    }

    /// The trace in the order of time.
    pub(crate) fn finish(&mut self) {
        self.trace.sort_by_key(|observation| observation.time);
    }

    /// Every number that its programs and their user have with the detector.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = SubjectId> {
        let numbers = self.programs.iter().flat_map(|(_, known)| [known.subject, known.owner]);
        numbers.filter(|number| *number != SubjectId::default())
    }

    /// An observation as the record that it would be made from.
    pub(crate) fn record(&self, observation: &Observation, port: u16) -> Attempt {
        let known = self.programs.iter().find(|(_, known)| known.subject == observation.subject);
        let (attempt, _) = known.unwrap();
        Attempt {
            time: Timestamp::from_microsecond(observation.time).unwrap(),
            pid: if attempt.pid == 0 { 0 } else { observation.thread },
            tid: observation.thread,
            destination: Some((observation.address, port).into()),
            domain: self.world.name(observation.domain),
            ..attempt.clone()
        }
    }

    /// Any number between two.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        self.rng.random_range(low..=high)
    }

    /// Any whole number between two, both included.
    pub(crate) fn one_of(&mut self, low: u32, high: u32) -> u32 {
        self.rng.random_range(low..=high)
    }

    /// Any number between two whose orders of magnitude are equally likely.
    pub(crate) fn magnitude(&mut self, low: f64, high: f64) -> f64 {
        self.between(low.ln(), high.ln()).exp()
    }

    /// The time to the next event of a Poisson process with this mean between two.
    pub(crate) fn wait(&mut self, mean: f64) -> f64 {
        Exp::new(1.0 / mean).unwrap().sample(&mut self.rng)
    }

    /// A number around a median; two in three lie within a factor of e^spread.
    pub(crate) fn around(&mut self, median: f64, spread: f64) -> f64 {
        LogNormal::new(median.ln(), spread).unwrap().sample(&mut self.rng)
    }

    /// Whether something happens that has this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    /// A smart host's addresses: in one network, or in two.
    pub(crate) fn smart_host(&mut self, addresses: u32) -> Vec<IpAddr> {
        let domains = [self.world.own(&mut self.rng), self.world.own(&mut self.rng)];
        let seeds = domains.map(|domain| self.world.submission(domain, &mut self.rng));
        let two = self.chance(0.3);
        (0..addresses)
            .map(|at| match (seeds[usize::from(two && at % 2 == 1)], u8::try_from(at).unwrap_or_default()) {
                (IpAddr::V4(address), at) => {
                    let [a, b, c, d] = address.octets();
                    IpAddr::from([a, b, c, d.wrapping_add(at)])
                }
                (IpAddr::V6(address), at) => {
                    let mut bytes = address.octets();
                    bytes[15] = bytes[15].wrapping_add(at);
                    IpAddr::from(bytes)
                }
            })
            .collect()
    }
}

/// A parent process by its name.
fn parent(comm: &str) -> Parent {
    Parent { pid: 900, uid: 0, comm: comm.to_owned(), exe: None }
}

/// A record of a program that the distribution's package brought.
pub(crate) fn packaged(attempt: Attempt, package: &str) -> Attempt {
    Attempt { package: Some(package.to_owned()), package_known: true, ..attempt }
}
