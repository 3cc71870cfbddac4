//! Interfaces and their addresses (rtnetlink `RTM_GETLINK`, `RTM_GETADDR`).

use super::neighbors::lladdr_text;
use super::netlink::{
    Attributes, Message, Netlink, NetlinkError, Request, address, be16_at, bytes_at, text, u32_at,
};
use crate::model::node::{Link, Tunnel};
use std::net::IpAddr;

/// `operstate` values (`include/uapi/linux/if.h`): unknown, and up.
const RUNNING: [u8; 2] = [0, 6];
/// `IFLA_BRPORT_MODE` (`include/uapi/linux/if_link.h`): hairpin.
const BRPORT_MODE: u16 = 4;

/// An interface with what only the search for Pods needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The part that is a fact.
    pub link: Link,
    /// The id by which this namespace knows the one that holds the other end (`IFLA_LINK_NETNSID`).
    pub peer_netns: Option<i32>,
}

/// All interfaces with their addresses.
pub fn interfaces(route: &mut Netlink) -> Result<Vec<Interface>, NetlinkError> {
    // Statistics are most of an answer and nobody reads them.
    let filter = libc::RTEXT_FILTER_SKIP_STATS.cast_unsigned().to_ne_bytes();
    let request = Request::new(libc::RTM_GETLINK, &[0; 16]).with(libc::IFLA_EXT_MASK, &filter);
    let mut interfaces = route.dump(&request, |m| interface(&m))?;
    for (ifindex, ip, prefix) in addresses(route)? {
        if let Some(i) = interfaces.iter_mut().find(|i| i.link.ifindex == ifindex) {
            i.link.addrs.push((ip, prefix));
        }
    }
    Ok(interfaces)
}

/// Every address: interface, address, prefix length.
pub fn addresses(route: &mut Netlink) -> Result<Vec<(u32, IpAddr, u8)>, NetlinkError> {
    route.dump(&Request::new(libc::RTM_GETADDR, &[0; 8]), |m| assigned(&m))
}

pub(super) fn interface(message: &Message<'_>) -> Option<Interface> {
    if message.kind != libc::RTM_NEWLINK {
        return None;
    }
    // struct ifinfomsg: family, pad, type (u16), index (i32), flags (u32), change (u32)
    let (fixed, attributes) = message.split::<16>()?;
    let flags = u32_at(fixed, 8)?;
    let mut found = Interface {
        link: Link {
            ifindex: u32_at(fixed, 4)?,
            name: String::new(),
            kind: String::new(),
            mtu: 0,
            up: flags & libc::IFF_UP.cast_unsigned() != 0,
            running: false,
            master: 0,
            link: 0,
            link_elsewhere: false,
            arphrd: bytes_at(fixed, 2).map(u16::from_ne_bytes)?,
            hairpin: false,
            lladdr: None,
            tunnel: None,
            addrs: Vec::new(),
        },
        peer_netns: None,
    };
    let link = &mut found.link;
    for (kind, value) in attributes {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_MTU => link.mtu = u32_at(value, 0)?,
            libc::IFLA_MASTER => link.master = u32_at(value, 0)?,
            libc::IFLA_LINK => link.link = u32_at(value, 0)?,
            libc::IFLA_OPERSTATE => link.running = RUNNING.contains(value.first()?),
            libc::IFLA_ADDRESS => link.lladdr = Some(lladdr_text(value)),
            libc::IFLA_LINK_NETNSID => {
                link.link_elsewhere = true;
                found.peer_netns = bytes_at(value, 0).map(i32::from_ne_bytes);
            }
            libc::IFLA_LINKINFO => link_info(link, value),
            _ => {}
        }
    }
    Some(found)
}

fn link_info(link: &mut Link, info: &[u8]) {
    let find = |wanted| Attributes(info).find(|(kind, _)| *kind == wanted);
    if let Some((_, kind)) = find(libc::IFLA_INFO_KIND) {
        link.kind = text(kind);
    }
    if let Some((_, data)) = find(libc::IFLA_INFO_DATA) {
        link.tunnel = tunnel(&link.kind, data);
    }
    if find(libc::IFLA_INFO_SLAVE_KIND).is_some_and(|(_, kind)| text(kind) == "bridge")
        && let Some((_, port)) = find(libc::IFLA_INFO_SLAVE_DATA)
    {
        link.hairpin = Attributes(port).any(|(kind, value)| kind == BRPORT_MODE && value == [1]);
    }
}

