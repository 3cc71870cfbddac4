//! Peers of WireGuard devices (generic netlink family `wireguard`,
//! <https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/wireguard.h>): which address a packet goes to in the end.
//!
//! Who may ask gets the device's private key with the answer. It is not looked at, and the bytes are overwritten at once.

use super::netlink::{
    Attributes, Message, Netlink, NetlinkError, Request, address, be16_at, bytes_at, u16_at,
};
use crate::model::Time;
use crate::model::cidr::{self, Cidr};
use crate::model::node::{Link, Tunnel, WireguardPeer};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID`, `CTRL_ATTR_FAMILY_NAME`
/// (<https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/genetlink.h>).
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// `WG_CMD_GET_DEVICE`, `WG_GENL_VERSION`.
const GET_DEVICE: u8 = 0;
const VERSION: u8 = 1;
/// `WGDEVICE_A_*`
const IFINDEX: u16 = 1;
const LISTEN_PORT: u16 = 6;
const PEERS: u16 = 8;
/// `WGPEER_A_*`
const PUBLIC_KEY: u16 = 1;
const ENDPOINT: u16 = 4;
const HANDSHAKE: u16 = 6;
const ALLOWED: u16 = 9;
/// `WGALLOWEDIP_A_*`
const IP: u16 = 2;
const MASK: u16 = 3;

/// Of a device with more peers only those are kept to which an address asked about goes.
const MOST: usize = 256;

/// Adds to the WireGuard devices among `links` their ports and peers. A kernel without such a device is not asked.
pub fn read<'a>(
    links: impl Iterator<Item = &'a mut Link>,
    wanted: &BTreeSet<IpAddr>,
) -> Result<(), NetlinkError> {
    let mut devices = links.filter(|l| l.kind == "wireguard").peekable();
    if devices.peek().is_none() {
        return Ok(());
    }
    let mut generic = Netlink::open(libc::NETLINK_GENERIC)?;
    let family = Request::new(CONTROL, &[GET_FAMILY, 1, 0, 0]).with(FAMILY_NAME, b"wireguard\0");
    let family = generic.get(&family, |m| family_id(&m))?;
    for link in devices {
        let ifindex = link.ifindex.to_ne_bytes();
        let request = Request::new(family, &[GET_DEVICE, VERSION, 0, 0]).with(IFINDEX, &ifindex);
        let parts = generic.dump(&request, |m| device(&m));
        generic.wipe();
        let mut tunnel = joined(parts?);
        if tunnel.peers.len() > MOST {
            let is_wanted = |net: &Cidr| wanted.iter().any(|ip| cidr::contains(*net, *ip));
            tunnel.peers.retain(|p| p.allowed.iter().any(is_wanted));
        }
        link.tunnel = Some(tunnel);
    }
    Ok(())
}

pub(super) fn family_id(message: &Message<'_>) -> Option<u16> {
    let (_, mut attributes) = message.split::<4>()?;
    let (_, id) = attributes.find(|(kind, _)| *kind == FAMILY_ID)?;
    u16_at(id, 0)
}

/// One part of an answer: of many peers there are several, and a peer of many networks goes on in the next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    port: Option<u16>,
    peers: Vec<(PublicKey, WireguardPeer)>,
}

type PublicKey = [u8; 32];

pub(super) fn device(message: &Message<'_>) -> Option<Part> {
    let (_, attributes) = message.split::<4>()?;
    let mut found = Part::default();
    for (kind, value) in attributes {
        match kind {
            // 0: there is no socket, as long as the device is not up.
            LISTEN_PORT => found.port = u16_at(value, 0).filter(|port| *port != 0),
            PEERS => found.peers = Attributes(value).filter_map(|(_, p)| peer(p)).collect(),
            _ => {}
        }
    }
    Some(found)
}

fn joined(parts: Vec<Part>) -> Tunnel {
    let mut tunnel = Tunnel {
        // `send4`, <https://elixir.bootlin.com/linux/v6.18/source/drivers/net/wireguard/socket.c>
        cut: true,
        ..Tunnel::default()
    };
    let mut latest = None;
    for Part { port, peers } in parts {
        tunnel.port = tunnel.port.or(port);
        for (key, peer) in peers {
            match tunnel.peers.last_mut().filter(|_| latest == Some(key)) {
                Some(begun) => begun.allowed.extend(peer.allowed),
                None => tunnel.peers.push(peer),
            }
            latest = Some(key);
        }
    }
    tunnel
}

fn peer(attributes: &[u8]) -> Option<(PublicKey, WireguardPeer)> {
    let mut key = None;
    let mut found = WireguardPeer {
        endpoint: None,
        allowed: Vec::new(),
        handshake: None,
    };
    for (kind, value) in Attributes(attributes) {
        match kind {
            PUBLIC_KEY => key = bytes_at(value, 0),
            ENDPOINT => found.endpoint = endpoint(value),
            HANDSHAKE => found.handshake = handshake(value),
            ALLOWED => {
                found.allowed = Attributes(value)
                    .filter_map(|(_, net)| network(net))
                    .collect();
            }
            _ => {}
        }
    }
    Some((key?, found))
}

/// A `struct sockaddr_in` or `sockaddr_in6`.
fn endpoint(bytes: &[u8]) -> Option<SocketAddr> {
    let ip = match i32::from(u16_at(bytes, 0)?) {
        libc::AF_INET => address(bytes.get(4..8)?)?,
        libc::AF_INET6 => address(bytes.get(8..24)?)?,
        _ => return None,
    };
    Some(SocketAddr::new(ip, be16_at(bytes, 2)?))
}

/// A `struct __kernel_timespec`; zero as long as there was none.
fn handshake(bytes: &[u8]) -> Option<Time> {
    let seconds = u64::try_from(bytes_at(bytes, 0).map(i64::from_ne_bytes)?).ok()?;
    let nanos = u64::try_from(bytes_at(bytes, 8).map(i64::from_ne_bytes)?).ok()?;
    let time = seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?;
    (time > 0).then_some(Time(time))
}

fn network(attributes: &[u8]) -> Option<Cidr> {
    let find = |wanted| Attributes(attributes).find(|(kind, _)| *kind == wanted);
    Some((address(find(IP)?.1)?, *find(MASK)?.1.first()?))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::netlink::tests::{attributes, torture};
    use super::*;

    fn told() -> Vec<u8> {
        let v4 = attributes(&[(1, &[2, 0]), (IP, &[10, 244, 1, 0]), (MASK, &[24])]);
        let v6 = attributes(&[(1, &[10, 0]), (IP, &[0xfd; 16]), (MASK, &[64])]);
        let mut to = 2_u16.to_ne_bytes().to_vec();
        to.extend(51_871_u16.to_be_bytes());
        to.extend([192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut at = 7_i64.to_ne_bytes().to_vec();
        at.extend(5_i64.to_ne_bytes());
        let nets = attributes(&[(0, &v4), (1, &v6)]);
        let known = attributes(&[
            (PUBLIC_KEY, &[1; 32]),
            (ENDPOINT, &to),
            (HANDSHAKE, &at),
            (ALLOWED, &nets),
        ]);
        let silent = attributes(&[(PUBLIC_KEY, &[2; 32]), (HANDSHAKE, &[0; 16])]);
        let mut bytes = vec![GET_DEVICE, VERSION, 0, 0];
        bytes.extend(attributes(&[
            (IFINDEX, &7_u32.to_ne_bytes()),
            (3, &[9; 32]),
            (LISTEN_PORT, &51_820_u16.to_ne_bytes()),
            (PEERS, &attributes(&[(0, &known), (1, &silent)])),
        ]));
        bytes
    }

    fn read_of(payload: &[u8]) -> Option<Part> {
        device(&Message { kind: 30, payload })
    }

    #[test]
    fn a_device_tells_its_port_and_where_networks_are() {
        let found = joined(vec![read_of(&told()).unwrap()]);
        assert_eq!(found.port, Some(51_820));
        let [known, silent] = &found.peers[..] else {
            panic!("{:?}", found.peers);
        };
        assert_eq!(known.endpoint, Some("192.0.2.7:51871".parse().unwrap()));
        let v4 = (IpAddr::from([10, 244, 1, 0]), 24);
        assert_eq!(known.allowed, [v4, (IpAddr::from([0xfd; 16]), 64)]);
        assert_eq!(known.handshake, Some(Time(7_000_000_005)));
        assert_eq!((silent.endpoint, silent.handshake), (None, None));
        torture(&told(), read_of);
    }

    #[test]
    fn a_peer_goes_on_in_the_next_part() {
        let part = |key: u8, nets: &[u8], endpoint: Option<&str>| Part {
            port: endpoint.map(|_| 51_820),
            peers: vec![(
                [key; 32],
                WireguardPeer {
                    endpoint: endpoint.map(|e| e.parse().unwrap()),
                    allowed: nets.iter().map(|n| ([10, *n, 0, 0].into(), 16)).collect(),
                    handshake: None,
                },
            )],
        };
        let (first, second) = (Some("192.0.2.7:1"), Some("192.0.2.8:1"));
        let tunnel = joined(vec![
            part(1, &[1, 2], first),
            part(1, &[3], None),
            part(2, &[4], second),
        ]);
        assert_eq!(tunnel.port, Some(51_820));
        let nets: Vec<usize> = tunnel.peers.iter().map(|p| p.allowed.len()).collect();
        assert_eq!(nets, [3, 1]);
    }

    #[test]
    fn a_kernel_without_such_a_device_is_not_asked() {
        let mut veth = Link {
            kind: "veth".into(),
            ..Link::default()
        };
        let read = read([&mut veth].into_iter(), &BTreeSet::new());
        assert!(read.is_ok() && veth.tunnel.is_none());
    }
}
