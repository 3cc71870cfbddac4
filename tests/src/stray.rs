//! A TCP segment that belongs to a connection by its addresses and lies far outside of its window: what conntrack calls
//! INVALID.

use std::net::{IpAddr, SocketAddr};

/// So far beyond what was acknowledged no window reaches (RFC 7323: 1 GiB).
const FAR: u32 = 1 << 30;
const HEADER: usize = 20;
/// PSH and ACK.
const FLAGS: u8 = 0x18;

/// The segment that `own` sends after `packet`, one from `peer` with data; `None` for any other packet. It acknowledges all that
/// came, so that who resets it resets the connection. As raw sockets hand packets over: with IPv4's header, without IPv6's
/// (raw(7), ipv6(7)).
pub fn answer(packet: &[u8], own: SocketAddr, peer: SocketAddr) -> Option<Vec<u8>> {
    let header = if own.is_ipv4() {
        usize::from(packet.first()? & 15) * 4
    } else {
        0
    };
    let tcp = packet.get(header..)?;
    let ports = (number(tcp, 0, 2)?, number(tcp, 2, 2)?);
    let data = tcp.len().checked_sub(usize::from(tcp.get(12)? >> 4) * 4)?;
    if ports != (u32::from(peer.port()), u32::from(own.port())) || data == 0 {
        return None;
    }
    let seq = number(tcp, 8, 4)?.wrapping_add(FAR);
    let ack = number(tcp, 4, 4)?.wrapping_add(data as u32);
    let mut segment = Vec::with_capacity(HEADER + 1);
    segment.extend(own.port().to_be_bytes());
    segment.extend(peer.port().to_be_bytes());
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([5 << 4, FLAGS, 1, 0, 0, 0, 0, 0, b'x']);
    let sum = checksum(&segment, own.ip(), peer.ip());
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    Some(segment)
}

/// A big-endian number of `len` bytes.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + len)?;
    Some(bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Over the segment and its pseudo header (RFC 9293, 3.1; IPv6's has wider fields with the same sum, RFC 8200, 8.1).
fn checksum(segment: &[u8], from: IpAddr, to: IpAddr) -> u16 {
    let mut bytes = [octets(from), octets(to)].concat();
    bytes.extend([0, 6]);
    bytes.extend((segment.len() as u16).to_be_bytes());
    bytes.extend(segment);
    let words = bytes.chunks(2).map(|w| {
        let low = w.get(1).copied().unwrap_or(0);
        u32::from(w[0]) << 8 | u32::from(low)
    });
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    fn packet(family: &str, data: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        if family == "IPv4" {
            bytes.push(0x45);
            bytes.resize(20, 0);
        }
        let header = bytes.len();
        bytes.extend([0x9c, 0x40, 0x1f, 0x90]);
        bytes.extend(7_u32.to_be_bytes());
        bytes.extend(9_u32.to_be_bytes());
        bytes.extend([5 << 4, FLAGS, 1, 0, 0, 0, 0, 0]);
        bytes.resize(header + 20 + data, 1);
        bytes
    }

    #[test]
    fn it_acknowledges_what_came_and_lies_far_ahead() {
        for (family, own, peer) in [
            ("IPv4", [10, 0, 0, 2].into(), [10, 0, 0, 1].into()),
            (
                "IPv6",
                Ipv6Addr::LOCALHOST.into(),
                Ipv6Addr::UNSPECIFIED.into(),
            ),
        ] {
            let (own, peer) = (SocketAddr::new(own, 8080), SocketAddr::new(peer, 40_000));
            let segment = answer(&packet(family, 5), own, peer).unwrap_or_default();
            assert_eq!(number(&segment, 4, 4), Some(9 + FAR));
            assert_eq!(number(&segment, 8, 4), Some(12));
            assert_eq!(
                checksum(&segment, own.ip(), peer.ip()),
                0,
                "sums to nothing with its checksum"
            );
            let alone = answer(&packet(family, 0), own, peer);
            assert_eq!(alone, None, "an acknowledgement alone");
            let other = answer(&packet(family, 5), peer, own);
            assert_eq!(other, None, "of another connection");
        }
    }
}