/// Which attributes of a tunnel device tell its port, source and only peer
/// (<https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/if_link.h>: `IFLA_VXLAN_*`, `IFLA_GENEVE_*`;
/// <https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/if_tunnel.h>: `IFLA_IPTUN_*`, `IFLA_GRE_*`). A WireGuard device
/// tells only by its own family ([`super::wireguard`]).
fn tunnel(kind: &str, data: &[u8]) -> Option<Tunnel> {
    let (port, locals, remotes): (u16, &[u16], &[u16]) = match kind {
        "vxlan" => (15, &[4, 17], &[2, 16]),
        "geneve" => (5, &[], &[2, 7]),
        "ipip" | "sit" | "ip6tnl" => (0, &[2], &[3]),
        "gre" | "gretap" | "ip6gre" | "ip6gretap" => (0, &[6], &[7]),
        _ => return None,
    };
    let mut found = Tunnel {
        options: options(kind, data),
        cut: may_be_cut(kind, data),
        ..Tunnel::default()
    };
    for (kind, value) in Attributes(data) {
        let set = || address(value).filter(|ip| !ip.is_unspecified());
        if port != 0 && kind == port {
            found.port = be16_at(value, 0);
        } else if locals.contains(&kind) {
            found.local = found.local.or_else(set);
        } else if remotes.contains(&kind) {
            // A VXLAN device may have a multicast group there.
            found.remote = found.remote.or_else(set).filter(|ip| !ip.is_multicast());
        }
    }
    Some(found)
}

/// Whether a device makes IPv4 packets without the DF bit: VXLAN and Geneve unless they are told otherwise (`IFLA_VXLAN_DF`,
/// `IFLA_GENEVE_DF`; `vxlan_xmit_one`, <https://elixir.bootlin.com/linux/v6.18/source/drivers/net/vxlan/vxlan_core.c>). The others set it, or
/// take it from the packet inside, where TCP has it.
fn may_be_cut(kind: &str, data: &[u8]) -> bool {
    let df = match kind {
        "vxlan" => 29,
        "geneve" => 13,
        _ => return false,
    };
    let told = Attributes(data).find(|(kind, _)| *kind == df);
    told.is_none_or(|(_, value)| value == [0])
}

/// Bytes that options of the device add to its header. A tunnel over IPv6 says by a destination option of 8 bytes how often its packets
/// may be put into others (RFC 2473, section 4.1.1), unless told not to (`ip6_tnl_xmit`,
/// <https://elixir.bootlin.com/linux/v6.18/source/net/ipv6/ip6_tunnel.c>); GRE has 4 for each of checksum, key and sequence number
/// (RFC 2890). Attributes 19 and 18: `IFLA_IPTUN_COLLECT_METADATA`, `IFLA_GRE_COLLECT_METADATA`.
fn options(kind: &str, data: &[u8]) -> u32 {
    const IGNORES_LIMIT: u32 = 1;
    const GRE: u16 = 0x8000 | 0x2000 | 0x1000;
    let find = |wanted| Attributes(data).find(|(kind, _)| *kind == wanted);
    let limit = |limit, flags| {
        let limited = find(limit).is_some();
        let ignored = find(flags).and_then(|(_, v)| u32_at(v, 0)).unwrap_or(0) & IGNORES_LIMIT != 0;
        if limited && !ignored { 8 } else { 0 }
    };
    let gre = || {
        let flags = find(3).and_then(|(_, v)| be16_at(v, 0)).unwrap_or(0);
        (flags & GRE).count_ones() * 4
    };
    match kind {
        // What such a device sends is told to it with each packet.
        "ip6tnl" if find(19).is_some() => 0,
        "gre" | "gretap" | "ip6gre" | "ip6gretap" if find(18).is_some() => 0,
        "ip6tnl" => limit(6, 8),
        "gre" | "gretap" => gre(),
        "ip6gre" | "ip6gretap" => gre() + limit(11, 13),
        _ => 0,
    }
}

