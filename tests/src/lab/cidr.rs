//! Networks of either family.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// Network address.
    pub base: IpAddr,
    /// Prefix length.
    pub len: u8,
}

impl Cidr {
    /// The network of prefix length `len` that begins at `base`.
    pub fn new(base: impl Into<IpAddr>, len: u8) -> Cidr {
        let base = base.into();
        Cidr { base, len }
    }

    /// The one address.
    pub fn host(ip: IpAddr) -> Cidr {
        Cidr::new(ip, width(ip))
    }

    /// The whole of its family.
    #[must_use]
    pub fn everything(self) -> Cidr {
        match self.base {
            IpAddr::V4(_) => Cidr::new(Ipv4Addr::UNSPECIFIED, 0),
            IpAddr::V6(_) => Cidr::new(Ipv6Addr::UNSPECIFIED, 0),
        }
    }

    /// The `n`-th address.
    pub fn nth(self, n: u32) -> IpAddr {
        self.at(u128::from(n))
    }

    /// The `n`-th address counted from the end.
    pub fn nth_last(self, n: u32) -> IpAddr {
        self.at((1 << (width(self.base) - self.len)) - u128::from(n))
    }

    /// The `n`-th network of prefix length `len` in this one.
    #[must_use]
    pub fn part(self, n: u32, len: u8) -> Cidr {
        Cidr::new(self.at(u128::from(n) << (width(self.base) - len)), len)
    }

    /// Whether it holds `ip`.
    pub fn contains(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.base.is_ipv4()
            && (bits(ip) ^ bits(self.base)) >> (width(self.base) - self.len) == 0
    }

    fn at(self, n: u128) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => Ipv4Addr::from(u32::from(base) + n as u32).into(),
            IpAddr::V6(base) => Ipv6Addr::from(u128::from(base) + n).into(),
        }
    }
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_parts_are_counted_in_both_families() {
        let v4 = Cidr::new(Ipv4Addr::new(10, 1, 0, 0), 16);
        assert_eq!(v4.part(3, 24).nth(7).to_string(), "10.1.3.7");
        assert_eq!(v4.part(3, 24).nth_last(3).to_string(), "10.1.3.253");
        let v6 = Cidr::new(Ipv6Addr::new(0xfd00, 1, 2, 0, 0, 0, 0, 0), 48);
        assert_eq!(v6.part(3, 64).nth(7).to_string(), "fd00:1:2:3::7");
        assert!(v6.contains(v6.part(3, 64).nth_last(1)));
        assert!(!v6.part(2, 64).contains(v6.part(3, 64).base));
        assert!(!v6.contains(v4.base) && !v4.contains(v6.base));
    }
}
