//! The containers and virtual machines behind this host's interfaces, looked for anew when interfaces change.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::SyncSender;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::changes::{Change, Changes};
use super::container::{Behind, behind, may_have_one};
use super::link::links;
use super::netlink::RouteError;

/// How soon it is looked again after interfaces have changed: a runtime makes the interface first, and starts the container
/// in it then. Each further look waits twice as long, up to [`LATEST`].
const SOON: Duration = Duration::from_millis(250);
/// How long it is at most from one look to the next: a container may be given another name, an interface another guest.
const LATEST: Duration = Duration::from_secs(30);

/// Sends what is behind the interfaces of the thread's network namespace whenever it is something else, by the indices of
/// the interfaces, from a thread, until nobody takes it.
///
/// # Errors
///
/// When no thread can be started.
pub fn guests(out: SyncSender<HashMap<u32, Behind>>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("portreeve-guests".to_owned()).spawn(move || {
        loop {
            match follow(&out) {
                Ok(()) => return,
                Err(error) => tracing::warn!("{error}"),
            }
            thread::sleep(LATEST);
        }
    })
}

/// Looks until nobody listens any more.
fn follow(out: &SyncSender<HashMap<u32, Behind>>) -> Result<(), RouteError> {
    let mut news = Changes::listen()?;
    let (mut told, mut patience) = (HashMap::new(), SOON);
    loop {
        let links = links()?;
        let found = behind(&links);
        if found != told {
            told = found;
            if out.send(told.clone()).is_err() {
                return Ok(());
            }
        }
        // Where no interface can have a guest, the news are all that is waited for.
        let idle = !links.iter().any(may_have_one);
        let changed = wait(&mut news, if idle { LATEST } else { patience })?;
        patience = if changed { SOON } else { LATEST.min(patience * 2) };
    }
}

/// Waits for an interface that comes, goes or changes, but no longer than `patience`; whether there was one.
fn wait(news: &mut Changes, patience: Duration) -> Result<bool, RouteError> {
    let since = Instant::now();
    while since.elapsed() < patience {
        let changes = news.next(patience.saturating_sub(since.elapsed()))?;
        let of_links = |change: &Change| matches!(change, Change::Link(_) | Change::LinkGone(_) | Change::Lost);
        if changes.iter().any(of_links) {
            // More come with it: an interface is made, moved, plugged and turned on one after the other.
            thread::sleep(SOON);
            return Ok(true);
        }
    }
    Ok(false)
}
