//! Names of users and groups, remembered for a while: a lookup may go over the network.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};

/// How long a name is believed.
const FRESH: Duration = Duration::from_secs(300);
/// How many are remembered; a host with more than this many users in trouble starts afresh.
const MOST: usize = 4096;

/// User names by number.
#[derive(Debug, Default)]
pub struct Users {
    names: HashMap<u32, (Instant, Option<String>)>,
}

impl Users {
    /// The name of a user, where the host knows one.
    pub fn name(&mut self, uid: u32) -> Option<String> {
        if let Some((when, name)) = self.names.get(&uid)
            && when.elapsed() < FRESH
        {
            return name.clone();
        }
        let name = User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
        if self.names.len() >= MOST {
            self.names.clear();
        }
        self.names.insert(uid, (Instant::now(), name.clone()));
        name
    }
}
