//! The five-tuple.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// IANA protocol number of the transport (of the ICMP family for ICMP).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Proto(pub u8);

impl Proto {
    /// ICMP for IPv4.
    pub const ICMP: Proto = Proto(1);
    /// IPv4 in IP.
    pub const IPIP: Proto = Proto(4);
    /// TCP.
    pub const TCP: Proto = Proto(6);
    /// UDP.
    pub const UDP: Proto = Proto(17);
    /// IPv6 in IP.
    pub const IPV6: Proto = Proto(41);
    /// GRE.
    pub const GRE: Proto = Proto(47);
    /// ICMP for IPv6.
    pub const ICMPV6: Proto = Proto(58);
    /// SCTP.
    pub const SCTP: Proto = Proto(132);

    /// Whether ports mean something for this protocol.
    pub fn has_ports(self) -> bool {
        matches!(self, Proto::TCP | Proto::UDP | Proto::SCTP)
    }

    /// Whether it carries the packets of a tunnel, which two addresses are enough to tell apart.
    pub fn encapsulates(self) -> bool {
        matches!(self, Proto::IPIP | Proto::IPV6 | Proto::GRE)
    }

    /// From Kubernetes' spelling (`TCP`, `UDP`, `SCTP`, any case).
    pub fn parse(name: &str) -> Option<Proto> {
        match name.to_ascii_uppercase().as_str() {
            "TCP" => Some(Proto::TCP),
            "UDP" => Some(Proto::UDP),
            "SCTP" => Some(Proto::SCTP),
            _ => None,
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Proto::ICMP => f.write_str("ICMP"),
            Proto::TCP => f.write_str("TCP"),
            Proto::UDP => f.write_str("UDP"),
            Proto::ICMPV6 => f.write_str("ICMPv6"),
            Proto::SCTP => f.write_str("SCTP"),
            Proto(n) => write!(f, "proto {n}"),
        }
    }
}

/// Source and destination of one packet. Ports are in host byte order; for ICMP and ICMPv6 `sport` is the
/// identifier (0 where the message has none) and `dport` is `type << 8 | code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tuple {
    /// Transport protocol.
    pub proto: Proto,
    /// Source address.
    pub src: IpAddr,
    /// Source port.
    pub sport: u16,
    /// Destination address.
    pub dst: IpAddr,
    /// Destination port.
    pub dport: u16,
}

impl Tuple {
    /// The tuple of a packet in the other direction.
    #[must_use]
    pub fn inverse(self) -> Tuple {
        let Tuple {
            proto,
            src,
            sport,
            dst,
            dport,
        } = self;
        Tuple {
            proto,
            src: dst,
            sport: dport,
            dst: src,
            dport: sport,
        }
    }

    /// Of a tuple and its inverse always the same one: what both directions are found by.
    #[must_use]
    pub fn canonical(self) -> Tuple {
        if (self.src, self.sport) <= (self.dst, self.dport) {
            self
        } else {
            self.inverse()
        }
    }

    /// Source as address and port.
    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(self.src, self.sport)
    }

    /// Destination as address and port.
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.dst, self.dport)
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.proto.has_ports() {
            write!(
                f,
                "{} {} → {}",
                self.proto,
                self.source(),
                self.destination()
            )
        } else {
            write!(f, "{} {} → {}", self.proto, self.src, self.dst)
        }
    }
}
