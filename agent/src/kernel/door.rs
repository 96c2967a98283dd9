//! What the relay asks the kernel, and tells it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use aya::maps::{HashMap, MapData};
use portreeve_abi::{Brought, BroughtKey, SocketState, Standing};
use portreeve_decide::mapped;

use super::guard::Guard;
use super::{KernelError, sys};

/// The relay's door to the kernel's tables, for any thread.
#[derive(Debug)]
pub struct Door {
    arriving: Mutex<HashMap<MapData, BroughtKey, Brought>>,
    verdicts: OwnedFd,
}

impl Guard {
    /// Makes the door. Can be had once.
    ///
    /// # Errors
    ///
    /// Those of the maps.
    pub fn door(&mut self) -> Result<Door, KernelError> {
        const ARRIVING: &str = "PR_ARRIVING";
        const VERDICTS: &str = "PR_VERDICTS";
        let map = self.ebpf.take_map(ARRIVING).ok_or(KernelError::NoMap(ARRIVING))?;
        let arriving = HashMap::try_from(map).map_err(|source| KernelError::map(ARRIVING, source))?;
        let verdicts = self.maps.iter().find(|(path, _)| path.ends_with(VERDICTS));
        let verdicts = verdicts.ok_or(KernelError::NoMap(VERDICTS))?.1.as_fd().try_clone_to_owned();
        let verdicts = verdicts.map_err(|source| KernelError::Pin { path: self.pins.clone(), source })?;
        Ok(Door { arriving: Mutex::new(arriving), verdicts })
    }
}

impl Door {
    /// Vouches for a socket that is about to be connected: it passes, once.
    ///
    /// # Errors
    ///
    /// Those of the kernel; the connection is judged like any program's then.
    pub fn let_out(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.tell(socket, Standing::Relay)
    }

    /// Says that a listener is the relay's: connections are brought to no other.
    ///
    /// # Errors
    ///
    /// Those of the kernel; what is to be brought here is refused then.
    pub fn listens(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.tell(socket, Standing::Listens)
    }

    fn tell(&self, socket: BorrowedFd<'_>, standing: Standing) -> io::Result<()> {
        sys::set_socket_storage(self.verdicts.as_fd(), socket, &SocketState { standing: standing as u32, noted: 0 })
    }

    /// Where a connection was to go that has arrived from an address; `None` when nobody brought it. Once.
    #[must_use]
    pub fn arrived(&self, from: SocketAddr) -> Option<Brought> {
        let address = match from.ip().to_canonical() {
            IpAddr::V4(address) => mapped(address.octets()),
            IpAddr::V6(address) => address.octets(),
        };
        let key = BroughtKey { address, port: u32::from(from.port()) };
        // Nothing panics while it is held.
        let mut arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        let brought = arriving.get(&key, 0).ok()?;
        if let Err(error) = arriving.remove(&key) {
            tracing::debug!("what has arrived from {from} stays in the table: {error}");
        }
        Some(brought)
    }
}
