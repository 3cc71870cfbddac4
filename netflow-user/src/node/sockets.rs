//! Sockets of the thread's network namespace: by `sock_diag` where it is there, else from `/proc`.

use super::modules::{Part, TCP_DIAG, UDP_DIAG};
use super::netlink::{Message, Netlink, NetlinkError, Request, be16_at, bytes_at, u32_at};
use crate::model::Proto;
use crate::model::node::{Listener, TcpSocket};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

/// `SOCK_DIAG_BY_FAMILY` (`include/uapi/linux/sock_diag.h`).
const BY_FAMILY: u16 = 20;
/// `INET_DIAG_INFO`, `INET_DIAG_SKV6ONLY` (`include/uapi/linux/inet_diag.h`).
const INFO: u16 = 2;
const SKV6ONLY: u16 = 11;
/// `TCP_CLOSE`: a UDP socket that is bound and not connected. `TCP_LISTEN`.
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;
/// `TCP_TIME_WAIT`, `TCP_NEW_SYN_RECV`: no socket, only a remembrance of one.
const NOT_SOCKETS: [u8; 2] = [6, 12];
/// More connected sockets than this of one namespace are not kept; those in trouble come first.
const MOST: usize = 512;

/// The sockets that matter of one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sockets {
    /// What waits for connections or datagrams.
    pub listeners: Vec<Listener>,
    /// What is connected and touches an address asked about.
    pub connected: Vec<TcpSocket>,
    /// What is less than it could be, and why.
    pub shortcoming: Option<&'static str>,
}

/// Sockets could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    /// By netlink.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// From `/proc`.
    #[error("/proc/net: {0}")]
    Proc(#[from] io::Error),
}

/// Reads listening sockets, and the connected TCP sockets that touch one of `wanted`.
pub fn read(wanted: &BTreeSet<IpAddr>) -> Result<Sockets, SocketsError> {
    let mut found = Sockets::default();
    let tcp = read_protocol(&mut found, Proto::TCP, TCP_DIAG, wanted)?;
    let udp = read_protocol(&mut found, Proto::UDP, UDP_DIAG, wanted)?;
    if !(tcp && udp) {
        found.shortcoming = Some(
            "the modules tcp_diag and udp_diag are not loaded, and netflow loads none: \
             /proc/net has no backlog, no path MTU and no IPV6_V6ONLY",
        );
    }
    let handed_out = handed_out_ports();
    for l in found.listeners.iter_mut().filter(|l| l.proto == Proto::UDP) {
        l.ephemeral = handed_out.contains(&l.addr.port());
    }
    // A socket that retransmits says more than one at rest.
    found
        .connected
        .sort_by_key(|s| (std::cmp::Reverse(s.total_retrans), s.local, s.remote));
    found.connected.truncate(MOST);
    Ok(found)
}

/// Ports that sockets get which ask for none, in the thread's namespace; none if it cannot be told
/// (`inet_get_local_port_range` in include/net/ip.h, v6.18).
fn handed_out_ports() -> RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    port_range(&text).unwrap_or(RangeInclusive::new(1, 0))
}

pub(super) fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ends = text.split_ascii_whitespace().map(str::parse);
    let (low, high) = (ends.next()?.ok()?, ends.next()?.ok()?);
    Some(low..=high)
}

