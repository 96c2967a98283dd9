//! Packets made by hand, byte for byte, and a reader of what comes back.

use std::net::IpAddr;

/// Flags of TCP (RFC 9293 §3.1).
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;

/// Protocol numbers (IANA).
pub(crate) const IPV4: u8 = 4;
pub(crate) const TCP: u8 = 6;
pub(crate) const IPV6: u8 = 41;

/// A segment about to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) data: Vec<u8>,
}

impl Segment {
    /// A SYN without anything else.
    pub(crate) fn syn(from: &str, to: &str, dport: u16) -> Self {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        Self { from, to, sport: 40_000, dport, seq: 0xfedc_ba98, ack: 0, flags: SYN, data: Vec::new() }
    }

    /// Its TCP header and data, with a right checksum.
    pub(crate) fn tcp(&self) -> Vec<u8> {
        let mut bytes = [self.sport.to_be_bytes(), self.dport.to_be_bytes()].concat();
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.extend([5 << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        bytes.extend(&self.data);
        let sum = checksum(&[&pseudo(self.from, self.to, TCP, bytes.len()), &bytes]);
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// In the plainest packet of its family.
    pub(crate) fn packet(&self) -> Vec<u8> {
        match self.from {
            IpAddr::V4(_) => self.v4(&[], 0, TCP, &self.tcp()),
            IpAddr::V6(_) => self.v6(TCP, &self.tcp()),
        }
    }

    /// An IPv4 packet between its addresses (RFC 791 §3.1).
    pub(crate) fn v4(&self, options: &[u8], fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let header = 20 + options.len();
        let mut packet = vec![0x40 | (header / 4) as u8, 0];
        packet.extend(((header + payload.len()) as u16).to_be_bytes());
        packet.extend((self.seq as u16 ^ self.dport).to_be_bytes());
        packet.extend(fragment.to_be_bytes());
        packet.extend([64, protocol, 0, 0]);
        packet.extend(octets(self.from));
        packet.extend(octets(self.to));
        packet.extend(options);
        let sum = checksum(&[&packet]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(payload);
        packet
    }

    /// An IPv6 packet between its addresses (RFC 8200 §3).
    pub(crate) fn v6(&self, next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((payload.len() as u16).to_be_bytes());
        packet.extend([next, 64]);
        packet.extend(octets(self.from));
        packet.extend(octets(self.to));
        packet.extend(payload);
        packet
    }

    /// In an Ethernet frame.
    pub(crate) fn frame(&self, macs: Macs) -> Vec<u8> {
        macs.frame(&self.packet())
    }
}

/// Destination and source of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Macs(pub(crate) [u8; 6], pub(crate) [u8; 6]);

impl Macs {
    pub(crate) fn new(to: &str, from: &str) -> Self {
        Self(mac(to), mac(from))
    }

    /// A frame that carries an IP packet.
    pub(crate) fn frame(self, packet: &[u8]) -> Vec<u8> {
        self.tagged(&[], packet)
    }

    /// The same behind tags: kind and number, the outer one first (IEEE 802.1Q §9).
    pub(crate) fn tagged(self, tags: &[(u16, u16)], packet: &[u8]) -> Vec<u8> {
        let mut frame = [self.0, self.1].concat();
        for (kind, number) in tags {
            frame.extend(kind.to_be_bytes());
            frame.extend(number.to_be_bytes());
        }
        frame.extend(ethertype(packet).to_be_bytes());
        frame.extend(packet);
        frame
    }

    /// In a PPPoE session (RFC 2516 §4).
    pub(crate) fn session(self, packet: &[u8]) -> Vec<u8> {
        let mut frame = [self.0, self.1].concat();
        frame.extend([0x88, 0x64, 0x11, 0, 0, 7]);
        frame.extend((packet.len() as u16 + 2).to_be_bytes());
        frame.extend(if packet[0] >> 4 == 4 { [0, 0x21] } else { [0, 0x57] });
        frame.extend(packet);
        frame
    }

    /// With a type that is not the packet's.
    pub(crate) fn typed(self, kind: u16, payload: &[u8]) -> Vec<u8> {
        [&self.0[..], &self.1, &kind.to_be_bytes(), payload].concat()
    }
}

fn ethertype(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd }
}

pub(crate) fn mac(text: &str) -> [u8; 6] {
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The pseudo-header, in as much of it as counts for the sum (RFC 9293 §3.1, RFC 8200 §8.1).
fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    [octets(from), octets(to), vec![0, protocol], (length as u16).to_be_bytes().to_vec()].concat()
}

/// The Internet checksum over parts (RFC 1071); 0 over what has a right one in it.
fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An IP packet that has come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) payload: Vec<u8>,
}

/// The parts of a TCP header that an answer is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) ports: (u16, u16),
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
}

impl Packet {
    /// Reads an untagged frame's; `None` if it carries none, or one with something between IP header and payload.
    pub(crate) fn of_frame(frame: &[u8]) -> Option<Self> {
        matches!(frame.get(12..14)?, [0x08, 0] | [0x86, 0xdd]).then(|| Self::read(&frame[14..]))?
    }

    /// Reads it. The checksum of an IPv4 header must be right.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let address = |at: usize| -> Option<IpAddr> {
            let v4 = <[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?;
            Some(v4.into())
        };
        let wide = |at: usize| -> Option<IpAddr> { Some(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?.into()) };
        if bytes.first()? >> 4 == 4 {
            let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
            if bytes[0] & 0xf != 5 {
                return None;
            }
            assert_eq!(checksum(&[bytes.get(..20)?]), 0, "an IPv4 header: {bytes:x?}");
            let payload = bytes.get(20..length)?.to_vec();
            return Some(Self { from: address(12)?, to: address(16)?, protocol: bytes[9], payload });
        }
        let length = usize::from(u16::from_be_bytes([*bytes.get(4)?, *bytes.get(5)?]));
        let payload = bytes.get(40..40 + length)?.to_vec();
        Some(Self { from: wide(8)?, to: wide(24)?, protocol: bytes[6], payload })
    }

    /// Whether the checksum of what it carries is right.
    pub(crate) fn is_whole(&self) -> bool {
        let pseudo = pseudo(self.from, self.to, self.protocol, self.payload.len());
        // ICMP for IPv4 has none (RFC 792).
        let pseudo = if self.protocol == 1 { Vec::new() } else { pseudo };
        checksum(&[&pseudo, &self.payload]) == 0
    }

    /// The TCP header.
    pub(crate) fn answer(&self) -> Option<Answer> {
        let word = |at: usize| Some(u16::from_be_bytes(self.payload.get(at..at + 2)?.try_into().ok()?));
        let long = |at: usize| Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?));
        (self.protocol == TCP).then_some(())?;
        Some(Answer { ports: (word(0)?, word(2)?), seq: long(4)?, ack: long(8)?, flags: *self.payload.get(13)? })
    }
}
