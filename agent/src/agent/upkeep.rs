//! The guard looks after itself: programs that somebody has detached or replaced are put back, new devices get theirs.

use std::collections::VecDeque;
use std::os::fd::AsRawFd as _;

use jiff::Timestamp;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};
use serde::{Deserialize, Serialize};

use super::Agent;

/// How many alarms are kept.
const ALARMS: usize = 64;
/// `RTMGRP_LINK`, include/uapi/linux/rtnetlink.h: devices that come, go and change.
const LINKS: u32 = 1;

/// Something that only happens when somebody works against the guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// When it was seen.
    pub time: Timestamp,
    /// What it was, and what was done.
    pub what: String,
}

/// The latest alarms, the oldest first.
pub(super) type Alarms = VecDeque<Alarm>;

impl Agent {
    /// Looks whether every program is where it belongs, and puts back what is not. Called four times a second.
    pub(super) fn look_after_programs(&mut self) {
        let repaired = self.guard.repair();
        self.alarm(repaired);
    }

    /// Puts the frame programs on devices that have none yet. Called once a second, and whenever a device of the agent's
    /// own network namespace comes or changes.
    pub(super) fn look_after_devices(&mut self) {
        let repaired = self.guard.follow_devices();
        self.alarm(repaired);
    }

    fn alarm(&mut self, alarms: Vec<String>) {
        for what in alarms {
            tracing::error!("ALARM: {what}");
            self.alarms.push_back(Alarm { time: Timestamp::now(), what });
        }
        while self.alarms.len() > ALARMS {
            self.alarms.pop_front();
        }
    }
}

/// The kernel's messages about devices of the agent's own network namespace (rtnetlink(7)).
pub(super) struct DeviceEvents(Option<TokioSocket>);

impl DeviceEvents {
    /// Listens. Without such messages devices are found by looking once a second.
    pub(super) fn listen() -> Self {
        let socket = TokioSocket::new(NETLINK_ROUTE).and_then(|mut socket| {
            socket.socket_mut().bind(&SocketAddr::new(0, LINKS))?;
            Ok(socket)
        });
        Self(socket.inspect_err(|error| tracing::warn!("no messages about devices: {error}")).ok())
    }

    /// Returns when something has happened.
    pub(super) async fn next(&mut self) {
        let Some(socket) = &mut self.0 else { return std::future::pending().await };
        // What is in the message does not matter: all devices are looked at. Too many at once are an error, and news too.
        if let Err(error) = socket.recv_from_full().await {
            tracing::debug!("messages about devices (descriptor {}): {error}", socket.socket_ref().as_raw_fd());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}
