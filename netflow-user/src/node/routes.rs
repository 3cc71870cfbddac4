//! Routes of every table, and the kernel's own answer for one destination (rtnetlink `RTM_GETROUTE`).

use super::netlink::{
    Attributes, Message, Netlink, NetlinkError, Request, address, u16_at, u32_at,
};
use crate::model::cidr;
use crate::model::node::{Nexthop, Route, RouteLookup};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `RTAX_MTU` (`include/uapi/linux/rtnetlink.h`).
const RTAX_MTU: u16 = 2;
/// `RTA_VIA` and `RTM_F_LOOKUP_TABLE`, of the same header: libc has them for glibc only.
const RTA_VIA: u16 = 18;
const RTM_F_LOOKUP_TABLE: u32 = 0x1000;
/// Ticks of `rta_cacheinfo` per second (`jiffies_to_clock_t`): `USER_HZ`, the same on every architecture we build for.
const USER_HZ: i32 = 100;

/// All routes of both families, without broadcast, multicast and anycast ones, which every address brings along.
pub fn routes(route: &mut Netlink) -> Result<Vec<Route>, NetlinkError> {
    let mut all = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = u8::try_from(family).unwrap_or(0);
        let mut fixed = [0; 12];
        fixed[0] = family;
        // A kernel without IPv6 answers with the other families: each row says which it is.
        let rows = route.dump(&Request::new(libc::RTM_GETROUTE, &fixed), |m| {
            Answer::read(&m).filter(|a| a.family == family && !a.is_incidental())
        })?;
        all.extend(rows.into_iter().map(Answer::into_route));
    }
    Ok(all)
}

/// Asks where a packet of a local socket to `dst` would go. Nothing is sent. An error of the kernel is an answer.
pub fn lookup(route: &mut Netlink, netns: u32, dst: IpAddr) -> Result<RouteLookup, NetlinkError> {
    let answer = route.get(&lookup_request(dst), |m| Answer::read(&m));
    let failed = |errno| RouteLookup {
        netns,
        dst,
        errno,
        kind: String::new(),
        via: None,
        ifindex: 0,
        src: None,
        table: 0,
        mtu: None,
        mtu_expires_secs: None,
    };
    match answer {
        Ok(answer) => Ok(RouteLookup {
            // IPv6 answers an unreachable destination with a route of that kind and the error in it.
            errno: answer.error,
            kind: kind_name(answer.kind).to_owned(),
            via: answer.via,
            ifindex: answer.ifindex,
            src: answer.src,
            table: answer.table,
            mtu: answer.mtu,
            mtu_expires_secs: answer.expires_secs.filter(|_| answer.mtu.is_some()),
            ..failed(None)
        }),
        Err(e) => match e.errno() {
            Some(errno) => Ok(failed(Some(errno))),
            None => Err(e),
        },
    }
}

fn lookup_request(dst: IpAddr) -> Request {
    let (family, prefix, bytes) = match dst {
        IpAddr::V4(ip) => (libc::AF_INET, 32, ip.octets().to_vec()),
        IpAddr::V6(ip) => (libc::AF_INET6, 128, ip.octets().to_vec()),
    };
    // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags (u32)
    let mut fixed = [0_u8; 12];
    fixed[0] = u8::try_from(family).unwrap_or(0);
    fixed[1] = prefix;
    fixed[8..].copy_from_slice(&RTM_F_LOOKUP_TABLE.to_ne_bytes());
    Request::new(libc::RTM_GETROUTE, &fixed).with(libc::RTA_DST, &bytes)
}

/// What one route message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    family: u8,
    kind: u8,
    prefix: u8,
    table: u32,
    dst: Option<IpAddr>,
    via: Option<IpAddr>,
    ifindex: u32,
    src: Option<IpAddr>,
    mtu: Option<u32>,
    nexthops: Vec<Nexthop>,
    /// Time left of a cached exception.
    expires_secs: Option<u32>,
    error: Option<i32>,
}

