//! Interfaces and neighbours that come, go and change, as the kernel tells it (rtnetlink(7)).

use std::io;
use std::os::fd::AsFd as _;
use std::sync::mpsc::SyncSender;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::link::{Link, links};
use super::neighbour::{Learned, Neighbour, learned, neighbours};
use super::netlink::{RouteError, messages};

/// `RTMGRP_LINK` and `RTMGRP_NEIGH`, include/uapi/linux/rtnetlink.h.
const GROUPS: u32 = 1 | 4;
/// How many bytes of news may wait: a few thousand messages, where the system allows it (net.core.rmem_max).
const WAITING: libc::c_int = 1 << 20;
/// How many pieces are taken at once, so that one who follows is heard between two of them.
const AT_ONCE: usize = 64;
/// How often everything is asked for anew, should a message have been missed for whatever reason.
const AFRESH: Duration = Duration::from_secs(60);
/// How long the thread waits after a failure.
const REST: Duration = Duration::from_secs(1);

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// All that there is now, in the place of all that was said before.
    Everything {
        /// The interfaces.
        links: Vec<Link>,
        /// The neighbours.
        neighbours: Vec<Neighbour>,
        /// The cards that bridges have learned.
        learned: Vec<Learned>,
    },
    /// An interface is new, or something about it is.
    Link(Link),
    /// An interface is gone.
    LinkGone(Link),
    /// A neighbour is new, or something about it is.
    Neighbour(Neighbour),
    /// A neighbour is gone.
    NeighbourGone(Neighbour),
    /// A bridge has learned a card, or that it is behind another port.
    Learned(Learned),
    /// A bridge has forgotten a card.
    Forgotten(Learned),
    /// The kernel had more to tell than there was place for: ask for everything.
    Lost,
}

/// The news of the network namespace that the thread was in at the beginning.
#[derive(Debug)]
pub struct Changes {
    socket: Socket,
}

impl Changes {
    /// Begins to listen. Whoever asks for [`links`] and [`neighbours`] afterwards misses nothing.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn listen() -> Result<Self, RouteError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(RouteError::Follow)?;
        // Less room is not worth an error: what is lost is told.
        if let Err(error) = socket.set_rx_buf_sz(WAITING) {
            tracing::debug!("the news of interfaces have less room: {error}");
        }
        socket.bind(&SocketAddr::new(0, GROUPS)).map_err(RouteError::Follow)?;
        socket.set_non_blocking(true).map_err(RouteError::Follow)?;
        Ok(Self { socket })
    }

    /// What has changed; waits for it, but no longer than `patience`, and returns nothing then.
    ///
    /// # Errors
    ///
    /// The kernel's; listen anew after one.
    pub fn next(&mut self, patience: Duration) -> Result<Vec<Change>, RouteError> {
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(nix::Error::EINTR) => return Ok(Vec::new()),
            Ok(_ready) => {}
            Err(error) => return Err(RouteError::Follow(error.into())),
        }
        let mut changes = Vec::new();
        for _ in 0..AT_ONCE {
            match self.socket.recv_from_full() {
                // Only the kernel has the number zero.
                Ok((bytes, sender)) if sender.port_number() == 0 => {
                    changes.extend(messages(&bytes).filter_map(|(kind, _, body)| change(kind, body)));
                }
                Ok(_from_a_process) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changes.push(Change::Lost),
                Err(error) => return Err(RouteError::Follow(error)),
            }
        }
        Ok(changes)
    }
}

/// Follows the interfaces and neighbours on a thread, until nobody takes what it sends: everything at first, the changes
/// then. A receiver that is slow costs no news: the kernel keeps them, and everything is sent when it has lost some.
///
/// # Errors
///
/// When no thread can be started.
pub fn follow(out: SyncSender<Vec<Change>>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("portreeve-links".to_owned()).spawn(move || {
        loop {
            match follow_once(&out) {
                Ok(()) => return,
                Err(error) => tracing::warn!("{error}"),
            }
            thread::sleep(REST);
        }
    })
}

/// Follows until nobody listens any more.
fn follow_once(out: &SyncSender<Vec<Change>>) -> Result<(), RouteError> {
    let mut news = Changes::listen()?;
    loop {
        let everything = Change::Everything { links: links()?, neighbours: neighbours()?, learned: learned()? };
        if out.send(vec![everything]).is_err() {
            return Ok(());
        }
        let since = Instant::now();
        while since.elapsed() < AFRESH {
            let changes = news.next(AFRESH.saturating_sub(since.elapsed()))?;
            if changes.contains(&Change::Lost) {
                break;
            }
            if !changes.is_empty() && out.send(changes).is_err() {
                return Ok(());
            }
        }
    }
}

fn change(kind: u16, body: &[u8]) -> Option<Change> {
    match kind {
        libc::RTM_NEWLINK => Link::of(body).map(Change::Link),
        libc::RTM_DELLINK => Link::of(body).map(Change::LinkGone),
        libc::RTM_NEWNEIGH => {
            Neighbour::of(body).map(Change::Neighbour).or_else(|| Learned::of(body).map(Change::Learned))
        }
        libc::RTM_DELNEIGH => {
            Neighbour::of(body).map(Change::NeighbourGone).or_else(|| Learned::of(body).map(Change::Forgotten))
        }
        _other => None,
    }
}

#[cfg(test)]
mod tests;
