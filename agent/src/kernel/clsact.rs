//! The frame programs on kernels without tcx (before Linux 6.6): as filters of the clsact queueing discipline, tc-bpf(8).
//!
//! Everything here is about the thread's network namespace.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption,
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::{dump, order};
use super::sys::Way;

/// The priority of the filters: before all others.
const PRIORITY: u32 = 1;
/// `ETH_P_ALL`, include/uapi/linux/if_ether.h.
const ALL: u16 = 3;
/// The beginning of the names of this project's programs for devices.
const OURS: [&str; 2] = ["pr_frame", "pr_lan"];

/// The filter of an instance on a device: the number by which the instance knows its filters, the same on every device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The device's index.
    pub(super) device: u32,
    /// Which of its two sides.
    pub(super) way: Way,
    /// The filter's handle.
    pub(super) handle: u32,
}

/// What is at the place of an instance's filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occupant {
    /// Nothing.
    None,
    /// A program of this project's, by its id.
    Ours(u32),
    /// Somebody else's filter.
    Other,
}

impl Place {
    /// The place of an instance's filter on a device.
    pub(super) fn of(instance: &str, device: u32, way: Way) -> Self {
        // FNV-1a (Fowler, Noll, Vo), folded to 15 bits; 0 would let the kernel choose.
        let hash =
            instance.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        Self { device, way, handle: ((hash ^ hash >> 15) & 0x7fff) + 1 }
    }

    /// What is there.
    ///
    /// # Errors
    ///
    /// Those of netlink; a device without the queueing discipline has nothing there.
    pub(super) fn occupant(self) -> io::Result<Occupant> {
        let found = filters(self.device, side(self.way))?;
        let Some(filter) = found.iter().find(|filter| self.is_at(&filter.header)) else { return Ok(Occupant::None) };
        let (name, id) = program(filter);
        Ok(match id {
            Some(id) if name.is_some_and(|name| OURS.iter().any(|ours| name.starts_with(ours))) => Occupant::Ours(id),
            Some(_) | None => Occupant::Other,
        })
    }

    /// Puts a program there, in the place of the one that is there, in one step.
    ///
    /// # Errors
    ///
    /// Those of netlink.
    pub(super) fn put(self, program: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        let mut message = self.message();
        message.attributes = vec![
            TcAttribute::Kind(TcFilterBpf::KIND.to_owned()),
            TcAttribute::Options(
                [
                    TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32),
                    TcFilterBpfOption::ProgName(name.to_owned()),
                    TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
                ]
                .map(TcOption::Bpf)
                .into(),
            ),
        ];
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        order(NETLINK_ROUTE, RouteNetlinkMessage::NewTrafficFilter(message), flags, None)
    }

    /// Takes this project's program from there; somebody else's filter stays.
    ///
    /// # Errors
    ///
    /// Those of netlink.
    pub(super) fn clear(self) -> io::Result<()> {
        let Occupant::Ours(_) = self.occupant()? else { return Ok(()) };
        let mut message = self.message();
        message.attributes = vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())];
        order(NETLINK_ROUTE, RouteNetlinkMessage::DelTrafficFilter(message), 0, None)
    }

    fn message(self) -> TcMessage {
        let mut message = at(self.device, side(self.way));
        message.header.handle = self.handle.into();
        message.header.info = PRIORITY << 16 | u32::from(ALL.to_be());
        message
    }

    fn is_at(self, header: &TcHeader) -> bool {
        header.info >> 16 == PRIORITY && u32::from(header.handle) == self.handle
    }
}

/// Gives a device the queueing discipline; true when it had none.
///
/// # Errors
///
/// Those of netlink.
pub(super) fn add_discipline(device: u32) -> io::Result<bool> {
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    match order(NETLINK_ROUTE, RouteNetlinkMessage::NewQueueDiscipline(discipline(device)), flags, None) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            // The older one has its place, and one side for both ways.
            match kind(device)?.as_deref() {
                Some("ingress") => {
                    let why = "it has an ingress queueing discipline; replace it: tc qdisc replace dev … clsact";
                    Err(io::Error::other(why))
                }
                Some(_) | None => Ok(false),
            }
        }
        Err(error) => Err(error),
    }
}

/// Takes the queueing discipline from a device, unless somebody has filters there.
///
/// # Errors
///
/// Those of netlink.
pub(super) fn remove_discipline(device: u32) -> io::Result<()> {
    for side in [TcHandle::MIN_EGRESS, TcHandle::MIN_INGRESS] {
        if !filters(device, side)?.is_empty() {
            return Ok(());
        }
    }
    order(NETLINK_ROUTE, RouteNetlinkMessage::DelQueueDiscipline(discipline(device)), 0, None)
}

/// The kind of a device's queueing discipline for filters, if it has one.
fn kind(device: u32) -> io::Result<Option<String>> {
    let message = TcMessage::with_index(device as i32);
    let found = dump(NETLINK_ROUTE, RouteNetlinkMessage::GetQueueDiscipline(message))?;
    let of_filters = found.into_iter().find_map(|message| {
        let RouteNetlinkMessage::NewQueueDiscipline(found) = message else { return None };
        let ours = found.header.index == device as i32 && found.header.handle.major == u16::MAX;
        let name = |attribute| if let TcAttribute::Kind(kind) = attribute { Some(kind) } else { None };
        found.attributes.into_iter().filter(|_| ours).find_map(name)
    });
    Ok(of_filters)
}

fn discipline(device: u32) -> TcMessage {
    let mut message = at(device, TcHandle::CLSACT.minor);
    message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    message.attributes = vec![TcAttribute::Kind("clsact".to_owned())];
    message
}

/// A message about one side of the queueing discipline: `TcHandle::MIN_EGRESS` or `TcHandle::MIN_INGRESS`.
fn at(device: u32, side: u16) -> TcMessage {
    let mut message = TcMessage::with_index(device as i32);
    message.header.parent = TcHandle { major: u16::MAX, minor: side };
    message
}

fn side(way: Way) -> u16 {
    match way {
        Way::In => TcHandle::MIN_INGRESS,
        Way::Out => TcHandle::MIN_EGRESS,
    }
}

/// The filters on one side of a device.
fn filters(device: u32, side: u16) -> io::Result<Vec<TcMessage>> {
    let found = dump(NETLINK_ROUTE, RouteNetlinkMessage::GetTrafficFilter(at(device, side)))?;
    let filter =
        |message| if let RouteNetlinkMessage::NewTrafficFilter(filter) = message { Some(filter) } else { None };
    Ok(found.into_iter().filter_map(filter).collect())
}

/// The name and id of a filter's program.
fn program(filter: &TcMessage) -> (Option<&str>, Option<u32>) {
    let (mut name, mut id) = (None, None);
    for attribute in &filter.attributes {
        let TcAttribute::Options(options) = attribute else { continue };
        for option in options {
            let TcOption::Bpf(option) = option else { continue };
            if let TcFilterBpfOption::ProgName(found) = option {
                name = Some(found.as_str());
            } else if let TcFilterBpfOption::ProgId(found) = option {
                id = Some(*found);
            }
        }
    }
    (name, id)
}
