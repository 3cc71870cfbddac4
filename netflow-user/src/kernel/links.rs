//! Interfaces of a network namespace, as rtnetlink lists and announces them.

use super::rtnl::{Message, Request, Rtnl, attribute, text, u16_at, u32_at};
use std::io;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTNLGRP_LINK: u32 = 1;

/// Attributes of a link (`include/uapi/linux/if_link.h`, v6.18).
mod ifla {
    pub const IFNAME: u16 = 3;
    pub const LINK: u16 = 5;
    pub const MASTER: u16 = 10;
    pub const LINKINFO: u16 = 18;
    pub const LINK_NETNSID: u16 = 37;
    pub const INFO_KIND: u16 = 1;
    pub const INFO_SLAVE_KIND: u16 = 4;
}

const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

/// An interface, as far as attaching to it needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    /// Index in its namespace.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// `ARPHRD_*`.
    pub arphrd: u16,
    /// `IFLA_INFO_KIND`: `veth`, `bridge`, `vlan`, …; empty for a plain device.
    pub kind: String,
    /// Kind of the master that it is a port of: `bridge`, `bond`, `team`, `vrf`, …; empty if none.
    pub port_of: String,
    /// Whether it stands on another device of the same namespace (`IFLA_LINK` without a foreign namespace).
    pub lower_here: bool,
}

impl Interface {
    /// Whether its packets begin with an Ethernet header at tc.
    pub fn is_ethernet(&self) -> bool {
        matches!(self.arphrd, ARPHRD_ETHER | ARPHRD_LOOPBACK)
    }

    /// Whether a packet received through it is seen here first. Otherwise it has already come in through another
    /// interface of the namespace, or, on `lo`, gone out of it.
    pub fn is_first_on_ingress(&self) -> bool {
        let carried = match self.kind.as_str() {
            "bridge" | "bond" | "team" | "vrf" => true,
            "vlan" | "macvlan" | "macvtap" | "ipvlan" | "ipvtap" => self.lower_here,
            _ => false,
        };
        !carried && self.arphrd != ARPHRD_LOOPBACK
    }

    /// Whether a packet sent by this machine through it is seen here first. Otherwise an upper device has just sent it.
    pub fn is_first_on_egress(&self) -> bool {
        !matches!(self.port_of.as_str(), "bridge" | "bond" | "team")
    }
}

/// What became of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It appeared, or something about it changed.
    Here(Interface),
    /// It was deleted, or moved to another namespace.
    Gone(u32),
}

/// All interfaces of the thread's network namespace.
pub fn list(rtnl: &mut Rtnl) -> io::Result<Vec<Interface>> {
    let mut found = Vec::new();
    rtnl.dump(&Request::new(RTM_GETLINK, 0, &[0; 16]), |message| {
        if let Some(Change::Here(interface)) = decode(message) {
            found.push(interface);
        }
    })?;
    Ok(found)
}

/// A subscription to changes of the interfaces of the thread's network namespace.
pub fn subscribe() -> io::Result<Rtnl> {
    Rtnl::subscription(&[RTNLGRP_LINK])
}

