//! Networks written as address and prefix length.

use std::net::IpAddr;

/// A network: any address in it, and the prefix length.
pub type Cidr = (IpAddr, u8);

/// Whether `ip` is in `net`. Families never mix, except that an IPv4-mapped address counts as IPv4.
pub fn contains(net: Cidr, ip: IpAddr) -> bool {
    let prefix = u32::from(net.1);
    match (net.0.to_canonical(), ip.to_canonical()) {
        (IpAddr::V4(net), IpAddr::V4(ip)) => {
            (net.to_bits() ^ ip.to_bits())
                .checked_shr(32_u32.saturating_sub(prefix))
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V6(net), IpAddr::V6(ip)) => {
            (net.to_bits() ^ ip.to_bits())
                .checked_shr(128_u32.saturating_sub(prefix))
                .unwrap_or(0)
                == 0
        }
        _ => false,
    }
}

/// Parses `10.0.0.0/8`; the prefix length must fit the family.
pub fn parse(text: &str) -> Option<Cidr> {
    let (address, prefix) = text.trim().split_once('/')?;
    let ip: IpAddr = address.parse().ok()?;
    let prefix: u8 = prefix.parse().ok()?;
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    (prefix <= longest).then_some((ip, prefix))
}

/// `10.0.0.0/8`.
pub fn text(net: Cidr) -> String {
    format!("{}/{}", net.0, net.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membership_at_the_edges() {
        let cases = [
            ("10.1.0.0/16", "10.1.255.255", true),
            ("10.1.0.0/16", "10.2.0.0", false),
            ("10.1.2.3/16", "10.1.9.9", true),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("10.1.2.3/32", "10.1.2.3", true),
            ("10.1.2.3/32", "10.1.2.2", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe00::1", false),
            ("::/0", "10.0.0.1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::1/128", "2001:db8::2", false),
            ("10.0.0.0/8", "::ffff:10.9.9.9", true),
        ];
        for (net, ip, inside) in cases {
            let (Some(net), Ok(ip)) = (parse(net), ip.parse()) else {
                panic!("{net} or {ip} does not parse");
            };
            assert_eq!(contains(net, ip), inside, "{} in {}", ip, text(net));
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in [
            "10.0.0.0",
            "10.0.0.0/33",
            "fd00::/129",
            "a/8",
            "10.0.0.0/-1",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
