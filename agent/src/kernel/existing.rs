//! Connections that are there already when a policy comes into force.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv6Addr};

use aya::programs::Iter;
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use portreeve_abi::{Existing, PROGRAM_EXISTING};
use serde::{Deserialize, Serialize};

use super::guard::{Guard, program_mut};
use super::{KernelError, netlink, netns, sys};

/// `SOCK_DESTROY`, include/uapi/linux/sock_diag.h.
const SOCK_DESTROY: u16 = 21;

/// What became of the connections that the policy refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Reset, at both ends.
    pub destroyed: usize,
    /// Not to be had from this kernel; the packet programs let nothing of theirs through any more.
    pub starved: usize,
}

impl Guard {
    /// Judges every connection to a guarded port by the policy in force, or the one that is coming, and ends those that
    /// it refuses.
    ///
    /// # Errors
    ///
    /// When the kernel does not run the search.
    pub fn judge_existing(&mut self) -> Result<Ended, KernelError> {
        let refused = self.search()?;
        let mut ended = Ended::default();
        if refused.is_empty() {
            return Ok(ended);
        }
        let mut by_namespace: BTreeMap<u32, Vec<Existing>> = BTreeMap::new();
        for connection in refused {
            by_namespace.entry(connection.connection.netns).or_default().push(connection);
        }
        let (namespaces, _) = netns::all(|_| true).map_err(KernelError::Existing)?;
        for (namespace, connections) in by_namespace {
            let destroyed = match namespaces.get(&u64::from(namespace)) {
                Some(file) => destroy_within(file, &connections),
                None => 0,
            };
            ended.destroyed += destroyed;
            ended.starved += connections.len() - destroyed;
        }
        Ok(ended)
    }

    /// Runs the iterator: it judges, counts and reports in the kernel, and writes down what is to be ended.
    fn search(&mut self) -> Result<Vec<Existing>, KernelError> {
        let fail = |source| KernelError::program("iterator", source);
        let program: &mut Iter = program_mut(&mut self.ebpf, PROGRAM_EXISTING)?;
        let id = program.attach().map_err(fail)?;
        let link = program.take_link(id).map_err(fail)?;
        let mut file = link.into_file().map_err(|error| KernelError::Existing(io::Error::other(error)))?;
        let mut written = Vec::new();
        file.read_to_end(&mut written).map_err(KernelError::Existing)?;
        Ok(sys::decode_existing(&written).collect())
    }
}

fn destroy_within(namespace: &File, connections: &[Existing]) -> usize {
    let destroyed = netns::within(namespace, || {
        connections
            .iter()
            .filter(|connection| destroy(connection).inspect_err(|e| tracing::debug!("{e}")).is_ok())
            .count()
    });
    destroyed.inspect_err(|error| tracing::warn!("cannot enter a network namespace: {error}")).unwrap_or(0)
}

/// Asks the kernel to end a connection as if its program had (`tcp_abort`, net/ipv4/tcp.c).
fn destroy(connection: &Existing) -> io::Result<()> {
    let v4 = i32::from(connection.connection.family) == libc::AF_INET;
    let address = |bytes: [u8; 16]| {
        let address = Ipv6Addr::from(bytes);
        if v4 { address.to_canonical() } else { IpAddr::V6(address) }
    };
    let request = InetRequest {
        family: connection.connection.family as u8,
        protocol: libc::IPPROTO_TCP as u8,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: SocketId {
            source_port: connection.connection.sport,
            destination_port: connection.connection.dport,
            source_address: address(connection.saddr),
            destination_address: address(connection.daddr),
            interface_id: 0,
            cookie: [0xff; 8],
        },
    };
    // The crate knows the question only, not the order in the same form.
    netlink::order(NETLINK_SOCK_DIAG, SockDiagMessage::InetRequest(request), 0, Some(SOCK_DESTROY))
}
