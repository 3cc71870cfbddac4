//! Tunnels between nodes: what a packet looks like after a tunnel device has put it into another.
//!
//! Nothing here rests on well-known numbers: the device itself says to which port it sends and what it adds.

use super::attempt::{Attempt, Part};
use super::case::Case;
use super::evidence::Draft;
use crate::flows::{ConnEvent, Connection, Sight};
use crate::model::cidr::{self, Cidr};
use crate::model::flow::Direction;
use crate::model::node::{Link, NodeFacts, Tunnel, WireguardPeer};
use crate::model::{Proto, Time, Tuple};
use std::net::IpAddr;
use std::time::Duration;

/// An attempt's packets that left a node through a tunnel device.
#[derive(Clone, Copy)]
pub struct Tunnelled<'a> {
    /// Where they left.
    pub part: Part<'a>,
    /// At the device, as they are inside.
    pub inner: &'a Sight,
    /// The device.
    pub link: &'a Link,
    /// What it does.
    pub tunnel: &'a Tunnel,
    /// Address of the node at the other end.
    pub peer: IpAddr,
    /// The peer that a WireGuard device sends them to.
    wireguard: Option<&'a WireguardPeer>,
}

impl<'a> Tunnelled<'a> {
    /// What an attempt's packets (`forward`) or answers to it went through, where it was a tunnel.
    pub fn of(case: &Case<'_>, a: &Attempt<'a>, forward: bool) -> Option<Tunnelled<'a>> {
        a.parts.iter().copied().find_map(|part| {
            let inner = if forward {
                a.sent_on(part)?
            } else {
                a.answered_on(part)?
            };
            let link = part.node.link(inner.key.ifindex)?;
            let tunnel = link.tunnel.as_ref()?;
            let to = inner.key.tuple.dst;
            let wireguard = allowed(tunnel, to);
            let peer = wireguard
                .and_then(|w| Some(w.endpoint?.ip()))
                .or_else(|| peer(case, part, link, tunnel, to))?;
            Some(Tunnelled {
                part,
                inner,
                link,
                tunnel,
                peer,
                wireguard,
            })
        })
    }

    /// Connections of a node's table that are this tunnel's packets between the two nodes.
    fn outer(self, part_of: &'a super::view::View) -> impl Iterator<Item = &'a Connection> {
        part_of.connections().filter(move |c| self.is_between(c))
    }

    fn is_between(&self, c: &Connection) -> bool {
        let known = self.tunnel.port;
        (c.orig.src == self.peer || c.orig.dst == self.peer)
            && Some(c.orig.proto) == self.proto()
            && (known.is_none() || [c.orig.sport, c.orig.dport].map(Some).contains(&known))
    }

    /// Protocol of the tunnel's packets. A device with a port sends UDP; the others put packets right behind an IP header, whose
    /// protocol says what follows: IPv4, IPv6, or GRE
    /// (`ipip_tunnel_xmit`, <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/ipip.c>; `sit.c` beside it, `ip6_tunnel.c`).
    fn proto(&self) -> Option<Proto> {
        if self.tunnel.port.is_some() {
            return Some(Proto::UDP);
        }
        match self.link.kind.as_str() {
            "ipip" | "sit" | "ip6tnl" if self.inner.key.tuple.dst.is_ipv6() => Some(Proto::IPV6),
            "ipip" | "sit" | "ip6tnl" => Some(Proto::IPIP),
            "gre" | "gretap" | "ip6gre" | "ip6gretap" => Some(Proto::GRE),
            _ => None,
        }
    }

    /// Its packets, as filters and tcpdump call them.
    pub fn packets(&self) -> String {
        let ip = if self.peer.is_ipv6() { "ip6" } else { "ip" };
        // Each end of WireGuard has a port of its own.
        let other = self.wireguard.and_then(|w| Some(w.endpoint?.port()));
        match (self.tunnel.port, self.proto()) {
            (Some(port), _) if other.is_some_and(|other| other != port) => {
                format!("udp port {port} or udp port {}", other.unwrap_or(port))
            }
            (Some(port), _) => format!("udp port {port}"),
            (None, Some(Proto(number))) => format!("{ip} proto {number}"),
            (None, None) => ip.to_owned(),
        }
    }

    /// The tunnel's packets to the peer or from it, as this node saw them at its other interfaces.
    pub fn seen(self, dir: Direction) -> Vec<(Part<'a>, &'a Sight)> {
        let Part { view, node, .. } = self.part;
        let mut all: Vec<(Part<'a>, &'a Sight)> = self
            .outer(node)
            .flat_map(|conn| {
                conn.sights
                    .iter()
                    .map(move |s| (Part { view, node, conn }, s))
            })
            .filter(|(_, s)| {
                let t = s.key.tuple;
                let toward = if dir == Direction::Egress {
                    t.dst
                } else {
                    t.src
                };
                let at_port = self
                    .tunnel
                    .port
                    .is_none_or(|port| self.port_of(t, dir) == port);
                s.key.dir == dir && toward == self.peer && at_port
            })
            .collect();
        all.sort_by_key(|(_, s)| (s.stats.first, s.key));
        all
    }

    /// The port of a packet that is the device's: both ends send to the one they have agreed on, and from one that tells flows
    /// apart; WireGuard has one socket, whose port every end chooses for itself.
    fn port_of(&self, t: Tuple, dir: Direction) -> u16 {
        if self.link.kind == "wireguard" && dir == Direction::Egress {
            t.sport
        } else {
            t.dport
        }
    }

    /// What happened to the tunnel's packets on any node that was asked.
    pub fn events(self, case: &Case<'a>) -> Vec<(Part<'a>, &'a ConnEvent)> {
        let of_view = |(view, node): (usize, &'a super::view::View)| {
            self.outer(node)
                .flat_map(move |conn| {
                    conn.events
                        .iter()
                        .map(move |e| (Part { view, node, conn }, e))
                })
                .collect::<Vec<_>>()
        };
        case.views.iter().enumerate().flat_map(of_view).collect()
    }

    /// Whether what the device last sent, at `sent`, is its request for a key that nobody has answered by `now`. It sends nothing else without
    /// a key, and asks again after five seconds and up to a third of one; a key serves for 180 s (`REKEY_TIMEOUT`,
    /// `REKEY_TIMEOUT_JITTER_MAX_JIFFIES`, `REJECT_AFTER_TIME`,
    /// <https://elixir.bootlin.com/linux/v6.18/source/drivers/net/wireguard/messages.h>).
    pub fn awaits_key(&self, sent: Time, now: Time) -> bool {
        const ASKS_AGAIN: Duration = Duration::from_millis(5_350);
        const KEY: Duration = Duration::from_mins(3);
        let has_key = |w: &WireguardPeer| w.handshake.is_some_and(|at| now.since(at) < KEY);
        self.wireguard.is_some_and(|w| !has_key(w)) && now.since(sent) <= ASKS_AGAIN
    }

    /// Evidence: when a WireGuard device and the peer last agreed on a key. Without one it sends nothing that it is given.
    pub fn handshake(&self) -> Option<Draft> {
        let Part { view, node, .. } = self.part;
        let (device, at) = (&self.link.name, self.peer);
        let text = match self.wireguard?.handshake {
            None => format!("{device} and {at} have not agreed on a key yet"),
            Some(time) => {
                let ago = node.facts.as_ref()?.time.since(time).as_secs();
                format!("{device} and {at} last agreed on a key {ago} s before")
            }
        };
        Some(Draft::of_node(view, node, format!("handshake {at}"), text))
    }

    /// The biggest packet that fits through the device where its own packets may have `mtu` bytes. WireGuard pads to a multiple of 16.
    pub fn fits(&self, mtu: u32) -> u32 {
        let fits = mtu.saturating_sub(self.overhead());
        if self.link.kind == "wireguard" {
            fits - fits % 16
        } else {
            fits
        }
    }

    /// Bytes that the device adds to a packet of its MTU, outer IP header included.
    pub fn overhead(&self) -> u32 {
        self.link.overhead(self.peer.is_ipv6())
    }
}

