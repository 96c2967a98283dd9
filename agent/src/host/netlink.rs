//! Messages of rtnetlink(7) read piece by piece.
//!
//! The types of netlink-packet-route are only used for questions: they take a message with one attribute that they do not
//! understand for unreadable as a whole, and a newer kernel's device would be none. Here an attribute that is not known is
//! passed by.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use thiserror::Error;

/// How often a list is asked for that changes while the kernel tells it.
const TRIES: usize = 4;

/// The kernel does not tell what there is.
#[derive(Debug, Error)]
pub enum RouteError {
    /// A question.
    #[error("cannot ask the kernel for its {what}: {source}")]
    Ask {
        /// What was asked for.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The news.
    #[error("cannot follow the kernel's changes of devices and neighbours: {0}")]
    Follow(#[source] io::Error),
}

/// What the kernel says in one message: its type (`RTM_…`) and what follows its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) kind: u16,
    pub(super) body: Vec<u8>,
}

/// Asks for all there is of something.
pub(super) fn dump(question: RouteNetlinkMessage) -> io::Result<Vec<Said>> {
    let mut message = request(question, NLM_F_DUMP);
    for _ in 0..TRIES {
        let socket = send(&mut message)?;
        let (said, whole) = answers(&socket, true)?;
        if whole {
            return Ok(said);
        }
    }
    Err(io::Error::other("the list changes faster than the kernel can tell it"))
}

/// Asks for one thing.
pub(super) fn ask(question: RouteNetlinkMessage) -> io::Result<Option<Said>> {
    let socket = send(&mut request(question, 0))?;
    Ok(answers(&socket, false)?.0.pop())
}

/// Takes apart what came in one piece: each message's type, flags and body.
pub(super) fn messages(bytes: &[u8]) -> impl Iterator<Item = (u16, u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(rest).ok()?;
        let length = (message.length() as usize).max(1);
        // Each message begins at a multiple of four bytes (NLMSG_ALIGN, include/uapi/linux/netlink.h).
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((message.message_type(), message.flags(), message.payload()))
    })
}

/// The attributes of a message or of an attribute that has some: type and value, up to the first that is damaged.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let kind = attribute.kind();
        let value = attribute.into_inner();
        let length = usize::from(u16::from_ne_bytes([value[0], value[1]]));
        (kind, value.get(4..length).unwrap_or_default())
    })
}

/// A number of four bytes in the machine's order.
pub(super) fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

/// A text up to its zero byte.
pub(super) fn text(value: &[u8]) -> Option<String> {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    std::str::from_utf8(value.get(..end)?).ok().map(str::to_owned)
}

fn request(question: RouteNetlinkMessage, flags: u16) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question))
}

fn send(message: &mut NetlinkMessage<RouteNetlinkMessage>) -> io::Result<Socket> {
    message.finalize();
    let mut bytes = vec![0; message.header.length as usize];
    message.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    Ok(socket)
}

/// Reads up to the end of a list, or to the one answer; and whether the list is whole.
fn answers(socket: &Socket, list: bool) -> io::Result<(Vec<Said>, bool)> {
    let (mut said, mut whole) = (Vec::new(), true);
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        for (kind, flags, body) in messages(&bytes) {
            whole &= flags & NLM_F_DUMP_INTR == 0;
            match kind {
                NLMSG_DONE => return Ok((said, whole)),
                NLMSG_ERROR => {
                    let code = body.get(..4).and_then(number).unwrap_or_default() as i32;
                    if code == 0 {
                        return Ok((said, whole));
                    }
                    return Err(io::Error::from_raw_os_error(-code));
                }
                kind => said.push(Said { kind, body: body.to_owned() }),
            }
        }
        if !list {
            return Ok((said, whole));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn damaged_attributes_end_the_list() {
        let good = [8, 0, 3, 0, 1, 2, 3, 4];
        let read = |bytes: &[u8]| attributes(bytes).map(|(kind, value)| (kind, value.to_owned())).collect::<Vec<_>>();
        assert_eq!(read(&good), [(3, vec![1, 2, 3, 4])]);
        assert_eq!(read(&[&good[..], &[200, 0, 1, 0]].concat()), [(3, vec![1, 2, 3, 4])]);
        assert_eq!(read(&[&good[..], &[0, 0, 1, 0]].concat()), [(3, vec![1, 2, 3, 4])]);
        assert_eq!(text(b"lan0\0\0"), Some("lan0".to_owned()));
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reading(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (_, _, body) in messages(&bytes) {
                for (_, value) in attributes(body) {
                    prop_assert!(attributes(value).count() <= value.len());
                }
            }
        }
    }
}
