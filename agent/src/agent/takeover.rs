//! A second start: the agent that runs hands over to the new one. The guard is in the kernel and stays.

use std::fs::File;
use std::time::{Duration, Instant};

use nix::fcntl::Flock;

use super::{Options, guarded, usable};
use crate::clock::Clock;
use crate::control::{Client, ClientError, Request};
use crate::kernel::Guard;
use crate::policy::{self, SystemHost};

/// How long the agent that runs may take to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The instance's lock, from the agent that has it if need be.
///
/// # Errors
///
/// Why the agent that runs goes on running.
pub(super) fn lock(options: &Options) -> Result<Flock<File>, String> {
    let name = &options.instance.name;
    let error = match options.instance.lock() {
        Ok(lock) => return Ok(lock),
        Err(error) => error,
    };
    if error.raw_os_error() != Some(libc::EWOULDBLOCK) {
        return Err(format!("cannot lock the instance \"{name}\": {error}"));
    }
    // What cannot guard must not cost the agent that does.
    rehearse(options)
        .map_err(|error| format!("{error}\nthe agent of the instance \"{name}\" that is running goes on"))?;
    tracing::info!("an agent of the instance \"{name}\" is running; it is asked to hand over");
    Client::ask(&options.instance.socket(), &Request::HandOver).and_then(Client::answer).map_err(|error| match &error {
        ClientError::Refused(why) => format!(
            "the agent of the instance \"{name}\" that is running does not hand over ({why}); end it, the port stays \
             guarded, and start again"
        ),
        ClientError::NotRunning(_) | ClientError::NotAllowed | ClientError::Broken(_) => {
            format!("the agent of the instance \"{name}\" that is running does not answer: {error}")
        }
    })?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match options.instance.lock() {
            Ok(lock) => return Ok(lock),
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => {
                return Err(format!("the agent of the instance \"{name}\" does not end: {error}; end it by hand"));
            }
        }
    }
}

/// Everything that can fail before the guard is touched: the policy, and whether the kernel takes the programs.
fn rehearse(options: &Options) -> Result<(), String> {
    let mut loaded = policy::load(&options.config);
    if let (Some(cgroup), Some(policy)) = (&options.cgroup, &mut loaded.policy) {
        policy.guard.cgroup.clone_from(cgroup);
    }
    let (policy, ..) = usable(loaded)?;
    let resolved = policy::resolve(&policy, &mut SystemHost::new(None));
    policy::compile(&policy, &resolved, 1, Clock::now()).map_err(|error| error.to_string())?;
    Guard::rehearse(&guarded(&policy)?).map_err(|error| error.to_string())
}