pub(super) fn assigned(message: &Message<'_>) -> Option<(u32, IpAddr, u8)> {
    if message.kind != libc::RTM_NEWADDR {
        return None;
    }
    // struct ifaddrmsg: family, prefixlen, flags, scope, index (u32)
    let (fixed, attributes) = message.split::<8>()?;
    let (mut local, mut peer) = (None, None);
    for (kind, value) in attributes {
        match kind {
            libc::IFA_LOCAL => local = address(value),
            libc::IFA_ADDRESS => peer = address(value),
            _ => {}
        }
    }
    // On a point-to-point link `IFA_ADDRESS` is the other end.
    Some((u32_at(fixed, 4)?, local.or(peer)?, *fixed.get(1)?))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::netlink::tests::{attributes, torture};
    use super::*;

    fn veth() -> Vec<u8> {
        let mut bytes = vec![0, 0, 1, 0];
        bytes.extend(7_i32.to_ne_bytes());
        bytes.extend(0x1043_u32.to_ne_bytes());
        bytes.extend([0; 4]);
        let port = attributes(&[(1, &[3]), (BRPORT_MODE, &[1])]);
        let info = attributes(&[(1, b"veth\0"), (4, b"bridge\0"), (5, &port)]);
        bytes.extend(attributes(&[
            (3, b"veth3a\0"),
            (4, &1450_u32.to_ne_bytes()),
            (10, &4_u32.to_ne_bytes()),
            (5, &2_u32.to_ne_bytes()),
            (37, &11_i32.to_ne_bytes()),
            (16, &[6]),
            (1, &[2, 0, 0, 0, 0, 1]),
            (18, &info),
        ]));
        bytes
    }

    fn read(payload: &[u8]) -> Option<Interface> {
        interface(&Message {
            kind: libc::RTM_NEWLINK,
            payload,
        })
    }

    #[test]
    fn a_bridge_port_whose_peer_is_in_a_pod() {
        let Interface { link, peer_netns } = read(&veth()).unwrap();
        assert_eq!(
            (link.ifindex, link.name.as_str(), link.mtu),
            (7, "veth3a", 1450)
        );
        assert_eq!((link.kind.as_str(), link.master, link.link), ("veth", 4, 2));
        assert!(link.up && link.running && link.hairpin && link.link_elsewhere);
        assert_eq!(peer_netns, Some(11));
        assert_eq!(link.lladdr.as_deref(), Some("02:00:00:00:00:01"));
        torture(&veth(), read);
    }

    #[test]
    fn a_tunnel_device_tells_port_source_and_peer() {
        let vxlan = attributes(&[
            (1, &7_u32.to_ne_bytes()),
            (2, &[239, 1, 1, 1]),
            (4, &[192, 0, 2, 1]),
            (15, &8472_u16.to_be_bytes()),
        ]);
        let found = tunnel("vxlan", &vxlan).unwrap();
        assert_eq!(found.port, Some(8472));
        assert_eq!(found.local, Some([192, 0, 2, 1].into()));
        assert_eq!(found.remote, None, "a group is no peer");
        assert!(found.cut, "nothing is said of the DF bit");
        for (df, cut) in [(0, true), (1, false), (2, false)] {
            let said = [&vxlan[..], &attributes(&[(29, &[df])])].concat();
            assert_eq!(tunnel("vxlan", &said).unwrap().cut, cut, "{df}");
        }
        let ipip = attributes(&[(2, &[0, 0, 0, 0]), (3, &[192, 0, 2, 9])]);
        let found = tunnel("ipip", &ipip).unwrap();
        assert_eq!(
            (found.local, found.remote),
            (None, Some([192, 0, 2, 9].into()))
        );
        assert_eq!(tunnel("veth", &vxlan), None);
        let ip6tnl = [(3, &[0x20; 16][..]), (6, &[4])];
        let with = |flags: u32| {
            let flags = flags.to_ne_bytes();
            let all = [&ip6tnl[..], &[(8, &flags[..])]].concat();
            tunnel("ip6tnl", &attributes(&all)).unwrap().options
        };
        assert_eq!((with(0), with(1)), (8, 0), "the limit, and ignoring it");
        let external = attributes(&[(6, &[4]), (19, &[])]);
        assert_eq!(tunnel("ip6tnl", &external).unwrap().options, 0);
        let gre = attributes(&[(3, &0xa000_u16.to_be_bytes()), (7, &[192, 0, 2, 9])]);
        assert_eq!(tunnel("gre", &gre).unwrap().options, 8, "checksum and key");
        torture(&vxlan, |data| tunnel("vxlan", data));
    }

    #[test]
    fn a_point_to_point_address_is_the_local_one() {
        let mut bytes = vec![2, 32, 0, 0];
        bytes.extend(5_u32.to_ne_bytes());
        bytes.extend(attributes(&[
            (1, &[10, 0, 0, 2]),
            (2, &[10, 0, 0, 1]),
            (3, b"tun0\0"),
        ]));
        let read = |payload: &[u8]| {
            assigned(&Message {
                kind: libc::RTM_NEWADDR,
                payload,
            })
        };
        assert_eq!(read(&bytes), Some((5, IpAddr::from([10, 0, 0, 1]), 32)));
        torture(&bytes, read);
    }

    #[test]
    fn loopback_is_there() {
        let mut route = Netlink::open(libc::NETLINK_ROUTE).unwrap();
        let all = interfaces(&mut route).unwrap();
        let lo = all.iter().find(|i| i.link.name == "lo").unwrap();
        assert_eq!(lo.link.arphrd, 772);
    }
}