impl Answer {
    pub(super) fn read(message: &Message<'_>) -> Option<Answer> {
        if message.kind != libc::RTM_NEWROUTE {
            return None;
        }
        let (fixed, attributes) = message.split::<12>()?;
        let [family, prefix, _, _, table, _, _, kind, ..] = *fixed;
        let cached = u32_at(fixed, 8)? & libc::RTM_F_CLONED != 0;
        let mut answer = Answer {
            family,
            kind,
            prefix,
            table: u32::from(table),
            dst: None,
            via: None,
            ifindex: 0,
            src: None,
            mtu: None,
            nexthops: Vec::new(),
            expires_secs: None,
            error: None,
        };
        for (attribute, value) in attributes {
            match attribute {
                libc::RTA_DST => answer.dst = address(value),
                libc::RTA_GATEWAY => answer.via = address(value),
                RTA_VIA => answer.via = via(value),
                libc::RTA_OIF => answer.ifindex = u32_at(value, 0)?,
                libc::RTA_PREFSRC => answer.src = address(value),
                libc::RTA_TABLE => answer.table = u32_at(value, 0)?,
                libc::RTA_METRICS => answer.mtu = mtu(value),
                libc::RTA_MULTIPATH => answer.nexthops = nexthops(value),
                libc::RTA_CACHEINFO => answer.cache_info(value, cached),
                _ => {}
            }
        }
        // A multipath route of IPv6 may name its first way outside the list as well.
        if !answer.nexthops.is_empty() {
            (answer.via, answer.ifindex) = (None, 0);
        }
        Some(answer)
    }

    /// `struct rta_cacheinfo`: clntref, lastuse, expires (i32), error, …
    ///
    /// A route that a router announced (IPv6) expires as well: only a cached one was learned for one destination.
    fn cache_info(&mut self, value: &[u8], cached: bool) {
        let number = |at| u32_at(value, at).map(u32::cast_signed);
        self.expires_secs = number(8)
            .filter(|ticks| cached && *ticks > 0)
            .and_then(|ticks| u32::try_from(ticks / USER_HZ).ok());
        self.error = number(12)
            .filter(|e| *e != 0)
            .map(|e| e.checked_abs().unwrap_or(i32::MAX));
    }

    fn is_incidental(&self) -> bool {
        matches!(
            self.kind,
            libc::RTN_BROADCAST | libc::RTN_MULTICAST | libc::RTN_ANYCAST
        )
    }

