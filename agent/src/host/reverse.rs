//! The names of addresses in the DNS (RFC 1035 §3.5, RFC 3596 §2.5), asked of the administrator's own resolvers on a thread.

use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use jiff::SignedDuration;

use super::lease::host_name;

/// How long it is from one question to the next: no more than 20 a second, so that no LAN host can have a resolver flooded.
const PACE: Duration = Duration::from_millis(50);
/// How long a resolver may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The bounds of how long a name holds, whatever its time to live is, in seconds: a minute to a day.
const LIFE: (u32, u32) = (60, 24 * 60 * 60);
/// How long it holds that an address has no name.
const NAMELESS: SignedDuration = SignedDuration::from_mins(10);
/// How long an address is not asked for again where no resolver has answered.
const SILENCE: SignedDuration = SignedDuration::from_mins(1);

/// What was found of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The address.
    pub address: IpAddr,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// How long that holds.
    pub holds: SignedDuration,
}

/// Asks resolvers for the name of each address, from a thread, until nobody asks any more.
///
/// # Errors
///
/// When no thread can be started.
pub fn follow(
    servers: Vec<IpAddr>,
    questions: Receiver<IpAddr>,
    answers: SyncSender<Answer>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("portreeve-names".to_owned()).spawn(move || {
        if let Err(error) = answer_all(servers, &questions, &answers) {
            tracing::warn!("no resolver is asked for names: {error}");
        }
    })
}

/// Answers one question after the other, until there are no more.
fn answer_all(
    servers: Vec<IpAddr>,
    questions: &Receiver<IpAddr>,
    answers: &SyncSender<Answer>,
) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let resolver = runtime.block_on(async { resolver(servers) })?;
    for address in questions {
        let answer = runtime.block_on(ask(&resolver, address));
        if answers.send(answer).is_err() {
            break;
        }
        thread::sleep(PACE);
    }
    Ok(())
}

fn resolver(servers: Vec<IpAddr>) -> Result<TokioResolver, NetError> {
    let servers = servers.into_iter().map(NameServerConfig::udp_and_tcp).collect();
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let mut options = ResolverOpts::default();
    options.timeout = PATIENCE;
    options.attempts = 1;
    // What is remembered is remembered in one place, by the bounds of the agent.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build()
}

async fn ask(resolver: &TokioResolver, address: IpAddr) -> Answer {
    let (name, holds) = match resolver.reverse_lookup(address).await {
        Ok(lookup) => {
            let mut records = lookup.answers().iter().filter_map(|record| {
                let RData::PTR(name) = &record.data else { return None };
                // A name as anybody may have written it: nothing stays that no host's name has in it.
                Some((host_name(name.0.to_ascii().as_bytes())?, record.ttl))
            });
            let found = records.next();
            let holds = found
                .as_ref()
                .map_or(NAMELESS, |(_, ttl)| SignedDuration::from_secs(i64::from((*ttl).clamp(LIFE.0, LIFE.1))));
            (found.map(|(name, _)| name), holds)
        }
        Err(error) if error.is_no_records_found() => (None, NAMELESS),
        Err(error) => {
            tracing::debug!("the name of {address} is not known: {error}");
            (None, SILENCE)
        }
    };
    Answer { address, name, holds }
}