/// Returns whether `sock_diag` could be used.
fn read_protocol(
    found: &mut Sockets,
    proto: Proto,
    part: Part,
    wanted: &BTreeSet<IpAddr>,
) -> Result<bool, SocketsError> {
    if !part.is_present() {
        from_proc(found, proto, wanted)?;
        return Ok(false);
    }
    let mut diag = Netlink::open(libc::NETLINK_SOCK_DIAG)?;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = u8::try_from(family).unwrap_or(0);
        match diag.dump(&request(family, proto), |m| socket(&m, proto, wanted)) {
            Ok(sockets) => {
                for s in sockets {
                    match s {
                        Socket::Listening(l) => found.listeners.push(l),
                        Socket::Connected(c) => found.connected.push(c),
                    }
                }
            }
            // A kernel without this protocol, or without IPv6.
            Err(e) if e.errno() == Some(libc::ENOENT) => {
                from_proc(found, proto, wanted)?;
                return Ok(false);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(true)
}

fn request(family: u8, proto: Proto) -> Request {
    // struct inet_diag_req_v2: family, protocol, ext, pad, states (u32), id (48 bytes)
    let mut fixed = [0_u8; 56];
    fixed[0] = family;
    fixed[1] = proto.0;
    fixed[2] = 1 << (INFO - 1);
    fixed[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    Request::new(BY_FAMILY, &fixed)
}

pub(super) enum Socket {
    Listening(Listener),
    Connected(TcpSocket),
}

pub(super) fn socket(
    message: &Message<'_>,
    proto: Proto,
    wanted: &BTreeSet<IpAddr>,
) -> Option<Socket> {
    if message.kind != BY_FAMILY {
        return None;
    }
    // struct inet_diag_msg: family, state, timer, retrans, id (48), expires, rqueue, wqueue, uid, inode (u32 each)
    let (fixed, mut attributes) = message.split::<72>()?;
    let [family, state, ..] = *fixed;
    if NOT_SOCKETS.contains(&state) {
        return None;
    }
    let local = SocketAddr::new(ip(family, fixed, 8)?, be16_at(fixed, 4)?);
    let remote = SocketAddr::new(ip(family, fixed, 24)?, be16_at(fixed, 6)?);
    let (rqueue, wqueue) = (u32_at(fixed, 56)?, u32_at(fixed, 60)?);
    if waits(proto, state) {
        return Some(Socket::Listening(Listener {
            proto,
            addr: local,
            v6only: attributes.any(|(kind, value)| kind == SKV6ONLY && value == [1]),
            queue: if proto == Proto::TCP { rqueue } else { 0 },
            backlog: if proto == Proto::TCP { wqueue } else { 0 },
            ephemeral: false,
        }));
    }
    let (local, remote) = (plain(local), plain(remote));
    if proto != Proto::TCP || !(wanted.contains(&local.ip()) || wanted.contains(&remote.ip())) {
        return None;
    }
    let info = attributes
        .find(|(kind, _)| *kind == INFO)
        .map(|(_, value)| value)
        .unwrap_or_default();
    // struct tcp_info: 8 bytes, then numbers of 4 bytes each
    let number = |at| u32_at(info, at).unwrap_or(0);
    Some(Socket::Connected(TcpSocket {
        local,
        remote,
        state,
        pmtu: number(60),
        snd_mss: number(16),
        total_retrans: number(100),
        unacked: wqueue,
    }))
}

fn waits(proto: Proto, state: u8) -> bool {
    state == if proto == Proto::TCP { LISTEN } else { CLOSE }
}

fn ip(family: u8, fixed: &[u8], at: usize) -> Option<IpAddr> {
    if i32::from(family) == libc::AF_INET6 {
        bytes_at::<16>(fixed, at).map(Into::into)
    } else {
        bytes_at::<4>(fixed, at).map(Into::into)
    }
}

/// An IPv4 connection of an IPv6 socket, as the packets show it.
fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

fn from_proc(found: &mut Sockets, proto: Proto, wanted: &BTreeSet<IpAddr>) -> io::Result<()> {
    let name = if proto == Proto::TCP { "tcp" } else { "udp" };
    for file in [name.to_owned(), format!("{name}6")] {
        match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
            Ok(text) => {
                for line in text.lines().skip(1) {
                    match line_socket(line, proto, wanted) {
                        Some(Socket::Listening(l)) => found.listeners.push(l),
                        Some(Socket::Connected(c)) => found.connected.push(c),
                        None => {}
                    }
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// A line of `/proc/net/{tcp,udp}{,6}`: number, local, remote, state, send queue:receive queue, …
pub(super) fn line_socket(line: &str, proto: Proto, wanted: &BTreeSet<IpAddr>) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = proc_address(fields.next()?)?;
    let remote = proc_address(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let (send, receive) = fields.next()?.split_once(':')?;
    let hex = |s| u32::from_str_radix(s, 16).ok();
    if NOT_SOCKETS.contains(&state) {
        return None;
    }
    if waits(proto, state) {
        return Some(Socket::Listening(Listener {
            proto,
            addr: local,
            v6only: false,
            queue: if proto == Proto::TCP {
                hex(receive)?
            } else {
                0
            },
            backlog: 0,
            ephemeral: false,
        }));
    }
    let (local, remote) = (plain(local), plain(remote));
    let touches = wanted.contains(&local.ip()) || wanted.contains(&remote.ip());
    (proto == Proto::TCP && touches).then_some(Socket::Connected(TcpSocket {
        local,
        remote,
        state,
        pmtu: 0,
        snd_mss: 0,
        total_retrans: 0,
        unacked: hex(send)?,
    }))
}

/// `0100007F:1F90`: words of four bytes in the host's byte order, then the port.
fn proc_address(field: &str) -> Option<SocketAddr> {
    let (ip, port) = field.split_once(':')?;
    let words = ip
        .as_bytes()
        .chunks(8)
        .map(|w| u32::from_str_radix(std::str::from_utf8(w).ok()?, 16).ok())
        .collect::<Option<Vec<u32>>>()?;
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
    let ip: IpAddr = match *words {
        [_] => Ipv4Addr::from(bytes_at::<4>(&bytes, 0)?).into(),
        [_, _, _, _] => Ipv6Addr::from(bytes_at::<16>(&bytes, 0)?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::netlink::tests::{attributes, torture};
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn diag(family: u8, state: u8, ends: [(&[u8], u16); 2], queues: [u32; 2]) -> Vec<u8> {
        let mut bytes = vec![family, state, 0, 0];
        for (_, port) in ends {
            bytes.extend(port.to_be_bytes());
        }
        for (ip, _) in ends {
            bytes.extend(ip);
            bytes.resize(bytes.len() + 16 - ip.len(), 0);
        }
        bytes.resize(56, 0);
        bytes.extend(queues[0].to_ne_bytes());
        bytes.extend(queues[1].to_ne_bytes());
        bytes.resize(72, 0);
        bytes
    }

    fn read_diag(payload: &[u8], wanted: [u8; 4]) -> Option<Socket> {
        let kind = BY_FAMILY;
        let wanted = [IpAddr::from(wanted)].into();
        socket(&Message { kind, payload }, Proto::TCP, &wanted)
    }

    #[test]
    fn a_listener_with_its_queue() {
        let mut bytes = diag(10, LISTEN, [(&[0; 16], 8080), (&[0; 16], 0)], [3, 128]);
        bytes.extend(attributes(&[(SKV6ONLY, &[1])]));
        let Some(Socket::Listening(l)) = read_diag(&bytes, [10, 0, 0, 1]) else {
            panic!("a listener");
        };
        assert_eq!(l.addr, "[::]:8080".parse().unwrap());
        assert_eq!((l.queue, l.backlog, l.v6only), (3, 128, true));
        torture(&bytes, |b| read_diag(b, [10, 0, 0, 1]).is_some());
    }

    #[test]
    fn a_mapped_connection_is_an_ipv4_one() {
        let mapped = |last| Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped().octets();
        let mut info = vec![0_u8; 104];
        info[16..20].copy_from_slice(&1348_u32.to_ne_bytes());
        info[60..64].copy_from_slice(&1400_u32.to_ne_bytes());
        info[100..104].copy_from_slice(&9_u32.to_ne_bytes());
        let ends: [(&[u8], u16); 2] = [(&mapped(1), 8080), (&mapped(2), 40_000)];
        let mut bytes = diag(10, 1, ends, [0, 5792]);
        bytes.extend(attributes(&[(INFO, &info)]));
        let Some(Socket::Connected(c)) = read_diag(&bytes, [10, 0, 0, 2]) else {
            panic!("a connection");
        };
        assert_eq!(c.remote, "10.0.0.2:40000".parse().unwrap());
        assert_eq!(
            (c.pmtu, c.snd_mss, c.total_retrans, c.unacked),
            (1400, 1348, 9, 5792)
        );
        assert!(read_diag(&bytes, [10, 0, 0, 3]).is_none());
        torture(&bytes, |b| read_diag(b, [10, 0, 0, 2]).is_some());
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_proc() {
        let wanted = [IpAddr::from([10, 0, 0, 2])].into();
        let line =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000002 00:00000000 00000000 0 0 1";
        let Some(Socket::Listening(l)) = line_socket(line, Proto::TCP, &wanted) else {
            panic!("a listener");
        };
        assert_eq!((l.addr, l.queue), ("127.0.0.1:8080".parse().unwrap(), 2));
        assert!(l.is_loopback());
        let line = "1: 0000000000000000FFFF00000100000A:1F90 0000000000000000FFFF00000200000A:9C40 01 00000010:0 0";
        let Some(Socket::Connected(c)) = line_socket(line, Proto::TCP, &wanted) else {
            panic!("a connection");
        };
        assert_eq!(c.local, "10.0.0.1:8080".parse().unwrap());
        assert_eq!(c.unacked, 16);
        torture(line.as_bytes(), |b| {
            line_socket(&String::from_utf8_lossy(b), Proto::TCP, &wanted).is_some()
        });
    }

    #[test]
    fn both_ways_find_the_same_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let by_diag = read(&BTreeSet::new()).unwrap();
        let mut by_proc = Sockets::default();
        from_proc(&mut by_proc, Proto::TCP, &BTreeSet::new()).unwrap();
        for found in [by_diag, by_proc] {
            assert!(found.listeners.iter().any(|l| l.addr == addr));
        }
    }

    #[test]
    fn udp_sockets_that_asked_for_no_port_are_told_apart() {
        assert_eq!(port_range("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(port_range(""), None);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = client.local_addr().unwrap();
        let found = read(&BTreeSet::new()).unwrap();
        let of = |a| {
            found
                .listeners
                .iter()
                .find(|l| l.proto == Proto::UDP && l.addr == a)
        };
        assert!(of(addr).is_some_and(|l| l.ephemeral));
    }
}
