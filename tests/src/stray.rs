//! A TCP segment that belongs to a connection by its addresses and lies far outside of its window: what conntrack calls
//! INVALID.

use std::net::SocketAddrV4;

/// So far beyond what was acknowledged no window reaches (RFC 7323: 1 GiB).
const FAR: u32 = 1 << 30;
const HEADER: usize = 20;
/// PSH and ACK.
const FLAGS: u8 = 0x18;

/// The segment that `own` sends after `packet`, an IPv4 packet from `peer` with data; `None` for any other packet. It
/// acknowledges all that came, so that who resets it resets the connection.
pub fn answer(packet: &[u8], own: SocketAddrV4, peer: SocketAddrV4) -> Option<Vec<u8>> {
    let header = usize::from(packet.first()? & 15) * 4;
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
    let sum = checksum(&segment, own, peer);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    Some(segment)
}

/// A big-endian number of `len` bytes.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + len)?;
    Some(bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
}

/// Over the segment and its pseudo header (RFC 9293, 3.1).
fn checksum(segment: &[u8], from: SocketAddrV4, to: SocketAddrV4) -> u16 {
    let mut bytes = [from.ip().octets(), to.ip().octets()].concat();
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
    use std::net::Ipv4Addr;

    fn packet(data: usize) -> Vec<u8> {
        let mut bytes = vec![0x45];
        bytes.resize(20, 0);
        bytes.extend([0x9c, 0x40, 0x1f, 0x90]);
        bytes.extend(7_u32.to_be_bytes());
        bytes.extend(9_u32.to_be_bytes());
        bytes.extend([5 << 4, FLAGS, 1, 0, 0, 0, 0, 0]);
        bytes.resize(40 + data, 1);
        bytes
    }

    #[test]
    fn it_acknowledges_what_came_and_lies_far_ahead() {
        let own = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 8080);
        let peer = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 40_000);
        let segment = answer(&packet(5), own, peer).unwrap_or_default();
        assert_eq!(number(&segment, 4, 4), Some(9 + FAR));
        assert_eq!(number(&segment, 8, 4), Some(12));
        assert_eq!(
            checksum(&segment, own, peer),
            0,
            "sums to nothing with its checksum"
        );
        assert_eq!(
            answer(&packet(0), own, peer),
            None,
            "an acknowledgement alone"
        );
        assert_eq!(answer(&packet(5), peer, own), None, "of another connection");
    }
}
