//! IPVS, which a Service proxy may use instead of rules: virtual servers as `/proc/net/ip_vs` lists them.
//!
//! Format: `ip_vs_info_seq_show` in `net/netfilter/ipvs/ip_vs_ctl.c`, v6.18. Where the module is not there, the file is
//! not either.

use crate::model::Proto;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A virtual server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Protocol.
    pub proto: Proto,
    /// Address and port that it answers on.
    pub at: SocketAddr,
    /// Real servers that new connections are sent to.
    pub backends: BTreeSet<SocketAddr>,
}

/// Virtual servers of the calling thread's network namespace.
pub fn read() -> io::Result<Vec<Server>> {
    match std::fs::read_to_string("/proc/thread-self/net/ip_vs") {
        Ok(text) => Ok(parse(&text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// Services by firewall mark have no address and are left out, with their real servers.
pub fn parse(text: &str) -> Vec<Server> {
    let mut servers: Vec<Server> = Vec::new();
    let mut listed = false;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        if first == "->" {
            let (at, weight) = (words.next().and_then(endpoint), words.nth(1));
            // Weight 0 takes no new connection.
            if let (true, Some(at), Some(server)) = (listed, at, servers.last_mut())
                && weight != Some("0")
            {
                server.backends.insert(at);
            }
            continue;
        }
        let at = words.next().and_then(endpoint);
        let server = Proto::parse(first).zip(at).map(|(proto, at)| Server {
            proto,
            at,
            backends: BTreeSet::new(),
        });
        listed = server.is_some();
        servers.extend(server);
    }
    servers
}

/// `0A600001:0050` or `[fd00:0096:…]:0050`.
fn endpoint(word: &str) -> Option<SocketAddr> {
    let (address, port) = word.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let ip = match address.strip_prefix('[').and_then(|a| a.strip_suffix(']')) {
        Some(v6) => IpAddr::V6(v6.parse().ok()?),
        None => IpAddr::V4(Ipv4Addr::from_bits(u32::from_str_radix(address, 16).ok()?)),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_and_real_servers() -> Result<(), std::net::AddrParseError> {
        let text = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A60000A:0050 rr persistent 10800 FFFFFFFF
  -> 0AF40102:1F90      Masq    1      0          0
  -> 0AF40103:1F90      Masq    0      3          0
UDP  [fd00:0096:0000:0000:0000:0000:0000:000a]:0035 rr
  -> [fd00:0244:0000:0000:0000:0000:0000:0002]:0035      Masq    1      0          0
FWM  00000001 rr
  -> 0AF40109:1F90      Masq    1      0          0
";
        let servers = parse(text);
        assert_eq!(
            servers,
            [
                Server {
                    proto: Proto::TCP,
                    at: "10.96.0.10:80".parse()?,
                    backends: ["10.244.1.2:8080".parse()?].into(),
                },
                Server {
                    proto: Proto::UDP,
                    at: "[fd00:96::a]:53".parse()?,
                    backends: ["[fd00:244::2]:53".parse()?].into(),
                },
            ]
        );
        for cut in 0..text.len() {
            assert!(parse(&text[..cut]).len() <= 2);
        }
        Ok(())
    }
}
