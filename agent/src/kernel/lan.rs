//! What the gateway's programs have to know of this host: which devices are LAN interfaces, and its own addresses.

use std::collections::{BTreeMap, BTreeSet};

use portreeve_abi::{LAN_BRIDGED, OwnAddress};

use super::KernelError;
use super::devices::{self, Found};
use super::guard::Guard;

impl Guard {
    /// Tells the programs which devices are LAN interfaces.
    pub(super) fn follow_lan_devices(&mut self, found: &[Found]) {
        let lan = found.iter().filter(|found| found.lan);
        let now: BTreeMap<u32, u32> =
            lan.map(|found| (found.index, if found.bridged { LAN_BRIDGED } else { 0 })).collect();
        if now == self.frames.lan_devices {
            return;
        }
        match self.tell_lan_devices(&now) {
            Ok(()) => self.frames.lan_devices = now,
            Err(error) => tracing::error!("the programs do not know the LAN interfaces: {error}"),
        }
    }

    fn tell_lan_devices(&mut self, now: &BTreeMap<u32, u32>) -> Result<(), KernelError> {
        const DEVICES: &str = "PR_LAN_DEVICES";
        let mut map = self.hash::<u32, u32>(DEVICES)?;
        for (index, flags) in now {
            map.insert(index, flags, 0).map_err(|source| KernelError::map(DEVICES, source))?;
        }
        let known: Vec<u32> =
            map.keys().collect::<Result<_, _>>().map_err(|source| KernelError::map(DEVICES, source))?;
        for gone in known.iter().filter(|index| !now.contains_key(index)) {
            map.remove(gone).map_err(|source| KernelError::map(DEVICES, source))?;
        }
        Ok(())
    }

    /// This host's own addresses as the programs know them, IPv4 in its mapped form.
    #[must_use]
    pub fn own_addresses(&self) -> Vec<[u8; 16]> {
        self.frames.addresses.iter().copied().collect()
    }

    /// Tells the programs this host's own addresses.
    pub(super) fn follow_addresses(&mut self) {
        let told = devices::own_addresses().map_err(|error| error.to_string()).and_then(|now| {
            if now != self.frames.addresses {
                self.tell_addresses(&now).map_err(|error| error.to_string())?;
                self.frames.addresses = now;
            }
            Ok(())
        });
        if let Err(error) = told {
            tracing::error!("the gateway's own addresses are not known: {error}");
        }
    }

    /// New ones first, so that none is missing meanwhile.
    fn tell_addresses(&mut self, now: &BTreeSet<[u8; 16]>) -> Result<(), KernelError> {
        const OWN: &str = "PR_OWN";
        let mut map = self.hash::<OwnAddress, u8>(OWN)?;
        for address in now {
            let key = OwnAddress { address: *address };
            map.insert(key, 1, 0).map_err(|source| KernelError::map(OWN, source))?;
        }
        let known: Vec<OwnAddress> =
            map.keys().collect::<Result<_, _>>().map_err(|source| KernelError::map(OWN, source))?;
        for gone in known.iter().filter(|known| !now.contains(&known.address)) {
            map.remove(gone).map_err(|source| KernelError::map(OWN, source))?;
        }
        Ok(())
    }
}