/// Node at the other end of a tunnel for which `hop` is the next hop inside.
pub fn node_behind<'a>(case: &Case<'a>, part: Part<'_>, hop: IpAddr) -> Option<&'a str> {
    let facts = part.node.facts.as_ref()?;
    let mut tunnels = facts.links.iter().filter(|l| l.tunnel.is_some());
    let remote = tunnels.find_map(|l| forwarded(facts, l, hop))?;
    case.node_with(remote)
}

/// What the forwarding table of a device says of a next hop.
fn forwarded(facts: &NodeFacts, link: &Link, hop: IpAddr) -> Option<IpAddr> {
    let mut entries = facts.neighbors.iter();
    let entry = entries.find(|n| n.ifindex == link.ifindex && n.ip == hop)?;
    let lladdr = entry.lladdr.as_ref()?;
    let mut peers = facts.tunnel_peers.iter();
    let peer = peers.find(|p| p.ifindex == link.ifindex && p.lladdr == *lladdr)?;
    Some(peer.remote)
}

/// Length of the longest of these networks that holds the address.
fn prefix_of(networks: &[Cidr], ip: IpAddr) -> Option<u8> {
    let holding = networks.iter().filter(|net| cidr::contains(**net, ip));
    holding.map(|(_, len)| *len).max()
}

/// The peer that a WireGuard device sends what is for `to`: the one with the longest network that holds it.
fn allowed(tunnel: &Tunnel, to: IpAddr) -> Option<&WireguardPeer> {
    let peers = tunnel.peers.iter();
    let fitting = peers.filter_map(|p| Some((prefix_of(&p.allowed, to)?, p)));
    fitting.max_by_key(|(prefix, _)| *prefix).map(|(_, p)| p)
}

/// Where the device sends what is for `to`: one fixed address, what its forwarding table says of the next hop, else the
/// address of the node on which the objects place it.
fn peer(
    case: &Case<'_>,
    part: Part<'_>,
    link: &Link,
    tunnel: &Tunnel,
    to: IpAddr,
) -> Option<IpAddr> {
    let facts = part.node.facts.as_ref()?;
    let learned = || {
        let mut lookups = facts.lookups.iter();
        let lookup = lookups.find(|l| l.netns == facts.netns && l.dst == to)?;
        forwarded(facts, link, lookup.via.unwrap_or(to))
    };
    let placed = || {
        let name = case.node_of(to, facts.time)?;
        let node = case.objects.node(&name)?;
        let same = |ip: &&IpAddr| tunnel.local.is_none_or(|l| l.is_ipv4() == ip.is_ipv4());
        node.internal_ips.iter().find(same).copied()
    };
    tunnel.remote.or_else(learned).or_else(placed)
}