/// Reads a link message. `None` for other messages, and for those of a protocol family: with `AF_BRIDGE`, `RTM_DELLINK`
/// means that a port left its bridge (`net/bridge/br_netlink.c`, v6.18), not that the interface is gone.
pub fn decode(message: Message<'_>) -> Option<Change> {
    let Message { kind, payload, .. } = message;
    if *payload.first()? != 0 {
        return None;
    }
    let arphrd = u16_at(payload, 2)?;
    let ifindex = u32_at(payload, 4)?;
    match kind {
        RTM_DELLINK => return Some(Change::Gone(ifindex)),
        RTM_NEWLINK => {}
        _ => return None,
    }
    let attributes = payload.get(16..)?;
    let info = attribute(attributes, ifla::LINKINFO).unwrap_or(&[]);
    let string = |list, kind| attribute(list, kind).map_or("", text).to_owned();
    let number = |kind| attribute(attributes, kind).and_then(|value| u32_at(value, 0));
    let has_master = number(ifla::MASTER).is_some_and(|master| master != 0);
    Some(Change::Here(Interface {
        ifindex,
        name: string(attributes, ifla::IFNAME),
        arphrd,
        kind: string(info, ifla::INFO_KIND),
        port_of: if has_master {
            string(info, ifla::INFO_SLAVE_KIND)
        } else {
            String::new()
        },
        lower_here: number(ifla::LINK).is_some_and(|link| link != 0)
            && attribute(attributes, ifla::LINK_NETNSID).is_none(),
    }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::rtnl::append;
    use super::*;

    fn payload(family: u8, arphrd: u16, ifindex: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut out = vec![family, 0];
        out.extend(arphrd.to_ne_bytes());
        out.extend(ifindex.to_ne_bytes());
        out.extend([0; 8]);
        for (kind, value) in attributes {
            append(&mut out, *kind, value);
        }
        out
    }

    fn info(kind: &[u8], port_of: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        append(&mut out, ifla::INFO_KIND, kind);
        append(&mut out, ifla::INFO_SLAVE_KIND, port_of);
        out
    }

    fn read(kind: u16, payload: &[u8]) -> Option<Change> {
        decode(Message::of(kind, payload))
    }

    #[test]
    fn a_bridge_port() {
        let bytes = payload(
            0,
            1,
            7,
            &[
                (ifla::IFNAME, b"veth1\0"),
                (ifla::MASTER, &3_u32.to_ne_bytes()),
                (ifla::LINK, &9_u32.to_ne_bytes()),
                (ifla::LINK_NETNSID, &0_u32.to_ne_bytes()),
                (ifla::LINKINFO, &info(b"veth\0", b"bridge\0")),
            ],
        );
        let Some(Change::Here(port)) = read(RTM_NEWLINK, &bytes) else {
            panic!("a link");
        };
        assert_eq!((port.name.as_str(), port.ifindex), ("veth1", 7));
        assert_eq!(
            (port.kind.as_str(), port.port_of.as_str()),
            ("veth", "bridge")
        );
        assert!(port.is_ethernet() && !port.lower_here);
        assert!(port.is_first_on_ingress() && !port.is_first_on_egress());
    }

    #[test]
    fn gone_only_when_the_interface_itself_is() {
        let of_the_bridge = payload(7, 1, 7, &[]);
        assert_eq!(read(RTM_DELLINK, &of_the_bridge), None);
        assert_eq!(read(RTM_NEWLINK, &of_the_bridge), None);
        assert_eq!(
            read(RTM_DELLINK, &payload(0, 1, 7, &[])),
            Some(Change::Gone(7))
        );
        assert_eq!(read(28, &payload(0, 1, 7, &[])), None);
        assert_eq!(read(RTM_NEWLINK, &[0, 0, 1]), None);
    }

    #[test]
    fn where_a_packet_is_seen_first() {
        let of = |kind: &str, port_of: &str, lower_here, arphrd| {
            let i = Interface {
                kind: kind.to_owned(),
                port_of: port_of.to_owned(),
                lower_here,
                arphrd,
                ..Interface::default()
            };
            (i.is_first_on_ingress(), i.is_first_on_egress())
        };
        assert_eq!(of("", "", false, 1), (true, true));
        assert_eq!(of("", "", false, ARPHRD_LOOPBACK), (false, true));
        assert_eq!(of("bridge", "", false, 1), (false, true));
        assert_eq!(of("bond", "bridge", false, 1), (false, false));
        assert_eq!(of("vlan", "", true, 1), (false, true));
        assert_eq!(of("macvlan", "", false, 1), (true, true));
        assert_eq!(of("vxlan", "bridge", true, 1), (true, false));
        assert_eq!(of("veth", "vrf", true, 1), (true, true));
        assert_eq!(of("wireguard", "", false, 65534), (true, true));
    }

    #[test]
    fn this_machine_has_a_loopback() {
        let all = list(&mut Rtnl::requests().unwrap()).unwrap();
        let lo = all.iter().find(|i| i.name == "lo").unwrap();
        assert_eq!(lo.arphrd, ARPHRD_LOOPBACK);
    }
}
