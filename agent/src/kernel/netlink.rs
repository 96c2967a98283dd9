//! Questions and orders to the kernel over netlink(7).

use std::fmt::Debug;
use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// Gives an order, and waits until it is carried out.
///
/// `number` takes the place of the message's own type, where the crates do not know it.
///
/// # Errors
///
/// The kernel's.
pub(super) fn order<M: Message>(protocol: isize, message: M, flags: u16, number: Option<u16>) -> io::Result<()> {
    let socket = send(protocol, message, NLM_F_ACK | flags, number)?;
    let mut unused = Vec::new();
    receive::<M>(&socket, &mut unused)
}

/// Asks for all there is.
///
/// # Errors
///
/// The kernel's.
pub(super) fn dump<M: Message>(protocol: isize, message: M) -> io::Result<Vec<M>> {
    let socket = send(protocol, message, NLM_F_DUMP, None)?;
    let mut found = Vec::new();
    receive(&socket, &mut found)?;
    Ok(found)
}

/// A message of one of the protocols.
pub(super) trait Message: NetlinkSerializable + NetlinkDeserializable + Debug {}

impl<M: NetlinkSerializable + NetlinkDeserializable + Debug> Message for M {}

fn send<M: Message>(protocol: isize, message: M, flags: u16, number: Option<u16>) -> io::Result<Socket> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    if let Some(number) = number {
        message.header.message_type = number;
    }
    let mut buffer = vec![0; message.header.length as usize];
    message.serialize(&mut buffer);
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.send_to(&buffer, &SocketAddr::new(0, 0), 0)?;
    Ok(socket)
}

/// Reads up to the end of a dump, or to the answer to an order.
fn receive<M: Message>(socket: &Socket, found: &mut Vec<M>) -> io::Result<()> {
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<M>::deserialize(rest).map_err(io::Error::other)?;
            // Each message begins at a multiple of four bytes (NLMSG_ALIGN, include/uapi/linux/netlink.h).
            let length = (message.header.length as usize).next_multiple_of(4).clamp(4, rest.len());
            rest = rest.get(length..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => {
                    return error.code.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(-code.get())));
                }
                NetlinkPayload::InnerMessage(inner) => found.push(inner),
                NetlinkPayload::Overrun(_) => return Err(io::Error::other("the kernel has lost a part of its answer")),
                NetlinkPayload::Noop | _ => {}
            }
        }
    }
}
