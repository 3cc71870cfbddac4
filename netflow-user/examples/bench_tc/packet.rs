//! Packets as the programs get them.

/// Address family of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A packet without payload in the middle of connection `number`: running it again is no retransmission.
pub fn ack(family: Family, number: u32) -> Vec<u8> {
    tcp(family, number, ACK)
}

/// The first packet of connection `number`.
pub fn syn(family: Family, number: u32) -> Vec<u8> {
    tcp(family, number, SYN)
}

/// Connections differ in address and port.
fn tcp(family: Family, number: u32, flags: u8) -> Vec<u8> {
    const TCP: u8 = 6;
    const HEADER: u8 = 20;
    let [_, high, middle, low] = number.to_be_bytes();
    let mut packet = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    match family {
        Family::V4 => {
            packet.extend([0x08, 0x00]);
            packet.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, TCP, 0, 0]);
            packet.extend([10, high, middle, low]);
            packet.extend([10, 96, 0, 10]);
        }
        Family::V6 => {
            packet.extend([0x86, 0xdd]);
            packet.extend([0x60, 0, 0, 0, 0, HEADER, TCP, 64]);
            packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, high, middle, low]);
            packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10]);
        }
    }
    packet.extend(40_000_u16.to_be_bytes());
    packet.extend(8080_u16.to_be_bytes());
    packet.extend(1_000_u32.to_be_bytes());
    packet.extend(if flags & ACK == 0 { 0 } else { 2_000_u32 }.to_be_bytes());
    packet.extend([HEADER << 2, flags, 0xff, 0xff, 0, 0, 0, 0]);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_their_lengths() {
        assert_eq!(ack(Family::V4, 0).len(), 14 + 20 + 20);
        assert_eq!(ack(Family::V6, 0).len(), 14 + 40 + 20);
    }

    #[test]
    fn connections_differ_in_their_addresses_only() {
        for family in Family::BOTH {
            let (one, two) = (syn(family, 1), syn(family, 0x0002_0001));
            let differing: Vec<usize> = (0..one.len()).filter(|&at| one[at] != two[at]).collect();
            let source = match family {
                Family::V4 => 14 + 12..14 + 16,
                Family::V6 => 14 + 8..14 + 24,
            };
            assert_eq!(differing.len(), 1);
            assert!(source.contains(&differing[0]), "{differing:?}");
        }
    }
}
