//! Whether a mail server listens for the programs of this host.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an answer is believed.
const FRESH: Duration = Duration::from_secs(5);
/// TCP_LISTEN of include/net/tcp_states.h, as /proc/net/tcp writes it.
const LISTEN: &str = "0A";
/// SMTP (RFC 5321 §4.5.4.2).
const PORT: &str = "0019";

/// Knows whether something listens on port 25 of the loopback, in the agent's network namespace.
#[derive(Debug, Default)]
pub struct LocalMta {
    known: Option<(Instant, bool)>,
}

impl LocalMta {
    /// Whether something listens; `None` when the kernel does not say.
    pub fn listens(&mut self) -> Option<bool> {
        if let Some((when, listens)) = self.known
            && when.elapsed() < FRESH
        {
            return Some(listens);
        }
        let listens = look(Path::new("/proc/self/net"))?;
        self.known = Some((Instant::now(), listens));
        Some(listens)
    }
}

fn look(net: &Path) -> Option<bool> {
    let v4 = listed(BufReader::new(File::open(net.join("tcp")).ok()?));
    // A kernel without IPv6 has no such file.
    let v6 = || File::open(net.join("tcp6")).is_ok_and(|file| listed(BufReader::new(file)));
    Some(v4 || v6())
}

/// Whether a listening socket that the loopback reaches is in a table. The kernel lists those that listen before all
/// others (tcp_seek_last_pos() of net/ipv4/tcp_ipv4.c), so that a host with many connections costs no more.
fn listed(table: impl BufRead) -> bool {
    let rows = table.lines().skip(1).map_while(Result::ok);
    let mut fields = rows.map(|row| {
        let mut fields = row.split_whitespace().skip(1);
        (fields.next().unwrap_or_default().to_owned(), fields.nth(1).unwrap_or_default().to_owned())
    });
    let listening = fields.by_ref().take_while(|(_, state)| state == LISTEN);
    listening.into_iter().any(|(local, _)| {
        local.split_once(':').is_some_and(|(address, port)| port == PORT && address_of(address).is_some_and(reached))
    })
}

/// Whether programs reach it by the loopback.
fn reached(address: IpAddr) -> bool {
    address.is_unspecified() || address.to_canonical().is_loopback()
}

/// An address as the table writes it: words of 32 bits in the machine's byte order, in hexadecimal digits.
fn address_of(digits: &str) -> Option<IpAddr> {
    let word = |index: usize| Some(u32::from_str_radix(digits.get(index * 8..index * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue\n";

    fn v4(address: [u8; 4], port: u16, state: &str) -> String {
        format!("   0: {:08X}:{port:04X} 00000000:0000 {state} 00000000:00000000\n", u32::from_ne_bytes(address))
    }

    #[test]
    fn only_a_listener_that_the_loopback_reaches_counts() {
        let found = |rows: &[String]| listed(format!("{HEAD}{}", rows.concat()).as_bytes());
        assert!(found(&[v4([127, 0, 0, 1], 25, "0A")]) && found(&[v4([0, 0, 0, 0], 25, "0A")]));
        assert!(found(&[v4([127, 0, 0, 1], 80, "0A"), v4([127, 0, 0, 3], 25, "0A")]));
        assert!(!found(&[v4([192, 0, 2, 1], 25, "0A")]) && !found(&[v4([127, 0, 0, 1], 587, "0A")]));
        // A connection from there is none that listens.
        assert!(!found(&[v4([127, 0, 0, 1], 25, "01")]) && !found(&[]));
    }

    #[test]
    fn addresses_of_both_families_are_read() {
        let v6 = |address: &str| {
            let octets = address.parse::<Ipv6Addr>().unwrap().octets();
            let words = octets.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap()));
            let digits: String = words.map(|word| format!("{word:08X}")).collect();
            address_of(&digits).is_some_and(reached)
        };
        assert!(v6("::") && v6("::1") && v6("::ffff:127.0.0.1"));
        assert!(!v6("2001:db8::1") && !v6("fe80::1"));
        assert_eq!(address_of("0100007"), None);
    }

    #[test]
    fn the_listeners_of_this_host_are_seen() {
        // Not port 25, which the host may have taken: another one is looked for in the same way.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = format!("{:04X}", listener.local_addr().unwrap().port());
        let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        assert!(listed(table.replace(&format!(":{port} "), &format!(":{PORT} ")).as_bytes()), "{table}");
        assert!(LocalMta::default().listens().is_some());
    }
}