    pub(super) fn into_route(self) -> Route {
        let any = if i32::from(self.family) == libc::AF_INET6 {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        Route {
            dst: self.dst.unwrap_or(any),
            prefix: self.prefix,
            via: self.via,
            ifindex: self.ifindex,
            table: self.table,
            kind: kind_name(self.kind).to_owned(),
            mtu: self.mtu,
            nexthops: self.nexthops,
        }
    }
}

/// `struct rtvia`: family (u16), address. The next hop of an IPv4 route may be an IPv6 one.
fn via(value: &[u8]) -> Option<IpAddr> {
    u16_at(value, 0)?;
    address(value.get(2..)?)
}

fn mtu(metrics: &[u8]) -> Option<u32> {
    Attributes(metrics)
        .find(|(kind, _)| *kind == RTAX_MTU)
        .and_then(|(_, value)| u32_at(value, 0))
        .filter(|mtu| *mtu != 0)
}

/// A list of `struct rtnexthop`: len (u16), flags, hops, ifindex (i32), then attributes.
fn nexthops(mut list: &[u8]) -> Vec<Nexthop> {
    let mut ways = Vec::new();
    while let (Some(len), Some(ifindex)) = (u16_at(list, 0), u32_at(list, 4)) {
        let len = usize::from(len);
        let Some(attributes) = list.get(8..len) else {
            break;
        };
        let via = Attributes(attributes).find_map(|(kind, value)| match kind {
            libc::RTA_GATEWAY => address(value),
            RTA_VIA => via(value),
            _ => None,
        });
        ways.push(Nexthop { via, ifindex });
        list = list.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    ways
}

fn kind_name(kind: u8) -> &'static str {
    match kind {
        libc::RTN_UNICAST => "unicast",
        libc::RTN_LOCAL => "local",
        libc::RTN_BROADCAST => "broadcast",
        libc::RTN_ANYCAST => "anycast",
        libc::RTN_MULTICAST => "multicast",
        libc::RTN_BLACKHOLE => "blackhole",
        libc::RTN_UNREACHABLE => "unreachable",
        libc::RTN_PROHIBIT => "prohibit",
        libc::RTN_THROW => "throw",
        libc::RTN_NAT => "nat",
        _ => "unknown",
    }
}

/// Whether `route` covers `ip`.
pub fn covers(route: &Route, ip: IpAddr) -> bool {
    cidr::contains((route.dst, route.prefix), ip)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::netlink::tests::{attributes, torture};
    use super::*;

    fn message(fixed: [u8; 12], list: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = fixed.to_vec();
        bytes.extend(attributes(list));
        bytes
    }

    fn read(payload: &[u8]) -> Option<Answer> {
        Answer::read(&Message {
            kind: libc::RTM_NEWROUTE,
            payload,
        })
    }

    #[test]
    fn a_learned_mtu_has_a_time_left() {
        let metrics = attributes(&[(RTAX_MTU, &1400_u32.to_ne_bytes())]);
        let mut cache = Vec::new();
        for n in [0_u32, 0, 59_700, 0, 0, 0, 0, 0] {
            cache.extend(n.to_ne_bytes());
        }
        let bytes = message(
            [2, 32, 0, 0, 254, 0, 0, 1, 0, 2, 0, 0],
            &[
                (1, &[10, 96, 0, 1]),
                (4, &3_u32.to_ne_bytes()),
                (5, &[10, 244, 0, 1]),
                (7, &[10, 244, 0, 9]),
                (8, &metrics),
                (12, &cache),
                (15, &1000_u32.to_ne_bytes()),
            ],
        );
        let answer = read(&bytes).unwrap();
        assert_eq!(answer.mtu, Some(1400));
        assert_eq!(answer.expires_secs, Some(597));
        assert_eq!(answer.table, 1000);
        assert_eq!(answer.via, Some([10, 244, 0, 1].into()));
        assert_eq!(answer.src, Some([10, 244, 0, 9].into()));
        torture(&bytes, read);
    }

    #[test]
    fn ways_of_a_multipath_route() {
        let mut list = Vec::new();
        for (ifindex, last) in [(3_u32, 1_u8), (4, 2)] {
            let gateway = attributes(&[(5, &[192, 0, 2, last])]);
            let len = u16::try_from(8 + gateway.len()).unwrap();
            list.extend(len.to_ne_bytes());
            list.extend([0, 0]);
            list.extend(ifindex.to_ne_bytes());
            list.extend(gateway);
        }
        let bytes = message([2, 0, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0], &[(9, &list)]);
        let route = read(&bytes).unwrap().into_route();
        assert_eq!(
            (route.dst, route.prefix, route.ifindex),
            (IpAddr::from([0; 4]), 0, 0)
        );
        let ways: Vec<_> = route.nexthops.iter().map(|n| (n.ifindex, n.via)).collect();
        assert_eq!(
            ways,
            [
                (3, Some([192, 0, 2, 1].into())),
                (4, Some([192, 0, 2, 2].into()))
            ]
        );
        torture(&bytes, read);
    }

    #[test]
    fn an_ipv4_route_over_ipv6() {
        let gateway: [u8; 16] = "fe80::1".parse::<Ipv6Addr>().unwrap().octets();
        let mut value = 10_u16.to_ne_bytes().to_vec();
        value.extend(gateway);
        let bytes = message([2, 24, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0], &[(18, &value)]);
        assert_eq!(read(&bytes).unwrap().via, Some(gateway.into()));
    }

    #[test]
    fn prefixes_cover() {
        let mut route = read(&message(
            [2, 24, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0],
            &[(1, &[10, 1, 2, 0])],
        ))
        .unwrap()
        .into_route();
        assert!(covers(&route, [10, 1, 2, 255].into()));
        assert!(!covers(&route, [10, 1, 3, 0].into()));
        assert!(!covers(&route, "2001:db8::1".parse().unwrap()));
        route.prefix = 0;
        assert!(covers(&route, [192, 0, 2, 1].into()));
        route.prefix = 32;
        assert!(!covers(&route, [10, 1, 2, 1].into()));
        route.dst = "2001:db8::".parse().unwrap();
        assert!(covers(&route, "2001:db8:ffff::1".parse().unwrap()));
    }

    #[test]
    fn loopback_is_local() {
        let mut route = Netlink::open(libc::NETLINK_ROUTE).unwrap();
        let local = lookup(&mut route, 1, [127, 0, 0, 1].into()).unwrap();
        assert_eq!((local.kind.as_str(), local.errno), ("local", None));
        assert!(
            routes(&mut route)
                .unwrap()
                .iter()
                .any(|r| covers(r, [127, 0, 0, 1].into()))
        );
    }
}
