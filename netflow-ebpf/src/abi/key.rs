//! The five-tuple and the key of the flow map.

use super::plain::plain;

/// An IPv6 address, or an IPv4 address mapped into one (`::ffff:a.b.c.d`), in network byte order as in the packet. Words
/// rather than bytes so that the programs copy it in four loads.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Addr(pub [u32; 4]);

impl Addr {
    /// The third word of every mapped IPv4 address: bytes `00 00 ff ff`.
    pub const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

    /// From the four bytes of an IPv4 address, taken as one native word.
    #[inline]
    #[must_use]
    pub const fn v4(word: u32) -> Self {
        Self([0, 0, Self::MAPPED, word])
    }

    /// The sixteen bytes in network order (for `Ipv6Addr::from`, then `to_canonical()` for IPv4).
    #[must_use]
    pub fn octets(self) -> [u8; 16] {
        let mut octets = [0; 16];
        for (four, word) in octets.chunks_exact_mut(4).zip(self.0) {
            four.copy_from_slice(&word.to_ne_bytes());
        }
        octets
    }

    /// From sixteen bytes in network order.
    #[must_use]
    pub fn from_octets(octets: [u8; 16]) -> Self {
        let mut words = [0; 4];
        for (word, four) in words.iter_mut().zip(octets.chunks_exact(4)) {
            *word = u32::from_ne_bytes([four[0], four[1], four[2], four[3]]);
        }
        Self(words)
    }
}

/// Source and destination of one packet. Ports are in host byte order; for ICMP and `ICMPv6` `sport` is the identifier (0
/// where the message has none) and `dport` is `type << 8 | code`. A fragment that is not the first has ports 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Tuple {
    /// Source address.
    pub saddr: Addr,
    /// Destination address.
    pub daddr: Addr,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// IANA protocol number of the transport.
    pub proto: u8,
    /// 4 or 6; 0 = there is no tuple, everything else is 0 too.
    pub family: u8,
    /// Always 0.
    pub pad: u16,
}

impl Tuple {
    /// No tuple.
    pub const NONE: Self = Self {
        saddr: Addr([0; 4]),
        daddr: Addr([0; 4]),
        sport: 0,
        dport: 0,
        proto: 0,
        family: 0,
        pad: 0,
    };
}

/// [`FlowKey::dir`]: received through the interface.
pub const DIR_INGRESS: u8 = 0;
/// [`FlowKey::dir`]: sent through the interface.
pub const DIR_EGRESS: u8 = 1;

/// Key of the flow map: one tuple at one interface in one direction. Interfaces are those of the network namespace that the
/// programs were attached in ([`super::Layout::own_inum`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The packet's tuple as it stood at this place.
    pub tuple: Tuple,
    /// Interface.
    pub ifindex: u32,
    /// Outermost VLAN id, 0 for none.
    pub vlan: u16,
    /// [`DIR_INGRESS`] or [`DIR_EGRESS`].
    pub dir: u8,
    /// 0 = outer packet, 1 = carried inside a tunnel (always 0 in this version).
    pub depth: u8,
}

plain!(
    Addr = 16,
    Tuple = 16 + 16 + 2 + 2 + 1 + 1 + 2,
    FlowKey = 40 + 4 + 2 + 1 + 1
);

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    #[test]
    fn v4_is_mapped() {
        let word = u32::from_ne_bytes([10, 96, 0, 7]);
        let ip = Ipv6Addr::from(Addr::v4(word).octets()).to_canonical();
        assert_eq!(ip, IpAddr::V4(Ipv4Addr::new(10, 96, 0, 7)));
    }

    #[test]
    fn octets_round_trip() {
        let octets = Ipv6Addr::new(0xfd00, 1, 2, 3, 4, 5, 6, 0xabcd).octets();
        assert_eq!(Addr::from_octets(octets).octets(), octets);
    }
}
