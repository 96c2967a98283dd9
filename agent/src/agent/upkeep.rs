//! The guard looks after itself: programs that somebody has detached or replaced are put back, new devices get theirs.

use std::collections::VecDeque;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};
use portreeve_abi::Stir;
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

use super::Agent;
use crate::attempt::text;
use crate::kernel::{MapData, RingBuf, decode_stir};

/// How many alarms are kept.
const ALARMS: usize = 64;
/// `RTMGRP_LINK`, `RTMGRP_TC`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR`, include/uapi/linux/rtnetlink.h: devices that
/// come, go and change, their filters and addresses.
const DEVICES: u32 = 1 | 8 | 0x10 | 0x100;
/// How long a `bpf()` call is taken for the cause of what is found to have moved.
const CAUSE: Duration = Duration::from_secs(1);
/// How many of them are remembered.
const STIRS: usize = 8;

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

/// Who has lately attached, detached or replaced programs of whomever's.
pub(super) type Stirs = VecDeque<(Instant, String)>;

impl Agent {
    /// Looks whether every program and the policy are where they belong, and puts back what is not. Called four times a
    /// second, and when somebody has attached or detached a program.
    ///
    /// # Errors
    ///
    /// Why there is nothing left to look after.
    pub(super) fn look_after_programs(&mut self) -> Result<(), String> {
        if !self.guard.cgroup_is_there() {
            return Err("the guarded cgroup was removed; where one of its name was made since, its processes are not \
                        guarded: start the agent again"
                .to_owned());
        }
        let mut repaired = self.guard.repair();
        match self.guard.is_in_force(&self.in_force.compiled) {
            Ok(true) => {}
            Ok(false) => {
                let back = self.renew().map_or_else(|error| format!("cannot be: {error}"), |()| "was".to_owned());
                repaired.push(format!("policy: somebody has written to its tables; it {back} put in force again"));
            }
            Err(error) => tracing::error!("{error}"),
        }
        self.alarm(repaired);
        Ok(())
    }

    /// Puts the frame programs on devices that have none yet. Called once a second, and whenever a device of the agent's
    /// own network namespace comes or changes.
    pub(super) fn look_after_devices(&mut self) {
        let repaired = self.guard.follow_devices();
        self.alarm(repaired);
    }

    /// Somebody has attached, detached or replaced a program.
    fn stirred(&mut self, stir: &Stir) {
        if stir.pid == std::process::id() {
            return;
        }
        let exe = std::fs::read_link(format!("/proc/{}/exe", stir.pid)).map(|path| path.display().to_string());
        let name = exe.unwrap_or_else(|_gone| text(&stir.comm));
        let who = format!("{name}[{}], user {}", stir.pid, stir.euid);
        tracing::debug!("bpf() command {} by {who}", stir.command);
        self.stirs.push_back((Instant::now(), who));
        if self.stirs.len() > STIRS {
            self.stirs.pop_front();
        }
    }

    pub(super) fn alarm(&mut self, alarms: Vec<String>) {
        self.stirs.retain(|(when, _)| when.elapsed() < CAUSE);
        let mut who: Vec<&str> = self.stirs.iter().map(|(_, who)| who.as_str()).collect();
        who.dedup();
        for what in alarms {
            let what = if who.is_empty() { what } else { format!("{what} (bpf() was called by {})", who.join("; ")) };
            tracing::error!("ALARM: {what}");
            self.alarms.push_back(Alarm { time: Timestamp::now(), what });
        }
        while self.alarms.len() > ALARMS {
            self.alarms.pop_front();
        }
    }
}

/// Returns when somebody has attached, detached or replaced a program; who, is noted.
pub(super) async fn stirred(stirs: &mut AsyncFd<RingBuf<MapData>>, agent: &std::cell::RefCell<Agent>) {
    match stirs.readable_mut().await {
        Ok(mut ready) => {
            while let Some(bytes) = ready.get_inner_mut().next() {
                if let Some(stir) = decode_stir(&bytes) {
                    agent.borrow_mut().stirred(&stir);
                }
            }
            ready.clear_ready();
        }
        Err(error) => {
            tracing::error!("no word of bpf() calls any more: {error}");
            std::future::pending::<()>().await;
        }
    }
}

/// The kernel's messages about devices of the agent's own network namespace (rtnetlink(7)).
pub(super) struct DeviceEvents(Option<TokioSocket>);

impl DeviceEvents {
    /// Listens. Without such messages devices are found by looking once a second.
    pub(super) fn listen() -> Self {
        let socket = TokioSocket::new(NETLINK_ROUTE).and_then(|mut socket| {
            socket.socket_mut().bind(&SocketAddr::new(0, DEVICES))?;
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
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
