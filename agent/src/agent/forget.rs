//! LAN hosts that have not tried for long lose their own counter, so that others find room for theirs.

use std::time::{Duration, Instant};

use super::Agent;
use crate::policy::Gateway;

/// How often is looked for them at the most: it reads the whole table.
const PAUSE: Duration = Duration::from_secs(60);
/// And while there are more of them than go at once.
const MORE: Duration = Duration::from_secs(1);

/// When it is looked for them next.
#[derive(Debug)]
pub(super) struct Forgetting {
    at: Instant,
    /// The LAN interfaces as they were: what was behind one that is gone goes at once.
    interfaces: Vec<u32>,
}

impl Default for Forgetting {
    fn default() -> Self {
        Self { at: Instant::now(), interfaces: Vec::new() }
    }
}

impl Agent {
    /// Looks for them when it is time. Called once a second.
    pub(super) fn forget_sources(&mut self) {
        let interfaces = self.guard.lan_interfaces();
        if Instant::now() < self.forgetting.at && interfaces == self.forgetting.interfaces {
            return;
        }
        let (age, most) = match &self.in_force.policy.gateway {
            Some(gateway) => (gateway.forget, gateway.sources),
            // What a policy before has left.
            None => (Gateway::default().forget, Gateway::default().sources),
        };
        let pause = match self.guard.forget_lan_sources(age, most) {
            Ok(true) => MORE,
            Ok(false) => PAUSE.min(age),
            Err(error) => {
                tracing::error!("LAN sources stay: {error}");
                PAUSE
            }
        };
        self.forgetting = Forgetting { at: Instant::now() + pause, interfaces };
    }
}
