//! The mail servers of the world: domains, and where their mail goes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portreeve::attempt::Attempt;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Zipf};

/// How many domains there are. Assumed: more than any subject here meets.
const DOMAINS: usize = 20_000;
/// How unevenly mail spreads over domains: Zipf's law with this exponent. Assumed; the first eight get a quarter of it.
const EXPONENT: f64 = 1.0;
/// How many of the most popular domains run servers of their own at many addresses.
const BIG: usize = 8;
/// Which share of the other domains are at Google and at Microsoft: Liu et al., "Who's Got Your Mail? Characterizing
/// Mail Service Provider Usage", IMC 2021 (28.5 % and 10.8 % of popular domains).
const AT_GOOGLE: f64 = 0.285;
const AT_MICROSOFT: f64 = 0.108;
/// Which share is at one of the other big ones. Assumed.
const AT_OTHERS: f64 = 0.15;

/// A provider's mail exchangers: so many hosts a domain, each with so many addresses at a time, out of so many networks.
/// The first three are shaped like Gmail (five hosts with an address each), Yahoo (three with eight) and Microsoft (one
/// with a few), the others like smaller ones. The numbers of networks are assumed.
#[derive(Debug)]
struct Provider {
    networks: Vec<[u8; 3]>,
    hosts: usize,
    each: usize,
}

/// A mail domain.
#[derive(Debug)]
pub(crate) struct Domain {
    /// Its name.
    pub(crate) name: String,
    /// As the detector has it.
    pub(crate) hash: u64,
    mail: Mail,
}

#[derive(Debug)]
enum Mail {
    /// At a provider.
    Hosted(usize),
    /// At its own servers.
    Own(Vec<IpAddr>),
}

/// All of them.
#[derive(Debug)]
pub(crate) struct World {
    providers: Vec<Provider>,
    domains: Vec<Domain>,
    popularity: Zipf<f64>,
}

impl World {
    /// A world of its own for each seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Hosts, addresses of each, networks.
        let sizes = [(5, 1, 5), (3, 8, 6), (1, 4, 12), (2, 3, 4), (2, 1, 2), (1, 2, 2), (2, 2, 3), (4, 2, 4)];
        let providers: Vec<Provider> = sizes
            .into_iter()
            .map(|(hosts, each, networks)| Provider {
                networks: (0..networks).map(|_| network(&mut rng)).collect(),
                hosts,
                each,
            })
            .collect();
        let domains = (0..DOMAINS).map(|rank| domain(rank, &mut rng)).collect();
        Self { providers, domains, popularity: Zipf::new(DOMAINS as f64, EXPONENT).unwrap() }
    }

    /// A domain as popular as domains are.
    pub(crate) fn popular(&self, rng: &mut ChaCha8Rng) -> &Domain {
        &self.domains[self.popularity.sample(rng) as usize - 1]
    }

    /// Any domain, each as likely as the other.
    pub(crate) fn any(&self, rng: &mut ChaCha8Rng) -> &Domain {
        &self.domains[rng.random_range(0..DOMAINS)]
    }

    /// A domain with servers of its own.
    pub(crate) fn own(&self, rng: &mut ChaCha8Rng) -> &Domain {
        loop {
            let domain = self.any(rng);
            if matches!(domain.mail, Mail::Own(_)) {
                return domain;
            }
        }
    }

    /// The addresses of a domain's mail exchangers, as one look-up gives them, the preferred first.
    pub(crate) fn exchangers(&self, domain: &Domain, rng: &mut ChaCha8Rng) -> Vec<IpAddr> {
        match &domain.mail {
            Mail::Own(addresses) => addresses.clone(),
            Mail::Hosted(provider) => {
                let provider = &self.providers[*provider];
                let mut answer = Vec::new();
                for host in 0..provider.hosts {
                    let network = provider.networks[host % provider.networks.len()];
                    let spread = provider.networks.len() / provider.hosts;
                    for _ in 0..provider.each {
                        let [a, b, c] = match spread {
                            0 | 1 => network,
                            _ => provider.networks[rng.random_range(0..provider.networks.len())],
                        };
                        answer.push(IpAddr::V4(Ipv4Addr::new(a, b, c, rng.random_range(20..36))));
                    }
                }
                answer
            }
        }
    }

    /// Where a domain's users submit mail (RFC 6409): one host, of a provider one of a few addresses.
    pub(crate) fn submission(&self, domain: &Domain, rng: &mut ChaCha8Rng) -> IpAddr {
        match &domain.mail {
            Mail::Own(addresses) => addresses[0],
            Mail::Hosted(provider) => {
                let [a, b, c] = self.providers[*provider].networks[0];
                IpAddr::V4(Ipv4Addr::new(a, b, c, rng.random_range(108..112)))
            }
        }
    }

    /// The name of a domain, by its hash.
    pub(crate) fn name(&self, hash: u64) -> Option<String> {
        self.domains.iter().find(|domain| domain.hash == hash).map(|domain| domain.name.clone())
    }
}

fn domain(rank: usize, rng: &mut ChaCha8Rng) -> Domain {
    let name = format!("d{rank}.example");
    let hash = observed(&name);
    let share: f64 = rng.random();
    let mail = if rank < BIG {
        Mail::Hosted(rank)
    } else if share < AT_GOOGLE {
        Mail::Hosted(0)
    } else if share < AT_GOOGLE + AT_MICROSOFT {
        Mail::Hosted(2)
    } else if share < AT_GOOGLE + AT_MICROSOFT + AT_OTHERS {
        Mail::Hosted(rng.random_range(3..BIG))
    } else {
        Mail::Own(own(rng))
    };
    Domain { name, hash, mail }
}

/// One to four addresses, most of them in one network; one in ten domains has an IPv6 address first. Assumed.
fn own(rng: &mut ChaCha8Rng) -> Vec<IpAddr> {
    let number = *[1, 1, 1, 2, 2, 3, 4].get(rng.random_range(0..7)).unwrap();
    let home = network(rng);
    let mut addresses: Vec<IpAddr> = (0..number)
        .map(|at| {
            let [a, b, c] = if at > 0 && rng.random_bool(0.4) { network(rng) } else { home };
            IpAddr::V4(Ipv4Addr::new(a, b, c, rng.random_range(1..255)))
        })
        .collect();
    if rng.random_bool(0.1) {
        let [a, b, c]: [u16; 3] = rng.random();
        addresses.insert(0, IpAddr::V6(Ipv6Addr::new(0x2a00 | (a & 0xff), b, c, 0, 0, 0, 0, 0x25)));
    }
    addresses
}

/// A network of 256 addresses that is neither private nor reserved (RFC 6890), as far as its first number tells.
fn network(rng: &mut ChaCha8Rng) -> [u8; 3] {
    loop {
        let first = rng.random_range(1..224);
        if !matches!(first, 10 | 100 | 127 | 169 | 172 | 192 | 198 | 203) {
            return [first, rng.random(), rng.random()];
        }
    }
}

/// What the detector is told of a domain.
fn observed(name: &str) -> u64 {
    let attempt = Attempt {
        verdict: "deny".to_owned(),
        destination: Some(([192, 0, 2, 25], 25).into()),
        domain: Some(name.to_owned()),
        ..Attempt::default()
    };
    attempt.observation().unwrap().domain
}
